//! Pages for people: what a route costs, and what is for sale. Pure.
//!
//! They have no script and load nothing. Every text of an offer is escaped.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::table::{OfferTable, PaidRoute, Published};
use super::terms::Terms;
use super::wire::{self, Resource};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#20303c}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem .4rem 0;border-bottom:1px solid #d5dce1;vertical-align:top}\
code{overflow-wrap:anywhere}";

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn page(title: &str, content: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>{content}</body></html>\n"
    )
}

/// An amount in whole tokens, like `0.002`.
pub(crate) fn whole(terms: &Terms) -> String {
    let digits = terms.amount.to_string();
    let decimals = usize::from(terms.token.decimals);
    let padded = format!("{digits:0>width$}", width = decimals + 1);
    let (whole, fraction) = padded.split_at(padded.len() - decimals);
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// The page of a 402 response.
pub(crate) fn payment_required(terms: &[Terms], resource: Resource<'_>) -> String {
    let mut rows = String::new();
    for terms in terms {
        let _ = write!(
            rows,
            "<tr><td>{} {}</td><td>{}</td><td><code>{}</code></td></tr>",
            whole(terms),
            escaped(&terms.token.name),
            terms.network(),
            terms.pay_to,
        );
    }
    let content = format!(
        "<p>{}</p><table><tr><th>Price</th><th>Network</th><th>Paid to</th></tr>{rows}</table>\
         <p>Request <code>{}</code> with an x402 client: it reads the field PAYMENT-REQUIRED of this response, signs a payment, and sends it.</p>",
        escaped(resource.description),
        escaped(resource.url),
    );
    page("Payment required", &content)
}

/// Offers that a stranger may see: open, and on sale. With the routes that are paid for.
pub(crate) fn on_sale(
    table: &OfferTable,
    now: jiff::Timestamp,
) -> Vec<(&Published, Vec<PaidRoute<'_>>)> {
    let offers = table.published().map(AsRef::as_ref);
    let open = offers.filter(|offer| offer.closed().is_none() && !offer.is_drained(now));
    open.map(|offer| (offer, offer.paid_routes())).collect()
}

/// URL of an offer, below a base if it has none of its own.
pub(crate) fn url(offer: &Published, base: &str) -> String {
    let own = offer.url.clone();
    own.unwrap_or_else(|| format!("{base}{}", offer.prefix))
}

/// The page of everything that is for sale.
pub(crate) fn catalog(table: &OfferTable, base: &str, now: jiff::Timestamp) -> String {
    let mut rows = String::new();
    for (offer, routes) in on_sale(table, now) {
        let mut row = |url: &str, methods: &str, prices: &str| {
            let _ = write!(
                rows,
                "<tr><td>{}/{}</td><td>{}</td><td>{prices}</td><td>{methods} <code>{}</code></td></tr>",
                escaped(&offer.name.0),
                escaped(&offer.name.1),
                escaped(&offer.description),
                escaped(url),
            );
        };
        let url = url(offer, base);
        for route in &routes {
            let prices = route.terms.iter().map(|terms| {
                let token = escaped(&terms.token.name);
                format!("{} {token} on {}", whole(terms), terms.network())
            });
            let methods = route.methods.listed().collect::<Vec<_>>().join(" ");
            let prices = prices.collect::<Vec<_>>().join("<br>");
            row(&format!("{url}{}", route.path), &methods, &prices);
        }
        if routes.is_empty() {
            row(&url, "", "free");
        }
    }
    let content = match rows.is_empty() {
        true => "<p>Nothing is for sale here.</p>".to_owned(),
        false => format!(
            "<table><tr><th>Offer</th><th>What</th><th>Price per request</th><th>URL</th></tr>{rows}</table>"
        ),
    };
    page("For sale", &content)
}

/// `/.well-known/x402`: every paid route with its requirements, once for each of its methods.
pub(crate) fn well_known(table: &OfferTable, base: &str, now: jiff::Timestamp) -> Value {
    let mut resources = Vec::new();
    for (offer, routes) in on_sale(table, now) {
        let url = url(offer, base);
        for route in routes {
            let resource = json!({
                "resource": format!("{url}{}", route.path),
                "type": "http",
                "description": offer.description,
                "x402Version": 2,
                "accepts": wire::requirements(route.terms),
            });
            let mut methods = route.methods.listed().peekable();
            if methods.peek().is_none() {
                // It serves every method.
                resources.push(resource);
                continue;
            }
            resources.extend(methods.map(|method| {
                let mut resource = resource.clone();
                resource["method"] = method.into();
                resource
            }));
        }
    }
    json!({ "x402Version": 2, "resources": resources })
}

/// `/api/services.json`: what is for sale, with the keys of the legacy controller. The price is that
/// of the first paid route; `routes` has those of all.
pub(crate) fn services(table: &OfferTable, base: &str, now: jiff::Timestamp) -> Value {
    let offers = on_sale(table, now).into_iter();
    let entry = |(offer, routes): (&Published, Vec<PaidRoute<'_>>)| {
        let mut entry = json!({
            "name": offer.name.1,
            "namespace": offer.name.0,
            "description": offer.description,
            "endpoint": url(offer, base),
        });
        if let Some(terms) = routes.first().and_then(|route| route.terms.first()) {
            entry["price"] = whole(terms).into();
            entry["priceUnit"] = "request".into();
            entry["priceAtomicUnits"] = terms.amount.to_string().into();
            entry["payTo"] = terms.pay_to.to_string().into();
            entry["network"] = terms.network_name().into();
            entry["caip2Network"] = terms.network().into();
            entry["chainId"] = terms.chain_id.into();
            entry["asset"] = json!({
                "address": terms.token.address.to_string(),
                "decimals": terms.token.decimals,
                "transferMethod": "eip3009",
                "eip712Domain": { "name": terms.token.name, "version": terms.token.version },
            });
        }
        let paid = routes.iter().filter(|route| !route.path.is_empty());
        let paid: Vec<_> = paid
            .map(|route| {
                json!({
                    "path": route.path,
                    "methods": route.methods.listed().collect::<Vec<_>>(),
                    "accepts": wire::requirements(route.terms),
                })
            })
            .collect();
        if !paid.is_empty() {
            entry["routes"] = paid.into();
        }
        if let Some(end) = offer.end {
            entry["drainEndsAt"] = end.to_string().into();
        }
        entry
    };
    offers.map(entry).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::gate::table::tests::{name, sold, table};
    use crate::gate::wire::tests::{RESOURCE, terms};

    const BASE: &str = "http://gate.example";

    fn shown() -> OfferTable {
        let end = json!({ "spec": { "drainAt": "2026-01-01T00:00:00Z" } });
        let free = json!({ "spec": {
            "path": "/free", "routes": [{ "path": "/*", "gate": "free" }], "payment": { "network": "eip155:1" },
        } });
        let closed = json!({ "spec": { "payment": { "network": "eip155:1" } } });
        let hostname = json!({ "spec": { "hostname": "own.example" } });
        table(vec![
            sold("shop", "chat", json!({})),
            sold("shop", "draining", end),
            sold("shop", "free", free),
            sold("shop", "closed", closed),
            sold("shop", "own", hostname),
        ])
    }

    fn names(now: Timestamp) -> Vec<String> {
        let table = shown();
        let offers = on_sale(&table, now).into_iter();
        offers.map(|(offer, _)| offer.name.1.clone()).collect()
    }

    #[test]
    fn only_what_is_on_sale_is_listed() {
        let before = "2026-01-01T00:30:00Z".parse().unwrap();
        assert_eq!(names(before), ["chat", "draining", "free", "own"]);
        let after = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(names(after), ["chat", "free", "own"]);
        assert!(shown().closed(&name("shop", "closed")).is_some());
        assert_eq!(shown().count_open(), 4);
    }

    #[test]
    fn amount_is_written_in_whole_tokens() {
        let amount = |amount: u64, decimals: u8| {
            let mut terms = terms();
            terms.amount = alloy::primitives::U256::from(amount);
            terms.token.decimals = decimals;
            whole(&terms)
        };
        assert_eq!(amount(2000, 6), "0.002");
        assert_eq!(amount(1_500_000, 6), "1.5");
        assert_eq!(amount(2_000_000, 6), "2");
        assert_eq!(amount(7, 0), "7");
    }

    #[test]
    fn texts_of_offers_are_escaped() {
        let resource = Resource {
            url: "https://x/<script>",
            description: "a & \"b\" 'c'\n<img>",
            ..RESOURCE
        };
        let page = payment_required(&[terms()], resource);
        assert!(page.contains("https://x/&lt;script&gt;"), "{page}");
        assert!(
            page.contains("a &amp; &quot;b&quot; &#39;c&#39; &lt;img&gt;"),
            "{page}"
        );
        assert!(
            page.contains("0.002 USDC") && !page.contains("<script"),
            "{page}"
        );
    }

    #[test]
    fn catalog_lists_prices_and_urls() {
        let now = Timestamp::UNIX_EPOCH;
        let page = catalog(&shown(), BASE, now);
        for part in [
            "shop/chat",
            "0.002 USDC on eip155:84532",
            "http://gate.example/services/chat",
            "https://own.example",
            "<td>free</td>",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(catalog(&OfferTable::default(), BASE, now).contains("Nothing is for sale"));
    }

    #[test]
    fn well_known_document_lists_what_is_paid() {
        let now = Timestamp::UNIX_EPOCH;
        let document = well_known(&shown(), BASE, now);
        let resources = document["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 3);
        assert_eq!(
            resources[0]["resource"],
            "http://gate.example/services/chat"
        );
        assert_eq!(resources[0]["accepts"][0]["amount"], "2000");
    }

    /// An offer with two prices, and a free route.
    fn priced() -> OfferTable {
        let routes = json!([
            { "path": "/v1/*", "gate": "paid", "methods": ["GET", "POST"] },
            { "path": "/images", "gate": "paid", "price": { "perRequest": "0.5" } },
            { "path": "/health", "gate": "free" },
        ]);
        table(vec![sold(
            "shop",
            "chat",
            json!({ "spec": { "routes": routes } }),
        )])
    }

    #[test]
    fn well_known_document_lists_every_paid_route_with_its_methods() {
        let document = well_known(&priced(), BASE, Timestamp::UNIX_EPOCH);
        let resources = document["resources"].as_array().unwrap().iter();
        let listed: Vec<_> = resources
            .map(|resource| {
                let part = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
                let amount = resource["accepts"][0]["amount"].as_str().unwrap();
                (part("method"), part("resource"), amount.to_owned())
            })
            .collect();
        let entry = |method: &str, path: &str, amount: &str| {
            let url = format!("http://gate.example/services/chat{path}");
            (method.to_owned(), url, amount.to_owned())
        };
        assert_eq!(
            listed,
            [
                entry("GET", "/v1/*", "2000"),
                entry("POST", "/v1/*", "2000"),
                entry("", "/images", "500000"),
            ]
        );
    }

    #[test]
    fn catalog_and_services_list_the_price_of_every_route() {
        let page = catalog(&priced(), BASE, Timestamp::UNIX_EPOCH);
        for part in [
            "GET POST <code>http://gate.example/services/chat/v1/*</code>",
            "0.5 USDC on eip155:84532",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("/health"), "{page}");
        let services = services(&priced(), BASE, Timestamp::UNIX_EPOCH);
        assert_eq!(services[0]["price"], "0.002");
        let routes = services[0]["routes"].as_array().unwrap();
        assert_eq!((routes.len(), &routes[1]["path"]), (2, &json!("/images")));
        assert_eq!(routes[1]["accepts"][0]["amount"], "500000");
    }

    #[test]
    fn services_have_the_keys_of_the_legacy_controller() {
        let services = services(&shown(), BASE, Timestamp::UNIX_EPOCH);
        let chat = &services[0];
        assert_eq!(
            (&chat["price"], &chat["network"]),
            (&json!("0.002"), &json!("base-sepolia"))
        );
        assert_eq!(chat["asset"]["eip712Domain"]["name"], "USDC");
        assert!(chat["drainEndsAt"].is_null());
        assert_eq!(services[1]["drainEndsAt"], "2026-01-01T01:00:00Z");
    }
}
