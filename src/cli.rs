//! The command line: flags and environment, read once and checked before anything starts.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use jiff::SignedDuration;

use crate::telemetry::LogFormat;

/// Kubernetes operator that turns ServiceOffers into ERC-8004 registrations.
///
/// Run any number of replicas: one leads and writes, all serve documents and metrics. Nothing is registered twice, whoever
/// leads. Which chains are used, with which keys and limits, is said by IdentityRegistry objects, not here.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running the operator.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the operator.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do instead of running the operator.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask URLs, and succeed if every one answers 200; used by `helm test`
    Probe {
        /// URLs to ask
        #[arg(required = true)]
        urls: Vec<String>,
    },
}

/// Flags of the operator. Each can be given in the environment as well.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Elect one replica to write. With `false`, every replica writes at once: safe, but wasteful
    #[arg(
        long, env = "SERVICEOFFER_LEADER_ELECT", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Leader election"
    )]
    pub leader_elect: bool,
    /// Name of the Lease
    #[arg(
        long,
        env = "SERVICEOFFER_LEASE_NAME",
        value_name = "NAME",
        default_value = "serviceoffer-controller",
        help_heading = "Leader election"
    )]
    pub lease_name: String,
    /// Namespace of the Lease; that of the Pod when not given
    #[arg(
        long,
        env = "SERVICEOFFER_LEASE_NAMESPACE",
        value_name = "NAME",
        help_heading = "Leader election"
    )]
    pub lease_namespace: Option<String>,
    /// How long after its last renewal a leader is waited for before another takes over
    #[arg(
        long, env = "SERVICEOFFER_LEASE_DURATION", value_name = "DURATION", default_value = "30s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub lease_duration: Duration,
    /// How long a leader goes without a renewal before it starts nothing new
    #[arg(
        long, env = "SERVICEOFFER_RENEW_DEADLINE", value_name = "DURATION", default_value = "20s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub renew_deadline: Duration,
    /// How often a leader renews
    #[arg(
        long, env = "SERVICEOFFER_RETRY_PERIOD", value_name = "DURATION", default_value = "5s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub retry_period: Duration,
    /// Take over at once when the kubelet reports that the leader's container has terminated
    #[arg(
        long, env = "SERVICEOFFER_EARLY_TAKEOVER", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Leader election"
    )]
    pub early_takeover: bool,
    /// Label the leader's Pod obol.org/role=leader, and let it be deleted last
    #[arg(
        long, env = "SERVICEOFFER_MARK_POD", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Leader election"
    )]
    pub mark_pod: bool,
    /// Where documents are served
    #[arg(
        long,
        env = "SERVICEOFFER_HTTP_BIND",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        help_heading = "Serving"
    )]
    pub http_bind: SocketAddr,
    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "SERVICEOFFER_ADMIN_BIND",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8081",
        help_heading = "Serving"
    )]
    pub admin_bind: SocketAddr,
    /// Offers reconciled at once
    #[arg(
        long, env = "SERVICEOFFER_CONCURRENCY", value_name = "NUMBER", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Work"
    )]
    pub concurrency: u16,
    /// Unmined transactions of one signer under way at once. Nodes promise to keep 16
    #[arg(
        long, env = "SERVICEOFFER_MAX_IN_FLIGHT", value_name = "NUMBER", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Work"
    )]
    pub max_in_flight: u16,
    /// What is logged: error, warn, info, debug or trace, or directives like serviceoffer::leader=debug
    #[arg(
        long,
        env = "SERVICEOFFER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Logs"
    )]
    pub log_level: String,
    /// How it is logged
    #[arg(
        long,
        env = "SERVICEOFFER_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Logs"
    )]
    pub log_format: LogFormat,
    /// Name of this Pod: its identity in the election. Outside a cluster, host name and chance when not given
    #[arg(long, env = "POD_NAME", value_name = "NAME", help_heading = "Pod")]
    pub pod_name: Option<String>,
    /// Namespace of this Pod, where Secrets are read
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", help_heading = "Pod")]
    pub pod_namespace: Option<String>,
    /// Uid of this Pod: lets its next container go on with the lease at once
    #[arg(long, env = "POD_UID", value_name = "UID", help_heading = "Pod")]
    pub pod_uid: Option<String>,
}

