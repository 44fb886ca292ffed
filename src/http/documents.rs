//! Serves registration files from the cache, on every replica and with the same bytes.
//!
//! [`crate::registration::document`] decides what they say. The document of one agent is made for
//! each request. The listing of all agents is kept until something changes: it grows with the
//! number of offers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use kube::ResourceExt;

use super::counted;
use crate::api::{AgentRegistrationSpec, IdentityRegistry, Key};
use crate::cluster::Cache;
use crate::health::Health;
use crate::metrics::{self, Label, Route};
use crate::registration::contract::{Contract, registry_of};
use crate::registration::document::{self, Document, ICON_PATH, Listed, MEDIA_TYPE};
use crate::registration::view::OfferView;

/// How long a listing is served after it was last known to be current, while the next one is built.
const MOST_STALE: Duration = Duration::from_secs(2);
/// How often a listing is built at least while it is asked for.
const REBUILD_EVERY: Duration = Duration::from_secs(5);

/// Default image of an agent.
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="12" fill="#20303c"/><circle cx="32" cy="26" r="10" fill="#9be7c4"/><path d="M12 54c2-12 10-18 20-18s18 6 20 18z" fill="#9be7c4"/></svg>"##;

#[derive(Clone)]
struct Documents {
    cache: Cache,
    health: Arc<Health>,
    listings: Listings,
}

pub(crate) fn router(cache: Cache, health: Arc<Health>, metrics: metrics::HttpMetrics) -> Router {
    let documents = Documents {
        cache,
        health,
        listings: Listings::default(),
    };
    counted(routes().with_state(documents), metrics)
}

/// Whether a path is that of a document that exists, or of all documents.
pub(crate) fn is_document(cache: &Cache, path: &str) -> bool {
    let file = path.strip_prefix("/agents/").unwrap_or_default();
    path == Route::WellKnown.as_str()
        || path == ICON_PATH
        || key_of(file).is_some_and(|key| cache.record(key).is_some())
}

/// The key of the agent whose document a file is.
fn key_of(file: &str) -> Option<Key> {
    file.strip_suffix(".json")?.parse().ok()
}

fn routes() -> Router<Documents> {
    Router::new()
        .route(Route::Agent.as_str(), get(agent))
        .route(Route::WellKnown.as_str(), get(well_known))
        .route(ICON_PATH, get(icon))
        .fallback(async || StatusCode::NOT_FOUND)
}

async fn agent(
    State(documents): State<Documents>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !documents.health.is_synced() {
        return unavailable();
    }
    let found = key_of(&file).and_then(|key| documents.agent(key));
    found.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |document| answer(Rendered::new(&document).as_ref(), &headers),
    )
}

async fn well_known(State(documents): State<Documents>, headers: HeaderMap) -> Response {
    if !documents.health.is_synced() {
        return unavailable();
    }
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    answer(documents.listing(host).await.as_deref(), &headers)
}

async fn icon() -> impl IntoResponse {
    (
        [
            (CONTENT_TYPE, "image/svg+xml"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CACHE_CONTROL, "public, max-age=86400"),
        ],
        ICON,
    )
}

impl Documents {
    fn agent(&self, key: Key) -> Option<Document> {
        let record = self.cache.record(key)?;
        let registries = self.cache.registries();
        let registry = registry_of(Contract::of_record(&record), &registries)?;
        let offers = self.using(&record, &registries);
        Some(document::agent(&record, registry, listed(&offers)))
    }

    /// Views of the offers that use the agent of a record.
    fn using(
        &self,
        record: &AgentRegistrationSpec,
        registries: &[Arc<IdentityRegistry>],
    ) -> Vec<OfferView> {
        let now = Timestamp::now();
        let names = record.offers.iter();
        let offers = names.filter_map(|offer| self.cache.offer(&offer.namespace, &offer.name));
        offers
            .map(|offer| OfferView::among(registries, &self.cache, &offer, now))
            .filter(|view| view.agent().is_some_and(|agent| agent.key == record.key))
            .collect()
    }

    /// The listing for a host. It is built when something changed, by one request; the others get
    /// the last one until then.
    async fn listing(&self, host: &str) -> Option<Arc<Rendered>> {
        let registries = self.cache.registries();
        let is_known = |registry: &Arc<IdentityRegistry>| is_host_of(&registry.spec.base_url, host);
        let host = if registries.iter().any(is_known) {
            host.to_ascii_lowercase()
        } else {
            String::new()
        };
        let choice = self
            .listings
            .choose(&host, self.cache.version(), Instant::now());
        match choice {
            Choice::Serve(kept) => Some(kept),
            Choice::ServeAndBuild(kept) => {
                let documents = self.clone();
                tokio::task::spawn_blocking(move || documents.build(host));
                Some(kept)
            }
            Choice::Build => {
                let documents = self.clone();
                let built = tokio::task::spawn_blocking(move || documents.build(host)).await;
                built.ok().flatten()
            }
        }
    }

