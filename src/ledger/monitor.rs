//! Looks for ledgers that were rolled back, on every replica, and puts them in quarantine.
//!
//! The replica that remembers a later state may never lead, and the one that leads may remember
//! nothing. So this runs whichever replica leads. What the watches show may lag, so it counts only
//! once it has lasted for a while, and the API server confirms it ([`Store::quarantine`]). A watch
//! may stay silent after the API server was restored: once it has failed, every ledger is read. What
//! proves a rollback is decided in [`super::rollback`].

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use super::Store;
use super::rollback::Suspicion;
use crate::api::{AgentRegistrationSpec, SignerLedger};
use crate::cluster::{self, Cache, CacheChange};
use crate::telemetry::causes;

/// How long the watches may take to agree before their difference is looked into.
const SETTLING: Duration = Duration::from_secs(1);

/// How long a difference that the API server did not confirm is left alone.
const REFUTED: Duration = Duration::from_secs(15);

/// Looks for rollbacks. Returns only once the watches are gone, which ends the process.
pub(crate) async fn run(cache: Cache, store: Store) {
    let mut changes = cache.changes();
    let shown = cache.ledgers();
    store.remember_shown(shown.iter().map(AsRef::as_ref));
    store.note_finalized(shown.iter().map(AsRef::as_ref));
    for registry in cache.registries() {
        store.remember_markers(&registry);
    }
    let mut monitor = Monitor {
        cache,
        store,
        suspected: BTreeSet::new(),
        looked_into: false,
        must_read: false,
    };
    // What the cache showed before this listened was reported to no one, so the first look waits for
    // no change.
    loop {
        sleep(SETTLING).await;
        monitor.look().await;
        if monitor.must_read {
            monitor.read().await;
        }
        if !monitor.notice(&mut changes).await {
            return;
        }
    }
}

struct Monitor {
    cache: Cache,
    store: Store,
    /// What the last look found.
    suspected: BTreeSet<Suspicion>,
    /// Whether any of that was looked into.
    looked_into: bool,
    /// Whether the watch of ledgers failed since they were read.
    must_read: bool,
}

impl Monitor {
    /// Waits until there is something to look at. `false` if there never will be.
    async fn notice(&mut self, changes: &mut Receiver<CacheChange>) -> bool {
        let is_open = self.must_read || !self.suspected.is_empty();
        let pause = if self.looked_into && !self.must_read {
            REFUTED
        } else {
            SETTLING
        };
        let due = Instant::now() + pause;
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = sleep_until(due), if is_open => return true,
            };
            match change {
                Ok(CacheChange::Ledger(name)) => {
                    self.store
                        .remember_shown(self.cache.ledger(&name).as_deref());
                    return true;
                }
                Ok(CacheChange::LedgersInterrupted) | Err(RecvError::Lagged(_)) => {
                    self.must_read = true;
                    return true;
                }
                Ok(CacheChange::Registry(name)) => {
                    if let Some(registry) = self.cache.registry(&name) {
                        self.store.remember_markers(&registry);
                    }
                }
                Ok(CacheChange::Record { .. }) => return true,
                Ok(_) => {}
                Err(RecvError::Closed) => return false,
            }
        }
    }

    /// Looks at what the watches show, and looks into what the last look found as well.
    async fn look(&mut self) {
        let (ledgers, records) = (self.cache.ledgers(), self.cache.records());
        let ledgers: Vec<&SignerLedger> = ledgers.iter().map(AsRef::as_ref).collect();
        let records: Vec<&AgentRegistrationSpec> = records.iter().map(AsRef::as_ref).collect();
        self.store.note_finalized(ledgers.iter().copied());
        let found = self.store.suspicions(&ledgers, &records);
        self.store.remember_shown(ledgers);
        let lasting: Vec<Suspicion> = found.intersection(&self.suspected).cloned().collect();
        self.suspected = found;
        self.looked_into = !lasting.is_empty();
        self.look_into(lasting).await;
    }

    /// Reads every ledger. It is repeated until the API server answers.
    async fn read(&mut self) {
        match self.store.read_all_ledgers().await {
            Ok(suspicions) => {
                self.must_read = false;
                self.look_into(suspicions).await;
            }
            Err(error) => debug!(error = %causes(&error), "the ledgers could not be read"),
        }
    }

    async fn look_into(&self, suspicions: impl IntoIterator<Item = Suspicion>) {
        for suspicion in suspicions {
            quarantine(&self.store, &suspicion).await;
        }
    }
}

