use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::cluster::cache::fixtures::CachedObjects;
use crate::registration::fixtures::{merge, offer, registry};

const PAY_TO: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";

/// A facilitator of Base Sepolia that settles; `over` overrides its fields.
pub(crate) fn facilitator(over: Value) -> PaymentFacilitator {
    let mut facilitator = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "PaymentFacilitator",
        "metadata": { "name": "sepolia", "uid": "uid-sepolia", "generation": 1 },
        "spec": {
            "networks": ["eip155:84532"],
            "remote": { "url": "https://facilitator.example" },
            "allowedNamespaces": { "from": "All" },
        },
        "status": {
            "kinds": [{ "x402Version": 2, "scheme": "exact", "network": "eip155:84532" }],
        },
    });
    merge(&mut facilitator, over);
    serde_json::from_value(facilitator).unwrap()
}

/// An offer of a name in a namespace that sells its backend; `over` overrides its fields.
pub(crate) fn sold(namespace: &str, name: &str, over: Value) -> ServiceOffer {
    let mut whole = json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("{namespace}/{name}") },
        "spec": {
            "upstream": { "service": "backend", "namespace": namespace, "port": 80 },
            "payment": { "payTo": PAY_TO },
            "registration": { "enabled": false },
        },
    });
    merge(&mut whole, over);
    offer(whole)
}

fn objects(offers: Vec<ServiceOffer>) -> CachedObjects {
    CachedObjects {
        offers,
        facilitators: vec![facilitator(json!({}))],
        namespaces: vec!["shop", "other"],
        services: vec![("shop", "backend"), ("other", "backend")],
        ..CachedObjects::default()
    }
}

fn table_of(objects: CachedObjects) -> OfferTable {
    compile(&Cache::holding(objects), &GateSettings::default())
}

pub(crate) fn table(offers: Vec<ServiceOffer>) -> OfferTable {
    table_of(objects(offers))
}

pub(crate) fn name(namespace: &str, name: &str) -> OfferName {
    (namespace.to_owned(), name.to_owned())
}

fn find<'a>(table: &'a OfferTable, method: Method, path: &str) -> Result<Served<'a>, NotServed> {
    table.find("shop.example", &method, &CanonicalPath::new(path).unwrap())
}

/// Reason for which `shop/chat` is closed in a table that also holds these offers.
fn reason(table: &OfferTable) -> Option<&'static str> {
    table.closed(&name("shop", "chat")).map(Closed::reason)
}

fn reason_with(over: Value) -> Option<&'static str> {
    reason(&table(vec![sold("shop", "chat", over)]))
}

#[test]
fn offer_is_served_below_its_path() {
    let table = table(vec![sold("shop", "chat", json!({}))]);
    assert_eq!(reason(&table), None);
    for (path, rest) in [
        ("/services/chat", "/"),
        ("/services/chat/", "/"),
        ("/services/chat/v1/models", "/v1/models"),
    ] {
        let served = find(&table, Method::POST, path).unwrap();
        assert_eq!(
            (served.rest.as_str(), &served.offer.name),
            (rest, &name("shop", "chat"))
        );
        let Access::Paid(Ok(paid)) = served.access else {
            panic!("{:?}", served.access);
        };
        assert_eq!(paid.terms[0].network(), "eip155:84532");
        assert_eq!(paid.facilitators[&84532][0].name, "sepolia");
    }
    let upstream = table
        .offer(&name("shop", "chat"))
        .unwrap()
        .upstream
        .clone()
        .unwrap();
    assert_eq!(upstream.host, "backend.shop");
}

#[test]
fn path_that_no_offer_names_is_not_found() {
    let table = table(vec![sold("shop", "chat", json!({}))]);
    for path in [
        "/",
        "/services",
        "/services/chatty",
        "/services/Chat",
        "/other",
    ] {
        assert_eq!(
            find(&table, Method::GET, path),
            Err(NotServed::NotFound),
            "{path}"
        );
    }
}

