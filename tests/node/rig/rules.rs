//! Fields of origin rules that decide how a fill asks.

use serde_json::{Value, json};
use waystation::config::Config;

/// How the origin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In ranges, and the fill goes on without clients, as for hosts of updates.
    Ranged,
    /// By plain requests, and the fill ends with its clients, as for other hosts.
    Whole,
}

impl Mode {
    pub(crate) const BOTH: [Self; 2] = [Self::Ranged, Self::Whole];

    /// Fields of a rule.
    pub(crate) fn rule(self) -> Value {
        match self {
            Self::Ranged => with_fill("ranged", "complete"),
            Self::Whole => with_fill("whole", "stop"),
        }
    }
}

/// Ranges for those who wait, and no byte more.
pub(crate) fn ranged_for_clients() -> Value {
    with_fill("ranged", "stop")
}

/// A program that does not know `fill` is asked to do without.
fn with_fill(fill: &str, abandon: &str) -> Value {
    if Config::setting_names().iter().any(|name| name == "origins[].fill") {
        json!({ "fill": fill, "abandon": abandon })
    } else {
        json!({ "abandon": abandon })
    }
}