/// Puts a ledger in quarantine if the API server confirms that it was rolled back, and reports it.
pub(crate) async fn quarantine(store: &Store, suspicion: &Suspicion) {
    let ledger = suspicion.ledger();
    match store.quarantine(suspicion).await {
        Ok(Some(proof)) => {
            error!(ledger, %proof, "SignerLedger was rolled back and is in quarantine");
        }
        Ok(None) => {}
        // Another replica was first, or the ledger changed: the next look shows which.
        Err(cluster::Error::Conflict) => debug!(ledger, "the suspected ledger was modified"),
        Err(error) => {
            warn!(ledger, error = %causes(&error), "could not verify whether the ledger was rolled back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::sleep;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::api::{AgentRegistration, Nonce, QuarantineReason, RegistrationResult};
    use crate::cluster::cache::fixtures::CachedObjects;
    use crate::cluster::{QuarantineWriter, Reader, Writer};
    use crate::ledger::fixtures::{self, SIGNER, attempt, key, record};

    const PATH: &str = "/apis/obol.org/v1alpha1";

    /// An API server that holds some objects, by path.
    #[derive(Clone, Default)]
    struct ApiServer {
        objects: Arc<Mutex<BTreeMap<String, Value>>>,
        /// What is shown of an object from its second reading on.
        later: Arc<Mutex<BTreeMap<String, Value>>>,
        writes: Arc<Mutex<usize>>,
    }

    impl ApiServer {
        fn hold(&self, plural: &str, object: &impl serde::Serialize) {
            let object = serde_json::to_value(object).unwrap();
            let path = path_of(plural, &object);
            self.objects.lock().unwrap().insert(path, object);
        }

        fn hold_later(&self, plural: &str, object: &impl serde::Serialize) {
            let object = serde_json::to_value(object).unwrap();
            let path = path_of(plural, &object);
            self.later.lock().unwrap().insert(path, object);
        }

        fn ledger(&self) -> SignerLedger {
            let objects = self.objects.lock().unwrap();
            let path = format!("{PATH}/signerledgers/{}", name());
            serde_json::from_value(objects[&path].clone()).unwrap()
        }

        fn writes(&self) -> usize {
            *self.writes.lock().unwrap()
        }

        async fn answer(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            let body = body.collect_bytes().await?;
            let (status, answer) = match head.method {
                Method::GET => self.read(&path),
                _ => self.replace(&path, serde_json::from_slice(&body)?),
            };
            let body = Body::from(serde_json::to_vec(&answer)?);
            Ok(Response::builder().status(status).body(body)?)
        }

        fn read(&self, path: &str) -> (StatusCode, Value) {
            let mut objects = self.objects.lock().unwrap();
            if path.ends_with("/signerledgers") {
                let items: Vec<&Value> = objects
                    .iter()
                    .filter(|(path, _)| path.contains("/signerledgers/"))
                    .map(|(_, object)| object)
                    .collect();
                return (StatusCode::OK, json!({ "metadata": {}, "items": items }));
            }
            let Some(object) = objects.get(path).cloned() else {
                return failure(StatusCode::NOT_FOUND, "NotFound");
            };
            objects.extend(self.later.lock().unwrap().remove_entry(path));
            (StatusCode::OK, object)
        }

        fn replace(&self, path: &str, mut object: Value) -> (StatusCode, Value) {
            let mut objects = self.objects.lock().unwrap();
            let metadata = &objects[path]["metadata"];
            let version = metadata["resourceVersion"].as_str().unwrap().to_owned();
            if object["metadata"]["resourceVersion"] != *version {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
            let generation = metadata["generation"].as_i64().unwrap() + 1;
            object["metadata"]["generation"] = json!(generation);
            object["metadata"]["resourceVersion"] = json!(format!("{version}0"));
            objects.insert(path.to_owned(), object.clone());
            *self.writes.lock().unwrap() += 1;
            (StatusCode::OK, object)
        }

        /// What a replica uses of it.
        fn store(&self) -> Store {
            let server = self.clone();
            let answer = move |request| server.clone().answer(request);
            let client = Client::new(service_fn(answer), "default");
            Store::new(
                Reader::new(client.clone(), "operator".into()),
                Writer::new(client.clone(), "replica".into()),
                QuarantineWriter::new(client),
            )
        }
    }

    fn path_of(plural: &str, object: &Value) -> String {
        let name = object["metadata"]["name"].as_str().unwrap();
        format!("{PATH}/{plural}/{name}")
    }

    fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": reason, "code": code.as_u16(),
        });
        (code, status)
    }

    fn name() -> String {
        SignerLedger::name_of(31337, SIGNER)
    }

    /// The ledger of the fixtures at a generation.
    fn ledger(generation: i64) -> SignerLedger {
        let mut ledger = SignerLedger::new(&name(), fixtures::ledger());
        ledger.metadata.uid = Some("uid".into());
        ledger.metadata.generation = Some(generation);
        ledger.metadata.resource_version = Some(generation.to_string());
        ledger
    }

    /// The record of 'c', whose attempt the ledger lacks.
    fn unaccounted() -> AgentRegistration {
        let spec = AgentRegistrationSpec {
            attempts: vec![attempt(4, 0)],
            ..record('c')
        };
        AgentRegistration::new(&spec.key.record_name(), spec)
    }

    fn shows_less() -> Suspicion {
        Suspicion::ShowsLess { ledger: name() }
    }

    fn lacks_attempt() -> Suspicion {
        let (ledger, key) = (name(), key('c'));
        Suspicion::LacksAttempt { ledger, key }
    }

    fn is_rolled_back(server: &ApiServer) -> bool {
        let quarantine = server.ledger().spec.quarantine;
        quarantine.is_some_and(|found| found.reason == QuarantineReason::Rollback)
    }

    #[tokio::test]
    async fn replica_that_remembers_more_quarantines_the_ledger() {
        let server = ApiServer::default();
        server.hold("signerledgers", &ledger(4));
        let (remembering, fresh) = (server.store(), server.store());
        remembering.remember_shown([&ledger(5)]);
        assert_eq!(fresh.quarantine(&shows_less()).await.unwrap(), None);
        assert_eq!(server.writes(), 0, "it remembers nothing");
        assert_eq!(
            remembering.read_all_ledgers().await.unwrap(),
            [shows_less()].into()
        );
        let proof = remembering.quarantine(&shows_less()).await.unwrap();
        assert!(proof.is_some() && is_rolled_back(&server));
        let stored = server.ledger().spec;
        assert_eq!(
            stored.entries,
            fixtures::ledger().entries,
            "nothing is lost"
        );
        assert_eq!(remembering.quarantine(&shows_less()).await.unwrap(), None);
        assert_eq!(server.writes(), 1, "it is in quarantine already");
    }

    #[tokio::test]
    async fn record_that_knows_more_quarantines_the_ledger() {
        let server = ApiServer::default();
        server.hold("signerledgers", &ledger(4));
        server.hold("agentregistrations", &unaccounted());
        let proof = server.store().quarantine(&lacks_attempt()).await.unwrap();
        assert!(proof.is_some() && is_rolled_back(&server));
    }

    #[tokio::test]
    async fn record_that_is_finished_between_two_readings_proves_nothing() {
        let server = ApiServer::default();
        server.hold("signerledgers", &ledger(4));
        server.hold("agentregistrations", &unaccounted());
        let mut finished = unaccounted();
        finished.spec.result = Some(RegistrationResult {
            agent_id: "1".into(),
            ..fixtures::result(0)
        });
        server.hold_later("agentregistrations", &finished);
        let store = server.store();
        assert_eq!(store.quarantine(&lacks_attempt()).await.unwrap(), None);
        assert_eq!(server.writes(), 0);
    }

    #[tokio::test]
    async fn missing_ledger_is_lost_and_not_rolled_back() {
        let server = ApiServer::default();
        server.hold("agentregistrations", &unaccounted());
        let store = server.store();
        store.remember_shown([&ledger(5)]);
        for suspicion in [shows_less(), lacks_attempt()] {
            assert_eq!(store.quarantine(&suspicion).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn replicas_that_notice_at_once_write_once() {
        let server = ApiServer::default();
        server.hold("signerledgers", &ledger(4));
        let stores = [server.store(), server.store(), server.store()];
        for store in &stores {
            store.remember_shown([&ledger(5)]);
        }
        let suspicion = shows_less();
        let all = stores.iter().map(|store| quarantine(store, &suspicion));
        futures::future::join_all(all).await;
        assert_eq!(server.writes(), 1);
        assert!(is_rolled_back(&server));
    }

    #[tokio::test(start_paused = true)]
    async fn stale_watches_cause_no_quarantine() {
        let server = ApiServer::default();
        let mut newest = ledger(5);
        newest.spec.next = Nonce(9);
        server.hold("signerledgers", &newest);
        let cache = Cache::holding(CachedObjects {
            records: vec![unaccounted()],
            ..CachedObjects::default()
        });
        let mut finished = unaccounted();
        finished.spec.result = Some(fixtures::result(0));
        server.hold("agentregistrations", &finished);
        let store = server.store();
        store.remember_shown([&newest]);
        cache.show_ledger(ledger(4));
        let monitor = tokio::spawn(run(cache.clone(), store));
        sleep(Duration::from_secs(60)).await;
        cache.show_ledger(ledger(3));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(server.writes(), 0);
        assert!(!monitor.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn rollback_is_noticed_once_a_watch_has_failed() {
        let server = ApiServer::default();
        server.hold("signerledgers", &ledger(4));
        let cache = Cache::holding(CachedObjects::default());
        cache.show_ledger(ledger(5));
        tokio::spawn(run(cache.clone(), server.store()));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(server.writes(), 0, "nothing says that anything changed");
        cache.interrupt_ledgers();
        sleep(Duration::from_secs(3)).await;
        assert!(is_rolled_back(&server));
    }

    #[tokio::test(start_paused = true)]
    async fn attempt_that_the_watches_show_is_looked_into() {
        for shown_before in [true, false] {
            let server = ApiServer::default();
            server.hold("signerledgers", &ledger(4));
            server.hold("agentregistrations", &unaccounted());
            let cache = Cache::holding(CachedObjects {
                records: vec![unaccounted()],
                ..CachedObjects::default()
            });
            if shown_before {
                cache.show_ledger(ledger(4));
            }
            tokio::spawn(run(cache.clone(), server.store()));
            sleep(Duration::from_secs(5)).await;
            if !shown_before {
                cache.show_ledger(ledger(4));
                sleep(Duration::from_secs(5)).await;
            }
            assert!(is_rolled_back(&server), "shown before: {shown_before}");
        }
    }
}
