//! Which offer answers a request, and on which terms: the table that the gate serves from, compiled
//! from the cache. Pure: the same objects give the same table, in any order.
//!
//! The operator compiles the same table to explain it in conditions. An offer that cannot be sold is
//! closed with the reason, and changes nothing for any other offer. What no offer names is not
//! found, and only a route that says `free` is free.

mod former;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use self::former::FormerTerms;
use super::facilitator::FacilitatorEndpoint;
use super::path::{CanonicalPath, path_of};
use super::proxy::UpstreamAddress;
use super::route::{Methods, Pattern};
use super::terms::{Terms, Unpayable, terms};
use super::wire::{LONGEST_REQUIRED, RenderedTerms, Resource, encoded_length};
use crate::api::{
    FacilitatorSuspend, Gate, IdentityRegistry, Payment, PaymentFacilitator, PriceTable,
    ServiceOffer, TokenFacts, Upstream,
};
use crate::cluster::Cache;
use crate::cluster::cache::{Grant, ServiceFacts, ServiceForm};
use crate::registration::document::public_path;
use crate::registration::eligibility::{Unacceptable, accept, is_allowed};
use crate::registration::view::{OfferName, OfferView};

/// First segments of paths that offers cannot have: they are the gate's own, or those of a public
/// site beside it.
const RESERVED: [&str; 9] = [
    "api",
    "openapi.json",
    "skill.md",
    "rpc",
    ".well-known",
    "auth",
    "agents",
    "healthz",
    "-",
];

/// The media type that buyers are shown of what is sold.
const MIME_TYPE: &str = "application/json";

/// What the table depends on besides the objects of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct GateSettings {
    /// Public URL of the gate, without trailing slash.
    pub public_url: Option<String>,
    /// Namespace of the release: none of its Services is an upstream.
    pub release_namespace: String,
    /// Namespaces whose Services are no upstreams.
    pub denied_namespaces: BTreeSet<String>,
    /// Services that may point anywhere, as namespace and name.
    pub allowed_external_upstreams: BTreeSet<(String, String)>,
}

impl GateSettings {
    /// Path below which the gate is reachable, without trailing slash; empty for the root.
    pub(crate) fn public_path(&self) -> &str {
        base_path(self.public_url.as_deref().unwrap_or_default())
    }
}

/// Path of a base URL, without trailing slash.
fn base_path(base: &str) -> &str {
    path_of(base).unwrap_or_default().trim_end_matches('/')
}

/// Why an offer is not sold. A variant's name is the reason of condition `PaymentGateReady`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
pub(crate) enum Closed {
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    #[error(transparent)]
    Unpayable(#[from] Unpayable),
    #[error(
        "no PaymentFacilitator serves {network}: create one with spec.networks [{network}] and spec.remote.url of a facilitator that you trust"
    )]
    NoFacilitator { network: String },
    #[error(
        "PaymentFacilitator {name} does not admit offers of namespace {namespace}: its spec.allowedNamespaces must select the namespace"
    )]
    FacilitatorNotAllowed { name: String, namespace: String },
    #[error("waiting for PaymentFacilitator {name} to say which payments it settles")]
    WaitingForFacilitator { name: String },
    #[error("the facilitator of PaymentFacilitator {name} does not settle payments on {network}")]
    NetworkNotSupported { name: String, network: String },
    #[error("PaymentFacilitator {name} is suspended")]
    Suspended { name: String },
    #[error(
        "the ways to pay make a 402 response that many clients refuse ({bytes} bytes of {LONGEST_REQUIRED}): list fewer of them in spec.payments"
    )]
    TermsTooLong { bytes: usize },
    #[error("path {path} is not available to offers: set spec.path to one below /services")]
    ReservedPath { path: String },
    #[error("path {path} is not canonical: remove what is escaped, doubled or relative")]
    InvalidPath { path: String },
    #[error("route {path} cannot be matched: use * as a whole segment, or as a part of one")]
    InvalidRoute { path: String },
    #[error("path {path} is taken by the older offer {older}: set spec.path to another one")]
    PathConflict { path: String, older: String },
    #[error("hostname {hostname} is taken by the older offer {older}")]
    HostnameConflict { hostname: String, older: String },
    #[error(
        "hostname {hostname} is that of all offers: set spec.hostname to one of its own, or leave it out"
    )]
    ReservedHostname { hostname: String },
    #[error("the offer names no upstream: set spec.upstream to the Service that answers")]
    MissingUpstream,
    #[error("waiting for Service {service}")]
    WaitingForUpstream { service: String },
    #[error("Service {service} has no TCP port {port}")]
    PortNotFound { service: String, port: u16 },
    #[error("Service {service} cannot be sold: {why}")]
    UpstreamNotAllowed { service: String, why: &'static str },
    #[error(
        "Service {service} is in another namespace, which did not agree: create a ReferenceGrant there from ServiceOffer (group obol.org) of namespace {from}, or annotate the Service with obol.org/offers-from={from}"
    )]
    UpstreamNotGranted { service: String, from: String },
    #[error(
        "every route asks buyers to sign in, which this version does not support: add a route with gate paid or free"
    )]
    SignInNotSupported,
    #[error("another controller sells the offer as well: its condition Stalled says which one")]
    OtherGate,
}

