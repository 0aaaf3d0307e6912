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
pub(crate) mod frames;
pub(crate) mod ledger;
pub(crate) mod origin_reply;
pub(crate) mod patient;
pub(crate) mod pattern;
pub(crate) mod quarry;
pub(crate) mod relay;
pub(crate) mod rules;
pub(crate) mod running_node;
pub(crate) mod slow_client;
pub(crate) mod tls;
pub(crate) mod trouble;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

/// An address on loopback that nobody else has, for those who must be told where to listen before they do.
pub(crate) fn own_address(port: u16) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 80 + high % 64, low, NEXT.fetch_add(1, Ordering::Relaxed));
    (address, port).into()
}

/// Where a program of others is that a story needs. Says so aloud when it is not here, and fails in CI, which installs it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where servers are, which is not in everybody's PATH.
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|place| place.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("NOT TESTED: {name} is missing");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "install {name}");
    }
    found
}

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
