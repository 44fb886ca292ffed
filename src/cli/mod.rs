//! Flags and environment variables, parsed once and validated before anything starts.
//!
//! [`gate`] holds the flags of the gate, and those that operator and gate have in common.

mod gate;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use jiff::SignedDuration;

pub use self::gate::{GateArgs, TableArgs};
use crate::telemetry::LogFormat;

/// Kubernetes operator that turns ServiceOffers into ERC-8004 registrations.
///
/// Run any number of replicas: one leads and writes, all serve documents and metrics. Nothing is
/// registered twice, even if two replicas lead at once. Chains, keys and limits are configured by
/// IdentityRegistry objects, not by flags.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
pub struct Cli {
    /// Runs instead of the operator.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the operator.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Commands that run instead of the operator.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Request URLs and succeed if all of them answer 200; used by `helm test`
    Probe {
        /// URLs to request
        #[arg(required = true)]
        urls: Vec<String>,
    },
    /// Serve buyers: a reverse proxy that sells offers for x402 payments, and serves documents
    Gate(Box<GateArgs>),
}

/// Flags of the operator. Each can also be set by an environment variable.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Elect one replica to write. With `false`, all replicas write: safe, but wasteful
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
    /// Namespace of the Lease; defaults to the namespace of the Pod
    #[arg(
        long,
        env = "SERVICEOFFER_LEASE_NAMESPACE",
        value_name = "NAME",
        help_heading = "Leader election"
    )]
    pub lease_namespace: Option<String>,
    /// How long standbys wait after the last observed renewal before taking over
    #[arg(
        long, env = "SERVICEOFFER_LEASE_DURATION", value_name = "DURATION", default_value = "30s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub lease_duration: Duration,
    /// How long a leader keeps starting new work after its last renewal
    #[arg(
        long, env = "SERVICEOFFER_RENEW_DEADLINE", value_name = "DURATION", default_value = "20s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub renew_deadline: Duration,
    /// How often the leader renews the Lease
    #[arg(
        long, env = "SERVICEOFFER_RETRY_PERIOD", value_name = "DURATION", default_value = "5s", value_parser = duration,
        help_heading = "Leader election"
    )]
    pub retry_period: Duration,
    /// Take over immediately when the kubelet reports that the leader's container has terminated
    #[arg(
        long, env = "SERVICEOFFER_EARLY_TAKEOVER", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Leader election"
    )]
    pub early_takeover: bool,
    /// Label the leader's Pod obol.org/role=leader, and have Deployments delete it last
    #[arg(
        long, env = "SERVICEOFFER_MARK_POD", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Leader election"
    )]
    pub mark_pod: bool,
    /// Addresses and logs.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Offers reconciled concurrently
    #[arg(
        long, env = "SERVICEOFFER_CONCURRENCY", value_name = "NUMBER", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Work"
    )]
    pub concurrency: u16,
    /// Transactions in flight per signer. Nodes keep at least 16 per account in their mempool
    #[arg(
        long, env = "SERVICEOFFER_MAX_IN_FLIGHT", value_name = "NUMBER", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Work"
    )]
    pub max_in_flight: u16,
    /// A gate serves offers and documents: report on it, and serve nothing but the admin port
    #[arg(
        long, env = "SERVICEOFFER_GATE", value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Offers"
    )]
    pub gate: bool,
    /// URL at which the gate reports what it serves
    #[arg(
        long,
        env = "SERVICEOFFER_GATE_REPORT_URL",
        value_name = "URL",
        help_heading = "Offers"
    )]
    pub gate_report_url: Option<String>,
    /// What operator and gate have in common.
    #[command(flatten)]
    pub table: TableArgs,
    /// Name of this Pod: its identity in the election. Defaults to the host name with a random
    /// suffix outside a cluster
    #[arg(long, env = "POD_NAME", value_name = "NAME", help_heading = "Pod")]
    pub pod_name: Option<String>,
    /// Namespace of this Pod; Secrets are read in it
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", help_heading = "Pod")]
    pub pod_namespace: Option<String>,
    /// Uid of this Pod; lets a restarted container reclaim the lease immediately
    #[arg(long, env = "POD_UID", value_name = "UID", help_heading = "Pod")]
    pub pod_uid: Option<String>,
}