impl Closed {
    /// Reason of the condition.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unacceptable(unacceptable) => unacceptable.reason(),
            Self::Unpayable(unpayable) => unpayable.reason(),
            closed => closed.into(),
        }
    }
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Access {
    Free,
    /// Buyers who have signed in, which this version does not support.
    Auth,
    /// Buyers who pay on these terms, or no one.
    Paid(Result<Arc<Paid>, Closed>),
}

/// What a paid route costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Paid {
    /// In the order of the offer; not empty.
    pub terms: Vec<Terms>,
    /// Facilitators of each chain, in the order of use.
    pub facilitators: BTreeMap<u64, Vec<Arc<FacilitatorEndpoint>>>,
    /// What buyers are asked for.
    pub rendered: RenderedTerms,
    /// Terms that it had before.
    former: Vec<FormerTerms>,
}

#[derive(Clone, Debug, PartialEq)]
struct CompiledRoute {
    path: String,
    pattern: Pattern,
    lower: Pattern,
    methods: Methods,
    access: Access,
}

/// What is paid for, as lists of what is for sale name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaidRoute<'a> {
    /// Pattern of its paths below the URL of the offer; empty for all of them.
    pub path: &'a str,
    pub methods: &'a Methods,
    /// Not empty.
    pub terms: &'a [Terms],
}

/// An offer that has its place in the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Published {
    pub name: OfferName,
    pub uid: String,
    pub generation: i64,
    /// Host name that it answers on; `None`: every one that no offer has.
    pub hostname: Option<String>,
    /// Prefix of its paths, without trailing slash.
    pub prefix: String,
    /// Public URL, without trailing slash, unless it depends on the request.
    pub url: Option<String>,
    pub description: String,
    pub mime_type: &'static str,
    pub upstream: Result<UpstreamAddress, Closed>,
    /// Path that answers while the upstream is healthy.
    pub health_path: String,
    pub requests_per_second: Option<u32>,
    pub max_in_flight: Option<u32>,
    /// When it is no longer sold.
    pub end: Option<Timestamp>,
    pub is_paused: bool,
    /// Ways to pay that are left out, and what else its seller should know.
    pub notices: Vec<String>,
    /// The price of the offer's own terms.
    pub access: Access,
    /// Exhaustive if there are any.
    routes: Vec<CompiledRoute>,
}

impl Published {
    /// Whether the offer is off sale.
    pub(crate) fn is_drained(&self, now: Timestamp) -> bool {
        self.is_paused || self.end.is_some_and(|end| end <= now)
    }

    /// A route that is not sold although others may be, and why.
    pub(crate) fn closed_route(&self) -> Option<(&str, &Closed)> {
        self.routes.iter().find_map(|route| match &route.access {
            Access::Paid(Err(closed)) => Some((route.path.as_str(), closed)),
            _ => None,
        })
    }

