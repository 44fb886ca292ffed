//! One fault test: a cluster with the operator's CRDs and RBAC but none of its Pods, a chain behind
//! a recorder, a group of candidates, and load for the leader. It ends with the verdict on
//! everything that the candidates did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use election::campaign::history::AuditHistory;
use election::campaign::recorder::TransactionRecorder;
use election::campaign::verdict::{Allowance, Precondition, Verdict, judge};
use harness::chain::LocalChain;
use harness::objects::{create, delete_if_exists};
use harness::release::Release;
use harness::wait::eventually;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testbed::Audit;

use super::candidate::{CandidateFactory, CandidateOptions, LEASE, Timings};
use super::group::Group;
use super::load::{SHOP, offer_load, update_burst};
use super::table;
use crate::fixture::{TestEnv, block_every_second};
use crate::objects::registry;

/// Timeout of every wait that is not itself a measurement.
const LIMIT: Duration = Duration::from_secs(60);
/// How long registrations may take to complete after the last fault.
const COMPLETION_LIMIT: Duration = Duration::from_secs(240);

/// What RBAC permits candidates to do with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeasePermissions {
    /// As in the chart.
    Full,
    /// No list and watch, as for a client-go controller.
    NoWatch,
}

/// A fault test in progress.
pub struct Campaign {
    fault: String,
    pub env: TestEnv,
    pub chain: LocalChain,
    pub group: Group,
    pub rng: StdRng,
    /// Whether the fault also delays requests that were already sent, and not only the leader.
    pub allowance: Allowance,
    release: Release,
    recorder: Arc<TransactionRecorder>,
    evidence: Mutex<(Audit, AuditHistory)>,
    faults: Mutex<Vec<Timestamp>>,
}

impl Campaign {
    /// Injects faults into a group of three candidates, and asserts the verdict.
    pub fn run(fault: &str, timings: Timings, body: impl AsyncFnOnce(&mut Campaign) + Send) {
        Self::run_with(
            fault,
            timings,
            LeasePermissions::Full,
            Some(CandidateOptions::default()),
            body,
        );
    }

    /// Like [`Self::run`], with these RBAC permissions, and with three candidates of these options
    /// or none at first.
    pub fn run_with(
        fault: &str,
        timings: Timings,
        permissions: LeasePermissions,
        options: Option<CandidateOptions>,
        body: impl AsyncFnOnce(&mut Campaign) + Send,
    ) {
        TestEnv::run(async |env| {
            let mut campaign = Self::prepare(fault, env, timings, permissions).await;
            if let Some(options) = options {
                campaign.group.keep(3, options);
            }
            let load = tokio::spawn(offer_load(campaign.env.objects.clone(), seed()));
            body(&mut campaign).await;
            load.abort();
            campaign.finish().await;
        });
    }

    async fn prepare(
        fault: &str,
        env: TestEnv,
        timings: Timings,
        permissions: LeasePermissions,
    ) -> Self {
        let values = ["replicaCount=0"];
        let (chain, release) = env.prepare(block_every_second(), &values).await;
        let recorder = Arc::new(
            TransactionRecorder::start(chain.anvil.url())
                .await
                .expect("failed to start the recorder"),
        );
        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["rpc"][0]["url"] = json!(format!(
            "http://{}:{}",
            env.cluster.node_ip(),
            recorder.port()
        ));
        env.objects.create_registry(manifest).await;
        env.objects.create_namespace(SHOP, &[]).await;
        grant_permissions(&env, &release, permissions).await;
        let factory = CandidateFactory::new(&env.cluster, release.namespace(), timings)
            .expect("failed to set up the candidate factory");
        let evidence = Mutex::new((
            env.cluster.audit().expect("failed to open the audit log"),
            AuditHistory::of(&factory.users(), LEASE),
        ));
        let group = Group::new(factory, Arc::clone(&recorder));
        let rng = StdRng::seed_from_u64(seed());
        let fault = fault.to_owned();
        let allowance = Allowance::OneEach;
        Self {
            fault,
            env,
            chain,
            group,
            rng,
            allowance,
            release,
            recorder,
            evidence,
            faults: Mutex::default(),
        }
    }

