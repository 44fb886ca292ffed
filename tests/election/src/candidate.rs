//! One candidate as a bare process: started, signalled, waited for, and listened to.
//!
//! A candidate is ours (the operator's real binary) or a peer (the program in `tests/peers`). It ends with this process at
//! the latest. Everything that it prints is kept in a file, which explains; what it said of the election is an [`Event`].

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use nix::sys::signal;
use nix::unistd::Pid;
use testbed::Signal;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::event::{Event, EventKind};
use crate::namespace::{Account, ElectionNamespace};

/// Names the operator's binary, if it is not the one that `make build` builds.
pub const BINARY: &str = "SERVICEOFFER_CONTROLLER";
/// Where `make build` leaves the operator's binary.
const BUILT: &str = "target/x86_64-unknown-linux-gnu/release/serviceoffer-controller";

/// Between two questions to a server.
const PAUSE: Duration = Duration::from_millis(20);

/// What a candidate is.
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
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "ours",
            Self::ClientGo => "client-go",
            Self::ControllerRuntime => "controller-runtime",
        }
    }
}

/// The three times that an elector works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// How long others wait after the last renewal.
    pub lease: Duration,
    /// How long a leader tries to renew.
    pub deadline: Duration,
    /// How often it renews, and how often client-go's candidates look.
    pub period: Duration,
}

impl Timing {
    /// 30/20/5: the operator's defaults.
    pub const LONG: Self = Self::of(30, 20, 5);
    /// 15/10/2: the defaults of controller-runtime, and of most Go programs.
    pub const SHORT: Self = Self::of(15, 10, 2);
    /// 6/4/1: for tests that wait for many leases to run out.
    pub const QUICK: Self = Self::of(6, 4, 1);

    /// From whole seconds.
    pub const fn of(lease: u64, deadline: u64, period: u64) -> Self {
        Self {
            lease: Duration::from_secs(lease),
            deadline: Duration::from_secs(deadline),
            period: Duration::from_secs(period),
        }
    }

    /// The margin that the operator's leader keeps between the end of its fence and the end of its lease.
    pub fn guard(self) -> Duration {
        (self.lease / 10).max(Duration::from_secs(1))
    }

    /// The longest time between two looks of a client-go candidate: its period, stretched by up to 1.2 periods by chance.
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

/// What a candidate is started with, apart from its name.
#[derive(Clone, Debug)]
pub struct CandidateOptions {
    /// What it is.
    pub kind: Implementation,
    /// Its times.
    pub timing: Timing,
    /// Whether a peer releases the Lease when it is asked to end. The operator always does.
    pub release: bool,
    /// Arguments beyond those that every candidate of its kind gets.
    pub arguments: Vec<String>,
    /// Variables; a candidate gets no other ones.
    pub environment: Vec<(String, String)>,
    /// A kubeconfig other than that of the candidate's own account.
    pub kubeconfig: Option<PathBuf>,
}

impl CandidateOptions {
    /// A candidate of that kind, which releases its Lease.
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

    /// The same, but it leaves its Lease to run out.
    #[must_use]
    pub fn without_release(self) -> Self {
        Self {
            release: false,
            ..self
        }
    }

    /// The same with one more argument.
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
        .with_context(|| format!("there is no {}: run `make build`", path.display()))
}

/// A candidate that has been started.
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
    /// If it cannot be started; not, if it ends right after.
    pub async fn start(
        namespace: &ElectionNamespace,
        lease: &str,
        identity: &str,
        spec: CandidateOptions,
    ) -> Result<Self> {
        let account = namespace.account(identity).await?;
        let kubeconfig = spec.kubeconfig.as_deref().unwrap_or(&account.kubeconfig);
        let arguments = spec.command_line(namespace, lease, identity, kubeconfig);
        // Ended by the kernel if this process dies before it can end it.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(spec.program()?)
            .args(&arguments);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", kubeconfig);
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
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

    /// Its name in the election, and of its account. A controller-runtime manager chooses another one for the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its name in the audit log.
    pub fn user(&self) -> &str {
        &self.account.user
    }

    /// What it was started with.
    pub fn spec(&self) -> &CandidateOptions {
        &self.spec
    }

    /// What it is.
    pub fn kind(&self) -> Implementation {
        self.spec.kind
    }

    /// When it was started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Its pid on the host, even after its end.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file with everything that it printed.
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

    /// Sends a signal, and answers with the moment before.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<Timestamp> {
        // A process that has not been waited for keeps its pid.
        let pid = self
            .child
            .id()
            .with_context(|| format!("{} has ended", self.identity))?;
        let before = Timestamp::now();
        signal::kill(
            Pid::from_raw(i32::try_from(pid)?),
            signal::Signal::from(signal),
        )
        .with_context(|| format!("{signal:?} to {}", self.identity))?;
        Ok(before)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = timeout(limit, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} still runs after {limit:?}", self.identity))??)
    }

