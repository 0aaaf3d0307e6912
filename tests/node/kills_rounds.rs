//! SIGKILL at any moment: under mixed load, in the first milliseconds, while the store is read in, during an orderly stop,
//! while a journal is compacted, twice in a row. The node starts each time, what was complete and durable is there byte
//! for byte without a request to the origin, and what was not goes on where it was.
//!
//! `WAYSTATION_ROUNDS` says how many kills; the choices follow from the seed that is printed.

use std::time::Duration;

use self::world::{Kind, Sums, World};
use super::rig::{Dice, bars};

mod load;
mod moment;
mod world;

/// Kills of one store before the next one begins empty.
const LIVES: u64 = 15;
/// A refused connection for longer makes agents avoid the cache.
const LISTENS: Duration = Duration::from_millis(500);

fn rounds() -> u64 {
    std::env::var("WAYSTATION_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(30)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_it_is_killed_nothing_complete_is_lost_and_nothing_comes_twice() {
    let rounds = rounds();
    let mut dice = Dice::seeded("kills at any moment", 5000);
    let (mut sums, mut evicting) = (Sums::default(), Sums::default());
    let mut round = 0;
    while round < rounds {
        let kind = Kind::ALL[(round / LIVES) as usize % Kind::ALL.len()];
        let mut world = World::begin(&mut dice, kind).await;
        for _ in 0..LIVES.min(rounds - round) {
            round += 1;
            world.live_and_die(dice.split(), round).await;
        }
        let total = if kind == Kind::TooSmall { &mut evicting } else { &mut sums };
        *total += world.end(&mut dice).await;
    }
    println!("{rounds} kills\n  {sums}\n  too small a drive: {evicting}");
    let listens = sums.listens.max(evicting.listens);
    // What lay in the sockets of a killed process is lost; on a busy machine that is more.
    let at_most = if bars() { 1.02 } else { 1.08 };
    assert!(sums.ratio() <= at_most, "the origin sent {} times what it had to", sums.ratio());
    if bars() {
        assert!(listens <= LISTENS, "the port was closed for {listens:?}");
    }
}
