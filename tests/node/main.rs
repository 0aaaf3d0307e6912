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
mod budget;
mod changing;
mod clock;
mod coalesce;
mod cold_range;
mod connect;
mod digests;
mod drives;
mod failures;
mod faults;
mod fields;
mod flap;
mod flips;
mod framing;
mod freshness;
mod full;
mod hits;
mod interim;
mod kills;
mod kills_rounds;
mod memory;
mod mending;
mod methods;
mod nested;
mod outages;
mod part_digests;
mod passed;
mod pins;
mod ranges;
mod relayed;
mod repeats;
mod restart;
mod resumption;
mod rig;
mod semantics;
mod slow_heads;
mod small_devices;
mod stale_while;
mod stalls;
mod tls;
mod tokens;
mod unknown_length;
mod verifying;
mod versions;
