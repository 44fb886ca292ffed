//! Election events of a candidate, parsed from the lines that it prints.
//!
//! Text in, values out. Each implementation prints different lines; lines about anything else are
//! no events.

use jiff::Timestamp;
use serde::Deserialize;

/// An event, by the wall clock of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What a candidate believes from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It takes part. Not every implementation reports it.
    Joined,
    /// It leads and starts working.
    StartedLeading,
    /// It no longer leads, or exits without having led.
    StoppedLeading,
    /// The leader that it sees; empty if there is none.
    NewLeader(String),
}

impl Event {
    /// Parses a line of the operator's JSON log.
    #[must_use]
    pub fn of_operator(line: &str) -> Option<Self> {
        let Line {
            timestamp,
            message,
            leader,
        } = serde_json::from_str(line).ok()?;
        let kind = match message.as_str() {
            "became leader" => EventKind::StartedLeading,
            "lost the lease" | "left the election" => EventKind::StoppedLeading,
            _ if message.starts_with("left the election without") => EventKind::StoppedLeading,
            _ if message.starts_with("leadership term ended") => EventKind::StoppedLeading,
            _ => EventKind::NewLeader(
                leader.filter(|leader| message == format!("new leader is {leader}"))?,
            ),
        };
        Some(Self {
            at: timestamp,
            kind,
        })
    }

    /// Parses a line that the program in `tests/peers` printed at `now`.
    #[must_use]
    pub fn of_peer(line: &str, now: Timestamp) -> Option<Self> {
        // client-go logs this once, when it starts to acquire the Lease.
        if line
            .to_ascii_lowercase()
            .contains("attempting to acquire leader lease")
        {
            return Some(Self {
                at: now,
                kind: EventKind::Joined,
            });
        }
        let PeerLine {
            time,
            event,
            leader,
        } = serde_json::from_str(line).ok()?;
        let kind = match event.as_str() {
            "started-leading" => EventKind::StartedLeading,
            "stopped-leading" => EventKind::StoppedLeading,
            "new-leader" => EventKind::NewLeader(leader),
            _ => return None,
        };
        Some(Self {
            at: Timestamp::from_microsecond(time).ok()?,
            kind,
        })
    }
}

#[derive(Deserialize)]
struct Line {
    timestamp: Timestamp,
    message: String,
    leader: Option<String>,
}

#[derive(Deserialize)]
struct PeerLine {
    time: i64,
    event: String,
    #[serde(default)]
    leader: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2025-06-01T10:00:00.123456Z";

    fn operator(rest: &str) -> Option<EventKind> {
        Event::of_operator(&format!(
            r#"{{"timestamp":"{TIME}","level":"INFO",{rest},"target":"serviceoffer::app"}}"#
        ))
        .map(|event| event.kind)
    }

    fn peer(event: &str) -> Option<Event> {
        Event::of_peer(
            &format!(r#"{{"time":1748772000123456,"event":{event},"identity":"b"}}"#),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn operator_log_reports_the_leader_and_since_when() {
        assert_eq!(
            operator(r#""message":"became leader","term":3"#),
            Some(EventKind::StartedLeading)
        );
        let named = r#""message":"new leader is a-1","leader":"a-1""#;
        assert_eq!(
            operator(named),
            Some(EventKind::NewLeader("a-1".to_owned()))
        );
        let at = Event::of_operator(&format!(
            r#"{{"timestamp":"{TIME}","message":"became leader"}}"#
        ))
        .map(|event| event.at);
        assert_eq!(at, TIME.parse().ok());
    }

    #[test]
    fn operator_log_reports_when_it_stops_leading() {
        for message in [
            "lost the lease",
            "left the election",
            "left the election without releasing the lease; a lease that it holds expires on its own",
            "leadership term ended; dropping in-flight work",
        ] {
            assert_eq!(
                operator(&format!(r#""message":"{message}""#)),
                Some(EventKind::StoppedLeading),
                "{message}"
            );
        }
    }

    #[test]
    fn other_operator_lines_are_no_events() {
        assert_eq!(operator(r#""message":"serving","identity":"a-1""#), None);
        assert_eq!(
            operator(r#""message":"something of a leader","leader":"a-1""#),
            None
        );
        assert_eq!(Event::of_operator("thread main panicked"), None);
    }

    #[test]
    fn peer_events_keep_their_microseconds() {
        let leads = Event {
            at: TIME.parse().unwrap_or_default(),
            kind: EventKind::StartedLeading,
        };
        assert_eq!(peer(r#""started-leading""#), Some(leads));
        assert_eq!(
            peer(r#""stopped-leading""#).map(|event| event.kind),
            Some(EventKind::StoppedLeading)
        );
        let named = peer(r#""new-leader","leader":"a-1""#).map(|event| event.kind);
        assert_eq!(named, Some(EventKind::NewLeader("a-1".to_owned())));
        assert_eq!(peer(r#""something-else""#), None);
    }

    #[test]
    fn peer_joins_when_it_starts_to_acquire_the_lease() {
        for line in [
            r#"I0601 10:00:00.1 7 leaderelection.go:257] "Attempting to acquire leader lease..." lock="a/b""#,
            "I0601 10:00:00.1 7 leaderelection.go:257] attempting to acquire leader lease a/b...",
        ] {
            let joined = Event {
                at: Timestamp::UNIX_EPOCH,
                kind: EventKind::Joined,
            };
            assert_eq!(Event::of_peer(line, Timestamp::UNIX_EPOCH), Some(joined));
        }
    }
}