    /// What is paid for, in the order of the offer.
    pub(crate) fn paid_routes(&self) -> Vec<PaidRoute<'_>> {
        let whole = ("", Methods::ALL, &self.access);
        let whole = std::iter::once(whole).filter(|_| self.routes.is_empty());
        let routes = self.routes.iter();
        let routes = routes.map(|route| (route.path.as_str(), &route.methods, &route.access));
        let paid = whole.chain(routes).filter_map(|route| match route {
            (path, methods, Access::Paid(Ok(paid))) => Some(PaidRoute {
                path,
                methods,
                terms: &paid.terms,
            }),
            _ => None,
        });
        paid.collect()
    }

    /// Why nothing of it is sold, if so.
    pub(crate) fn closed(&self) -> Option<&Closed> {
        if let Err(closed) = &self.upstream {
            return Some(closed);
        }
        let own = match &self.access {
            Access::Paid(Err(closed)) => Some(closed),
            _ => None,
        };
        let routes = || self.routes.iter().map(|route| &route.access);
        let sells = |access: &Access| matches!(access, Access::Paid(Ok(_)) | Access::Free);
        match self.routes.is_empty() {
            true => own,
            false if routes().any(sells) => None,
            false => own.or_else(|| {
                let mut closed = routes().filter_map(|access| match access {
                    Access::Paid(Err(closed)) => Some(closed),
                    _ => None,
                });
                closed.next().or(Some(&Closed::SignInNotSupported))
            }),
        }
    }

    /// Who may use a path below the prefix. Some upstreams take `/a/`, `/a;b` and `/A` for `/a`: a path
    /// is free only if it is free in every reading, and a general route serves nothing for which a
    /// specific one asks something else.
    fn access(&self, method: &http::Method, rest: &str) -> Result<&Access, NotServed> {
        if self.routes.is_empty() {
            return Ok(&self.access);
        }
        let mut route = served_by(&self.best(rest, |route| &route.pattern), method)?;
        let plain = plain(rest);
        for best in [
            self.best(&plain, |route| &route.pattern),
            self.best(&plain.to_lowercase(), |route| &route.lower),
        ] {
            let is_same = |other: &&CompiledRoute| other.access == route.access;
            if best.is_empty() || best.iter().any(is_same) {
                continue;
            }
            let other = served_by(&best, method)?;
            if route.access == Access::Free {
                route = other;
            } else if other.pattern > route.pattern {
                return Err(NotServed::NotFound);
            }
        }
        Ok(&route.access)
    }

    /// The routes that match a path, as far as none is more specific: a general route must not serve
    /// what a specific one does not allow.
    fn best(
        &self,
        path: &str,
        pattern: impl Fn(&CompiledRoute) -> &Pattern,
    ) -> Vec<&CompiledRoute> {
        let matching = self
            .routes
            .iter()
            .filter(|route| pattern(route).matches(path));
        let Some(best) = matching.clone().map(&pattern).max() else {
            return Vec::new();
        };
        matching
            .filter(|route| pattern(route).cmp(best).is_eq())
            .collect()
    }
}

/// The first of equally specific routes that allows a method.
fn served_by<'a>(
    best: &[&'a CompiledRoute],
    method: &http::Method,
) -> Result<&'a CompiledRoute, NotServed> {
    if best.is_empty() {
        return Err(NotServed::NotFound);
    }
    let mut allowing = best.iter().filter(|route| route.methods.allow(method));
    allowing
        .next()
        .copied()
        .ok_or_else(|| NotServed::MethodNotAllowed {
            allow: Methods::union(best.iter().map(|route| &route.methods)),
        })
}

/// A path without parameters of segments and without a slash at its end.
fn plain(path: &str) -> String {
    let segments = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default());
    let path = segments.collect::<Vec<_>>().join("/");
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// Why no route serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotServed {
    NotFound,
    MethodNotAllowed { allow: String },
}

/// The route of a request.
#[derive(Debug, PartialEq)]
pub(crate) struct Served<'a> {
    pub offer: &'a Arc<Published>,
    pub access: &'a Access,
    /// Path below the offer's prefix: what the upstream is asked for.
    pub rest: String,
}

/// Every offer, by where it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfferTable {
    /// By host name and prefix. The empty host name is every other one.
    places: HashMap<String, HashMap<String, Arc<Published>>>,
    published: BTreeMap<OfferName, Arc<Published>>,
    /// Offers without a place.
    displaced: BTreeMap<OfferName, Closed>,
    /// URLs of RPC endpoints that are no secret, by chain.
    rpc_urls: BTreeMap<u64, Vec<String>>,
    /// Of everything that is served.
    pub digest: String,
}