    pub fn namespace(&self) -> &str {
        self.release.namespace()
    }

    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.env.cluster.client(), self.release.namespace())
    }

    /// Records that a fault is injected now.
    pub fn record_fault(&self) -> Timestamp {
        let at = Timestamp::now();
        self.faults.lock().unwrap().push(at);
        at
    }

    /// The user of the candidate that holds the Lease, if it is still running.
    pub fn current_leader(&self) -> Option<String> {
        let leader =
            self.history(|history| history.leader().map(|change| change.writer.clone()))?;
        self.group.running().contains(&leader).then_some(leader)
    }

    /// Waits until a running candidate holds the Lease.
    pub async fn wait_for_leader(&self) -> String {
        eventually("a candidate leads", LIMIT, async || {
            self.current_leader().ok_or("no leader")
        })
        .await
    }

    /// Waits until a running candidate holds the Lease and has renewed it. A renewal shows that the
    /// candidate knows that it leads: one that is stopped before the answer to its acquisition
    /// arrives may hold the Lease and never lead.
    pub async fn wait_for_renewing_leader(&self) -> String {
        eventually("a leader renews its lease", LIMIT, async || {
            let leader = self.current_leader().ok_or("no leader")?;
            let renewed = self.history(|history| history.leader_has_renewed());
            if renewed {
                Ok(leader)
            } else {
                Err("acquired and not yet renewed")
            }
        })
        .await
    }

    /// Waits until the Lease was acquired or renewed after `since`, and returns the candidate that
    /// did so last.
    pub async fn wait_for_leader_since(&self, since: Timestamp) -> String {
        eventually("the lease is held", LIMIT, async || {
            let leader = self.history(|history| {
                history
                    .leader()
                    .filter(|change| change.at >= since)
                    .cloned()
            });
            leader
                .map(|change| change.writer)
                .filter(|leader| self.group.running().contains(leader))
                .ok_or("no leader")
        })
        .await
    }

    /// Waits until another candidate than `of` leads, and returns it and the time of the takeover.
    pub async fn wait_for_successor(&self, of: &str, since: Timestamp) -> (String, Timestamp) {
        eventually("another candidate leads", LIMIT, async || {
            self.history(|history| {
                let changes = history
                    .changes
                    .iter()
                    .filter(|change| change.holds && change.at >= since && change.writer != of);
                changes
                    .min_by_key(|change| change.at)
                    .map(|change| (change.writer.clone(), change.at))
            })
            .ok_or("no leader")
        })
        .await
    }

    /// Waits until a candidate has done what only a leader does, and returns the time of its first
    /// effect.
    pub async fn wait_until_acting(&self, member: &str) -> Timestamp {
        eventually(&format!("{member} acts"), LIMIT, async || {
            let transactions = self.recorder.transactions();
            let effects = self.history(|history| history.effects_with(&transactions));
            let own = effects.into_iter().filter(|effect| effect.writer == member);
            own.map(|effect| effect.at).min().ok_or("not yet")
        })
        .await
    }

    /// The candidates that acquired or renewed the Lease after `since`.
    pub fn leaders_since(&self, since: Timestamp) -> BTreeSet<String> {
        self.history(|history| {
            let changes = history
                .changes
                .iter()
                .filter(|change| change.holds && change.at >= since);
            changes.map(|change| change.writer.clone()).collect()
        })
    }

    /// When this candidate last wrote the Lease before that time.
    fn last_renewal(&self, of: &str, before: Timestamp) -> Timestamp {
        self.history(|history| {
            let changes = history
                .changes
                .iter()
                .filter(|change| change.writer == of && change.holds && change.at < before);
            changes
                .map(|change| change.at)
                .max()
                .expect("the candidate never led")
        })
    }

    /// Waits until a candidate has exited, and returns its exit code: none if a signal killed it.
    pub async fn wait_for_exit(&self, user: &str) -> Option<i32> {
        eventually(&format!("{user} has exited"), LIMIT, async || {
            self.group
                .exited(user)
                .map(|(exit, _)| exit.code())
                .ok_or("not yet")
        })
        .await
    }

    fn history<T>(&self, read: impl FnOnce(&AuditHistory) -> T) -> T {
        let mut evidence = self.evidence.lock().unwrap();
        let (audit, history) = &mut *evidence;
        history.read(&audit.read().expect("failed to read the audit log"));
        read(history)
    }

    /// Waits until every offer is registered, and asserts the verdict on the whole run.
    async fn finish(&self) {
        self.wait_for_leader().await;
        let offers = eventually("the offers are listed", LIMIT, async || {
            let list = self
                .env
                .objects
                .all_offers()
                .list(&ListParams::default())
                .await;
            list.map(|list| list.items.len())
                .map_err(|error| error.to_string())
        })
        .await;
        let agents = self
            .env
            .objects
            .assert_all_registered(&self.chain, offers, COMPLETION_LIMIT)
            .await;
        assert_eq!(agents.len(), offers);
        assert_eq!(
            self.chain.mined_transactions().await.unwrap(),
            offers as u64,
            "no other registration was sent"
        );
        self.assert_nonces_used_once();
        let verdict = self.judge();
        assert!(
            verdict.overlaps.is_empty(),
            "no candidate acted without leading"
        );
        self.print(&verdict);
        let within = verdict.within;
        let (fault, terms) = (&self.fault, verdict.terms.len());
        println!("{fault}: {offers} offers, {terms} terms, {within} effects within their terms");
        assert!(
            within > 50,
            "the leaders did too little to prove anything: {within} effects"
        );
    }

    /// Seconds from the holder's last write to the Lease until this time.
    pub fn since_last_renewal(&self, holder: &str, until: Timestamp) -> f64 {
        until
            .duration_since(self.last_renewal(holder, until))
            .as_secs_f64()
    }

    /// Waits until the leader has many requests in flight.
    pub async fn wait_under_load(&mut self) {
        self.sleep_up_to(Duration::from_millis(500)).await;
        update_burst(&self.env.objects, &mut self.rng);
        self.sleep_up_to(Duration::from_millis(100)).await;
    }

    /// Sleeps for a random part of this time.
    pub async fn sleep_up_to(&mut self, within: Duration) {
        let microseconds = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(
            self.rng.random_range(0..microseconds),
        ))
        .await;
    }

    /// The verdict on the run so far.
    pub fn judge(&self) -> Verdict {
        let transactions = self.recorder.transactions();
        self.history(|history| {
            judge(
                history.changes.clone(),
                history.effects_with(&transactions),
                self.allowance,
            )
        })
    }

    fn print(&self, verdict: &Verdict) {
        let fault = &self.fault;
        for overlap in &verdict.overlaps {
            println!("{fault}: {overlap}");
        }
        for late in &verdict.late {
            println!(
                "{fault}: late: {} {} {} {:?}",
                late.at, late.writer, late.object, late.precondition
            );
        }
        if !verdict.overlaps.is_empty() {
            let directory = self
                .env
                .cluster
                .scratch("campaign")
                .expect("failed to create a directory");
            println!(
                "{fault}: the candidates' logs are in {}",
                directory.display()
            );
        }
        let faults = self.faults.lock().unwrap().clone();
        table::write(fault, &faults, verdict);
    }

    /// Every transaction that a candidate sent was stored in a record before, and all transactions
    /// with one nonce have the same destination and calldata.
    fn assert_nonces_used_once(&self) {
        let transactions = self.recorder.transactions();
        let mut payloads = BTreeMap::<u64, BTreeSet<_>>::new();
        let mut bytes = BTreeSet::new();
        for sending in &transactions {
            let transaction = TxEnvelope::decode_2718(&mut sending.raw.as_ref())
                .expect("failed to decode a transaction");
            payloads
                .entry(transaction.nonce())
                .or_default()
                .insert((transaction.to(), transaction.input().clone()));
            bytes.insert(sending.raw.clone());
        }
        for (nonce, distinct) in &payloads {
            assert_eq!(
                distinct.len(),
                1,
                "all transactions with nonce {nonce} have the same destination and calldata"
            );
        }
        let effects = self.history(|history| history.effects_with(&transactions));
        let unstored = effects.iter().rev().take(transactions.len());
        let unstored: Vec<_> = unstored
            .filter(|effect| effect.precondition != Precondition::StoredBytes)
            .collect();
        assert!(
            unstored.is_empty(),
            "sent without being stored first: {unstored:?}"
        );
        let (sent, nonces, bytes) = (transactions.len(), payloads.len(), bytes.len());
        println!("{sent} transactions were sent for {nonces} nonces, {bytes} of them distinct");
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print(&self.judge());
            for (user, log) in self.group.logs() {
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(15)..];
                println!("--- {user}\n{}", tail.join("\n"));
            }
        }
    }
}

