//! The rig: a real node process, a scripted origin and clients that behave like those in the field.
//!
//! Everything runs on loopback with ports given by the kernel. Nothing here sleeps to wait for something:
//! a wait is for a line, a byte, an exit or a permit; only paced clients and origins sleep, between bytes.

pub(crate) mod client;
pub(crate) mod device;
mod do_checks;
pub(crate) mod do_client;
pub(crate) mod do_file;
pub(crate) mod fake_origin;
pub(crate) mod ledger;
pub(crate) mod origin_reply;
pub(crate) mod patient;
pub(crate) mod pattern;
pub(crate) mod quarry;
pub(crate) mod rules;
pub(crate) mod running_node;
pub(crate) mod slow_client;
pub(crate) mod tls;
pub(crate) mod trouble;

/// Whether the time bars of named release-build commands are on (`WAYSTATION_BARS=1`).
pub(crate) fn bars() -> bool {
    std::env::var("WAYSTATION_BARS").is_ok_and(|value| value == "1")
}

/// A small seeded generator for offsets and choices; print the seed when a story fails.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// The seed from `WAYSTATION_SEED`, else `default`; said aloud, so that a failure can be repeated.
    pub(crate) fn seeded(story: &str, default: u64) -> Self {
        let seed = std::env::var("WAYSTATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
        println!("{story}: WAYSTATION_SEED={seed}");
        Self { state: seed }
    }

    /// Other dice that follow from these: however many throws they make, these go on as if it was one.
    pub(crate) fn split(&mut self) -> Self {
        Self { state: self.below(u64::MAX) }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        u64::from_le_bytes(pattern::word(self.state, 0x0D1C_E000)) % bound.max(1)
    }
}
