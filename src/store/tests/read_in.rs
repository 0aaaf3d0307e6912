//! Drives that hang while they are read in, when the store is opened and when they arrive late: nobody waits for them, they
//! give nothing before all that they have is known, and they come into service once they do not hang.

use std::collections::HashSet;

use rustix::io::Errno;

use super::outages::{NEVER, check, put_all, until_out};
use super::*;
use crate::store::health::Reason;
use crate::store::pulse::Pulse;
use crate::store::pulse::injection::{Inject, hang_next, meet_next};

/// Before it is read in, a drive is opened, which takes an operation for each of its directories.
const OPENING: u32 = layout::DIRECTORIES.len() as u32;

/// Bodies on two drives, a partial one among them, and some that took the place of others.
async fn filled(rig: &Rig) -> (Vec<(String, Vec<u8>, usize)>, drive::DriveId) {
    let store = rig.open();
    put_all(&store, "a", 4).await;
    store.flush().await;
    for number in 0..4 {
        store.lookup(&key(&format!("a{number}"))).await.iter().for_each(|entry| store.remove(entry));
    }
    let bodies = put_all(&store, "b", 6).await;
    let mut writer = store.create(record("part", Some(3 * BLOCK as u64))).await.unwrap();
    fill(&mut writer, 0, &body_of(BLOCK, 3)).await;
    drop(writer);
    store.flush().await;
    assert!(bodies.iter().any(|(.., home)| *home == 0) && bodies.iter().any(|(.., home)| *home == 1));
    let id = store.inner.drives[1].id;
    (bodies, id)
}

