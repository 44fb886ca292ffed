//! Steps in words, for schedules that violate an invariant.

use super::pool::Op;
use super::state::State;
use super::{Step, World};

impl World {
    /// What a step does in a state.
    #[must_use]
    pub fn describe(&self, state: &State, step: Step) -> String {
        match step {
            Step::Request { replica } => {
                let pool = self.pool.borrow();
                let own = &state.replicas[usize::from(replica)];
                let script = pool.script(own.script);
                let op = script.and_then(|script| script.ops.get(usize::from(own.at)));
                let what = op
                    .map(|op| self.describe_op(state, *op))
                    .unwrap_or_default();
                let is_current = match op {
                    Some(Op::Record { key, .. } | Op::Store { key, .. }) => {
                        own.holds_record((*key).into())
                    }
                    Some(Op::Ledger { account, .. }) => own.holds_ledger((*account).into()),
                    Some(Op::Touch { .. }) => own.former_is_current,
                    _ => true,
                };
                let result = if is_current { "" } else { ": conflict" };
                format!("replica {replica} {what}{result}")
            }
            Step::Include {
                transaction,
                reverted,
            } => {
                let result = if reverted { "reverts" } else { "succeeds" };
                format!(
                    "{} is included and {result}",
                    self.describe_signed(transaction)
                )
            }
            step => format!("{step:?}"),
        }
    }

    fn describe_op(&self, state: &State, op: Op) -> String {
        let pool = self.pool.borrow();
        match op {
            Op::Record { key, to } => {
                let spec = pool.record(to);
                let shown =
                    spec.map(|spec| (spec.phase, spec.attempts.len(), spec.result.is_some()));
                format!("writes record {key}: (phase, attempts, result) = {shown:?}")
            }
            Op::Store {
                key, transaction, ..
            } => {
                format!(
                    "stores {} in record {key}",
                    self.describe_signed(transaction)
                )
            }
            Op::Send { transaction } => format!("sends {}", self.describe_signed(transaction)),
            Op::Ledger { account, to } | Op::Touch { account, to } => {
                let spec = pool.ledger(to);
                let registering = spec.map(|spec| {
                    let entries = spec.registering.iter();
                    let entries = entries.map(|(key, nonce)| (self.cast.key(*key), nonce.0));
                    (spec.next.0, spec.state, entries.collect::<Vec<_>>())
                });
                format!("writes ledger {account}: (next, state, registering) = {registering:?}")
            }
            op => format!("{op:?} ({:?})", state.objects.ledgers),
        }
    }

    fn describe_signed(&self, transaction: u8) -> String {
        let pool = self.pool.borrow();
        let signed = pool.signed(transaction);
        signed.map_or_else(String::new, |signed| {
            let what = if signed.uri.is_some() {
                "key"
            } else {
                "filler of key"
            };
            format!(
                "{what} {} at nonce {} of account {}",
                signed.key, signed.nonce, signed.account
            )
        })
    }
}
