//! Registration files, served by every replica from its cache: the same bytes everywhere, whoever leads.

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
use crate::api::{AgentRegistration, IdentityRegistry, Key};
use crate::cluster::Cache;
use crate::health::Health;
use crate::metrics::{self, Label, Route};
use crate::reconcile::eligibility_of;
use crate::registration::document::{self, Document, ICON_PATH, Listed, MEDIA_TYPE};
use crate::registration::identity::{address_of, key_of};

/// What agents without a picture of their own show.
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="12" fill="#20303c"/><circle cx="32" cy="26" r="10" fill="#9be7c4"/><path d="M12 54c2-12 10-18 20-18s18 6 20 18z" fill="#9be7c4"/></svg>"##;

#[derive(Clone)]
struct Documents {
    cache: Cache,
    health: Arc<Health>,
}

/// The public routes.
pub fn router(cache: Cache, health: Arc<Health>, metrics: metrics::HttpMetrics) -> Router {
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

    /// The registry that a record belongs to: of several objects for one contract, the first by name.
    fn registry_of(&self, record: &AgentRegistration) -> Option<Arc<IdentityRegistry>> {
        let mut registries = self.cache.registries();
        registries.retain(|registry| holds(registry, record));
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

    /// Everything below the domain that was asked for. A name that no registry uses, like that of the Service inside the
    /// cluster, stands for all of them.
    fn well_known(&self, host: &str) -> Document {
        let mut registries = self.cache.registries();
        registries.sort_by_key(|registry| registry.name_any());
        let asked: Vec<_> = registries
            .iter()
            .filter(|registry| is_host_of(&registry.spec.base_url, host))
            .cloned()
            .collect();
        let registries = if asked.is_empty() { registries } else { asked };
        let mut records = self.cache.records();
        records.retain(|record| registries.iter().any(|registry| holds(registry, record)));
        let mut offers = Vec::new();
        for record in &records {
            let Some(registry) = registries.iter().find(|registry| holds(registry, record)) else {
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
    offer: Arc<crate::api::ServiceOffer>,
    eligibility: crate::registration::eligibility::Eligibility,
}

impl ListedOffer {
    fn listed(&self) -> Listed<'_> {
        Listed {
            offer: &self.offer,
            eligibility: self.eligibility.clone(),
        }
    }
}

fn holds(registry: &IdentityRegistry, record: &AgentRegistration) -> bool {
    registry.spec.chain_id == record.spec.chain_id
        && address_of(registry) == Some(record.spec.registry.address)
}

/// Whether a base URL is on a host. Ports do not matter: they are the business of whoever exposes the Service.
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
        // Explorers read documents from pages of their own.
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

/// The cache is being filled: what is not known yet must not look as if it were not there.
fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_one_that_can_be_served() {
        let _ = routes();
    }

    fn asked(known: Option<&str>) -> Response {
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
    fn a_document_comes_with_its_tag_for_every_page_and_never_guessed_at() {
        let response = asked(None);
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
    fn whoever_has_the_document_is_not_sent_it_again() {
        let whole = asked(None);
        let tag = header(&whole, &ETAG).unwrap();
        for known in [
            tag.to_owned(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            "*".to_owned(),
        ] {
            let response = asked(Some(&known));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(
                (header(&response, &ETAG), header(&response, &CONTENT_TYPE)),
                (Some(tag), None)
            );
        }
        for known in ["", "\"other\"", "W/\"other\"", tag.trim_matches('"')] {
            assert_eq!(asked(Some(known)).status(), StatusCode::OK, "{known}");
        }
    }

    #[test]
    fn what_is_not_known_yet_is_asked_for_again() {
        let response = unavailable();
        assert_eq!(
            (response.status(), header(&response, &RETRY_AFTER)),
            (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
        );
    }

    #[test]
    fn a_domain_is_compared_without_scheme_port_path_and_case() {
        for host in ["agents.example", "AGENTS.example:8443"] {
            assert!(is_host_of("https://agents.example/base", host), "{host}");
        }
        assert!(is_host_of("http://agents.example:8080", "agents.example"));
        for host in ["", "example", "other.example", "agents.example.org"] {
            assert!(!is_host_of("https://agents.example", host), "{host}");
        }
    }
}
