//! The claim store and the holds of `src/gate/claims.rs`, for one payment, and what the process must
//! remember of it.

use serviceoffer::decisions::payment::{Claim, Event, HolderToken, Moved, Presented};

use super::shell::Shell;
use super::state::{End, Held, KEPT, KEPT_OPEN, VALID_BEFORE};
use crate::payment::properties::Property;
use crate::payment::variants::Flaw;

impl Shell<'_> {
    /// Takes the claim. `None` if the payment was not known.
    pub(super) fn take(&mut self, held: Held) -> Option<Presented> {
        let now = self.state.now();
        let core = self.world.core;
        let known = self.state.process.claim.as_mut();
        let Some(known) = known.filter(|known| (core.expiry)(known) > now) else {
            self.forget_if_due();
            let claim = Claim::new(held.fingerprint, held.token, VALID_BEFORE);
            self.state.process.claim = Some(claim);
            return None;
        };
        let presented = (core.present)(known, held.fingerprint);
        if presented.is_held() {
            known.holder = Some(held.token);
        }
        Some(presented)
    }

    /// Moves the claim.
    pub(super) fn report(&mut self, token: HolderToken, event: Event) -> Result<(), ()> {
        let claim = self.state.process.claim.clone().ok_or(())?;
        match (self.world.core.advance)(claim, token, event) {
            Ok(Moved::To(claim)) => self.state.process.claim = Some(claim),
            Ok(Moved::Released) => {
                if self.may_be_heard() && !self.is_due() {
                    self.state.violate(Property::NoLateRelease);
                }
                self.state.process.claim = None;
                self.forget();
            }
            Err(_) => return Err(()),
        }
        Ok(())
    }

    /// Forgets a claim that has expired, and a kept answer if that has too.
    pub(super) fn sweep(&mut self) {
        self.state.process.claim = None;
        if self.state.now() >= VALID_BEFORE + KEPT_OPEN {
            self.state.process.kept = None;
        }
        self.forget_if_due();
    }

    /// Whether a `/settle` of this process may have been received, or may still be.
    pub(super) fn may_be_heard(&self) -> bool {
        self.state.process.is_heard || !self.state.process.settling.is_empty()
    }

    /// Whether the process may forget the payment.
    pub(super) fn is_due(&self) -> bool {
        let kept = match self.state.process.is_over {
            true => KEPT,
            false => KEPT_OPEN,
        };
        self.state.now() >= VALID_BEFORE + kept
    }

    /// What is checked for a claim ends with it, unless it was forgotten too early.
    fn forget_if_due(&mut self) {
        if self.is_due() {
            self.forget();
        }
    }

    pub(super) fn forget(&mut self) {
        let process = &mut self.state.process;
        process.executions = 0;
        process.is_heard = false;
        process.is_refused = false;
        process.is_over = false;
    }

    /// A hold ends. A task of its own reports it; if the claim is held by another one, nothing can
    /// change its answer.
    pub(super) fn end(&mut self, token: HolderToken, end: End) {
        if end == End::CutOff && self.has(Flaw::HoldNotDropped) {
            return;
        }
        let process = &mut self.state.process;
        let holder = process.claim.as_ref().and_then(|claim| claim.holder);
        if holder == Some(token) && process.ending.is_none() {
            process.ending = Some((token, end));
        } else {
            self.report_end(token, end);
        }
    }

    pub(super) fn report_end(&mut self, token: HolderToken, end: End) {
        let event = match end {
            End::Complete => Event::Complete,
            End::CutOff => Event::CutOff,
        };
        let _ = self.report(token, event);
    }
}
