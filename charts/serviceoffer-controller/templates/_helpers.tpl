{{- define "serviceoffer-controller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
The longest suffix has 13 characters (-gate-metrics, -facilitators) and a Service name at most 63, so every object is named
exactly <fullname>-<suffix>. A release may be named with dots, which a Service may not.
*/}}
{{- define "serviceoffer-controller.fullname" -}}
{{- $fullname := .Values.fullnameOverride -}}
{{- if not $fullname -}}
{{- $name := include "serviceoffer-controller.name" . -}}
{{- $fullname = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- $fullname = $fullname | replace "." "-" | trunc 50 | trimAll "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "%q cannot name a Service: set fullnameOverride to lower-case letters, digits and dashes, beginning with a letter" $fullname) -}}
{{- end -}}
{{- $fullname -}}
{{- end -}}

{{- define "serviceoffer-controller.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Identify the release, not one of its workloads: no selector uses these labels alone. */}}
{{- define "serviceoffer-controller.releaseLabels" -}}
app.kubernetes.io/name: {{ include "serviceoffer-controller.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "serviceoffer-controller.labels" -}}
helm.sh/chart: {{ include "serviceoffer-controller.chart" . }}
{{ include "serviceoffer-controller.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The two workloads differ in their component only, so every selector must contain it. */}}
{{- define "serviceoffer-controller.controller.selectorLabels" -}}
{{ include "serviceoffer-controller.releaseLabels" . }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "serviceoffer-controller.controller.labels" -}}
{{ include "serviceoffer-controller.labels" . }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "serviceoffer-controller.gate.selectorLabels" -}}
{{ include "serviceoffer-controller.releaseLabels" . }}
app.kubernetes.io/component: gate
{{- end -}}

{{- define "serviceoffer-controller.gate.labels" -}}
{{ include "serviceoffer-controller.labels" . }}
app.kubernetes.io/component: gate
{{- end -}}

{{/* The workload that serves the public side: offers, documents and /.well-known. */}}
{{- define "serviceoffer-controller.public.selectorLabels" -}}
{{- if .Values.gate.enabled -}}
{{ include "serviceoffer-controller.gate.selectorLabels" . }}
{{- else -}}
{{ include "serviceoffer-controller.controller.selectorLabels" . }}
{{- end -}}
{{- end -}}

{{- define "serviceoffer-controller.public.labels" -}}
{{- if .Values.gate.enabled -}}
{{ include "serviceoffer-controller.gate.labels" . }}
{{- else -}}
{{ include "serviceoffer-controller.controller.labels" . }}
{{- end -}}
{{- end -}}

{{/*
What Ingress and HTTPRoute lead to the public side. An offer may have any path, so the gate gets all of them; its own are named
beside / so that no rule of another object for the same host takes them over. The operator gets only what it serves.
*/}}
{{- define "serviceoffer-controller.publicPaths" -}}
{{- if .Values.gate.enabled }}
{{- range list "/services" "/agents" "/.well-known" "/" }}
- path: {{ printf "%s%s" $.Values.gate.publicPath . }}
  type: Prefix
{{- end }}
{{- else }}
- path: /agents
  type: Prefix
- path: /.well-known/agent-registration.json
  type: Exact
{{- end }}
{{- end -}}

{{/* Identifies the Pod of helm test. It is no workload of the release, so its name differs. */}}
{{- define "serviceoffer-controller.probe.selectorLabels" -}}
app.kubernetes.io/name: {{ include "serviceoffer-controller.name" . | trunc 57 | trimSuffix "-" }}-probe
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "serviceoffer-controller.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "serviceoffer-controller.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "serviceoffer-controller.gate.serviceAccountName" -}}
{{- with .Values.gate.serviceAccount -}}
{{- if .create -}}
{{- default (printf "%s-gate" (include "serviceoffer-controller.fullname" $)) .name -}}
{{- else -}}
{{- default "default" .name -}}
{{- end -}}
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

{{/* Families of all Services. The API server's defaults apply to what is not given. */}}
{{- define "serviceoffer-controller.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where keys of the Secret <fullname>-facilitators appear as files. */}}
{{- define "serviceoffer-controller.credentials" -}}
/etc/serviceoffer/facilitators
{{- end -}}

{{/*
No value names the Secret, so no upgrade can lose it. It may not exist, because most facilitators need no credentials; the
kubelet adds its keys once it does. Containers do not run as the owner of the files, so everyone in them may read.
*/}}
{{- define "serviceoffer-controller.credentialsVolume" -}}
- name: facilitators
  secret:
    secretName: {{ include "serviceoffer-controller.fullname" . }}-facilitators
    optional: true
    defaultMode: 0444
{{- end -}}

{{- define "serviceoffer-controller.credentialsMount" -}}
- name: facilitators
  mountPath: {{ include "serviceoffer-controller.credentials" . }}
  readOnly: true
{{- end -}}

{{/* What gate and operator must agree on, since the operator explains the table that the gate serves from. */}}
{{- define "serviceoffer-controller.tableFlags" -}}
{{- with .Values.gate -}}
{{- with .publicUrl }}
- {{ printf "--public-url=%s" . | quote }}
{{- end }}
{{- with compact (default list .allowedExternalUpstreams) }}
- {{ printf "--allowed-external-upstreams=%s" (join "," .) | quote }}
{{- end }}
- {{ printf "--denied-namespaces=%s" (compact (default list .deniedNamespaces) | join ",") | quote }}
{{- end }}
{{- end -}}

{{/* Reject values of the gate that contradict each other. */}}
{{- define "serviceoffer-controller.checkGate" -}}
{{- with .Values.gate -}}
{{- if .enabled -}}
{{- if gt (int .replicaCount) 1 -}}
{{- fail (printf "gate.replicaCount is %d, and must be 0 or 1: claims on payments are in the memory of one replica, so with several replicas one payment could buy more than once" (int .replicaCount)) -}}
{{- end -}}
{{- $path := trimSuffix "/" (get (urlParse .publicUrl) "path") -}}
{{- if ne $path .publicPath -}}
{{- fail (printf "gate.publicUrl (%q) and gate.publicPath (%q) must have the same path: buyers are sent to the first, and the gate is reachable below the second" .publicUrl .publicPath) -}}
{{- end -}}
{{- $account := include "serviceoffer-controller.gate.serviceAccountName" $ -}}
{{- if eq $account (include "serviceoffer-controller.serviceAccountName" $) -}}
{{- fail (printf "gate.serviceAccount and serviceAccount are both %q: the gate must not have the rights of the operator, which reads private keys" $account) -}}
{{- end -}}
{{- end -}}
{{- end -}}
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