impl OfferTable {
    /// Offers with a place, by namespace and name.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.published.values()
    }

    /// Number of offers of which anything is sold.
    pub(crate) fn count_open(&self) -> usize {
        let offers = self.published();
        offers.filter(|offer| offer.closed().is_none()).count()
    }

    /// Uids of offers with a place.
    pub(crate) fn uids(&self) -> HashSet<&str> {
        self.published().map(|offer| offer.uid.as_str()).collect()
    }

    /// URLs of the facilitators that payments for offers may be sent to.
    pub(crate) fn facilitator_urls(&self) -> HashSet<&str> {
        let accesses = self.published().flat_map(|offer| {
            let routes = offer.routes.iter().map(|route| &route.access);
            std::iter::once(&offer.access).chain(routes)
        });
        let paid = accesses.filter_map(|access| match access {
            Access::Paid(Ok(paid)) => Some(paid),
            _ => None,
        });
        let facilitators = paid.flat_map(|paid| paid.facilitators.values().flatten());
        facilitators
            .map(|facilitator| facilitator.url.as_str())
            .collect()
    }

    /// Whether a host is an offer's own.
    pub(crate) fn is_offers_host(&self, host: &str) -> bool {
        !host.is_empty() && self.places.contains_key(host)
    }

    /// An offer that has a place.
    pub(crate) fn offer(&self, name: &OfferName) -> Option<&Arc<Published>> {
        self.published.get(name)
    }

    /// Why an offer is not sold, if so.
    pub(crate) fn closed(&self, name: &OfferName) -> Option<&Closed> {
        let displaced = self.displaced.get(name);
        displaced.or_else(|| self.published.get(name)?.closed())
    }

    /// URLs of RPC endpoints of a chain that are no secret.
    pub(crate) fn rpc_urls(&self, chain_id: u64) -> &[String] {
        self.rpc_urls.get(&chain_id).map_or(&[], Vec::as_slice)
    }

    /// Offers that are served or explained otherwise than in another table.
    pub(crate) fn differing(&self, other: &Self) -> Vec<OfferName> {
        let names = |table: &Self| {
            let published = table.published.keys().cloned();
            published
                .chain(table.displaced.keys().cloned())
                .collect::<Vec<_>>()
        };
        let mut all: BTreeSet<OfferName> = names(self).into_iter().collect();
        all.extend(names(other));
        let differs = |name: &OfferName| {
            self.published.get(name) != other.published.get(name)
                || self.displaced.get(name) != other.displaced.get(name)
        };
        all.into_iter().filter(differs).collect()
    }

    /// The route of a request. `host` is in lower case and has no port.
    ///
    /// # Errors
    /// If no offer has this path, or none of its routes has the method.
    pub(crate) fn find(
        &self,
        host: &str,
        method: &http::Method,
        path: &CanonicalPath,
    ) -> Result<Served<'_>, NotServed> {
        let places = self.places.get(host).or_else(|| self.places.get(""));
        let places = places.ok_or(NotServed::NotFound)?;
        let mut prefix = path.as_str().trim_end_matches('/');
        let (offer, rest) = loop {
            if let (Some(offer), Some(rest)) = (places.get(prefix), path.strip_prefix(prefix)) {
                break (offer, rest);
            }
            let Some(end) = prefix.rfind('/') else {
                return Err(NotServed::NotFound);
            };
            prefix = &prefix[..end];
        };
        Ok(Served {
            access: offer.access(method, &rest)?,
            rest,
            offer,
        })
    }
}

/// Compiles the table from what the cache shows.
pub(crate) fn compile(cache: &Cache, settings: &GateSettings) -> OfferTable {
    let compiler = Compiler::new(cache, settings);
    let mut offers = cache.offers();
    offers.retain(|offer| offer.metadata.deletion_timestamp.is_none());
    offers.sort_by_key(|offer| {
        let created = offer.metadata.creation_timestamp.as_ref();
        (
            created.map(|time| time.0),
            offer.namespace(),
            offer.name_any(),
        )
    });
    let mut places = Placements {
        reserved: compiler.own_hosts(),
        ..Placements::default()
    };
    let mut table = OfferTable {
        rpc_urls: rpc_urls(cache),
        ..OfferTable::default()
    };
    for offer in offers {
        let name = (offer.namespace().unwrap_or_default(), offer.name_any());
        let place = place_of(&offer).and_then(|place| places.take(place, &name));
        match place {
            Ok(place) => {
                let published = Arc::new(compiler.publish(&offer, place));
                table.published.insert(name, published);
            }
            Err(closed) => {
                table.displaced.insert(name, closed);
            }
        }
    }
    let mut digest = Sha256::new();
    for (name, offer) in &table.published {
        let host = offer.hostname.clone().unwrap_or_default();
        let place = table.places.entry(host).or_default();
        place.insert(offer.prefix.clone(), Arc::clone(offer));
        digest.update(format!("{name:?}{offer:?}"));
    }
    digest.update(format!("{:?}", table.displaced));
    table.digest = alloy::primitives::hex::encode(digest.finalize());
    table
}