    /// Everything that it has said so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Waits until it says something, or has said it.
    ///
    /// # Errors
    /// If it does not in time, or ends before.
    pub async fn until(&self, limit: Duration, what: impl Fn(&Event) -> bool) -> Result<Event> {
        let mut events = self.events.clone();
        let found = timeout(limit, events.wait_for(|events| events.iter().any(&what))).await;
        let log = self.log.display();
        match found {
            Ok(Ok(events)) => events
                .iter()
                .find(|event| what(event))
                .cloned()
                .context("what was said is gone"),
            Ok(Err(_)) => bail!(
                "{} ended; it said {:?}, see {log}",
                self.identity,
                self.events()
            ),
            Err(_) => bail!(
                "{} did not say it in {limit:?}, but {:?}, see {log}",
                self.identity,
                self.events()
            ),
        }
    }

    /// Waits until it begins to lead at or after that moment.
    ///
    /// # Errors
    /// If it does not in time, or ends before.
    pub async fn leads(&self, since: Timestamp, limit: Duration) -> Result<Timestamp> {
        let event = self
            .until(limit, |event| {
                event.at >= since && event.kind == EventKind::StartedLeading
            })
            .await?;
        Ok(event.at)
    }

    /// Waits until it takes part: it knows a leader, leads, or says that it begins to ask for the Lease.
    ///
    /// # Errors
    /// If it does not in time, or ends before.
    pub async fn joined(&self, limit: Duration) -> Result<()> {
        self.until(limit, |event| event.kind != EventKind::StoppedLeading)
            .await
            .map(drop)
    }

    /// Waits until it could take over and begin to work: it takes part, and the operator's caches are filled.
    ///
    /// # Errors
    /// If it is not in time, or ends before.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        self.joined(limit).await?;
        let Some(admin) = self.argument("--admin-bind") else {
            return Ok(());
        };
        let asked = timeout(limit, async {
            while !matches!(answers(admin, "/readyz").await, Ok(true)) {
                sleep(PAUSE).await;
            }
        });
        asked
            .await
            .with_context(|| format!("{} is not ready after {limit:?}", self.identity))
    }

    /// Waits until it names this candidate as the leader. A manager of controller-runtime names nobody.
    ///
    /// # Errors
    /// If it does not in time, or ends before.
    pub async fn names(
        &self,
        leader: &str,
        since: Timestamp,
        limit: Duration,
    ) -> Result<Timestamp> {
        ensure!(
            self.kind() != Implementation::ControllerRuntime,
            "{} names nobody",
            self.identity
        );
        let named = |event: &Event| {
            event.at >= since && matches!(&event.kind, EventKind::NewLeader(name) if name == leader)
        };
        Ok(self.until(limit, named).await?.at)
    }

    /// Since when it leads, as far as it has said.
    pub fn leading_since(&self) -> Option<Timestamp> {
        leading_since(&self.events.borrow())
    }

    /// Waits until it leads, and says since when.
    ///
    /// # Errors
    /// If it does not in time, or ends before.
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

/// Since when somebody who said this leads.
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

/// Passes every line on.
async fn read(pipe: impl AsyncRead + Unpin, lines: mpsc::UnboundedSender<(Timestamp, String)>) {
    let mut input = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = input.next_line().await {
        if lines.send((Timestamp::now(), line)).is_err() {
            return;
        }
    }
}

/// Keeps every line, and tells the events among them. The events end with the process.
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
        // A log that cannot be written explains less, and is no reason to fail.
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
    }
    let _ = log.flush().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_leads_from_saying_so_until_saying_otherwise() {
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
    fn a_timing_is_written_as_people_say_it() {
        assert_eq!(Timing::LONG.to_string(), "30/20/5");
    }

    #[test]
    fn the_guard_is_a_tenth_of_the_lease_and_a_second_at_least() {
        assert_eq!(Timing::LONG.guard(), Duration::from_secs(3));
        assert_eq!(Timing::QUICK.guard(), Duration::from_secs(1));
    }

    #[test]
    fn client_go_looks_every_5_to_11_seconds_at_a_period_of_5() {
        assert_eq!(Timing::LONG.longest_poll(), Duration::from_secs(11));
    }
}