/// Flags that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFlags {
    /// A lease is counted in whole seconds.
    #[error("--lease-duration={0:?} is not a whole number of seconds: a Lease counts in seconds")]
    FractionalLease(Duration),
    /// A leader must stop before another may take over.
    #[error(
        "--renew-deadline={deadline:?} leaves no room before --lease-duration={lease:?}: it may be {most:?} at most"
    )]
    DeadlineTooLong {
        /// The deadline.
        deadline: Duration,
        /// The lease duration.
        lease: Duration,
        /// The longest deadline that leaves room.
        most: Duration,
    },
    /// A renewal must have more than one chance.
    #[error(
        "--retry-period={period:?} is too long for --renew-deadline={deadline:?}: it may be {most:?} at most"
    )]
    RetryPeriodTooLong {
        /// The period.
        period: Duration,
        /// The deadline.
        deadline: Duration,
        /// The longest period that gives a second chance.
        most: Duration,
    },
    /// A candidate without a name cannot be told from another.
    #[error(
        "--pod-name (POD_NAME) is empty: give the name of the Pod, or leave it out outside a cluster"
    )]
    EmptyPodName,
}

impl RunArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), InvalidFlags> {
        let (lease, deadline, period) =
            (self.lease_duration, self.renew_deadline, self.retry_period);
        if self.pod_name.as_ref().is_some_and(String::is_empty) {
            return Err(InvalidFlags::EmptyPodName);
        }
        if !self.leader_elect {
            return Ok(());
        }
        if lease.subsec_nanos() != 0 || lease.is_zero() {
            return Err(InvalidFlags::FractionalLease(lease));
        }
        // The elector's guard, and one more try of up to two seconds, must fit between deadline and takeover.
        let guard = (lease / 10).max(Duration::from_secs(1));
        let most = lease
            .saturating_sub(guard)
            .saturating_sub(period.min(Duration::from_secs(2)));
        if deadline > most {
            return Err(InvalidFlags::DeadlineTooLong {
                deadline,
                lease,
                most,
            });
        }
        // client-go's rule: the deadline is longer than a jittered period.
        let most = deadline * 10 / 12;
        if period >= most {
            return Err(InvalidFlags::RetryPeriodTooLong {
                period,
                deadline,
                most,
            });
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("{text:?} is not a duration: write one like 30s or 1m30s");
    let duration: SignedDuration = text.parse().map_err(|_| help())?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(help)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> RunArgs {
        Cli::try_parse_from([&["serviceoffer-controller"], arguments].concat())
            .unwrap()
            .run
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_that_are_documented() {
        let run = run(&[]);
        assert!(run.leader_elect && run.early_takeover && run.mark_pod);
        assert_eq!(run.lease_name, "serviceoffer-controller");
        let seconds = [run.lease_duration, run.renew_deadline, run.retry_period]
            .map(|duration| duration.as_secs());
        assert_eq!(seconds, [30, 20, 5]);
        assert_eq!(run.validate(), Ok(()));
    }

    #[test]
    fn leader_election_is_switched_by_a_value() {
        assert!(!run(&["--leader-elect=false"]).leader_elect);
        assert!(run(&["--leader-elect"]).leader_elect);
    }

    #[test]
    fn timings_that_cannot_be_safe_are_refused_with_what_would_be() {
        let check = |lease: &str, deadline: &str, period: &str| {
            run(&[
                "--lease-duration",
                lease,
                "--renew-deadline",
                deadline,
                "--retry-period",
                period,
            ])
            .validate()
        };
        for (lease, deadline, period) in [
            ("30s", "25s", "5s"),
            ("15s", "10s", "2s"),
            ("6s", "4s", "1s"),
        ] {
            assert_eq!(
                check(lease, deadline, period),
                Ok(()),
                "{lease} {deadline} {period}"
            );
        }
        let seconds = Duration::from_secs;
        let no_room = InvalidFlags::DeadlineTooLong {
            deadline: seconds(26),
            lease: seconds(30),
            most: seconds(25),
        };
        assert_eq!(check("30s", "26s", "5s"), Err(no_room));
        let too_slow = InvalidFlags::RetryPeriodTooLong {
            period: seconds(10),
            deadline: seconds(12),
            most: seconds(10),
        };
        assert_eq!(check("30s", "12s", "10s"), Err(too_slow));
        assert_eq!(
            check("1500ms", "1s", "100ms"),
            Err(InvalidFlags::FractionalLease(Duration::from_millis(1500)))
        );
        assert!(matches!(
            check("1s", "1s", "100ms"),
            Err(InvalidFlags::DeadlineTooLong { .. })
        ));
        let alone = ["--leader-elect=false", "--lease-duration", "1500ms"];
        assert_eq!(run(&alone).validate(), Ok(()), "nothing is elected");
    }

    #[test]
    fn an_empty_name_is_no_name() {
        assert_eq!(
            run(&["--pod-name", ""]).validate(),
            Err(InvalidFlags::EmptyPodName)
        );
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "30", "0s", "-5s", "soon"] {
            assert!(
                duration(text).unwrap_err().contains("write one like 30s"),
                "{text}"
            );
        }
    }
}
