//! What state the node is in, and which states count as ready.

use serde_json::{Value, json};

use crate::clock::Distrust;
use crate::store::DriveUsage;
use crate::upstream::{Condition, ParentState};

/// The state of the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// The data listeners do not accept yet.
    Starting,
    /// Everything works.
    Online,
    /// Content is served and fetched, but a part is out of service: a drive, a source.
    Degraded,
    /// No source can be reached; stored content is served.
    Offline,
    /// Neither can stored bytes be served nor others fetched.
    Unavailable,
    /// The process is about to end.
    Draining,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The state.
    pub state: NodeState,
    /// Why it is not [`NodeState::Online`], for people; without secrets.
    pub reasons: Vec<String>,
    /// Why the clock of the machine is not believed; `None` when it is.
    pub clock: Option<Distrust>,
    /// How each parent stands, in the order in which they are asked.
    pub parents: Vec<ParentState>,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Online, Self::Degraded, Self::Offline, Self::Unavailable, Self::Draining];

    /// The name in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Draining => "draining",
        }
    }

    /// Whether requests should be sent here. A node without upstream is ready: whoever takes it out of service for
    /// that cuts devices off from the content that it holds.
    pub fn is_ready(self) -> bool {
        match self {
            Self::Online | Self::Degraded | Self::Offline => true,
            Self::Starting | Self::Unavailable | Self::Draining => false,
        }
    }
}

impl Readiness {
    /// A state that needs no reason.
    pub fn of(state: NodeState) -> Self {
        Self { state, reasons: Vec::new(), clock: None, parents: Vec::new() }
    }

    /// As the body of `/readyz`, with the states of parents and drives.
    pub(super) fn to_json(&self, drives: &[DriveUsage]) -> Value {
        let drives: Vec<Value> = drives.iter().map(of_drive).collect();
        json!({
            "state": self.state.as_str(),
            "ready": self.state.is_ready(),
            "reasons": self.reasons,
            "clock": self.clock.map_or_else(|| "trusted".to_owned(), |reason| format!("untrusted: {}", reason.as_str())),
            "parents": self.parents_as_json(),
            "drives": drives,
        })
    }

    pub(super) fn parents_as_json(&self) -> Vec<Value> {
        self.parents.iter().map(of_parent).collect()
    }
}

/// How a parent stands, and why.
fn of_parent(parent: &ParentState) -> Value {
    let mut value = json!({
        "url": parent.url,
        "kind": parent.kind.as_str(),
        "state": parent.condition.as_str(),
        "lowered": parent.is_lowered,
        "silentSeconds": parent.silence.map(|silence| silence.as_secs()),
    });
    if let Condition::Refused(reason) = &parent.condition {
        value["reason"] = reason.clone().into();
    }
    value
}

/// How a drive stands: in service or why not, and whether its journal could be read.
pub(super) fn of_drive(drive: &DriveUsage) -> Value {
    let journal = match drive.journal_gaps {
        0 => "whole".to_owned(),
        gaps => format!("damaged, {gaps} gaps"),
    };
    let mut value = json!({
        "path": drive.path.display().to_string(),
        "inService": drive.in_service(),
        "journal": journal,
    });
    if let Some(out) = &drive.out {
        value["reason"] = out.reason.as_str().into();
        value["outSeconds"] = out.lasting.as_secs().into();
        value["detail"] = out.text.clone().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::store::{OutOfService, Outage};
    use crate::upstream::ParentKind;

    #[test]
    fn a_drive_that_is_out_says_why_and_a_damaged_journal_how_often() {
        let out = Outage { reason: OutOfService::Hung, text: None, lasting: Duration::from_secs(12) };
        let usage =
            DriveUsage { path: PathBuf::from("/a"), quota: 10, used: 1, blobs: 1, out: Some(out), journal_gaps: 2 };
        let told = Readiness::of(NodeState::Degraded).to_json(std::slice::from_ref(&usage));
        assert_eq!(told["drives"][0]["inService"], false);
        assert_eq!(told["drives"][0]["reason"], "hung");
        assert_eq!(told["drives"][0]["outSeconds"], 12);
        assert_eq!(told["drives"][0]["journal"], "damaged, 2 gaps");
        let well = of_drive(&DriveUsage { out: None, journal_gaps: 0, ..usage });
        assert_eq!(well["journal"], "whole");
        assert!(well.get("reason").is_none());
    }

    #[test]
    fn a_parent_that_cannot_be_used_says_why() {
        let parent = |condition| ParentState {
            url: "https://l4:8443".to_owned(),
            kind: ParentKind::ForwardProxy,
            condition,
            is_lowered: false,
            silence: Some(Duration::from_millis(2500)),
        };
        let parents = vec![parent(Condition::Up), parent(Condition::Refused("it has expired".to_owned()))];
        let told = Readiness { parents, ..Readiness::of(NodeState::Degraded) }.to_json(&[]);
        let expected = json!({
            "url": "https://l4:8443", "kind": "forward-proxy", "state": "up", "lowered": false, "silentSeconds": 2
        });
        assert_eq!(told["parents"][0], expected);
        assert_eq!(told["parents"][1]["state"], "refused");
        assert_eq!(told["parents"][1]["reason"], "it has expired");
    }

    #[test]
    fn a_node_without_upstream_is_ready_and_one_that_drains_is_not() {
        let ready: Vec<&str> = NodeState::ALL.into_iter().filter(|s| s.is_ready()).map(NodeState::as_str).collect();
        assert_eq!(ready, ["online", "degraded", "offline"]);
    }
}
