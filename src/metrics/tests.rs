//! What all metrics have in common: series exist from the start, their number is bounded, and the
//! README lists them.

use super::*;

#[test]
fn every_series_exists_at_start_and_their_number_is_bounded() {
    let metrics = Metrics::new("lease").unwrap();
    metrics.chain.track(84532);
    let text = metrics.render().unwrap();
    for series in [
        "leader_election_master_status{name=\"lease\"} 0",
        "serviceoffer_leader_transitions_total 0",
        "serviceoffer_onchain_registrations_total{chain=\"84532\",outcome=\"registered\"} 0",
        "serviceoffer_reconcile_total{loop=\"offer\",result=\"success\"} 0",
        "serviceoffer_watch_failures_total{kind=\"ServiceOffer\"} 0",
    ] {
        assert!(text.contains(series), "{series} is missing from\n{text}");
    }
    let series = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
        .count();
    assert!(series < 400, "{series}");
}

#[tokio::test]
async fn readme_lists_every_metric_and_no_other() {
    let metrics = Metrics::new("lease").unwrap();
    metrics.count_offers(OfferCounts::default).unwrap();
    metrics.report_fence(Duration::default).unwrap();
    metrics.report_gate(GateReading::default).unwrap();
    metrics.chain.track(84532);
    metrics.gate.track_paths::<()>();
    let text = metrics.render().unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let ours: std::collections::BTreeSet<&str> =
        names.filter(|name| !name.starts_with("process_")).collect();
    let chapter = include_str!("../../README.md")
        .split("\n## Metrics\n")
        .nth(1)
        .unwrap();
    let rows = chapter.split("\n## ").next().unwrap().lines();
    let listed = rows
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(ours, listed);
}

#[test]
fn table_is_as_old_as_its_last_compilation() {
    let metrics = Metrics::new("lease").unwrap();
    let age = || {
        let text = metrics.render().unwrap();
        let mut lines = text.lines();
        let age = lines.find_map(|line| line.strip_prefix("serviceoffer_gate_table_age_seconds "));
        age.unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(age(), 0.0);
    metrics.gate.table_built(Duration::ZERO);
    std::thread::sleep(Duration::from_millis(300));
    let old = age();
    assert!(old >= 0.3, "{old}");
    metrics.gate.table_built(Duration::ZERO);
    let fresh = age();
    assert!(fresh < old, "{fresh}");
}

#[test]
fn two_sets_of_metrics_are_independent() {
    assert!(Metrics::new("a").is_ok() && Metrics::new("b").is_ok());
}

#[test]
fn no_label_has_the_same_value_twice() {
    fn check<L: Label>() {
        let values: std::collections::BTreeSet<&str> =
            L::ALL.iter().map(|value| value.as_str()).collect();
        assert_eq!(values.len(), L::ALL.len(), "{}", L::NAME);
    }
    check::<Loop>();
    check::<Takeover>();
    check::<RenewError>();
    check::<reconcile::ReconcileResult>();
    check::<FailureReason>();
    check::<WatchedKind>();
    check::<OfferCondition>();
    check::<offers::Status>();
    check::<kube::HttpMethod>();
    check::<label::ResponseCode>();
    check::<RpcMethod>();
    check::<RpcResult>();
    check::<SupportedResult>();
    check::<RegistrationOutcome>();
    check::<Route>();
    check::<GateOutcome>();
    check::<gate::RequestKind>();
    check::<SettlementOutcome>();
    check::<FacilitatorCall>();
    check::<ClaimState>();
}