/// RPC endpoints whose URL is in the spec of an IdentityRegistry, in the order of names.
fn rpc_urls(cache: &Cache) -> BTreeMap<u64, Vec<String>> {
    let mut registries = cache.registries();
    registries.sort_by_key(|registry| registry.name_any());
    let mut urls: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for registry in registries {
        let of_chain = urls.entry(registry.spec.chain_id).or_default();
        let own = registry.spec.rpc.iter().filter_map(|rpc| rpc.url.clone());
        for url in own {
            if !of_chain.contains(&url) {
                of_chain.push(url);
            }
        }
    }
    urls
}

/// Where an offer answers.
#[derive(Clone, Debug)]
struct Placement {
    hostname: Option<String>,
    prefix: String,
}

/// Where an offer wants to answer: at the root of its own host name, or below its path everywhere.
fn place_of(offer: &ServiceOffer) -> Result<Placement, Closed> {
    if let Some(hostname) = &offer.spec.hostname {
        return Ok(Placement {
            hostname: Some(hostname.clone()),
            prefix: String::new(),
        });
    }
    let path = public_path(offer);
    let Ok(prefix) = CanonicalPath::new(path.trim_end_matches('/')) else {
        return match path.trim_end_matches('/') {
            "" => Err(Closed::ReservedPath { path }),
            _ => Err(Closed::InvalidPath { path }),
        };
    };
    let is_reserved = prefix
        .segments()
        .next()
        .is_some_and(|first| RESERVED.contains(&first));
    if is_reserved || prefix.as_str() == "/services" {
        return Err(Closed::ReservedPath { path });
    }
    Ok(Placement {
        hostname: None,
        prefix: prefix.as_str().to_owned(),
    })
}

/// Placements that are taken, and by whom.
#[derive(Debug, Default)]
struct Placements {
    /// Host names of all offers.
    reserved: BTreeSet<String>,
    hostnames: HashMap<String, OfferName>,
    prefixes: BTreeMap<String, OfferName>,
}

impl Placements {
    /// Takes a place. Offers come in the order of their age, so the one that has it is older. No offer may
    /// take a path below that of another namespace, or above it.
    fn take(&mut self, place: Placement, name: &OfferName) -> Result<Placement, Closed> {
        let older = |older: &OfferName| format!("{}/{}", older.0, older.1);
        if let Some(hostname) = &place.hostname {
            if self.reserved.contains(&hostname.to_lowercase()) {
                let hostname = hostname.clone();
                return Err(Closed::ReservedHostname { hostname });
            }
            if let Some(taken) = self.hostnames.get(hostname) {
                return Err(Closed::HostnameConflict {
                    hostname: hostname.clone(),
                    older: older(taken),
                });
            }
            self.hostnames.insert(hostname.clone(), name.clone());
            return Ok(place);
        }
        let prefix = &place.prefix;
        let above = prefix
            .match_indices('/')
            .skip(1)
            .map(|(end, _)| &prefix[..end]);
        let above = above.filter_map(|above| self.prefixes.get(above));
        let begin = format!("{prefix}/");
        let below = self.prefixes.range(begin.clone()..);
        let below = below.take_while(|(other, _)| other.starts_with(&begin));
        let mut nested = above.chain(below.map(|(_, owner)| owner));
        let taken = self.prefixes.get(prefix);
        let taken = taken.or_else(|| nested.find(|owner| owner.0 != name.0));
        if let Some(taken) = taken {
            return Err(Closed::PathConflict {
                path: prefix.clone(),
                older: older(taken),
            });
        }
        self.prefixes.insert(prefix.clone(), name.clone());
        Ok(place)
    }
}

/// What every offer is compiled with.
struct Compiler<'a> {
    cache: &'a Cache,
    settings: &'a GateSettings,
    registries: Vec<Arc<IdentityRegistry>>,
    /// In the order of use.
    facilitators: Vec<Arc<PaymentFacilitator>>,
    /// What facilitators know of tokens.
    assets: Vec<TokenFacts>,
}

