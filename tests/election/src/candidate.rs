//! One candidate as a bare process: start it, signal it, wait for it, and follow its events.
//!
//! A candidate is the operator's real binary or a peer (the program in `tests/peers`). The kernel
//! kills it when this process ends. Its output is kept in a log file; the lines about the election
//! become an [`Event`] each.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::wait::until;
use jiff::Timestamp;
use nix::sys::signal;
use nix::unistd::Pid;
use testbed::Signal;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::event::{Event, EventKind};
use crate::namespace::{Account, ElectionNamespace};

/// Variable that names another operator binary than the one of `make build`.
pub const BINARY: &str = "SERVICEOFFER_CONTROLLER";
/// Where `make build` leaves the operator's binary.
const BUILT: &str = "target/x86_64-unknown-linux-gnu/release/serviceoffer-controller";

/// Implementation of leader election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Implementation {
    /// The operator.
    Operator,
    /// A program with client-go's leader election.
    ClientGo,
    /// A program with controller-runtime's manager.
    ControllerRuntime,
}

impl Implementation {
    /// Display name, and `--kind` of a peer.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ClientGo => "client-go",
            Self::ControllerRuntime => "controller-runtime",
        }
    }
}

/// Lease duration, renew deadline and retry period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// How long standbys wait after the last renewal.
    pub lease: Duration,
    /// How long a leader tries to renew.
    pub deadline: Duration,
    /// How often a leader renews, and client-go's standbys poll.
    pub period: Duration,
}

impl Timing {
    /// 30/20/5: the operator's defaults.
    pub const LONG: Self = Self::of(30, 20, 5);
    /// 15/10/2: the defaults of controller-runtime, and of most Go programs.
    pub const SHORT: Self = Self::of(15, 10, 2);
    /// 6/4/1: for tests that wait for many leases to expire.
    pub const QUICK: Self = Self::of(6, 4, 1);

    /// From whole seconds.
    pub const fn of(lease: u64, deadline: u64, period: u64) -> Self {
        Self {
            lease: Duration::from_secs(lease),
            deadline: Duration::from_secs(deadline),
            period: Duration::from_secs(period),
        }
    }

    /// Time between the end of the operator's fence and the expiry of its lease.
    pub fn guard(self) -> Duration {
        (self.lease / 10).max(Duration::from_secs(1))
    }

    /// Longest time between two polls of a client-go candidate: its period plus jitter of up to 1.2
    /// periods.
    pub fn longest_poll(self) -> Duration {
        self.period * 22 / 10
    }
}

impl std::fmt::Display for Timing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            lease,
            deadline,
            period,
        } = self;
        write!(
            formatter,
            "{}/{}/{}",
            lease.as_secs(),
            deadline.as_secs(),
            period.as_secs()
        )
    }
}

/// Options of a candidate, apart from its identity.
#[derive(Clone, Debug)]
pub struct CandidateOptions {
    /// Its implementation.
    pub kind: Implementation,
    /// Its timing.
    pub timing: Timing,
    /// Whether a peer releases the Lease on SIGTERM. The operator always does.
    pub release: bool,
    /// Additional arguments.
    pub arguments: Vec<String>,
    /// Environment variables. Nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// Overrides the kubeconfig of the candidate's own account.
    pub kubeconfig: Option<PathBuf>,
}

impl CandidateOptions {
    /// Options of a candidate that releases its Lease.
    pub fn new(kind: Implementation, timing: Timing) -> Self {
        Self {
            kind,
            timing,
            release: true,
            arguments: Vec::new(),
            environment: Vec::new(),
            kubeconfig: None,
        }
    }

