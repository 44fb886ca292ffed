//! Whether another controller sells an offer as well. Pure.
//!
//! It shows itself by changing a condition about selling after this operator has written it. Two
//! gates would each take payments for one offer, and neither could keep what the status promises.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::sale::CONDITIONS;
use crate::api::{Condition, ServiceOfferStatus, condition};
use crate::cluster::SaleEdit;

/// Within which time two changes close an offer, and how long it stays closed after the last one.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// How often the conditions are written while another controller changes them.
const REWRITE_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// What is known of another controller that sells an offer. In the beginning there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OtherGate {
    /// The conditions as this operator wrote them, unless another controller has changed them since.
    written: Option<Vec<Condition>>,
    /// When this operator wrote them.
    written_at: Option<Timestamp>,
    /// The last edit by another controller that was seen.
    seen: Option<SaleEdit>,
    /// When a change of what this operator had written was last noticed.
    changed_at: Option<Timestamp>,
    /// Why the offer is closed.
    closed: Option<String>,
}

/// The conditions about selling, in the order of their types.
fn about_selling(status: &ServiceOfferStatus) -> Vec<Condition> {
    let found = CONDITIONS.map(|type_| condition::find(&status.conditions, type_).cloned());
    found.into_iter().flatten().collect()
}

impl OtherGate {
    /// What is known after a look at the offer: its status, and who of others changed it last.
    #[must_use]
    pub(crate) fn seen(
        mut self,
        status: &ServiceOfferStatus,
        edit: Option<SaleEdit>,
        now: Timestamp,
    ) -> Self {
        if self == Self::default() {
            // Another replica closed it.
            self.closed = status.other_gate().and_then(|own| own.message.clone());
            self.changed_at = self.closed.as_ref().map(|_| now);
        }
        let is_recent = self.changed_at.is_some_and(|at| at + WINDOW > now);
        if !is_recent {
            self.closed = None;
        }
        let written = self.written.as_ref();
        let is_changed = written.is_some_and(|written| *written != about_selling(status));
        if let Some(edit) = edit
            .as_ref()
            .filter(|edit| is_changed && Some(*edit) != self.seen.as_ref())
        {
            if is_recent {
                self.closed = Some(message(edit));
            }
            self.changed_at = Some(now);
            self.written = None;
        }
        self.seen = edit;
        self
    }

    /// What is known once the API server has this status.
    #[must_use]
    pub(crate) fn written(self, status: &ServiceOfferStatus, now: Timestamp) -> Self {
        Self {
            written_at: Some(now),
            ..self.confirmed(status)
        }
    }

    /// What is known once the cache shows this status.
    #[must_use]
    pub(crate) fn confirmed(self, status: &ServiceOfferStatus) -> Self {
        Self {
            written: Some(about_selling(status)),
            ..self
        }
    }

    /// Why the offer is closed, if another controller sells it.
    pub(super) fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// How long to leave a status as it is: both controllers would write without end.
    pub(crate) fn rests(&self, status: &ServiceOfferStatus, now: Timestamp) -> Option<Duration> {
        let is_said = self.closed.is_some() && status.other_gate().is_some();
        let written_at = self.written_at.filter(|_| is_said)?;
        positive((written_at + REWRITE_EVERY).duration_since(now))
    }

    /// Time until the offer opens.
    pub(super) fn opens_in(&self, now: Timestamp) -> Option<Duration> {
        let changed_at = self.changed_at.filter(|_| self.closed.is_some())?;
        positive((changed_at + WINDOW).duration_since(now))
    }
}

fn positive(wait: SignedDuration) -> Option<Duration> {
    wait.is_positive().then(|| wait.unsigned_abs())
}

