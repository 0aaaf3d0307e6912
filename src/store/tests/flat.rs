//! Instructions that a look-up takes in a store with few objects and in one with very many, counted by callgrind.

use std::path::PathBuf;

use super::scale::{PLACE, name_of, on_its_own, settings_at, write_objects};
use super::*;
use crate::content::KeyHash;
use crate::store::index::Index;

/// So many look-ups are counted together.
const LOOKUPS: u64 = 1000;
/// Which function is to be counted.
const COUNTED: &str = "WAYSTATION_COUNTED";
const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;

/// Which drives have something under these keys: what the index has in memory.
#[inline(never)]
fn counted_in_memory(index: &Index, keys: &[KeyHash]) -> usize {
    keys.iter().map(|key| index.drives_with(*key).len()).sum()
}

/// The same, and what the journal says of it.
#[inline(never)]
fn counted_in_all(index: &Index, keys: &[KeyHash]) -> usize {
    let rows = |key: &KeyHash| {
        let drives = index.drives_with(*key);
        drives.iter().map(|drive| index.rows_on(drive.id, *key).unwrap().len()).sum::<usize>()
    };
    keys.iter().map(rows).sum()
}

#[tokio::test]
#[ignore = "started by another test, under callgrind"]
async fn look_ups_that_are_counted() {
    let (Some(root), Ok(counted)) = (std::env::var_os(PLACE), std::env::var(COUNTED)) else { return };
    let store = Store::open(settings_at(&PathBuf::from(root)), Arc::new(Metrics::new().unwrap())).unwrap();
    store.ready().await;
    let index = Arc::clone(&store.inner.index);
    let (_, count) = index.len(index.drives()[0].id);
    let keys: Vec<_> = (0..LOOKUPS).map(|number| key(&name_of(number * count as u64 / LOOKUPS)).hash()).collect();
    let found = if counted == "counted_in_all" { counted_in_all } else { counted_in_memory }(&index, &keys);
    assert_eq!(found as u64, LOOKUPS);
}

/// Instructions for each look-up in the store at `root`.
fn instructions(root: &Path, counted: &str) -> u64 {
    let output = root.join("callgrind.out");
    let toggle = format!("--toggle-collect=*{counted}*");
    let file = format!("--callgrind-out-file={}", output.display());
    let through = ["valgrind", "--tool=callgrind", &toggle, &file];
    let ran = on_its_own("store::tests::flat::look_ups_that_are_counted", root, &through)
        .env(COUNTED, counted)
        .output()
        .expect("it needs valgrind");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let counts = fs::read_to_string(&output).unwrap();
    let all = counts.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().trim().parse::<u64>().unwrap();
    assert!(all > 0, "the function was not found in the program");
    all / LOOKUPS
}

#[test]
#[ignore = "needs valgrind, and some minutes"]
fn a_look_up_takes_as_many_instructions_in_a_million_objects_as_in_ten_thousand() {
    let stores = [FEW, MANY].map(|count| {
        let root = TempDir::new().unwrap();
        write_objects(root.path(), count);
        // The snapshot, which valgrind need not make.
        let made = on_its_own("store::tests::scale::a_start_with_many_objects", root.path(), &[])
            .env("WAYSTATION_OBJECTS", count.to_string())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        root
    });
    for counted in ["counted_in_memory", "counted_in_all"] {
        let [few, many] = stores.each_ref().map(|root| instructions(root.path(), counted));
        println!("{counted}: {few} instructions with {FEW} objects, {many} with {MANY}");
        assert!(many * 5 <= few * 6, "{counted}: more than a fifth more");
    }
}
