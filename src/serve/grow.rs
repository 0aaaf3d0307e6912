//! Answers with a body that is being filled, wherever it lands.
//!
//! How it is cut to ranges and followed is in `deliver` and `follow`.

use super::ask::Ask;
use super::deliver::{self, Delivery, Growing};
use super::handler::{Handler, Step};
use crate::decide::{self, FwdReason, UnderRule};

impl Handler {
    /// Serves a body that is being filled.
    pub(super) async fn grow(&self, ask: &mut Ask, growing: Growing, reason: FwdReason) -> Step {
        let record = &growing.entry.record;
        let answered = growing.guard.answered().unwrap_or(record.status);
        if !growing.collapsed && record.status.is_success() {
            self.remember_proof(ask);
        }
        if ask.rule_digest().is_some() && decide::under_rule(record, ask.rule_digest()) != UnderRule::Fits {
            // It was begun for another host with this key, which has no such rule. Its end shows what it is, if it is
            // stored; what passes through a window is not waited for.
            let _ = tokio::time::timeout_at(ask.deadline, growing.body.landed()).await;
            return Step::Again;
        }
        match deliver::growing(self, ask, growing, reason).await {
            Delivery::Done(outcome) => Step::Done(outcome.after(reason, Some(answered))),
            Delivery::Unusable | Delivery::Missing => Step::Again,
            Delivery::OtherVersion => Step::Done(self.other_version(ask).await.after(reason, Some(answered))),
        }
    }
}