    /// Does not release the Lease.
    #[must_use]
    pub fn without_release(self) -> Self {
        Self {
            release: false,
            ..self
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn with_argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn program(&self) -> Result<PathBuf> {
        match self.kind {
            Implementation::Operator => operator(),
            Implementation::ClientGo | Implementation::ControllerRuntime => testbed::tools::peers(),
        }
    }

    fn command_line(
        &self,
        namespace: &ElectionNamespace,
        lease: &str,
        identity: &str,
        kubeconfig: &Path,
    ) -> Vec<String> {
        let Timing {
            lease: duration,
            deadline,
            period,
        } = self.timing;
        let times = [
            format!("--lease-duration={}s", duration.as_secs()),
            format!("--renew-deadline={}s", deadline.as_secs()),
            format!("--retry-period={}s", period.as_secs()),
        ];
        let own = match self.kind {
            Implementation::Operator => vec![
                format!("--pod-name={identity}"),
                format!("--pod-namespace={}", namespace.name()),
                format!("--lease-name={lease}"),
                format!("--lease-namespace={}", namespace.name()),
                format!("--http-bind={}", namespace.address()),
                format!("--admin-bind={}", namespace.address()),
                "--log-format=json".to_owned(),
            ],
            Implementation::ClientGo | Implementation::ControllerRuntime => vec![
                format!("--kind={}", self.kind.name()),
                format!("--identity={identity}"),
                format!("--lease={lease}"),
                format!("--namespace={}", namespace.name()),
                format!("--release-on-cancel={}", self.release),
                format!("--kubeconfig={}", kubeconfig.display()),
            ],
        };
        own.into_iter()
            .chain(times)
            .chain(self.arguments.iter().cloned())
            .collect()
    }
}

/// The operator's binary.
///
/// # Errors
/// If it has not been built.
pub fn operator() -> Result<PathBuf> {
    let built = || {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(BUILT)
    };
    let path = std::env::var_os(BINARY).map_or_else(built, PathBuf::from);
    path.canonicalize()
        .with_context(|| format!("{} does not exist; run `make build`", path.display()))
}

/// A started candidate.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    spec: CandidateOptions,
    account: Account,
    arguments: Vec<String>,
    log: PathBuf,
    started: Timestamp,
    pid: u32,
    child: Child,
    events: watch::Receiver<Vec<Event>>,
}

impl Candidate {
    /// Starts a candidate for a Lease. Its identity in the election is the name of its account.
    ///
    /// # Errors
    /// If it cannot be started. Not if it exits right after.
    pub async fn start(
        namespace: &ElectionNamespace,
        lease: &str,
        identity: &str,
        spec: CandidateOptions,
    ) -> Result<Self> {
        let account = namespace.account(identity).await?;
        let kubeconfig = spec.kubeconfig.as_deref().unwrap_or(&account.kubeconfig);
        let arguments = spec.command_line(namespace, lease, identity, kubeconfig);
        let mut command = harness::candidate::command(spec.program()?);
        command
            .args(&arguments)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", kubeconfig);
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Timestamp::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {identity}"))?;
        let pid = child.id().context("a process without a pid")?;
        let log = namespace.directory().join(format!("{identity}.log"));
        let (lines, printed) = mpsc::unbounded_channel();
        tokio::spawn(read(child.stdout.take().context("no pipe")?, lines.clone()));
        tokio::spawn(read(child.stderr.take().context("no pipe")?, lines));
        let (sender, events) = watch::channel(Vec::new());
        tokio::spawn(listen(
            spec.kind,
            printed,
            File::create(&log).await?,
            sender,
        ));
        Ok(Self {
            identity: identity.to_owned(),
            spec,
            account,
            arguments,
            log,
            started,
            pid,
            child,
            events,
        })
    }

    /// Its identity, and the name of its account. A controller-runtime manager writes another
    /// identity into the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its user in the audit log.
    pub fn user(&self) -> &str {
        &self.account.user
    }

    /// What it was started with.
    pub fn spec(&self) -> &CandidateOptions {
        &self.spec
    }

    /// Its implementation.
    pub fn kind(&self) -> Implementation {
        self.spec.kind
    }

    /// When it was started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Its pid on the host, also after it has exited.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// File with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The value of one of its arguments, for example of `--admin-bind`.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let mut values = self
            .arguments
            .iter()
            .filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        values.next_back()
    }

    /// Sends a signal, and returns the time just before.
    ///
    /// # Errors
    /// If it has exited.
    pub fn signal(&self, signal: Signal) -> Result<Timestamp> {
        // A process that has not been waited for keeps its pid.
        let pid = self
            .child
            .id()
            .with_context(|| format!("{} has exited", self.identity))?;
        let before = Timestamp::now();
        signal::kill(
            Pid::from_raw(i32::try_from(pid)?),
            signal::Signal::from(signal),
        )
        .with_context(|| format!("{signal:?} to {}", self.identity))?;
        Ok(before)
    }