impl<'a> Compiler<'a> {
    fn new(cache: &'a Cache, settings: &'a GateSettings) -> Self {
        let mut facilitators = cache.facilitators();
        facilitators.retain(|facilitator| facilitator.metadata.deletion_timestamp.is_none());
        facilitators.sort_by_key(|facilitator| (facilitator.spec.priority, facilitator.name_any()));
        let known = facilitators
            .iter()
            .filter_map(|known| known.status.as_ref());
        Self {
            cache,
            settings,
            registries: cache.registries(),
            assets: known.flat_map(|known| known.assets.clone()).collect(),
            facilitators,
        }
    }

    /// Host names under which the gate serves every offer, in lower case.
    fn own_hosts(&self) -> BTreeSet<String> {
        let registries = self.registries.iter();
        let bases = registries.map(|registry| registry.spec.base_url.as_str());
        let bases = bases.chain(self.settings.public_url.as_deref());
        let bases = bases.filter_map(|base| base.parse::<http::Uri>().ok());
        let hosts = bases.filter_map(|base| base.host().map(str::to_lowercase));
        hosts.collect()
    }

    fn publish(&self, offer: &Arc<ServiceOffer>, place: Placement) -> Published {
        let spec = &offer.spec;
        let view = OfferView::among(&self.registries, self.cache, offer, Timestamp::UNIX_EPOCH);
        let accepted = accept(offer).map_err(Closed::from);
        let description = description(offer);
        let mut notices = BTreeSet::new();
        let is_closed = offer.has_other_gate();
        let mut access = |gate: Gate, price: Option<&PriceTable>| match gate {
            _ if is_closed => Access::Paid(Err(Closed::OtherGate)),
            Gate::Free => Access::Free,
            Gate::Auth => Access::Auth,
            Gate::Paid => {
                let paid = accepted
                    .clone()
                    .and_then(|_| self.paid(offer, (price, &description), &mut notices));
                Access::Paid(paid.map(Arc::new))
            }
        };
        let own = access(Gate::Paid, None);
        let routes = spec.routes.iter().map(|route| {
            let price = route
                .price
                .as_ref()
                .filter(|price| **price != PriceTable::default());
            let (pattern, access) = match Pattern::parse(&route.path) {
                Ok(pattern) => (pattern, access(route.gate, price)),
                // What cannot be matched must not be found by a more general route.
                Err(_) => {
                    let path = route.path.clone();
                    let closed = Closed::InvalidRoute { path };
                    (Pattern::everything(), Access::Paid(Err(closed)))
                }
            };
            CompiledRoute {
                path: route.path.clone(),
                lower: pattern.in_lower_case(),
                pattern,
                methods: Methods::of(&route.methods),
                access,
            }
        });
        let routes = routes.collect();
        notices.extend(self.base_path_notice(&view, &place));
        let mut gates = spec.routes.iter().map(|route| route.gate);
        if gates.any(|gate| gate == Gate::Auth) {
            let notice = "SignInNotSupported: routes with gate auth are answered 403";
            notices.insert(notice.to_owned());
        }
        let limit = |limit: fn(&crate::api::OfferLimits) -> Option<u32>| {
            spec.limits
                .as_ref()
                .and_then(limit)
                .filter(|limit| *limit > 0)
        };
        Published {
            uid: offer.uid().unwrap_or_default(),
            generation: offer.metadata.generation.unwrap_or_default(),
            url: self.url(&view, &place),
            hostname: place.hostname,
            prefix: place.prefix,
            description,
            mime_type: MIME_TYPE,
            upstream: self.upstream(&view.name.0, spec.upstream.as_ref()),
            health_path: spec.upstream.as_ref().map_or_else(
                || "/health".to_owned(),
                |upstream| upstream.health_path.clone(),
            ),
            requests_per_second: limit(|limits| limits.rps),
            max_in_flight: limit(|limits| limits.max_in_flight),
            end: accepted.ok().flatten(),
            is_paused: offer.is_paused(),
            notices: notices.into_iter().collect(),
            access: own,
            routes,
            name: view.name,
        }
    }

    /// What a seller should know if the gate is not reachable where the offer's URL points to.
    fn base_path_notice(&self, view: &OfferView, place: &Placement) -> Option<String> {
        let agent = view.agent().filter(|_| place.hostname.is_none())?;
        let (base, own) = (&agent.registry.spec.base_url, self.settings.public_path());
        (base_path(base) != own).then(|| {
            format!(
                "BasePathDiffers: buyers are sent to {base}, the baseUrl of IdentityRegistry {}, and the gate answers below {}/: give both the same path, or let a proxy replace one by the other",
                agent.registry.name_any(),
                own
            )
        })
    }

