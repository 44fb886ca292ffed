//! The API server's audit log: who did what to which object.
//!
//! The API server responds to a request only after it has logged the entry
//! (`--audit-log-mode=blocking`). The entry of a long-running request such as a watch is logged
//! when it starts.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Reads the entries that were logged since the reader was created, or since the last read.
#[derive(Debug)]
pub struct Audit {
    log: PathBuf,
    position: u64,
}

/// One request that the API server handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The user's name, for a service account `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The pod whose ServiceAccount token was used. Empty for other users.
    pub pod: String,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or an
    /// HTTP method in lower case.
    pub verb: String,
    /// The API group. Empty for the core group and for non-resource paths.
    pub group: String,
    /// The plural name of the resource. Empty for non-resource paths.
    pub resource: String,
    /// For example `status`. Usually empty.
    pub subresource: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Empty for lists, and for objects whose name the API server generated.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// `ResponseComplete`, `ResponseStarted` for a long-running request in progress, or `Panic`.
    pub stage: String,
    /// The HTTP status. 0 if there is none.
    pub code: u16,
    /// When the API server received the request.
    pub received: Timestamp,
    /// When this stage was reached.
    pub time: Timestamp,
    /// The request body. Null unless the request writes a Lease or one of the operator's kinds.
    pub request_object: Value,
    /// The object in the response. Null where `request_object` is null.
    pub response_object: Value,
}

impl Audit {
    /// A reader that starts at the end of the log.
    pub(crate) fn from_now(log: PathBuf) -> Result<Self> {
        let position = std::fs::metadata(&log).map(|file| file.len());
        let position = match position {
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            length => length.with_context(|| format!("reading {}", log.display()))?,
        };
        Ok(Self { log, position })
    }

    /// The entries since the last call, oldest first.
    ///
    /// # Errors
    /// If the log cannot be read or parsed.
    pub fn read(&mut self) -> Result<Vec<AuditEntry>> {
        self.text()?.lines().map(parse).collect()
    }

    /// The entries since the last call, oldest first and without bodies, each with whether it
    /// contains `mark`. Costs a fraction of [`Self::read`] where most of the log is bodies.
    ///
    /// # Errors
    /// If the log cannot be read or parsed.
    pub fn read_marked(&mut self, mark: &str) -> Result<Vec<(AuditEntry, bool)>> {
        let text = self.text()?;
        let entries = text
            .lines()
            .map(|line| Ok((parse(&without_bodies(line))?, line.contains(mark))));
        entries.collect()
    }

    /// The complete lines since the last call.
    fn text(&mut self) -> Result<String> {
        let mut file =
            File::open(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be incomplete.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        self.position += u64::try_from(complete)?;
        text.truncate(complete);
        Ok(text)
    }
}

/// An entry without its bodies, which are between the status of the response and the timestamps.
fn without_bodies(line: &str) -> Cow<'_, str> {
    let begin = line
        .find(r#","requestObject":"#)
        .or_else(|| line.find(r#","responseObject":"#));
    let end = line.rfind(r#","requestReceivedTimestamp":"#);
    match (begin, end) {
        (Some(begin), Some(end)) if begin < end => [&line[..begin], &line[end..]].concat().into(),
        _ => line.into(),
    }
}

fn parse(line: &str) -> Result<AuditEntry> {
    let event: Event = serde_json::from_str(line).with_context(|| format!("audit entry {line}"))?;
    let object = event.object_ref.unwrap_or_default();
    let pod = event
        .user
        .extra
        .pod_name
        .into_iter()
        .next()
        .unwrap_or_default();
    Ok(AuditEntry {
        user: event.user.username,
        pod,
        user_agent: event.user_agent,
        verb: event.verb,
        group: object.api_group,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        uri: event.request_uri,
        stage: event.stage,
        code: event.response_status.map_or(0, |status| status.code),
        received: event.request_received_timestamp,
        time: event.stage_timestamp,
        request_object: event.request_object,
        response_object: event.response_object,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    #[serde(default)]
    user_agent: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    stage: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    #[serde(default)]
    request_object: Value,
    #[serde(default)]
    response_object: Value,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: Extra,
}

#[derive(Default, Deserialize)]
struct Extra {
    #[serde(rename = "authentication.kubernetes.io/pod-name", default)]
    pod_name: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/a/deployments/b/status?x=1","verb":"patch","user":{"username":"admin","groups":["system:masters"]},"sourceIPs":["127.0.0.1"],"userAgent":"test","objectRef":{"resource":"deployments","namespace":"a","name":"b","apiGroup":"apps","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-01-02T03:04:05.000001Z","stageTimestamp":"2026-01-02T03:04:05.100001Z"}"#;

    #[test]
    fn entry_has_user_verb_and_object() -> Result<()> {
        let entry = parse(LINE)?;
        assert_eq!(
            (entry.user.as_str(), entry.verb.as_str(), entry.code),
            ("admin", "patch", 200)
        );
        assert_eq!(
            (
                entry.group.as_str(),
                entry.resource.as_str(),
                entry.subresource.as_str()
            ),
            ("apps", "deployments", "status")
        );
        assert_eq!((entry.namespace.as_str(), entry.name.as_str()), ("a", "b"));
        assert_eq!(
            entry.time.as_millisecond() - entry.received.as_millisecond(),
            100
        );
        Ok(())
    }

    #[test]
    fn entry_has_bodies_if_the_audit_policy_logs_them() -> Result<()> {
        let bodies = r#""requestObject":{"metadata":{"resourceVersion":"7"}},"responseObject":{"kind":"Lease"},"verb""#;
        let entry = parse(&LINE.replace(r#""verb""#, bodies))?;
        assert_eq!(entry.request_object["metadata"]["resourceVersion"], "7");
        assert_eq!(entry.response_object["kind"], "Lease");
        assert!(parse(LINE)?.request_object.is_null());
        Ok(())
    }

    #[test]
    fn entry_without_bodies_is_otherwise_the_same() -> Result<()> {
        assert_eq!(parse(&without_bodies(LINE))?, parse(LINE)?);
        let request = r#","requestObject":{"requestReceivedTimestamp":"x"}"#;
        for bodies in [
            format!(r#"{request},"responseObject":{{"kind":"Lease"}}"#),
            request.to_owned(),
            r#","responseObject":{"kind":"Lease"}"#.to_owned(),
        ] {
            let time = r#","requestReceivedTimestamp":"2026"#;
            let line = LINE.replace(time, &format!("{bodies}{time}"));
            assert_eq!(without_bodies(&line), LINE);
        }
        Ok(())
    }

    #[test]
    fn entry_names_the_pod_of_the_token() -> Result<()> {
        let extra = r#""username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/pod-name":["p-1"]}"#;
        let entry = parse(&LINE.replace(r#""username":"admin""#, extra))?;
        assert_eq!((entry.pod.as_str(), parse(LINE)?.pod.as_str()), ("p-1", ""));
        Ok(())
    }

    #[test]
    fn incomplete_line_is_read_once_it_is_complete() -> Result<()> {
        let path = std::env::temp_dir().join(format!("testbed-audit-{}", std::process::id()));
        let mut log = File::create(&path)?;
        writeln!(log, "{LINE}")?;
        let mut audit = Audit::from_now(path.clone())?;
        let (first, second) = LINE.split_at(100);
        write!(log, "{LINE}\n{first}")?;
        assert_eq!(audit.read()?.len(), 1);
        writeln!(log, "{second}")?;
        assert_eq!(audit.read()?.len(), 1);
        assert_eq!(audit.read()?.len(), 0);
        Ok(std::fs::remove_file(path)?)
    }
}