    fn build(&self, host: String) -> Option<Arc<Rendered>> {
        // Read first: a change while the listing is built makes it old.
        let version = self.cache.version();
        let rendered = Rendered::new(&self.well_known(&host)).map(Arc::new);
        self.listings
            .built(host, version, rendered.clone(), Instant::now());
        rendered
    }

    /// Every agent below the requested domain. A host that no registry uses, like the Service's
    /// name inside the cluster, means all registries.
    fn well_known(&self, host: &str) -> Document {
        let all = self.cache.registries();
        let mut registries = all.clone();
        registries.sort_by_key(|registry| registry.name_any());
        let is_asked = |registry: &&Arc<IdentityRegistry>| {
            host.is_empty() || is_host_of(&registry.spec.base_url, host)
        };
        let matching: Vec<_> = registries.iter().filter(is_asked).cloned().collect();
        let registries = if matching.is_empty() {
            registries
        } else {
            matching
        };
        let (mut records, mut offers) = (Vec::new(), Vec::new());
        for record in self.cache.records() {
            if let Some(registry) = registry_of(Contract::of_record(&record), &registries) {
                offers.extend(self.using(&record, &all));
                records.push((record, Arc::clone(registry)));
            }
        }
        let shown: Vec<&IdentityRegistry> = registries.iter().map(AsRef::as_ref).collect();
        let records = records
            .iter()
            .map(|(record, registry)| (&**record, &**registry));
        document::well_known(&shown, records, listed(&offers))
    }
}

fn listed(views: &[OfferView]) -> Vec<Listed<'_>> {
    views
        .iter()
        .filter_map(|view| {
            let agent = view.agent()?;
            Some(Listed {
                offer: &view.offer,
                registry: &agent.registry,
                eligibility: agent.eligibility.clone(),
            })
        })
        .collect()
}

/// A document as it is sent.
#[derive(Debug, PartialEq)]
struct Rendered {
    body: Bytes,
    /// Its entity tag.
    tag: String,
}

impl Rendered {
    fn new(document: &Document) -> Option<Self> {
        let (body, tag) = document.render().ok()?;
        let body = body.into();
        Some(Self { body, tag })
    }
}

/// Listings by host. Clones share them.
#[derive(Clone, Debug, Default)]
struct Listings(Arc<Mutex<HashMap<String, Kept>>>);

/// A listing, and how old it is.
#[derive(Debug)]
struct Kept {
    rendered: Arc<Rendered>,
    /// Version of the cache that it was built from.
    version: u64,
    built: Instant,
    /// When it was last known to be current.
    current: Instant,
    is_building: bool,
}

#[derive(Debug, PartialEq)]
enum Choice {
    Serve(Arc<Rendered>),
    /// Serve the last listing and build the next one.
    ServeAndBuild(Arc<Rendered>),
    /// There is no listing that may be served.
    Build,
}

impl Listings {
    /// Which listing to serve while the cache has this version.
    fn choose(&self, host: &str, version: u64, now: Instant) -> Choice {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = all.get_mut(host) else {
            return Choice::Build;
        };
        let rendered = Arc::clone(&kept.rendered);
        // An offer is drained without any change.
        if kept.version == version && now.duration_since(kept.built) < REBUILD_EVERY {
            kept.current = now;
            return Choice::Serve(rendered);
        }
        if now.duration_since(kept.current) >= MOST_STALE {
            return Choice::Build;
        }
        if kept.is_building {
            return Choice::Serve(rendered);
        }
        kept.is_building = true;
        Choice::ServeAndBuild(rendered)
    }

    /// Keeps a listing that was built from this version of the cache.
    fn built(&self, host: String, version: u64, rendered: Option<Arc<Rendered>>, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rendered) = rendered else {
            all.remove(&host);
            return;
        };
        let kept = Kept {
            rendered,
            version,
            built: now,
            current: now,
            is_building: false,
        };
        all.insert(host, kept);
    }
}