    /// Public URL of an offer: below its host name, its registry's base URL, or the gate's URL.
    fn url(&self, view: &OfferView, place: &Placement) -> Option<String> {
        let registry = view
            .agent()
            .map(|agent| agent.registry.spec.base_url.as_str());
        let base = registry.or(self.settings.public_url.as_deref());
        match &place.hostname {
            Some(hostname) => {
                let scheme = base.and_then(|base| base.split_once("://"));
                let scheme = scheme.map_or("https", |(scheme, _)| scheme);
                Some(format!("{scheme}://{hostname}"))
            }
            None => Some(format!("{}{}", base?, place.prefix)),
        }
    }

    /// The terms of a price: every way to pay that is possible, in the order of the offer.
    fn paid(
        &self,
        offer: &ServiceOffer,
        (price, description): (Option<&PriceTable>, &str),
        notices: &mut BTreeSet<String>,
    ) -> Result<Paid, Closed> {
        let spec = &offer.spec;
        let payments = match spec.payments.is_empty() {
            true => std::slice::from_ref(&spec.payment),
            false => &spec.payments,
        };
        let namespace = offer.namespace().unwrap_or_default();
        let mut paid = Paid {
            terms: Vec::new(),
            facilitators: BTreeMap::new(),
            rendered: RenderedTerms::default(),
            former: Vec::new(),
        };
        let mut refused = None;
        for payment in payments {
            match self.option(payment, price.unwrap_or(&payment.price), &namespace) {
                Ok((terms, facilitators)) => {
                    if !terms.token.is_verified {
                        notices.insert(format!(
                            "AssetUnverified: no one asked {} for the EIP-712 domain of token {}",
                            terms.network(),
                            terms.token.address
                        ));
                    }
                    paid.facilitators.insert(terms.chain_id, facilitators);
                    paid.terms.push(terms);
                }
                Err(closed) => {
                    if payments.len() > 1 {
                        notices.insert(format!("left out: {closed}"));
                    }
                    refused.get_or_insert(closed);
                }
            }
        }
        if let Some(closed) = refused.filter(|_| paid.terms.is_empty()) {
            return Err(closed);
        }
        paid.rendered = RenderedTerms::of(&paid.terms);
        let resource = Resource {
            url: "",
            description,
            mime_type: MIME_TYPE,
        };
        match encoded_length(&paid.rendered.required(resource, "")) {
            bytes if bytes > LONGEST_REQUIRED => Err(Closed::TermsTooLong { bytes }),
            _ => Ok(paid),
        }
    }

    fn option(
        &self,
        payment: &Payment,
        price: &PriceTable,
        namespace: &str,
    ) -> Result<(Terms, Vec<Arc<FacilitatorEndpoint>>), Closed> {
        let terms = terms(payment, price, &self.assets)?;
        let facilitators = self.facilitators_of(&terms.network(), namespace)?;
        Ok((terms, facilitators))
    }

    /// Facilitators that settle payments of a network for offers of a namespace.
    fn facilitators_of(
        &self,
        network: &str,
        namespace: &str,
    ) -> Result<Vec<Arc<FacilitatorEndpoint>>, Closed> {
        let labels = self.cache.namespace_labels(namespace);
        let mut usable = Vec::new();
        let mut refused = None;
        for facilitator in &self.facilitators {
            let (spec, name) = (&facilitator.spec, facilitator.name_any());
            if !spec.networks.iter().any(|served| served == network) {
                continue;
            }
            let status = facilitator.status.as_ref();
            let kinds = status.map(|status| status.kinds.as_slice());
            let settles = |kinds: &[crate::api::SupportedKind]| {
                let mut kinds = kinds.iter();
                kinds.any(|kind| kind.scheme == "exact" && kind.network == network)
            };
            let closed = if !is_allowed(&spec.allowed_namespaces, labels.as_deref()) {
                let namespace = namespace.to_owned();
                Closed::FacilitatorNotAllowed { name, namespace }
            } else if spec.suspend != FacilitatorSuspend::None {
                Closed::Suspended { name }
            } else if kinds.is_none_or(<[_]>::is_empty) {
                Closed::WaitingForFacilitator { name }
            } else if !kinds.is_some_and(settles) {
                let network = network.to_owned();
                Closed::NetworkNotSupported { name, network }
            } else {
                usable.push(Arc::new(FacilitatorEndpoint::of(facilitator)));
                continue;
            };
            refused.get_or_insert(closed);
        }
        match usable.is_empty() {
            false => Ok(usable),
            true => Err(refused.unwrap_or_else(|| Closed::NoFacilitator {
                network: network.to_owned(),
            })),
        }
    }

