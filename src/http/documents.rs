//! Serves registration files from the cache, on every replica and with the same bytes.
//!
//! [`crate::registration::document`] decides what they say.

use std::sync::Arc;

use axum::Router;
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
use crate::api::{AgentRegistration, IdentityRegistry, Key, ServiceOffer};
use crate::cluster::Cache;
use crate::health::Health;
use crate::metrics::{self, Label, Route};
use crate::reconcile::eligibility_of;
use crate::registration::document::{self, Document, ICON_PATH, Listed, MEDIA_TYPE};
use crate::registration::eligibility::Eligibility;
use crate::registration::identity::{address_of, key_of};

/// Default image of an agent.
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="12" fill="#20303c"/><circle cx="32" cy="26" r="10" fill="#9be7c4"/><path d="M12 54c2-12 10-18 20-18s18 6 20 18z" fill="#9be7c4"/></svg>"##;

#[derive(Clone)]
struct Documents {
    cache: Cache,
    health: Arc<Health>,
}

pub(crate) fn router(cache: Cache, health: Arc<Health>, metrics: metrics::HttpMetrics) -> Router {
    counted(routes().with_state(Documents { cache, health }), metrics)
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
    let key = file
        .strip_suffix(".json")
        .and_then(|key| key.parse::<Key>().ok());
    let found = key.and_then(|key| documents.agent(key));
    found.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |document| answer(&document, &headers),
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
    answer(&documents.well_known(host), &headers)
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
        let registry = self.registry_of(&record)?;
        Some(document::agent(
            &record,
            &registry,
            self.listed(&record, &registry)
                .iter()
                .map(ListedOffer::listed)
                .collect(),
        ))
    }

    /// The registry of a record: the first by name, if several objects configure its contract.
    fn registry_of(&self, record: &AgentRegistration) -> Option<Arc<IdentityRegistry>> {
        let mut registries = self.cache.registries();
        registries.retain(|registry| has_record(registry, record));
        registries.sort_by_key(|registry| registry.name_any());
        registries.into_iter().next()
    }

    /// Offers that use the agent of a record, and whether they may be listed.
    fn listed(&self, record: &AgentRegistration, registry: &IdentityRegistry) -> Vec<ListedOffer> {
        let now = Timestamp::now();
        let names = record.spec.offers.iter();
        let offers = names.filter_map(|offer| self.cache.offer(&offer.namespace, &offer.name));
        let using = offers.filter(|offer| key_of(offer, registry) == Some(record.spec.key));
        using
            .map(|offer| ListedOffer {
                eligibility: eligibility_of(&self.cache, &offer, registry, now),
                offer,
            })
            .collect()
    }

    /// Every agent below the requested domain. A host that no registry uses, like the Service's
    /// name inside the cluster, means all registries.
    fn well_known(&self, host: &str) -> Document {
        let mut registries = self.cache.registries();
        registries.sort_by_key(|registry| registry.name_any());
        let matching: Vec<_> = registries
            .iter()
            .filter(|registry| is_host_of(&registry.spec.base_url, host))
            .cloned()
            .collect();
        let registries = if matching.is_empty() {
            registries
        } else {
            matching
        };
        let mut records = self.cache.records();
        records.retain(|record| {
            registries
                .iter()
                .any(|registry| has_record(registry, record))
        });
        let mut offers = Vec::new();
        for record in &records {
            let Some(registry) = registries
                .iter()
                .find(|registry| has_record(registry, record))
            else {
                continue;
            };
            offers.extend(
                self.listed(record, registry)
                    .into_iter()
                    .map(|offer| (registry.clone(), offer)),
            );
        }
        let listed = offers
            .iter()
            .map(|(registry, offer)| (&**registry, offer.listed()))
            .collect();
        let registries: Vec<&IdentityRegistry> =
            registries.iter().map(|registry| &**registry).collect();
        document::well_known(&registries, records.iter().map(|record| &**record), listed)
    }
}

struct ListedOffer {
    offer: Arc<ServiceOffer>,
    eligibility: Eligibility,
}

impl ListedOffer {
    fn listed(&self) -> Listed<'_> {
        Listed {
            offer: &self.offer,
            eligibility: self.eligibility.clone(),
        }
    }
}

fn has_record(registry: &IdentityRegistry, record: &AgentRegistration) -> bool {
    registry.spec.chain_id == record.spec.chain_id
        && address_of(registry) == Some(record.spec.registry.address)
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

fn answer(document: &Document, headers: &HeaderMap) -> Response {
    let Ok((body, tag)) = document.render() else {
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
    let weak = |known: &str| known.trim().trim_start_matches("W/") == tag;
    if known
        .split(',')
        .any(|known| known.trim() == "*" || weak(known))
    {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
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
        answer(&document, &headers.into_iter().collect())
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