/// Whether a base URL is on a host. Ports are ignored: they depend on how the Service is exposed.
fn is_host_of(base_url: &str, host: &str) -> bool {
    let name = |authority: &str| {
        authority
            .rsplit_once(':')
            .map_or(authority, |(name, _)| name)
            .to_ascii_lowercase()
    };
    let authority = base_url
        .split_once("://")
        .map_or(base_url, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or_default();
    name(authority) == name(host)
}

fn answer(rendered: Option<&Rendered>, headers: &HeaderMap) -> Response {
    let Some(Rendered { body, tag }) = rendered else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let common = [
        (ETAG, tag.as_str()),
        (CACHE_CONTROL, "public, no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Explorers fetch documents from other origins.
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .unwrap_or_default();
    let weak = |known: &str| known.trim().trim_start_matches("W/") == *tag;
    if known
        .split(',')
        .any(|known| known.trim() == "*" || weak(known))
    {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, MEDIA_TYPE)], body.clone()).into_response()
}

/// The cache is not synced yet: an agent that is not in it must not be reported as missing.
fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_routes_are_valid() {
        let _ = routes();
    }

    fn get_document(known: Option<&str>) -> Response {
        let document = document::well_known(&[], [], Vec::new());
        let headers = known.map(|known| (IF_NONE_MATCH, known.parse().unwrap()));
        let rendered = Rendered::new(&document);
        answer(rendered.as_ref(), &headers.into_iter().collect())
    }

    fn rendered(body: &'static str) -> Arc<Rendered> {
        let body = Bytes::from_static(body.as_bytes());
        let tag = String::new();
        Arc::new(Rendered { body, tag })
    }

    #[test]
    fn listing_is_served_until_something_changes() {
        let (listings, start) = (Listings::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(listings.choose("a", 1, at(0)), Choice::Build);
        let first = rendered("first");
        listings.built("a".into(), 1, Some(first.clone()), at(0));
        assert_eq!(listings.choose("a", 1, at(4000)), Choice::Serve(first));
        assert_eq!(listings.choose("b", 1, at(0)), Choice::Build);
    }

    #[test]
    fn changed_listing_is_built_once_while_the_last_is_served() {
        let (listings, start) = (Listings::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let first = rendered("first");
        listings.built("a".into(), 1, Some(first.clone()), at(0));
        let choice = listings.choose("a", 2, at(10));
        assert_eq!(choice, Choice::ServeAndBuild(first.clone()));
        assert_eq!(listings.choose("a", 2, at(20)), Choice::Serve(first));
        let second = rendered("second");
        listings.built("a".into(), 2, Some(second.clone()), at(30));
        assert_eq!(
            listings.choose("a", 2, at(40)),
            Choice::Serve(second.clone())
        );
        let drained = listings.choose("a", 2, at(5030));
        assert_eq!(drained, Choice::Build, "it was not asked for in 5 seconds");
        listings.built("a".into(), 2, None, at(5040));
        assert_eq!(listings.choose("a", 2, at(5050)), Choice::Build);
    }

    fn header<'a>(response: &'a Response, name: &axum::http::HeaderName) -> Option<&'a str> {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    #[test]
    fn document_headers_allow_any_origin_and_forbid_sniffing() {
        let response = get_document(None);
        assert_eq!(response.status(), StatusCode::OK);
        let headers = [
            CONTENT_TYPE,
            X_CONTENT_TYPE_OPTIONS,
            CACHE_CONTROL,
            ACCESS_CONTROL_ALLOW_ORIGIN,
        ];
        let sent = headers
            .each_ref()
            .map(|name| header(&response, name).unwrap());
        assert_eq!(sent, [MEDIA_TYPE, "nosniff", "public, no-cache", "*"]);
    }

    #[test]
    fn client_with_the_current_tag_gets_not_modified() {
        let whole = get_document(None);
        let tag = header(&whole, &ETAG).unwrap();
        for known in [
            tag.to_owned(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            "*".to_owned(),
        ] {
            let response = get_document(Some(&known));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(
                (header(&response, &ETAG), header(&response, &CONTENT_TYPE)),
                (Some(tag), None)
            );
        }
        for known in ["", "\"other\"", "W/\"other\"", tag.trim_matches('"')] {
            assert_eq!(
                get_document(Some(known)).status(),
                StatusCode::OK,
                "{known}"
            );
        }
    }

    #[test]
    fn unsynced_cache_answers_unavailable_with_retry_after() {
        let response = unavailable();
        assert_eq!(
            (response.status(), header(&response, &RETRY_AFTER)),
            (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
        );
    }

    #[test]
    fn domain_ignores_scheme_port_path_and_case() {
        for host in ["agents.example", "AGENTS.example:8443"] {
            assert!(is_host_of("https://agents.example/base", host), "{host}");
        }
        assert!(is_host_of("http://agents.example:8080", "agents.example"));
        for host in ["", "example", "other.example", "agents.example.org"] {
            assert!(!is_host_of("https://agents.example", host), "{host}");
        }
    }
}