/// What every process of the image listens on, and how it logs.
#[derive(Clone, Debug, Args)]
pub struct ProcessArgs {
    /// Address on which offers and documents are served
    #[arg(
        long,
        env = "SERVICEOFFER_HTTP_BIND",
        value_name = "ADDRESS",
        default_value = "[::]:8080",
        help_heading = "Serving"
    )]
    pub http_bind: SocketAddr,
    /// Address on which /livez, /readyz and /metrics are served, and /report of the gate
    #[arg(
        long,
        env = "SERVICEOFFER_ADMIN_BIND",
        value_name = "ADDRESS",
        default_value = "[::]:8081",
        help_heading = "Serving"
    )]
    pub admin_bind: SocketAddr,
    /// Log level: error, warn, info, debug or trace, or directives such as
    /// serviceoffer::leader=debug
    #[arg(
        long,
        env = "SERVICEOFFER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Logs"
    )]
    pub log_level: String,
    /// Log format
    #[arg(
        long,
        env = "SERVICEOFFER_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Logs"
    )]
    pub log_format: LogFormat,
}

/// Flags whose values are unsafe or contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFlags {
    /// `leaseDurationSeconds` is an integer.
    #[error("--lease-duration={0:?} is not a whole number of seconds: a Lease counts in seconds")]
    FractionalLease(Duration),
    /// A leader must stop before another may take over.
    #[error(
        "--renew-deadline={deadline:?} is too long for --lease-duration={lease:?}: set it to {most:?} or less"
    )]
    DeadlineTooLong {
        /// The renew deadline.
        deadline: Duration,
        /// The lease duration.
        lease: Duration,
        /// The longest safe renew deadline.
        most: Duration,
    },
    /// There must be time for a second renewal before the deadline.
    #[error(
        "--retry-period={period:?} is too long for --renew-deadline={deadline:?}: set it to less than {most:?}"
    )]
    RetryPeriodTooLong {
        /// The retry period.
        period: Duration,
        /// The renew deadline.
        deadline: Duration,
        /// Upper bound of the retry period.
        most: Duration,
    },
    /// A candidate is identified by its name.
    #[error(
        "--pod-name (POD_NAME) is empty: set it to the name of the Pod, or omit it outside a cluster"
    )]
    EmptyPodName,
}

impl RunArgs {
    /// Checks what clap cannot check.
    ///
    /// # Errors
    /// The first flag that is invalid.
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
        // The guard interval, and one more try of up to two seconds, must fit between deadline and
        // takeover.
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
    let help = || format!("{text:?} is not a duration: use a value such as 30s or 1m30s");
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
    fn clap_accepts_the_definition_of_the_flags() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_as_documented() {
        let run = run(&[]);
        assert!(run.leader_elect && run.early_takeover && run.mark_pod);
        assert_eq!(run.lease_name, "serviceoffer-controller");
        let seconds = [run.lease_duration, run.renew_deadline, run.retry_period]
            .map(|duration| duration.as_secs());
        assert_eq!(seconds, [30, 20, 5]);
        assert_eq!(run.validate(), Ok(()));
    }

    #[test]
    fn leader_elect_takes_an_optional_value() {
        assert!(!run(&["--leader-elect=false"]).leader_elect);
        assert!(run(&["--leader-elect"]).leader_elect);
    }

    #[test]
    fn last_of_two_equal_flags_wins() {
        let run = run(&[
            "--log-level=info",
            "--leader-elect=true",
            "--log-level",
            "debug",
            "--leader-elect=false",
        ]);
        assert_eq!(run.process.log_level, "debug");
        assert!(!run.leader_elect);
    }

    #[test]
    fn unsafe_timings_are_rejected_with_the_longest_safe_value() {
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
        let deadline_too_long = InvalidFlags::DeadlineTooLong {
            deadline: seconds(26),
            lease: seconds(30),
            most: seconds(25),
        };
        assert_eq!(check("30s", "26s", "5s"), Err(deadline_too_long));
        let period_too_long = InvalidFlags::RetryPeriodTooLong {
            period: seconds(10),
            deadline: seconds(12),
            most: seconds(10),
        };
        assert_eq!(check("30s", "12s", "10s"), Err(period_too_long));
        assert_eq!(
            check("1500ms", "1s", "100ms"),
            Err(InvalidFlags::FractionalLease(Duration::from_millis(1500)))
        );
        assert!(matches!(
            check("1s", "1s", "100ms"),
            Err(InvalidFlags::DeadlineTooLong { .. })
        ));
        let unelected = ["--leader-elect=false", "--lease-duration", "1500ms"];
        assert_eq!(
            run(&unelected).validate(),
            Ok(()),
            "timings matter only with an election"
        );
    }

    #[test]
    fn empty_pod_name_is_rejected() {
        assert_eq!(
            run(&["--pod-name", ""]).validate(),
            Err(InvalidFlags::EmptyPodName)
        );
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "30", "0s", "-5s", "soon"] {
            assert!(
                duration(text)
                    .unwrap_err()
                    .contains("use a value such as 30s"),
                "{text}"
            );
        }
    }
}
