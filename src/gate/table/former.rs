//! Terms that a seller has changed: a payment that was signed for them counts for a while, since
//! buyers hold what they were asked for, and gates do not see a change at the same moment. Pure.
//!
//! Only changed terms are honored. A route that is closed, free or gone sells nothing, and a
//! facilitator that its admin has taken away settles nothing.

use std::sync::Arc;

use super::{Access, CompiledRoute, OfferTable, Paid, Published};
use crate::gate::terms::Terms;

/// Seconds for which former terms are honored.
pub(crate) const HONORED: u64 = 60;

/// Terms that a route had before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FormerTerms {
    pub terms: Terms,
    /// Until when a payment for them counts, in Unix seconds.
    pub until: u64,
}

impl Paid {
    /// Former terms that are still honored.
    pub(crate) fn honored(&self, now: u64) -> impl Iterator<Item = &Terms> {
        let former = self.former.iter();
        former
            .filter(move |former| now < former.until)
            .map(|former| &former.terms)
    }

    /// The same with the terms that it had before, if any are honored at `now`.
    fn after(&self, before: &Self, now: u64) -> Option<Self> {
        let is_honored = |terms: &Terms| {
            !self.terms.contains(terms) && self.facilitators.contains_key(&terms.chain_id)
        };
        let older = before.former.iter();
        let older = older.filter(|former| now < former.until && is_honored(&former.terms));
        let changed = before.terms.iter().filter(|terms| is_honored(terms));
        let changed = changed.cloned().map(|terms| FormerTerms {
            terms,
            until: now + HONORED,
        });
        let former: Vec<FormerTerms> = older.cloned().chain(changed).collect();
        (!former.is_empty()).then(|| Self {
            former,
            ..self.clone()
        })
    }
}

impl Access {
    fn after(&self, before: &Self, now: u64) -> Option<Self> {
        let (Self::Paid(Ok(paid)), Self::Paid(Ok(before))) = (self, before) else {
            return None;
        };
        let paid = paid.after(before, now)?;
        Some(Self::Paid(Ok(Arc::new(paid))))
    }
}

impl Published {
    /// The same honoring the terms that it had before; `None` if it does already, as nearly every
    /// offer does at every change of the table.
    fn after(&self, before: &Self, now: u64) -> Option<Self> {
        let own = self.access.after(&before.access, now);
        let route_after = |route: &CompiledRoute| {
            let mut former = before.routes.iter();
            let former = former
                .find(|other| (&other.path, &other.methods) == (&route.path, &route.methods))?;
            route.access.after(&former.access, now)
        };
        let routes: Vec<Option<Access>> = self.routes.iter().map(route_after).collect();
        if own.is_none() && routes.iter().all(Option::is_none) {
            return None;
        }
        let mut offer = self.clone();
        let accesses = offer.routes.iter_mut().map(|route| &mut route.access);
        let accesses = std::iter::once(&mut offer.access).chain(accesses);
        for (access, after) in accesses.zip(std::iter::once(own).chain(routes)) {
            if let Some(after) = after {
                *access = after;
            }
        }
        Some(offer)
    }
}

impl OfferTable {
    /// Honors, at `now` in Unix seconds, the terms that offers had in the table before.
    pub(crate) fn honor(&mut self, before: &Self, now: u64) {
        for (name, offer) in &mut self.published {
            let before = before.published.get(name);
            let before = before.filter(|before| before.uid == offer.uid);
            let Some(honoring) = before.and_then(|before| offer.after(before, now)) else {
                continue;
            };
            *offer = Arc::new(honoring);
            let host = offer.hostname.clone().unwrap_or_default();
            let place = self.places.entry(host).or_default();
            place.insert(offer.prefix.clone(), Arc::clone(offer));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::gate::path::CanonicalPath;
    use crate::gate::table::tests::{sold, table};

    fn priced(price: &str) -> Value {
        json!({ "spec": { "payment": { "price": { "perRequest": price } } } })
    }

    fn selling(over: Value) -> OfferTable {
        table(vec![sold("shop", "chat", over)])
    }

    fn honored(table: &OfferTable, now: u64) -> Vec<String> {
        honored_at(table, "/v1", now)
    }

    /// Amounts that a payment for a path may have at a time.
    fn honored_at(table: &OfferTable, path: &str, now: u64) -> Vec<String> {
        let path = CanonicalPath::new(&format!("/services/chat{path}")).unwrap();
        let served = table.find("", &Method::GET, &path).unwrap();
        let Access::Paid(Ok(paid)) = served.access else {
            return Vec::new();
        };
        let amounts = paid.honored(now).map(|terms| terms.amount.to_string());
        amounts.collect()
    }

    /// What follows a sale at 0.002, ten seconds after the price was 0.001.
    fn after_two_changes(over: Value) -> OfferTable {
        let mut before = selling(json!({}));
        before.honor(&selling(priced("0.001")), 1_000);
        let mut table = selling(over);
        table.honor(&before, 1_010);
        table
    }

    #[test]
    fn former_terms_are_honored_for_a_minute_each() {
        let table = after_two_changes(priced("0.003"));
        assert_eq!(honored(&table, 1_010), ["1000", "2000"]);
        assert_eq!(honored(&table, 1_060), ["2000"]);
        assert!(honored(&table, 1_070).is_empty());
    }

    #[test]
    fn terms_that_are_asked_for_again_are_not_former_ones() {
        assert_eq!(
            honored(&after_two_changes(priced("0.001")), 1_010),
            ["2000"]
        );
        assert_eq!(honored(&after_two_changes(json!({})), 1_010), ["1000"]);
    }

    #[test]
    fn route_that_is_not_sold_honors_nothing() {
        let closed = json!({ "spec": { "payment": { "network": "eip155:1" } } });
        let mut reopened = selling(priced("0.003"));
        reopened.honor(&after_two_changes(closed), 1_020);
        assert!(honored(&reopened, 1_020).is_empty());
        let free = json!({ "spec": { "routes": [{ "path": "/*", "gate": "free" }] } });
        assert!(honored(&after_two_changes(free), 1_020).is_empty());
    }

    #[test]
    fn offer_that_was_created_again_honors_nothing() {
        let mut other = sold("shop", "chat", priced("0.003"));
        other.metadata.uid = Some("another".into());
        let mut other = table(vec![other]);
        other.honor(&selling(json!({})), 1_000);
        assert!(honored(&other, 1_000).is_empty());
    }

    #[test]
    fn price_of_a_route_is_honored_on_that_route() {
        let routes = |price: &str| {
            let own = json!({ "perRequest": price });
            json!({ "spec": { "routes": [
                { "path": "/v1", "price": own },
                { "path": "/v2", "price": { "perRequest": "0.009" } },
            ] } })
        };
        let mut table = selling(routes("0.005"));
        table.honor(&selling(routes("0.004")), 1_000);
        assert_eq!(honored(&table, 1_000), ["4000"]);
        assert!(honored_at(&table, "/v2", 1_000).is_empty());
    }
}