#[test]
fn routes_are_exhaustive_and_only_free_is_free() {
    let routes = json!([
        { "path": "/v1/*" },
        { "path": "/v1/models", "methods": ["GET"], "gate": "free" },
        { "path": "/account", "gate": "auth" },
        { "path": "/expensive", "price": { "perRequest": "1" } },
        { "path": "/same", "price": {} },
    ]);
    let table = table(vec![sold(
        "shop",
        "chat",
        json!({ "spec": { "routes": routes } }),
    )]);
    let access = |method, path: &str| {
        find(&table, method, &format!("/services/chat{path}")).map(|served| served.access.clone())
    };
    let amount = |access: Result<Access, NotServed>| match access {
        Ok(Access::Paid(Ok(paid))) => paid.terms[0].amount.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(access(Method::GET, "/v1/models"), Ok(Access::Free));
    assert_eq!(access(Method::HEAD, "/v1/models"), Ok(Access::Free));
    let allow = "GET, HEAD".to_owned();
    let refused = Err(NotServed::MethodNotAllowed { allow });
    assert_eq!(access(Method::POST, "/v1/models"), refused);
    assert_eq!(access(Method::GET, "/account"), Ok(Access::Auth));
    assert_eq!(access(Method::GET, "/elsewhere"), Err(NotServed::NotFound));
    assert_eq!(amount(access(Method::POST, "/v1/chat")), "2000");
    assert_eq!(amount(access(Method::GET, "/expensive")), "1000000");
    assert_eq!(amount(access(Method::GET, "/same")), "2000");
}

#[test]
fn offer_whose_routes_all_ask_to_sign_in_is_closed() {
    let routes = |routes: Value| {
        table(vec![sold(
            "shop",
            "chat",
            json!({ "spec": { "routes": routes } }),
        )])
    };
    let account = json!({ "path": "/account", "gate": "auth" });
    let closed = routes(json!([account]));
    assert_eq!(reason(&closed), Some("SignInNotSupported"));
    let open = routes(json!([account, { "path": "/v1" }]));
    assert_eq!(reason(&open), None);
    let notices = &open.offer(&name("shop", "chat")).unwrap().notices;
    assert!(
        notices
            .iter()
            .any(|own| own.starts_with("SignInNotSupported")),
        "{notices:?}"
    );
}

#[test]
fn path_is_free_only_if_it_is_free_in_every_reading() {
    let routes = json!([{ "path": "/*", "gate": "free" }, { "path": "/admin" }]);
    let table = table(vec![sold(
        "shop",
        "chat",
        json!({ "spec": { "routes": routes } }),
    )]);
    let is_free = |path: &str| {
        let served = find(&table, Method::GET, &format!("/services/chat{path}"));
        *served.unwrap().access == Access::Free
    };
    for path in [
        "/admin",
        "/admin/",
        "/admin;x",
        "/admin;x=/",
        "/admin;/",
        "/ADMIN",
        "/Admin/",
    ] {
        assert!(!is_free(path), "{path}");
    }
    for path in ["/", "/admins", "/a/admin", ""] {
        assert!(is_free(path), "{path}");
    }
}

#[test]
fn general_route_serves_nothing_for_which_a_specific_one_asks_something_else() {
    let expensive = json!({ "perRequest": "1" });
    let routes = json!([
        { "path": "/v1/*" },
        { "path": "/v1/Gpt*", "price": expensive },
        { "path": "/v1/docs/", "price": expensive },
        { "path": "/account", "gate": "auth" },
        { "path": "/*", "gate": "free" },
        { "path": "/jobs", "methods": ["POST"] },
    ]);
    let table = table(vec![sold(
        "shop",
        "chat",
        json!({ "spec": { "routes": routes } }),
    )]);
    let served = |path: &str| {
        let served = find(&table, Method::GET, &format!("/services/chat{path}"));
        served.map(|served| served.access.clone())
    };
    let cheap = served("/v1/other").unwrap();
    let expensive = served("/v1/Gpt4").unwrap();
    assert_ne!(cheap, expensive);
    assert_eq!(served("/v1/other/"), Ok(cheap));
    assert_eq!(served("/v1/docs/"), Ok(expensive));
    for path in ["/v1/Gpt4/", "/v1/GPT4", "/v1/gpt4;x/"] {
        assert_eq!(served(path), Err(NotServed::NotFound), "{path}");
    }
    for path in ["/account", "/account/", "/ACCOUNT;x"] {
        assert_eq!(served(path), Ok(Access::Auth), "{path}");
    }
    for path in ["/jobs", "/jobs/", "/Jobs"] {
        let allow = "POST".to_owned();
        assert_eq!(
            served(path),
            Err(NotServed::MethodNotAllowed { allow }),
            "{path}"
        );
    }
}

#[test]
fn hostname_of_all_offers_belongs_to_no_offer() {
    let own = |hostname: &str| sold("shop", "chat", json!({ "spec": { "hostname": hostname } }));
    let settings = GateSettings {
        public_url: Some("https://Pay.example/base".into()),
        ..GateSettings::default()
    };
    let registry = registry(json!({ "spec": { "baseUrl": "https://agents.example:8443" } }));
    for (hostname, expected) in [
        ("pay.example", Some("ReservedHostname")),
        ("agents.example", Some("ReservedHostname")),
        ("chat.example", None),
    ] {
        let objects = CachedObjects {
            registries: vec![registry.clone()],
            ..objects(vec![own(hostname)])
        };
        let table = compile(&Cache::holding(objects), &settings);
        assert_eq!(reason(&table), expected, "{hostname}");
    }
}

#[test]
fn offer_that_another_controller_sells_is_closed_on_every_route() {
    let stalled = json!({ "type": "Stalled", "status": "True", "reason": "OtherGate" });
    let routes = json!([{ "path": "/paid" }, { "path": "/free", "gate": "free" }]);
    for routes in [json!([]), routes] {
        let over = json!({ "spec": { "routes": routes }, "status": { "conditions": [stalled] } });
        let table = table(vec![sold("shop", "chat", over)]);
        assert_eq!(reason(&table), Some("OtherGate"));
        for path in ["/paid", "/free"] {
            let served = find(&table, Method::GET, &format!("/services/chat{path}")).unwrap();
            assert_eq!(*served.access, Access::Paid(Err(Closed::OtherGate)));
        }
    }
}

#[test]
fn offer_with_a_hostname_answers_on_it_alone() {
    let over = json!({ "spec": { "hostname": "chat.example" } });
    let table = table(vec![sold("shop", "chat", over)]);
    let path = CanonicalPath::new("/v1").unwrap();
    let served = table.find("chat.example", &Method::GET, &path).unwrap();
    assert_eq!(served.rest, "/v1");
    assert_eq!(served.offer.url.as_deref(), Some("https://chat.example"));
    let path = CanonicalPath::new("/services/chat").unwrap();
    assert_eq!(
        table.find("shop.example", &Method::GET, &path),
        Err(NotServed::NotFound)
    );
    assert!(table.is_offers_host("chat.example"));
    assert!(!table.is_offers_host("shop.example"));
    let elsewhere = self::table(vec![sold("shop", "chat", json!({}))]);
    assert!(!elsewhere.is_offers_host(""));
}

#[test]
fn facilitators_are_those_of_what_is_sold() {
    let named = |name: &str, network: &str| {
        facilitator(json!({
            "metadata": { "name": name },
            "spec": {
                "networks": [network],
                "remote": { "url": format!("https://{name}.example") },
            },
            "status": {
                "kinds": [{ "x402Version": 2, "scheme": "exact", "network": network }],
            },
        }))
    };
    let urls = |offers| {
        let mut objects = objects(offers);
        objects.facilitators = vec![
            named("first", "eip155:84532"),
            named("second", "eip155:84532"),
            named("elsewhere", "eip155:8453"),
        ];
        let table = table_of(objects);
        let mut urls: Vec<_> = table
            .facilitator_urls()
            .into_iter()
            .map(str::to_owned)
            .collect();
        urls.sort();
        urls
    };
    let both = ["https://first.example", "https://second.example"];
    assert_eq!(urls(vec![sold("shop", "chat", json!({}))]), both);
    let routes =
        json!({ "spec": { "routes": [{ "path": "/paid" }, { "path": "/*", "gate": "free" }] } });
    assert_eq!(urls(vec![sold("shop", "chat", routes)]), both);
    let closed = json!({ "spec": { "payment": { "network": "eip155:10" } } });
    assert!(urls(vec![sold("shop", "chat", closed)]).is_empty());
    assert!(urls(Vec::new()).is_empty());
}

#[test]
fn uids_are_those_of_offers_with_a_place() {
    let displaced = json!({
        "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "path": "/services/chat" },
    });
    let table = table(vec![
        sold("shop", "chat", json!({})),
        sold("other", "chat", displaced),
    ]);
    assert_eq!(table.uids().len(), 1);
    let winner = table.published().next().unwrap();
    assert!(table.uids().contains(winner.uid.as_str()));
}

#[test]
fn url_is_that_of_hostname_registry_or_gate() {
    let url = |over: Value, registries: Vec<IdentityRegistry>, public: Option<&str>| {
        let objects = CachedObjects {
            registries,
            ..objects(vec![sold("shop", "chat", over)])
        };
        let settings = GateSettings {
            public_url: public.map(str::to_owned),
            ..GateSettings::default()
        };
        let table = compile(&Cache::holding(objects), &settings);
        table.offer(&name("shop", "chat")).unwrap().url.clone()
    };
    let registered = || json!({ "spec": { "registration": { "enabled": true } } });
    let gate = Some("http://gate.example");
    assert_eq!(
        url(registered(), vec![registry(json!({}))], gate).as_deref(),
        Some("https://agents.example/services/chat")
    );
    assert_eq!(
        url(json!({}), vec![], gate).as_deref(),
        Some("http://gate.example/services/chat")
    );
    assert_eq!(url(json!({}), vec![], None), None);
    let hostname = json!({ "spec": { "hostname": "chat.example" } });
    assert_eq!(
        url(hostname, vec![], gate).as_deref(),
        Some("http://chat.example")
    );
}

#[test]
fn base_url_with_another_path_than_the_gate_is_a_notice() {
    let notices = |base_url: &str, public: Option<&str>| {
        let over = json!({ "spec": { "registration": { "enabled": true } } });
        let objects = CachedObjects {
            registries: vec![registry(json!({ "spec": { "baseUrl": base_url } }))],
            ..objects(vec![sold("shop", "chat", over)])
        };
        let settings = GateSettings {
            public_url: public.map(str::to_owned),
            ..GateSettings::default()
        };
        let table = compile(&Cache::holding(objects), &settings);
        let notices = &table.offer(&name("shop", "chat")).unwrap().notices;
        let found = notices.iter().any(|own| own.contains("BasePathDiffers"));
        (found, reason(&table))
    };
    for (base_url, public, differs) in [
        ("https://agents.example", None, false),
        (
            "https://agents.example",
            Some("https://gate.example"),
            false,
        ),
        (
            "https://agents.example/x",
            Some("https://gate.example/x"),
            false,
        ),
        ("https://agents.example/x", None, true),
        (
            "https://agents.example",
            Some("https://gate.example/x"),
            true,
        ),
        (
            "https://agents.example/y",
            Some("https://gate.example/x"),
            true,
        ),
    ] {
        let found = notices(base_url, public);
        assert_eq!(found, (differs, None), "{base_url} {public:?}");
    }
}

#[test]
fn younger_offer_of_a_taken_place_is_closed_and_names_the_older() {
    let at = |second: u32| json!(format!("2026-01-01T00:00:{second:02}Z"));
    let placed = |namespace: &str, offer: &str, second, path: &str| {
        let metadata = json!({ "creationTimestamp": at(second) });
        sold(
            namespace,
            offer,
            json!({ "metadata": metadata, "spec": { "path": path } }),
        )
    };
    for (path, other, conflicts) in [
        ("/a", "/a", true),
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a/b", "/a", true),
        ("/a", "/ab", false),
    ] {
        let offers = vec![
            placed("other", "first", 1, other),
            placed("shop", "chat", 2, path),
        ];
        for offers in [offers.clone(), offers.into_iter().rev().collect()] {
            let table = table(offers);
            let expected = conflicts.then_some("PathConflict");
            assert_eq!(reason(&table), expected, "{path} {other}");
            assert_eq!(table.closed(&name("other", "first")), None);
            if let Some(closed) = table.closed(&name("shop", "chat")) {
                assert!(closed.to_string().contains("other/first"), "{closed}");
            }
        }
    }
    let nested = table(vec![
        placed("shop", "first", 1, "/a"),
        placed("shop", "chat", 2, "/a/b"),
    ]);
    assert_eq!(reason(&nested), None);
    let found = find(&nested, Method::GET, "/a/b/c").unwrap();
    assert_eq!(
        (&found.offer.name.1, found.rest.as_str()),
        (&"chat".to_owned(), "/c")
    );
    let hosts = |second| {
        json!({
            "metadata": { "creationTimestamp": at(second) }, "spec": { "hostname": "chat.example" },
        })
    };
    let hosts = table(vec![
        sold("other", "first", hosts(1)),
        sold("shop", "chat", hosts(2)),
    ]);
    assert_eq!(reason(&hosts), Some("HostnameConflict"));
}

#[test]
fn order_of_objects_does_not_change_the_table() {
    let offers: Vec<_> = (0..12)
        .map(|index| {
            let namespace = ["shop", "other"][index % 2];
            let path = format!("/{}", ["a", "a/b", "c", "c/d/e", "f"][index % 5]);
            sold(
                namespace,
                &format!("offer-{index}"),
                json!({ "spec": { "path": path } }),
            )
        })
        .collect();
    let expected = table(offers.clone()).digest;
    let mut shuffled = offers;
    for index in 0..200 {
        let length = shuffled.len();
        shuffled.swap(index % length, (index * 7 + 3) % length);
        assert_eq!(table(shuffled.clone()).digest, expected);
    }
}

#[test]
fn bad_offer_changes_nothing_for_others() {
    let good = || sold("shop", "good", json!({}));
    let alone = table(vec![good()]);
    let bad = sold(
        "shop",
        "chat",
        json!({ "spec": { "payment": { "payTo": null } } }),
    );
    let both = table(vec![bad, good()]);
    assert_eq!(reason(&both), Some("NotSupported"));
    let good = name("shop", "good");
    assert_eq!(both.offer(&good), alone.offer(&good));
    assert_eq!(both.differing(&alone), [name("shop", "chat")]);
}

#[test]
fn each_of_ten_thousand_offers_is_found_beside_a_bad_one() {
    const OFFERS: usize = 10_000;
    let bad = [
        json!({ "payment": { "payTo": null } }),
        json!({ "routes": [{ "path": "a//b" }] }),
        json!({ "path": "/api/x" }),
    ];
    let is_bad = |index: usize| index % 3000 == 1500;
    let offers = (0..OFFERS).map(|index| {
        let spec = match is_bad(index) {
            true => bad[index / 3000 % 3].clone(),
            false => json!({}),
        };
        let namespace = ["shop", "other"][index % 2];
        sold(
            namespace,
            &format!("offer-{index}"),
            json!({ "spec": spec }),
        )
    });
    let objects = objects(offers.collect());
    let begun = std::time::Instant::now();
    let table = table_of(objects);
    println!("{OFFERS} offers compiled in {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    for index in 0..OFFERS {
        let own = name(["shop", "other"][index % 2], &format!("offer-{index}"));
        assert_eq!(table.closed(&own).is_some(), is_bad(index), "{own:?}");
        let path = format!("/services/offer-{index}/v1/models");
        let served = find(&table, Method::GET, &path);
        let is_sold = served.as_ref().is_ok_and(|served| {
            assert_eq!((&served.offer.name, &*served.rest), (&own, "/v1/models"));
            matches!(served.access, Access::Paid(Ok(_)))
        });
        assert_eq!(is_sold, !is_bad(index), "{served:?}");
    }
    println!("and found in {:?}", begun.elapsed());
    assert_eq!(
        find(&table, Method::GET, "/services/offer-10000"),
        Err(NotServed::NotFound)
    );
    assert_eq!(table.uids().len(), OFFERS - 1, "one has no place");
}

#[test]
fn path_that_offers_cannot_have_is_refused() {
    for path in [
        "/",
        "/api",
        "/api/x",
        "/.well-known/x",
        "/agents/x",
        "/services",
        "/-/x",
    ] {
        assert_eq!(
            reason_with(json!({ "spec": { "path": path } })),
            Some("ReservedPath"),
            "{path}"
        );
    }
    for path in ["//a", "/a/../b", "/a/."] {
        assert_eq!(
            reason_with(json!({ "spec": { "path": path } })),
            Some("InvalidPath"),
            "{path}"
        );
    }
    let routes = json!([{ "path": "/a/../b", "gate": "free" }]);
    assert_eq!(
        reason_with(json!({ "spec": { "routes": routes } })),
        Some("InvalidRoute")
    );
}

#[test]
fn offer_that_cannot_be_sold_says_what_to_change() {
    for (over, expected) in [
        (
            json!({ "payment": { "payTo": "0x90f79bf6EB2c4f870365E785982E1f101E93b906" } }),
            "InvalidPayTo",
        ),
        (
            json!({ "payment": { "network": "eip155:1" } }),
            "NoFacilitator",
        ),
        (
            json!({ "payment": { "price": { "perRequest": "0.0000001" } } }),
            "PriceTooFine",
        ),
        (
            json!({ "payment": { "price": { "perRequest": null, "perHour": "1" } } }),
            "NoRequestPrice",
        ),
        (
            json!({ "type": "skill", "upstream": null, "skill": { "name": "s", "version": "1", "sha256": "0", "bundleConfigMap": "b" } }),
            "MissingUpstream",
        ),
        (
            json!({ "upstream": { "service": "gone" } }),
            "WaitingForUpstream",
        ),
        (json!({ "upstream": { "port": 81 } }), "PortNotFound"),
        (
            json!({ "upstream": { "namespace": "other" } }),
            "UpstreamNotGranted",
        ),
        (
            json!({ "upstream": { "namespace": "kube-system", "service": "kube-dns" } }),
            "WaitingForUpstream",
        ),
        (
            json!({ "upstream": { "namespace": "default", "service": "kubernetes" } }),
            "UpstreamNotAllowed",
        ),
    ] {
        let found = reason_with(json!({ "spec": over.clone() }));
        assert_eq!(found, Some(expected), "{over}");
    }
}

#[test]
fn facilitator_must_settle_for_the_network_and_the_namespace() {
    let with = |facilitators: Vec<PaymentFacilitator>| {
        let objects = CachedObjects {
            facilitators,
            ..objects(vec![sold("shop", "chat", json!({}))])
        };
        table_of(objects)
    };
    for (over, expected) in [
        (json!({ "status": null }), "WaitingForFacilitator"),
        (
            json!({ "status": { "kinds": [] } }),
            "WaitingForFacilitator",
        ),
        (
            json!({ "status": { "kinds": [{ "x402Version": 2, "scheme": "upto", "network": "eip155:84532" }] } }),
            "NetworkNotSupported",
        ),
        (json!({ "spec": { "suspend": "Settling" } }), "Suspended"),
        (
            json!({ "spec": { "networks": ["eip155:1"] } }),
            "NoFacilitator",
        ),
        (
            json!({ "spec": { "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "a": "b" } } } } }),
            "FacilitatorNotAllowed",
        ),
        (
            json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            "NoFacilitator",
        ),
    ] {
        let table = with(vec![facilitator(over.clone())]);
        assert_eq!(reason(&table), Some(expected), "{over}");
    }
    let named = |name: &str, priority: u32| {
        facilitator(json!({ "metadata": { "name": name }, "spec": { "priority": priority } }))
    };
    let table = with(vec![named("c", 5), named("b", 7), named("a", 7)]);
    let Access::Paid(Ok(paid)) = &table.offer(&name("shop", "chat")).unwrap().access else {
        panic!();
    };
    let order: Vec<_> = paid.facilitators[&84532]
        .iter()
        .map(|used| used.name.as_str())
        .collect();
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn way_to_pay_that_is_impossible_is_left_out() {
    let payments = json!([
        { "network": "eip155:1", "payTo": PAY_TO, "price": { "perRequest": "1" } },
        { "network": "base-sepolia", "payTo": PAY_TO, "price": { "perRequest": "2" } },
    ]);
    let table = table(vec![sold(
        "shop",
        "chat",
        json!({ "spec": { "payments": payments } }),
    )]);
    let offer = table.offer(&name("shop", "chat")).unwrap();
    assert_eq!(offer.closed(), None);
    let Access::Paid(Ok(paid)) = &offer.access else {
        panic!();
    };
    assert_eq!(paid.terms.len(), 1);
    let notices = offer.notices.join("\n");
    assert!(
        notices.contains("left out: no PaymentFacilitator serves eip155:1"),
        "{notices}"
    );
    assert!(notices.contains("AssetUnverified"), "{notices}");
}

#[test]
fn token_that_was_asked_needs_no_notice() {
    let mut objects = objects(vec![sold("shop", "chat", json!({}))]);
    let usdc = json!({
        "network": "eip155:84532", "address": "0x036cbd53842c5426634e7929541ec2318f3dcf7e", "name": "USDC",
        "version": "2", "decimals": 6,
        "domainSeparator": "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
    });
    objects.facilitators = vec![facilitator(json!({ "status": { "assets": [usdc] } }))];
    let table = table_of(objects);
    assert_eq!(reason(&table), None);
    let offer = table.offer(&name("shop", "chat")).unwrap();
    assert!(offer.notices.is_empty(), "{:?}", offer.notices);
}

#[test]
fn limit_of_zero_is_none() {
    let limits = json!({ "rps": 0, "maxInFlight": 7 });
    let over = json!({ "spec": { "limits": limits } });
    let table = table(vec![sold("shop", "chat", over)]);
    let offer = table.offer(&name("shop", "chat")).unwrap();
    assert_eq!(
        (offer.requests_per_second, offer.max_in_flight),
        (None, Some(7))
    );
}

#[test]
fn drained_or_paused_offer_is_off_sale() {
    let times = json!({ "drainAt": "2026-01-01T00:00:00Z", "drainGracePeriod": "1h" });
    let drained = table(vec![sold("shop", "chat", json!({ "spec": times }))]);
    let offer = drained.offer(&name("shop", "chat")).unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert!(!offer.is_drained(at("2026-01-01T00:59:59Z")));
    assert!(offer.is_drained(at("2026-01-01T01:00:00Z")));
    let paused = json!({ "metadata": { "annotations": { "obol.org/paused": "true" } } });
    let paused = table(vec![sold("shop", "chat", paused)]);
    assert!(paused.offer(&name("shop", "chat")).unwrap().is_paused);
}

#[test]
fn upstream_of_another_namespace_needs_its_consent() {
    let over = json!({ "spec": { "upstream": { "namespace": "other" } } });
    let offers = || vec![sold("shop", "chat", over.clone())];
    let granted = |from: (&str, &str, &str), to: (&str, &str, Option<&str>)| {
        let own = |text: &str| text.to_owned();
        let grant = Grant {
            from: vec![(own(from.0), own(from.1), own(from.2))],
            to: vec![(own(to.0), own(to.1), to.2.map(own))],
        };
        let cache = Cache::holding(objects(offers()));
        cache.show_grant("other", "grant", grant);
        reason(&compile(&cache, &GateSettings::default()))
    };
    let offer = ("obol.org", "ServiceOffer", "shop");
    let service = ("", "Service", None);
    assert_eq!(granted(offer, service), None);
    assert_eq!(granted(offer, ("", "Service", Some("backend"))), None);
    assert_eq!(
        granted(("gateway.networking.k8s.io", "HTTPRoute", "shop"), service),
        None
    );
    let refused = Some("UpstreamNotGranted");
    assert_eq!(
        granted(("obol.org", "ServiceOffer", "third"), service),
        refused
    );
    assert_eq!(granted(("obol.org", "HTTPRoute", "shop"), service), refused);
    assert_eq!(granted(offer, ("", "Service", Some("database"))), refused);
    assert_eq!(granted(offer, ("", "Secret", None)), refused);
    let cache = Cache::holding(objects(offers()));
    cache.show_service("other", "backend", |facts| {
        facts.offers_from.insert("shop".to_owned());
    });
    assert_eq!(reason(&compile(&cache, &GateSettings::default())), None);
}

#[test]
fn service_that_may_point_anywhere_is_sold_only_if_listed() {
    let form = |change: fn(&mut ServiceFacts), is_listed: bool| {
        let cache = Cache::holding(objects(vec![sold("shop", "chat", json!({}))]));
        cache.show_service("shop", "backend", change);
        let listed = is_listed.then(|| name("shop", "backend"));
        let settings = GateSettings {
            allowed_external_upstreams: listed.into_iter().collect(),
            ..GateSettings::default()
        };
        let table = compile(&cache, &settings);
        let offer = table.offer(&name("shop", "chat")).unwrap();
        offer
            .upstream
            .clone()
            .map(|upstream| upstream.authority)
            .map_err(|closed| closed.reason())
    };
    let refused = Err("UpstreamNotAllowed");
    let external = |facts: &mut ServiceFacts| {
        facts.form = ServiceForm::ExternalName("ollama.example".into());
        facts.has_selector = false;
    };
    assert_eq!(form(external, false), refused);
    assert_eq!(form(external, true).as_deref(), Ok("ollama.example:80"));
    let without_selector = |facts: &mut ServiceFacts| facts.has_selector = false;
    assert_eq!(form(without_selector, false), refused);
    assert!(form(without_selector, true).is_ok());
    assert_eq!(
        form(|facts| facts.form = ServiceForm::Headless, true),
        refused
    );
    for (name, change) in [
        (
            "v4",
            (|facts| facts.form = ServiceForm::ExternalName("169.254.169.254".into()))
                as fn(&mut ServiceFacts),
        ),
        ("loopback", |facts| {
            facts.form = ServiceForm::ExternalName("127.0.0.1".into())
        }),
        ("v6", |facts| {
            facts.form = ServiceForm::ExternalName("fe80::1".into())
        }),
        ("name", |facts| {
            facts.form = ServiceForm::ExternalName("localhost.".into())
        }),
    ] {
        assert_eq!(form(change, true), refused, "{name}");
    }
}

#[test]
fn namespaces_of_the_release_and_of_the_cluster_are_not_sold() {
    let settings = GateSettings {
        release_namespace: "shop".into(),
        ..GateSettings::default()
    };
    let cache = Cache::holding(objects(vec![sold("shop", "chat", json!({}))]));
    assert_eq!(
        reason(&compile(&cache, &settings)),
        Some("UpstreamNotAllowed")
    );
    let settings = GateSettings {
        denied_namespaces: ["shop".to_owned()].into(),
        ..GateSettings::default()
    };
    assert_eq!(
        reason(&compile(&cache, &settings)),
        Some("UpstreamNotAllowed")
    );
}

#[test]
fn description_is_one_short_line() {
    let text = |over: Value| {
        let table = table(vec![sold("shop", "chat", over)]);
        table
            .offer(&name("shop", "chat"))
            .unwrap()
            .description
            .clone()
    };
    assert_eq!(text(json!({})), "chat (http)");
    let model = json!({ "spec": { "model": { "name": "qwen3", "runtime": "ollama" } } });
    assert_eq!(text(model), "qwen3 inference");
    let written = |text: &str| json!({ "spec": { "registration": { "description": text } } });
    assert_eq!(text(written("a\n b")), "a b");
    assert_eq!(text(written(&"ä".repeat(300))).chars().count(), 256);
}

#[test]
fn offer_that_only_has_free_routes_is_open() {
    let routes = json!([{ "path": "/health", "gate": "free" }]);
    let over = json!({ "spec": { "routes": routes, "payment": { "network": "eip155:1" } } });
    assert_eq!(reason_with(over), None);
    let paid = json!([
        { "path": "/account", "gate": "auth" },
        { "path": "/expensive", "price": { "perRequest": "0.00000001" } },
    ]);
    let over = json!({ "spec": { "routes": paid } });
    assert_eq!(reason_with(over), Some("PriceTooFine"));
}

#[test]
fn endpoints_of_a_chain_are_those_whose_url_is_no_secret() {
    let of = |name: &str, chain_id: u64, rpc: Value| {
        let spec = json!({ "chainId": chain_id, "rpc": rpc });
        registry(json!({ "metadata": { "name": name }, "spec": spec }))
    };
    let secret = json!([{ "urlFrom": { "secretKeyRef": { "name": "rpc", "key": "url" } } }]);
    let mut objects = objects(vec![]);
    objects.registries = vec![
        of(
            "second",
            84532,
            json!([{ "url": "https://b" }, { "url": "https://a" }]),
        ),
        of("first", 84532, json!([{ "url": "https://a" }])),
        of("other", 1, secret),
    ];
    let table = table_of(objects);
    assert_eq!(table.rpc_urls(84532), ["https://a", "https://b"]);
    assert!(table.rpc_urls(1).is_empty() && table.rpc_urls(2).is_empty());
}

#[test]
fn offer_with_more_ways_to_pay_than_a_402_holds_is_closed() {
    let payments = |count: usize| {
        let one = |nth: usize| {
            json!({
                "network": "base-sepolia", "payTo": PAY_TO,
                "price": { "perRequest": format!("0.{:03}", nth + 1) },
                "asset": {
                    "address": format!("0x{:040x}", nth + 1), "symbol": "X", "decimals": 6,
                    "eip712Name": "円".repeat(128), "eip712Version": "v".repeat(32),
                },
            })
        };
        let all: Vec<Value> = (0..count).map(one).collect();
        sold("shop", "chat", json!({ "spec": { "payments": all } }))
    };
    assert_eq!(table(vec![payments(8)]).closed(&name("shop", "chat")), None);
    let many = table(vec![payments(16)]);
    let closed = many.closed(&name("shop", "chat")).unwrap();
    assert_eq!(closed.reason(), "TermsTooLong", "{closed}");
}
