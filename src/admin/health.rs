//! What state the node is in, and which states count as ready.

use serde_json::{Value, json};

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
        Self { state, reasons: Vec::new() }
    }

    /// As the body of `/readyz`.
    pub(super) fn to_json(&self) -> Value {
        json!({ "state": self.state.as_str(), "ready": self.state.is_ready(), "reasons": self.reasons })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_upstream_is_ready_and_one_that_drains_is_not() {
        let ready: Vec<&str> = NodeState::ALL.into_iter().filter(|s| s.is_ready()).map(NodeState::as_str).collect();
        assert_eq!(ready, ["online", "degraded", "offline"]);
    }
}
