{{- define "serviceoffer-controller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "serviceoffer-controller.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "serviceoffer-controller.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "serviceoffer-controller.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "serviceoffer-controller.selectorLabels" -}}
app.kubernetes.io/name: {{ include "serviceoffer-controller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "serviceoffer-controller.labels" -}}
helm.sh/chart: {{ include "serviceoffer-controller.chart" . }}
{{ include "serviceoffer-controller.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "serviceoffer-controller.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "serviceoffer-controller.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "serviceoffer-controller.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- with .Values.image.digest -}}
{{- printf "%s:%s@%s" $.Values.image.repository $tag . -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration like 1m30s, so that durations can be compared. */}}
{{- define "serviceoffer-controller.seconds" -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . | float64 -}}
{{- $unit := trimPrefix (regexFind "^[0-9]+" .) . -}}
{{- $factor := get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit -}}
{{- $seconds = addf $seconds (mulf $number $factor) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* Reject timings that the operator would reject at start-up. */}}
{{- define "serviceoffer-controller.checkTimings" -}}
{{- with .Values.leaderElection -}}
{{- if .enabled -}}
{{- $lease := include "serviceoffer-controller.seconds" .leaseDuration | float64 -}}
{{- $deadline := include "serviceoffer-controller.seconds" .renewDeadline | float64 -}}
{{- $period := include "serviceoffer-controller.seconds" .retryPeriod | float64 -}}
{{- if not (and (gt $lease $deadline) (gt $deadline $period)) -}}
{{- fail (printf "leaderElection: leaseDuration (%s) must be longer than renewDeadline (%s), which must be longer than retryPeriod (%s)" .leaseDuration .renewDeadline .retryPeriod) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Verbs that the elector needs on Pods: only those of enabled features. */}}
{{- define "serviceoffer-controller.podVerbs" -}}
{{- $verbs := list -}}
{{- with .Values.leaderElection -}}
{{- if or .earlyTakeover .markPod }}{{ $verbs = append $verbs "list" }}{{ end -}}
{{- if .earlyTakeover }}{{ $verbs = append $verbs "watch" }}{{ end -}}
{{- if .markPod }}{{ $verbs = append $verbs "patch" }}{{ end -}}
{{- end -}}
{{- join ", " $verbs -}}
{{- end -}}