    /// Its exit status, if it has exited.
    ///
    /// # Errors
    /// If the kernel does not report it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it exits.
    ///
    /// # Errors
    /// If it does not exit in time.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = timeout(limit, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} still runs after {limit:?}", self.identity))??)
    }

    /// Its events so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Waits for an event, past ones included.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn until(&self, limit: Duration, what: impl Fn(&Event) -> bool) -> Result<Event> {
        let mut events = self.events.clone();
        let found = timeout(limit, events.wait_for(|events| events.iter().any(&what))).await;
        let log = self.log.display();
        match found {
            Ok(Ok(events)) => events
                .iter()
                .find(|event| what(event))
                .cloned()
                .context("the event is gone"),
            Ok(Err(_)) => bail!(
                "{} exited after the events {:?}; see {log}",
                self.identity,
                self.events()
            ),
            Err(_) => bail!(
                "{} did not report the event within {limit:?}, only {:?}; see {log}",
                self.identity,
                self.events()
            ),
        }
    }

    /// Waits until it starts leading, at or after `since`.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn leads(&self, since: Timestamp, limit: Duration) -> Result<Timestamp> {
        let event = self
            .until(limit, |event| {
                event.at >= since && event.kind == EventKind::StartedLeading
            })
            .await?;
        Ok(event.at)
    }

    /// Waits until it takes part: it leads, knows a leader, or tries to acquire the Lease.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn joined(&self, limit: Duration) -> Result<()> {
        self.until(limit, |event| event.kind != EventKind::StoppedLeading)
            .await
            .map(drop)
    }

    /// Waits until it could take over and start working: it takes part, and the operator's caches
    /// are synced.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        self.joined(limit).await?;
        let Some(admin) = self.argument("--admin-bind") else {
            return Ok(());
        };
        until(&format!("{} is ready", self.identity), limit, async || {
            let is_ready = timeout(limit, answers(admin, "/readyz")).await??;
            ensure!(is_ready, "/readyz does not answer 200");
            Ok(())
        })
        .await
    }

    /// Waits until it reports this candidate as the leader. A controller-runtime manager never
    /// reports a leader.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn names(
        &self,
        leader: &str,
        since: Timestamp,
        limit: Duration,
    ) -> Result<Timestamp> {
        ensure!(
            self.kind() != Implementation::ControllerRuntime,
            "{} never reports a leader",
            self.identity
        );
        let named = |event: &Event| {
            event.at >= since && matches!(&event.kind, EventKind::NewLeader(name) if name == leader)
        };
        Ok(self.until(limit, named).await?.at)
    }

    /// Since when it leads, by its last event.
    pub fn leading_since(&self) -> Option<Timestamp> {
        leading_since(&self.events.borrow())
    }

    /// Waits until it leads, and returns since when.
    ///
    /// # Errors
    /// If that takes too long, or it exits first.
    pub async fn leading(&self, limit: Duration) -> Result<Timestamp> {
        let mut events = self.events.clone();
        let leading = timeout(
            limit,
            events.wait_for(|events| leading_since(events).is_some()),
        )
        .await;
        let events =
            leading.with_context(|| format!("{} does not lead after {limit:?}", self.identity))?;
        leading_since(&events.with_context(|| format!("{} ended", self.identity))?)
            .context("it led")
    }
}

/// Since when a candidate with these events leads.
fn leading_since(events: &[Event]) -> Option<Timestamp> {
    let last = events.iter().rev().find(|event| {
        matches!(
            event.kind,
            EventKind::StartedLeading | EventKind::StoppedLeading
        )
    })?;
    (last.kind == EventKind::StartedLeading).then_some(last.at)
}

/// Whether a server answers 200.
async fn answers(address: &str, path: &str) -> Result<bool> {
    let mut connection = TcpStream::connect(address).await?;
    connection
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.split_ascii_whitespace().nth(1) == Some("200"))
}

/// Forwards every line with its time.
async fn read(pipe: impl AsyncRead + Unpin, lines: mpsc::UnboundedSender<(Timestamp, String)>) {
    let mut input = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = input.next_line().await {
        if lines.send((Timestamp::now(), line)).is_err() {
            return;
        }
    }
}

/// Writes every line to the log, and publishes the events. The channel closes when the process
/// exits.
async fn listen(
    kind: Implementation,
    mut lines: mpsc::UnboundedReceiver<(Timestamp, String)>,
    mut log: File,
    events: watch::Sender<Vec<Event>>,
) {
    while let Some((now, line)) = lines.recv().await {
        let event = match kind {
            Implementation::Operator => Event::of_operator(&line),
            Implementation::ClientGo | Implementation::ControllerRuntime => {
                Event::of_peer(&line, now)
            }
        };
        if let Some(event) = event {
            events.send_modify(|events| events.push(event));
        }
        // A log that cannot be written is no reason to fail.
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
    }
    let _ = log.flush().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_leads_from_started_until_stopped_leading() {
        let at = |second, kind| Event {
            at: Timestamp::constant(second, 0),
            kind,
        };
        let mut events = vec![
            at(1, EventKind::Joined),
            at(2, EventKind::StartedLeading),
            at(3, EventKind::NewLeader("a".to_owned())),
        ];
        assert_eq!(leading_since(&events), Some(Timestamp::constant(2, 0)));
        events.push(at(4, EventKind::StoppedLeading));
        assert_eq!(leading_since(&events), None);
        events.push(at(5, EventKind::StartedLeading));
        assert_eq!(leading_since(&events), Some(Timestamp::constant(5, 0)));
    }

    #[test]
    fn timing_displays_as_three_numbers() {
        assert_eq!(Timing::LONG.to_string(), "30/20/5");
    }

    #[test]
    fn guard_is_a_tenth_of_the_lease_and_at_least_a_second() {
        assert_eq!(Timing::LONG.guard(), Duration::from_secs(3));
        assert_eq!(Timing::QUICK.guard(), Duration::from_secs(1));
    }

    #[test]
    fn client_go_polls_at_most_11_seconds_apart_at_a_period_of_5() {
        assert_eq!(Timing::LONG.longest_poll(), Duration::from_secs(11));
    }
}