fn message(edit: &SaleEdit) -> String {
    let SaleEdit { manager, at } = edit;
    format!(
        "another controller sells this offer as well: {manager} changed its conditions at {at}, for the second time after this operator had written them. Stop that controller, or set gate.enabled=false here; the offer opens ten minutes after its last change"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A status whose condition has this reason.
    fn status(reason: &str) -> ServiceOfferStatus {
        let sold = json!({ "type": "PaymentGateReady", "status": "True", "reason": reason });
        serde_json::from_value(json!({ "conditions": [sold] })).unwrap()
    }

    fn edit(second: i64) -> Option<SaleEdit> {
        let manager = "verifier".to_owned();
        Some(SaleEdit {
            manager,
            at: at(second),
        })
    }

    /// After this operator wrote its conditions, and another controller changed them.
    fn changed(other: OtherGate, second: i64) -> OtherGate {
        let written = other.written(&status("Reconciled"), at(second));
        written.seen(&status("Other"), edit(second), at(second))
    }

    #[test]
    fn second_change_within_ten_minutes_closes_the_offer() {
        let once = changed(OtherGate::default(), 0);
        assert_eq!(once.closed(), None);
        let late = changed(once.clone(), 600);
        assert_eq!(late.closed(), None);
        let twice = changed(once, 599);
        let message = twice.closed().unwrap();
        assert!(
            message.contains("verifier") && message.contains("00:09:59"),
            "{message}"
        );
        assert_eq!(changed(late, 601).closed().map(str::is_empty), Some(false));
    }

    #[test]
    fn offer_opens_ten_minutes_after_the_last_change() {
        let closed = changed(changed(OtherGate::default(), 0), 1);
        let later = changed(closed, 300);
        assert_eq!(later.opens_in(at(300)), Some(Duration::from_secs(600)));
        let written = later.written(&status("Reconciled"), at(310));
        let still = written.seen(&status("Reconciled"), edit(300), at(899));
        assert!(still.closed().is_some());
        let open = still.seen(&status("Reconciled"), edit(300), at(900));
        assert_eq!((open.closed(), open.opens_in(at(900))), (None, None));
    }

    #[test]
    fn edit_counts_only_if_it_changes_what_this_operator_wrote() {
        let written = OtherGate::default().written(&status("Reconciled"), at(0));
        let touched = written.clone().seen(&status("Reconciled"), edit(1), at(1));
        assert_eq!(touched.changed_at, None, "it changed another condition");
        let stale = written.seen(&status("Reconciled"), edit(1), at(1));
        let stale = stale.seen(&status("Older"), edit(1), at(2));
        assert_eq!(stale.changed_at, None, "this edit was seen before");
        let unwritten = OtherGate::default().seen(&status("Other"), edit(1), at(1));
        let unwritten = unwritten.seen(&status("Another"), edit(2), at(2));
        assert_eq!(unwritten.changed_at, None, "this operator had not written");
        let again = changed(OtherGate::default(), 0).seen(&status("Another"), edit(1), at(1));
        assert_eq!(again.closed(), None, "this operator had not written since");
    }

    #[test]
    fn offer_that_another_replica_closed_stays_closed_for_ten_minutes() {
        let closed = json!({
            "type": "Stalled", "status": "True", "reason": "OtherGate", "message": "why",
        });
        let closed = serde_json::from_value(json!({ "conditions": [closed] })).unwrap();
        let other = OtherGate::default().seen(&closed, None, at(0));
        assert_eq!(other.closed(), Some("why"));
        assert_eq!(
            other.clone().seen(&closed, None, at(599)).closed(),
            Some("why")
        );
        assert_eq!(other.seen(&closed, None, at(600)).closed(), None);
    }

    #[test]
    fn conditions_of_a_closed_offer_are_written_once_a_minute() {
        let closing = changed(changed(OtherGate::default(), 0), 1);
        assert_eq!(
            closing.rests(&status("Other"), at(1)),
            None,
            "the closing is written at once"
        );
        let closed =
            json!({ "type": "Stalled", "status": "True", "reason": "OtherGate", "message": "why" });
        let closed = serde_json::from_value(json!({ "conditions": [closed] })).unwrap();
        let written = closing.written(&closed, at(2));
        assert_eq!(written.rests(&closed, at(3)), Some(Duration::from_secs(59)));
        assert_eq!(written.rests(&closed, at(62)), None);
        let open = written.seen(&closed, edit(1), at(700));
        assert_eq!(open.rests(&closed, at(700)), None);
    }
}