/// The names of partial bodies of one block each, of which one at least is on each of two drives.
async fn parts(rig: &Rig) -> Vec<String> {
    let store = rig.open();
    let mut names = Vec::new();
    for number in 0..6 {
        let name = format!("part{number}");
        let mut writer = store.create(record(&name, Some(3 * BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &body_of(BLOCK, 3)).await;
        names.push(name);
    }
    store.flush().await;
    names
}

/// They are there to be gone on with, on the drives that are open.
async fn check_parts(store: &Store, names: &[String]) {
    let mut homes = HashSet::new();
    for name in names {
        let entry = only_partial(&store.lookup(&key(name)).await);
        let part = entry.partial().unwrap();
        homes.extend(store.inner.drives.iter().position(|drive| Arc::ptr_eq(drive, &part.drive)));
        let mut writer = store.resume(&entry).await.unwrap();
        assert_eq!(writer.contiguous(), BLOCK as u64, "{name}");
        fill(&mut writer, BLOCK, &body_of(2 * BLOCK, 4)).await;
        writer.complete(3 * BLOCK as u64).await.unwrap();
        assert_eq!(get(store, name).await.unwrap().len(), 3 * BLOCK, "{name}");
    }
    assert_eq!(homes.len(), 2);
}

/// The pulse of the drive once an operation on it hangs.
async fn hanging(store: &Store, id: drive::DriveId) -> Arc<Pulse> {
    let hangs = async {
        loop {
            let drives = store.inner.index.drives();
            match drives.iter().find(|drive| drive.id == id && drive.pulse.injected.is_hanging()) {
                Some(drive) => return Arc::clone(&drive.pulse),
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(NEVER, hangs).await.expect("it hangs")
}

async fn nothing_of_the_first_is_left(store: &Store) {
    for number in 0..4 {
        assert!(store.lookup(&key(&format!("a{number}"))).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_drive_that_hangs_while_it_is_read_in() {
    for (number, has_snapshot) in (1..=12).flat_map(|number| [(number, false), (number, true)]) {
        let rig = Rig::watched(2);
        let (bodies, id) = filled(&rig).await;
        if !has_snapshot {
            // All of its journal is read then.
            fs::remove_file(rig.path_of(1).join(layout::SNAPSHOT)).unwrap();
        }
        hang_next(id, OPENING + number);
        let store = rig.open();
        tokio::time::timeout(NEVER, store.ready()).await.expect("nobody waits");
        let pulse = hanging(&store, id).await;
        until_out(&store, 1, Some(Reason::Hung)).await;
        check(&store, &bodies, Some(1)).await;
        let anew = tokio::time::timeout(NEVER, put_all(&store, "c", 2)).await.expect("nobody waits");
        assert!(anew.iter().all(|(.., home)| *home == 0), "operation {number}");
        pulse.injected.set(Inject::Nothing);
        until_out(&store, 1, None).await;
        check(&store, &bodies, None).await;
        nothing_of_the_first_is_left(&store).await;
        assert!(put_all(&store, "d", 6).await.iter().any(|(.., home)| *home == 1), "operation {number}");
        drop(store);
        let store = rig.open();
        check(&store, &bodies, None).await;
        check(&store, &anew, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_arrives_late_gives_nothing_before_all_that_it_has_is_known() {
    for number in 2..=6 {
        let rig = Rig::watched(2);
        let (bodies, id) = filled(&rig).await;
        let (mounted, elsewhere) = (rig.path_of(1), rig.root.path().join("unmounted"));
        fs::remove_file(mounted.join(layout::SNAPSHOT)).unwrap();
        fs::rename(&mounted, &elsewhere).unwrap();
        let store = rig.open();
        store.ready().await;
        hang_next(id, OPENING + number);
        fs::rename(&elsewhere, &mounted).unwrap();
        let pulse = hanging(&store, id).await;
        check(&store, &bodies, Some(1)).await;
        let part = store.lookup(&key("part")).await;
        assert!(part.iter().all(|entry| entry.drive != id), "operation {number}");
        nothing_of_the_first_is_left(&store).await;
        pulse.injected.set(Inject::Nothing);
        until_out(&store, 1, None).await;
        check(&store, &bodies, None).await;
        nothing_of_the_first_is_left(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_hangs_keeps_its_lock_until_nobody_is_at_it_any_more() {
    let rig = Rig::watched(2);
    let (_, id) = filled(&rig).await;
    hang_next(id, OPENING + 3);
    let store = rig.open();
    let pulse = hanging(&store, id).await;
    let ended = tokio::task::spawn_blocking(move || drop(store));
    tokio::time::timeout(NEVER, ended).await.expect("nobody waits").unwrap();
    // Who was left behind may still change something.
    let again = Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap()));
    assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    pulse.injected.set(Inject::Nothing);
    let free = async {
        while Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap())).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(NEVER, free).await.expect("it is free again");
}

/// Waits until each drive that does not hang is read in, and what nothing names is found.
async fn until_recovered(store: &Store) {
    let ended = async {
        while store._running.recovering.lock().as_ref().is_some_and(|thread| !thread.is_finished()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(NEVER, ended).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_body_that_waits_to_be_put_back_outlives_any_error_at_the_start() {
    let content = body_of(3 * BLOCK + 9, 43);
    for number in 0..30 {
        let mut rig = Rig::watched(1);
        // One probe at each start counts, too; with more of them the drive would be in service again at once, and they would
        // take the turn of what comes late.
        rig.settings.probe_every = std::time::Duration::from_secs(3600);
        let id = {
            let store = rig.open();
            put(&store, "b", b"other").await;
            store.flush().await;
            let mut writer = store.create(record("a", Some(content.len() as u64))).await.unwrap();
            fill(&mut writer, 0, &content).await;
            let _faults = faults::Faults::below(&rig.path_of(0).join(layout::JOURNAL), 1, u64::MAX, Errno::STALE);
            writer.complete(content.len() as u64).await.unwrap();
            until_out(&store, 0, Some(Reason::Lost)).await;
            let id = store.inner.drives[0].id;
            drop(store);
            id
        };
        assert!(rig.path_of(0).join(layout::blob(&Digest::of(&content))).exists(), "it waits");
        meet_next(id, Inject::FailOnceAfter(OPENING + number, Errno::IO));
        {
            let store = rig.open();
            until_recovered(&store).await;
            store.flush().await;
        }
        let store = rig.open();
        let entry = only_partial(&store.lookup(&key("a")).await);
        let writer = store.resume(&entry).await.unwrap();
        assert_eq!(writer.contiguous(), content.len() as u64, "operation {number}");
        writer.complete(content.len() as u64).await.unwrap();
        assert!(get(&store, "a").await.unwrap() == content, "operation {number}");
        assert!(get(&store, "b").await.unwrap() == b"other", "operation {number}");
    }
}

/// Waits until operations on the drive fail.
async fn failing(store: &Store, number: usize) {
    let fails = async {
        while !store.inner.drives[number].pulse.injected.is_failing() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(NEVER, fails).await.expect("it fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_in_of_a_drive_that_fails_does_not_count() {
    for number in 0..12 {
        let rig = Rig::watched(2);
        let (bodies, id) = filled(&rig).await;
        let names = parts(&rig).await;
        fs::remove_file(rig.path_of(1).join(layout::SNAPSHOT)).unwrap();
        meet_next(id, Inject::FailAfter(OPENING + number, Errno::STALE));
        let store = rig.open();
        tokio::time::timeout(NEVER, store.ready()).await.expect("nobody waits");
        failing(&store, 1).await;
        until_out(&store, 1, Some(Reason::Lost)).await;
        check(&store, &bodies, Some(1)).await;
        let anew = tokio::time::timeout(NEVER, put_all(&store, "c", 2)).await.expect("nobody waits");
        assert!(anew.iter().all(|(.., home)| *home == 0), "operation {number}");
        tokio::time::timeout(NEVER, store.flush()).await.expect("nobody waits");
        store.inner.drives[1].pulse.injected.set(Inject::Nothing);
        until_out(&store, 1, None).await;
        check(&store, &bodies, None).await;
        nothing_of_the_first_is_left(&store).await;
        check_parts(&store, &names).await;
        let more = put_all(&store, "d", 6).await;
        assert!(more.iter().any(|(.., home)| *home == 1), "operation {number}");
        store.flush().await;
        assert!(!store.inner.drives[1].is_doubted(), "operation {number}");
        drop(store);
        let store = rig.open();
        check(&store, &bodies, None).await;
        check(&store, &more, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_place_that_cannot_be_read_is_no_outage() {
    for number in 0..8 {
        let rig = Rig::watched(2);
        let (bodies, id) = filled(&rig).await;
        meet_next(id, Inject::FailOnceAfter(OPENING + number, Errno::IO));
        let store = rig.open();
        until_recovered(&store).await;
        until_out(&store, 1, None).await;
        let of_first: Vec<_> = bodies.into_iter().filter(|(.., home)| *home == 0).collect();
        check(&store, &of_first, None).await;
        let more = put_all(&store, "d", 6).await;
        assert!(more.iter().any(|(.., home)| *home == 1), "operation {number}");
        store.flush().await;
        drop(store);
        check(&rig.open(), &more, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_fails_while_it_arrives_is_taken_in_whole_at_another_attempt() {
    for number in 0..12 {
        let rig = Rig::watched(2);
        let (bodies, id) = filled(&rig).await;
        let names = parts(&rig).await;
        let (mounted, elsewhere) = (rig.path_of(1), rig.root.path().join("unmounted"));
        fs::remove_file(mounted.join(layout::SNAPSHOT)).unwrap();
        fs::rename(&mounted, &elsewhere).unwrap();
        let store = rig.open();
        store.ready().await;
        // The next attempt is with another handle, which fails no more.
        meet_next(id, Inject::FailAfter(OPENING + number, Errno::STALE));
        fs::rename(&elsewhere, &mounted).unwrap();
        until_out(&store, 1, None).await;
        store.inner.drives[1].pulse.injected.set(Inject::Nothing);
        until_out(&store, 1, None).await;
        check(&store, &bodies, None).await;
        nothing_of_the_first_is_left(&store).await;
        check_parts(&store, &names).await;
    }
}
