//! Rules: which calls fail, and how.
//!
//! A rule judges one call at a time. The first rule in the order of addition that answers a call
//! decides; rules that edit or delay an answer of the chain all apply.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::call::Call;

/// Names a rule of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u64);

/// Which methods a rule is for.
#[derive(Clone, Debug)]
pub enum Methods {
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Methods {
    /// Every method.
    #[must_use]
    pub fn all() -> Self {
        Self::Except(Vec::new())
    }

    /// Every method but these.
    #[must_use]
    pub fn except<const N: usize>(methods: [&str; N]) -> Self {
        Self::Except(methods.map(str::to_owned).to_vec())
    }

    fn contain(&self, method: &str) -> bool {
        let is_method = |name: &String| name == method;
        match self {
            Self::Only(methods) => methods.iter().any(is_method),
            Self::Except(methods) => !methods.iter().any(is_method),
        }
    }
}

impl From<&str> for Methods {
    fn from(method: &str) -> Self {
        Self::Only(vec![method.to_owned()])
    }
}

impl<const N: usize> From<[&str; N]> for Methods {
    fn from(methods: [&str; N]) -> Self {
        Self::Only(methods.map(str::to_owned).to_vec())
    }
}

type Predicate = Arc<dyn Fn(&Call) -> bool + Send + Sync>;
type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// What a rule does to a call.
#[derive(Clone)]
pub(crate) enum Fault {
    Error(Value),
    Http {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    Hang(Duration),
    Result(Value),
    Edit(Edit),
    EditAnswer(Edit),
    Swallow,
    Close,
    Lag(u64),
    RefuseBatch(Value),
}

impl Fault {
    /// Whether the chain's own answer plays no part. A node that is behind answers by the chain.
    pub(crate) fn answers(&self) -> bool {
        match self {
            Self::Error(_)
            | Self::Http { .. }
            | Self::Result(_)
            | Self::Swallow
            | Self::Close
            | Self::RefuseBatch(_) => true,
            Self::Hang(_) | Self::Edit(_) | Self::EditAnswer(_) | Self::Lag(_) => false,
        }
    }
}

/// A rule, in force from [`crate::RpcProxy::add`] until it is removed.
#[derive(Clone)]
pub struct Rule {
    methods: Methods,
    when: Option<Predicate>,
    every: u64,
    skip: u64,
    times: u64,
    fault: Fault,
    matched: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
}

impl Rule {
    fn new(methods: impl Into<Methods>, fault: Fault) -> Self {
        Self {
            methods: methods.into(),
            when: None,
            every: 1,
            skip: 0,
            times: u64::MAX,
            fault,
            matched: Arc::default(),
            hits: Arc::default(),
        }
    }

    /// Answers with a JSON-RPC error.
    pub fn error(methods: impl Into<Methods>, code: i64, message: &str) -> Self {
        let error = serde_json::json!({ "code": code, "message": message });
        Self::new(methods, Fault::Error(error))
    }

    /// Answers with a JSON-RPC error of any shape, such as a bare text.
    pub fn error_value(methods: impl Into<Methods>, error: Value) -> Self {
        Self::new(methods, Fault::Error(error))
    }

    /// Answers the whole HTTP request with this status and body, even if only one element of a
    /// batch matches.
    pub fn http(methods: impl Into<Methods>, status: u16, body: &str) -> Self {
        let fault = Fault::Http {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        };
        Self::new(methods, fault)
    }

    /// Forwards the call and holds the answer back.
    pub fn hang(methods: impl Into<Methods>, duration: Duration) -> Self {
        Self::new(methods, Fault::Hang(duration))
    }

    /// Answers with the result `null`.
    pub fn null(methods: impl Into<Methods>) -> Self {
        Self::new(methods, Fault::Result(Value::Null))
    }

    /// Answers with this result.
    pub fn result(methods: impl Into<Methods>, result: Value) -> Self {
        Self::new(methods, Fault::Result(result))
    }

    /// Changes the result that the chain gives. An error stays as it is.
    pub fn edit(
        methods: impl Into<Methods>,
        edit: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        Self::new(methods, Fault::Edit(Arc::new(edit)))
    }