    /// Where requests go: the ClusterIP of the Service, never an address that a tenant could choose.
    fn upstream(
        &self,
        namespace: &str,
        upstream: Option<&Upstream>,
    ) -> Result<UpstreamAddress, Closed> {
        let upstream = upstream.ok_or(Closed::MissingUpstream)?;
        let target = (upstream.namespace.clone(), upstream.service.clone());
        let service = format!("{}/{}", target.0, target.1);
        if self.settings.denied_namespaces.contains(&target.0)
            || target.0 == self.settings.release_namespace
            || service == "default/kubernetes"
        {
            let why = "its namespace is that of the operator, of the cluster, or listed in gate.deniedNamespaces";
            return Err(Closed::UpstreamNotAllowed { service, why });
        }
        let Some(facts) = self.cache.service(&target.0, &target.1) else {
            return Err(Closed::WaitingForUpstream { service });
        };
        if target.0 != namespace && !self.is_granted(namespace, &target, &facts) {
            let from = namespace.to_owned();
            return Err(Closed::UpstreamNotGranted { service, from });
        }
        let is_listed = self.settings.allowed_external_upstreams.contains(&target);
        let authority = authority(&facts, upstream.port, is_listed);
        let authority = authority.map_err(|why| Closed::UpstreamNotAllowed {
            service: service.clone(),
            why,
        })?;
        let is_external = matches!(facts.form, ServiceForm::ExternalName(_));
        if !is_external && !facts.ports.contains(&upstream.port) {
            let port = upstream.port;
            return Err(Closed::PortNotFound { service, port });
        }
        Ok(UpstreamAddress {
            authority,
            host: format!("{}.{}", target.1, target.0),
        })
    }

    /// Whether another namespace agreed that offers of this one sell a Service of it.
    fn is_granted(&self, from: &str, (namespace, name): &OfferName, facts: &ServiceFacts) -> bool {
        let is_from = |(group, kind, namespace): &(String, String, String)| {
            let kinds = [
                ("obol.org", "ServiceOffer"),
                ("gateway.networking.k8s.io", "HTTPRoute"),
            ];
            namespace == from && kinds.contains(&(group.as_str(), kind.as_str()))
        };
        let is_to = |(group, kind, to): &(String, String, Option<String>)| {
            group.is_empty() && kind == "Service" && to.as_ref().is_none_or(|to| to == name)
        };
        let grants = |grant: &Grant| grant.from.iter().any(is_from) && grant.to.iter().any(is_to);
        facts.offers_from.contains(from) || self.cache.grants(namespace).iter().any(grants)
    }
}

/// Host and port of a Service, or why it cannot be one's upstream.
fn authority(facts: &ServiceFacts, port: u16, is_listed: bool) -> Result<String, &'static str> {
    match &facts.form {
        _ if !is_listed && !facts.has_selector => Err(
            "it has no selector and may point anywhere: the admin of the gate must list it in gate.allowedExternalUpstreams",
        ),
        ServiceForm::ClusterIp(address) => Ok(SocketAddr::new(*address, port).to_string()),
        ServiceForm::Headless => Err("it is headless (clusterIP: None)"),
        ServiceForm::ExternalName(name) if is_address(name) => {
            Err("its externalName must be a name of another host, not an address")
        }
        ServiceForm::ExternalName(name) => Ok(format!("{name}:{port}")),
    }
}

/// Whether a name stands for an address, or for the gate's own Pod. Addresses that names resolve to
/// are checked when they are called.
fn is_address(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// What an offer sells, in one line.
fn description(offer: &ServiceOffer) -> String {
    let registration = offer.spec.registration.as_ref();
    let written = registration.and_then(|registration| registration.description.clone());
    let model = offer.spec.model.as_ref();
    let text = written.unwrap_or_else(|| match model {
        Some(model) => format!("{} inference", model.name),
        None => format!("{} ({})", offer.name_any(), offer.spec.type_.as_str()),
    });
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(256) {
        line.truncate(end);
    }
    line
}

#[cfg(test)]
pub(crate) mod tests;
