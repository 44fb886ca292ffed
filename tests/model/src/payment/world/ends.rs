//! Whether a state can reach one without claims and tasks: it follows one schedule in which the
//! adversary does nothing more.

use super::shell::Work;
use super::state::{Request, State};
use super::{Step, World};

/// Most steps of such a schedule.
const STEPS: usize = 100;

impl World {
    /// Whether the schedule without faults ends with nothing open.
    pub(super) fn ends(&self, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..STEPS {
            match self.calm_step(&state) {
                Some(step) => state = self.after(&state, step),
                None => return is_done(&state),
            }
        }
        false
    }

    /// What happens next if every party does what it should. The clock passes when nothing else
    /// happens, and before an unknown outcome is asked for again.
    fn calm_step(&self, state: &State) -> Option<Step> {
        let process = &state.process;
        if process.ending.is_some() {
            return Some(Step::End);
        }
        if let Some(task) = process.settling.first() {
            return Some(match task.reply {
                _ if task.unknown.is_some() => Step::ShowTask(0, Some(state.is_charged)),
                Some(_) => Step::Answer(0),
                None => Step::CarryOut(0),
            });
        }
        let mut requests = process.requests.iter().enumerate();
        let step = requests.find_map(|(at, request)| self.calm_request(state, at, request));
        if step.is_some() {
            return step;
        }
        if self.next_moment(state).is_some() {
            return Some(Step::Tick);
        }
        if process.resolving.is_some() {
            return Some(Step::Resolve);
        }
        self.is_expired(state).then_some(Step::Sweep)
    }

    fn calm_request(&self, state: &State, at: usize, request: &Request) -> Option<Step> {
        match request {
            Request::Absent | Request::Waiting(_) => None,
            Request::Verifying(_) => Some(Step::Verify(at, self.verdict(state))),
            Request::Asking(..) => Some(Step::Show(at, Some(state.is_charged))),
            Request::Calling(_) | Request::Executing(_) => Some(Step::Work(at, Work::Long)),
            Request::Told(..) => Some(Step::Receive(at)),
            Request::Sending(_) => Some(Step::Complete(at)),
            // The time for which it waits is over.
            Request::Joining(_) => Some(Step::Leave(at)),
        }
    }
}

fn is_done(state: &State) -> bool {
    let process = &state.process;
    process.claim.is_none()
        && process.settling.is_empty()
        && process.resolving.is_none()
        && process
            .requests
            .iter()
            .all(|request| *request == Request::Absent)
}
