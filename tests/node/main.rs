//! The node as its clients see it: stories on the real binary, black box, over loopback.
//!
//! `rig` has the processes and peers; every other module is a set of stories. The long run and the time bars are
//! for a machine with nothing else to do:
//!
//! ```text
//! WAYSTATION_BARS=1 cargo test --release --test node -- --test-threads 1 --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a story fails by a panic and shows its figures")]

mod apt;
mod coalesce;
mod connect;
mod failures;
mod fields;
mod freshness;
mod hits;
mod memory;
mod methods;
mod ranges;
mod restart;
mod rig;
mod slow_heads;
mod small_devices;
mod tokens;
mod unknown_length;