/// Grants all candidates the permissions of the chart's Roles, reduced for the Lease if the test
/// asks for it.
async fn grant_permissions(env: &TestEnv, release: &Release, permissions: LeasePermissions) {
    let client = env.cluster.client();
    let namespace = release.namespace();
    let group = json!([{
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("system:serviceaccounts:{namespace}"),
    }]);
    let binding = |kind: &str, role: &str| {
        json!({
            "metadata": { "name": "campaign" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
            "subjects": group,
        })
    };
    let cluster_role_bindings = Api::<ClusterRoleBinding>::all(client.clone());
    let roles = Api::<Role>::namespaced(client.clone(), namespace);
    let chart_role = eventually("the chart's Role is listed", LIMIT, async || {
        let listed = roles.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| error.to_string())?.items;
        listed.first().cloned().ok_or("no Role".to_owned())
    })
    .await;
    let cluster_role_binding: ClusterRoleBinding =
        serde_json::from_value(binding("ClusterRole", &chart_role.name_any()))
            .expect("the manifest deserializes");
    // A binding that an earlier campaign left has the same subjects, if its namespace has the same
    // name.
    delete_if_exists(&cluster_role_bindings, "campaign")
        .await
        .unwrap();
    create(&cluster_role_bindings, &cluster_role_binding)
        .await
        .unwrap();

    let mut role = Role {
        metadata: Default::default(),
        rules: chart_role.rules,
    };
    role.metadata.name = Some("campaign".to_owned());
    for rule in role.rules.iter_mut().flatten() {
        let leases = rule
            .resources
            .iter()
            .flatten()
            .any(|resource| resource == "leases");
        if leases && rule.resource_names.is_some() {
            rule.resource_names = Some(vec![LEASE.to_owned()]);
            if permissions == LeasePermissions::NoWatch {
                rule.verbs.retain(|verb| verb != "list" && verb != "watch");
            }
        }
    }
    create(&roles, &role).await.unwrap();
    let role_binding: RoleBinding =
        serde_json::from_value(binding("Role", "campaign")).expect("the manifest deserializes");
    let role_bindings = Api::<RoleBinding>::namespaced(client, namespace);
    create(&role_bindings, &role_binding).await.unwrap();
}

/// The seed of all randomness in a campaign.
fn seed() -> u64 {
    std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(4)
}
