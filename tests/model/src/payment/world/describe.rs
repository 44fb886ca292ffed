//! Schedules in words.

use super::shell::{Verdict, Work};
use super::state::{Purpose, Reply, Request, State, VALID_AFTER, VALID_BEFORE, Waiter};
use super::{Step, World};

impl World {
    /// What a step is, and what it leads to.
    pub(in crate::payment) fn describe(&self, state: &State, step: Step) -> String {
        let next = self.after(state, step);
        let action = match step {
            Step::Tick => format!("the clock passes to {}", moment(next.moment)),
            _ => action(state, step),
        };
        let claim = &next.process.claim;
        let claim = claim.as_ref().map_or_else(
            || "none".to_owned(),
            |claim| format!("{:?}{}", claim.state, held_by(claim.holder.is_some())),
        );
        let charged = if next.is_charged { ", charged" } else { "" };
        let delivered = if next.is_delivered { ", delivered" } else { "" };
        let requests = next.process.requests.each_ref().map(name);
        format!(
            "{action:<58} claim {claim}{charged}{delivered}; requests: {}, {}",
            requests[0], requests[1]
        )
    }
}

fn held_by(is_held: bool) -> &'static str {
    if is_held { " (held)" } else { "" }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Absent => "-",
        Request::Verifying(_) => "verifying",
        Request::Asking(..) => "asking",
        Request::Calling(_) => "calling",
        Request::Waiting(_) => "waiting",
        Request::Told(..) => "told",
        Request::Executing(_) => "executing",
        Request::Sending(_) => "sending",
        Request::Joining(_) => "joining",
    }
}

fn action(state: &State, step: Step) -> String {
    match step {
        Step::Restart => "the process is killed and starts again".into(),
        Step::Spend => "the buyer spends the money otherwise".into(),
        Step::Present(at, is_other) => {
            let what = if is_other {
                "another request"
            } else {
                "the request"
            };
            format!("buyer {at} presents the payment for {what}")
        }
        Step::Leave(at) => format!("buyer {at} leaves, or its wait is over"),
        Step::Verify(at, verdict) => format!("/verify answers {at}: {}", words(verdict)),
        Step::Show(at, is_used) => format!("the chain shows {at}: {}", shown(is_used)),
        Step::ShowTask(task, is_used) => {
            let task = settle(state, task);
            format!("the chain shows {}: {}", task, shown(is_used))
        }
        Step::Work(at, Work::Whole) => format!("the upstream answers {at}, and that is kept"),
        Step::Work(at, Work::Long) => format!("the upstream answers {at}"),
        Step::Work(at, Work::Failed) => format!("the upstream fails for {at}"),
        Step::Receive(at) => format!("request {at} receives the outcome"),
        Step::Complete(at) => format!("request {at} gets its last byte"),
        Step::Look(at) => format!("request {at} looks for the outcome"),
        Step::NotSent(task) => format!("{} is not sent", settle(state, task)),
        Step::CarryOut(task) => format!("{} is carried out", settle(state, task)),
        Step::Unsure(task) => format!("{} is refused: simulation failed", settle(state, task)),
        Step::Pending(task) => format!("{} is called pending", settle(state, task)),
        Step::Answer(task) => answer(state, task),
        Step::Lose(task) => format!("{} gets no answer", settle(state, task)),
        Step::CarryOutLate(false) => "the facilitator carries out an earlier /settle".into(),
        Step::CarryOutLate(true) => {
            "the facilitator carries out an earlier process's /settle".into()
        }
        Step::Tick => "the clock passes".into(),
        Step::Resolve => "the task for unknown outcomes looks".into(),
        Step::End => "the end of a hold is reported".into(),
        Step::Sweep => "expired claims are forgotten".into(),
    }
}

fn shown(is_used: Option<bool>) -> &'static str {
    match is_used {
        Some(true) => "used",
        Some(false) => "not used",
        None => "nothing",
    }
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid(reason) => reason,
        Verdict::Unavailable => "nothing",
    }
}

fn answer(state: &State, task: usize) -> String {
    let reply = state.process.settling.get(task).and_then(|task| task.reply);
    let reply = match reply {
        Some(Reply::Settled) => "success",
        Some(Reply::Refused(reason)) => reason,
        Some(Reply::Pending) => "pending",
        None => "nothing",
    };
    format!("{} is answered: {reply}", settle(state, task))
}

fn settle(state: &State, task: usize) -> String {
    let Some(task) = state.process.settling.get(task) else {
        return "/settle".into();
    };
    let purpose = match task.purpose {
        Purpose::Learn => " (to learn)",
        Purpose::Deliver | Purpose::Execute => "",
    };
    match task.waiter {
        Waiter::Request(at) => format!("/settle of {at}{purpose}"),
        Waiter::Resolve => format!("repeated /settle{purpose}"),
        Waiter::Gone => format!("/settle{purpose}, without a request,"),
    }
}

fn moment(moment: usize) -> String {
    let now = super::MOMENTS.get(moment).copied().unwrap_or_default();
    if now < VALID_BEFORE {
        format!("validAfter {:+}", i128::from(now) - i128::from(VALID_AFTER))
    } else {
        format!("validBefore +{}", now - VALID_BEFORE)
    }
}