    /// Changes the chain's whole answer, with `id`, `result` and `error`.
    pub fn edit_answer(
        methods: impl Into<Methods>,
        edit: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        Self::new(methods, Fault::EditAnswer(Arc::new(edit)))
    }

    /// Answers `eth_sendRawTransaction` with a hash and forwards nothing.
    #[must_use]
    pub fn swallow() -> Self {
        Self::new("eth_sendRawTransaction", Fault::Swallow)
    }

    /// Drops the connection without an answer.
    pub fn close(methods: impl Into<Methods>) -> Self {
        Self::new(methods, Fault::Close)
    }

    /// Answers a request as a node does that is this many blocks behind the chain. One node answers
    /// all elements of a batch: the rule counts requests, and judges them by their first call.
    #[must_use]
    pub fn lag(blocks: u64) -> Self {
        Self::new(Methods::all(), Fault::Lag(blocks))
    }

    /// Answers a batch with one JSON-RPC error for the whole of it.
    #[must_use]
    pub fn refuse_batch(code: i64, message: &str) -> Self {
        let error = serde_json::json!({ "code": code, "message": message });
        Self::new(Methods::all(), Fault::RefuseBatch(error))
    }

    /// Adds `data` to the error.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        if let Fault::Error(error) = &mut self.fault {
            error["data"] = data;
        }
        self
    }

    /// Adds a header to the HTTP answer.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Fault::Http { headers, .. } = &mut self.fault {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Restricts the rule to calls for which this is true.
    #[must_use]
    pub fn when(mut self, when: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(when));
        self
    }

    /// Restricts the rule to every nth call.
    #[must_use]
    pub fn every(mut self, nth: u64) -> Self {
        self.every = nth.max(1);
        self
    }

    /// Lets the first calls pass.
    #[must_use]
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Restricts the rule to that many calls.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// What it does.
    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Whether it needs to know the latest block.
    pub(crate) fn needs_head(&self) -> bool {
        self.when.is_some() || matches!(self.fault, Fault::Lag(_))
    }

    /// How many calls it has failed or changed.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// The fault for this call, if the rule is for it. Each question counts.
    pub(crate) fn fires(&self, call: &Call) -> Option<Fault> {
        let is_for = self.methods.contain(&call.method);
        if !is_for || self.when.as_ref().is_some_and(|when| !when(call)) {
            return None;
        }
        let nth = self.matched.fetch_add(1, Ordering::SeqCst) + 1;
        if nth <= self.skip || !(nth - self.skip).is_multiple_of(self.every) {
            return None;
        }
        // Calls of several connections may ask at once.
        let take = |hits| (hits < self.times).then_some(hits + 1);
        self.hits
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .ok()?;
        Some(self.fault.clone())
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rule")
            .field("methods", &self.methods)
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(method: &str) -> Call {
        Call {
            method: method.to_owned(),
            params: json!([]),
            head: 0,
        }
    }

    #[test]
    fn rule_is_for_its_methods_only() {
        let matches = |methods: Methods, method: &str| methods.contain(method);
        assert!(matches("a".into(), "a") && !matches("a".into(), "b"));
        assert!(matches(["a", "b"].into(), "b") && matches(Methods::all(), "c"));
        assert!(!matches(Methods::except(["a"]), "a") && matches(Methods::except(["a"]), "b"));
    }

    #[test]
    fn rule_counts_only_calls_that_match() {
        let fired = |rule: &Rule| -> Vec<bool> {
            (0..6).map(|_| rule.fires(&call("a")).is_some()).collect()
        };
        let third = Rule::null("a").every(3);
        assert!(third.fires(&call("b")).is_none());
        assert_eq!(fired(&third), [false, false, true, false, false, true]);
        let once = Rule::null("a").skip(2).times(1);
        assert_eq!(fired(&once), [false, false, true, false, false, false]);
        assert_eq!((third.hits(), once.hits()), (2, 1));
    }

    #[test]
    fn predicate_decides_about_each_call() {
        let rule = Rule::null("a").when(|call| call.head > 5);
        assert!(rule.fires(&call("a")).is_none() && rule.needs_head());
        let late = Call {
            head: 6,
            ..call("a")
        };
        assert!(rule.fires(&late).is_some());
    }
}
