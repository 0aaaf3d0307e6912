//! Bytes on a drive change, in every kind of file, while the node is stopped and while it runs: no wrong body is ever
//! whole, no request fails in the end, a flipped bit costs at most one block, and the second read is clean.
//!
//! `WAYSTATION_FLIPS` says how many; the choices follow from the seed that is printed. Bytes that change while the node
//! runs are noticed when the file is looked at again, after a second; nobody reads before.

use std::collections::BTreeMap;

use self::damage::Class;
use self::site::Site;
use super::rig::Dice;

mod damage;
mod index_and_journal;
mod site;

/// Whether journals and index stand a flipped bit as all other files do.
const JOURNALS_ARE_REDUNDANT: bool = true;

const BLOCK: u64 = 1 << 20;

fn flips() -> u64 {
    std::env::var("WAYSTATION_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(40)
}

/// What came of damages of one class.
#[derive(Debug, Default)]
struct Figures {
    damages: u64,
    /// Bytes of upstream, and what was allowed.
    fetched: u64,
    allowed: u64,
    /// Most that one damage has cost beyond what was not right before.
    most: u64,
    /// Damages that have cost more than a block.
    dear: u64,
    cuts: u32,
    refused: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_changes_on_a_drive_no_wrong_body_is_whole_and_a_bit_costs_one_block() {
    let flips = flips();
    let mut dice = Dice::seeded("flips", 6000);
    let mut site = Site::filled(&mut dice, if flips > 100 { 24 } else { 8 }).await;
    let mut figures: BTreeMap<(Class, bool), Figures> = BTreeMap::new();
    for number in 1..=flips {
        let mut own = dice.split();
        let is_live = own.below(4) == 0;
        let before = site.debt();
        let damage = if is_live { site.damage_live(&mut own).await } else { site.damage_stopped(&mut own).await };
        println!("{number}: {damage:?}, live: {is_live}");
        let allowed = site.debt() + damage.of_partials(&site);
        let first = site.read_all(&mut own).await;
        let what = format!("{number}: {first:?}, {allowed} bytes allowed");
        let second = site.read_all(&mut own).await;
        assert_eq!((second.fetched, second.requests, second.cuts, second.refused), (0, 0, 0, 0), "{what}: {second:?}");
        // More than a bit of a journal may be all that knew of something; the state directory is derived.
        let may_miss = match damage.class {
            Class::Journal => !JOURNALS_ARE_REDUNDANT || !damage.is_flip(),
            Class::State => !JOURNALS_ARE_REDUNDANT,
            Class::Blob | Class::PartialData | Class::PartialMap => false,
        };
        let of_journals = if damage.class.is_of_journals() { BLOCK } else { 0 };
        assert!(may_miss || first.fetched <= allowed + of_journals, "{what}");
        assert!(first.most_troubles <= 1, "a client was cut or refused more than once: {what}");
        assert!(is_live || site.debt() == 0, "not all is right on the drive again: {what}");
        let sum = figures.entry((damage.class, damage.is_flip())).or_default();
        sum.damages += 1;
        sum.fetched += first.fetched;
        sum.allowed += allowed;
        let cost = first.fetched.saturating_sub(before);
        sum.most = sum.most.max(cost);
        sum.dear += u64::from(cost > BLOCK);
        (sum.cuts, sum.refused) = (sum.cuts + first.cuts, sum.refused + first.refused);
        println!("{what}");
    }
    for ((class, is_flip), sum) in figures {
        println!("{class:?}, {}: {sum:?}", if is_flip { "one bit" } else { "more" });
    }
    site.end(&mut dice).await;
}
