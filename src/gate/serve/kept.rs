//! Answers that were charged, until they are delivered: a buyer whose connection broke gets the same
//! answer, and the upstream is not called again. Those to requests that their buyers identified are
//! kept after that, where there is room. They are in memory, within a budget.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use crate::gate::check::PaymentId;

/// Bytes of all answers together.
const BUDGET: usize = 64 * 1024 * 1024;
/// Bytes that a field, and an answer, take besides their own.
const FIELD: usize = 64;
const ANSWER: usize = 512;

/// A complete answer of an upstream.
#[derive(Debug)]
struct KeptAnswer {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
    /// When it may be forgotten, in Unix seconds.
    expiry: u64,
    is_delivered: bool,
}

impl KeptAnswer {
    /// Bytes that it takes in memory, about.
    fn size(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
        self.body.len() + fields.sum::<usize>() + ANSWER
    }
}

#[derive(Debug, Default)]
struct KeptByPayment {
    answers: HashMap<PaymentId, KeptAnswer>,
    bytes: usize,
}

impl KeptByPayment {
    fn remove(&mut self, id: PaymentId) -> Option<KeptAnswer> {
        let answer = self.answers.remove(&id)?;
        self.bytes -= answer.size();
        Some(answer)
    }

    /// Makes room, if that is possible without an answer that was not delivered.
    fn make_room(&mut self, size: usize) -> bool {
        if self.bytes + size <= BUDGET {
            return true;
        }
        let all = self.answers.iter();
        let delivered = all.filter(|(_, answer)| answer.is_delivered);
        let mut delivered: Vec<_> = delivered.map(|(id, answer)| (answer.expiry, *id)).collect();
        delivered.sort_unstable_by_key(|(expiry, _)| *expiry);
        for (_, id) in delivered {
            self.remove(id);
            if self.bytes + size <= BUDGET {
                return true;
            }
        }
        false
    }
}

/// Answers by payment.
#[derive(Debug, Default)]
pub(crate) struct KeptAnswers(Mutex<KeptByPayment>);

impl KeptAnswers {
    fn with<T>(&self, change: impl FnOnce(&mut KeptByPayment) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps an answer, if there is room for it.
    pub(super) fn keep(&self, id: PaymentId, answer: &Response, body: &Bytes, expiry: u64) {
        self.with(|kept| {
            kept.remove(id);
            let answer = KeptAnswer {
                status: answer.status(),
                fields: answer.headers().clone(),
                body: body.clone(),
                expiry,
                is_delivered: false,
            };
            if kept.make_room(answer.size()) {
                kept.bytes += answer.size();
                kept.answers.insert(id, answer);
            }
        });
    }

    /// The answer to a payment, if it is kept. It stays until it is forgotten.
    pub(super) fn get(&self, id: PaymentId) -> Option<Response> {
        self.with(|kept| {
            let answer = kept.answers.get(&id)?;
            let mut response = Response::new(Body::from(answer.body.clone()));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.fields.clone();
            Some(response)
        })
    }

    /// From here on, the answer to a payment makes room for others.
    pub(super) fn mark_delivered(&self, id: PaymentId) {
        self.with(|kept| {
            if let Some(answer) = kept.answers.get_mut(&id) {
                answer.is_delivered = true;
            }
        });
    }

    /// Forgets the answer to a payment: it was delivered, or will not be.
    pub(super) fn forget(&self, id: PaymentId) {
        self.with(|kept| kept.remove(id));
    }

    /// Forgets what has expired.
    pub(crate) fn sweep(&self, now: u64) {
        self.with(|kept| {
            let expired = kept
                .answers
                .iter()
                .filter(|(_, answer)| answer.expiry <= now);
            for id in expired.map(|(id, _)| *id).collect::<Vec<_>>() {
                kept.remove(id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn id(byte: u8) -> PaymentId {
        PaymentId(B256::repeat_byte(byte))
    }

    fn keep(kept: &KeptAnswers, payment: u8, size: usize) {
        let body = Bytes::from(vec![0; size]);
        let answer = Response::new(Body::empty());
        kept.keep(id(payment), &answer, &body, 100);
    }

    #[test]
    fn answer_is_kept_until_it_is_forgotten_or_expires() {
        let kept = KeptAnswers::default();
        keep(&kept, 1, 10);
        keep(&kept, 2, 10);
        assert!(kept.get(id(1)).is_some() && kept.get(id(1)).is_some());
        kept.forget(id(1));
        assert!(kept.get(id(1)).is_none());
        kept.sweep(99);
        assert!(kept.get(id(2)).is_some());
        kept.sweep(100);
        assert!(kept.get(id(2)).is_none());
        assert_eq!(kept.with(|kept| kept.bytes), 0);
    }

    #[test]
    fn answers_beyond_the_budget_are_not_kept() {
        let kept = KeptAnswers::default();
        keep(&kept, 1, BUDGET - 2 * ANSWER);
        keep(&kept, 2, 1);
        assert!(kept.get(id(2)).is_none());
        keep(&kept, 1, 20);
        keep(&kept, 2, 1);
        assert!(kept.get(id(2)).is_some());
    }

    #[test]
    fn delivered_answers_make_room_for_others() {
        let kept = KeptAnswers::default();
        let most = BUDGET - 2 * ANSWER - 100;
        keep(&kept, 1, 100);
        keep(&kept, 2, most);
        kept.mark_delivered(id(2));
        keep(&kept, 3, most);
        let are_kept = [1, 2, 3].map(|payment| kept.get(id(payment)).is_some());
        assert_eq!(are_kept, [true, false, true]);
        keep(&kept, 4, 1);
        assert!(kept.get(id(4)).is_none(), "nothing of these was delivered");
    }
}
