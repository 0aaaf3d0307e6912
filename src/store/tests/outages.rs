//! Drives that hang, fail, are lost or absent: what is on them counts as missing, nobody waits for them, and they come back
//! while the store is open. Tests that need a mount of their own are in `tests/node/outages.rs`.

use std::time::Duration;

use rustix::io::Errno;

use super::*;
use crate::store::health::Reason;
use crate::store::pulse::injection::Inject;

/// Nothing waits so long, if it waits for what ends at all.
pub(super) const NEVER: Duration = Duration::from_secs(30);

impl Rig {
    /// With so many drives that are watched closely.
    pub(super) fn watched(count: usize) -> Self {
        let mut rig = Self::new();
        let drive = |number| DriveSettings { path: rig.path_of(number), ..rig.settings.drives[0].clone() };
        rig.settings.drives = (0..count).map(drive).collect();
        // Longer than a busy machine keeps an operation of a drive that is well.
        rig.settings.drive_timeout = Duration::from_secs(1);
        rig.settings.probe_every = Duration::from_millis(20);
        rig
    }

    pub(super) fn path_of(&self, number: usize) -> PathBuf {
        self.root.path().join(format!("drive{number}"))
    }
}

/// Waits until the drive with this number is out of service for that reason, or is not.
pub(super) async fn until_out(store: &Store, number: usize, reason: Option<Reason>) {
    let seen = async {
        while store.usage()[number].out.as_ref().map(|out| out.reason) != reason {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(NEVER, seen).await;
    assert!(seen.is_ok(), "{reason:?}: {:?}", store.usage()[number]);
}

/// Puts so many bodies and returns them, each with the number of its drive.
pub(super) async fn put_all(store: &Store, prefix: &str, count: u64) -> Vec<(String, Vec<u8>, usize)> {
    let mut bodies = Vec::new();
    for number in 0..count {
        let (name, content) = (format!("{prefix}{number}"), body_of(BLOCK + 5, 900 + number));
        let completed = put(store, &name, &content).await;
        let home = store.inner.drives.iter().position(|drive| drive.id == completed.entry.drive).unwrap();
        bodies.push((name, content, home));
    }
    bodies
}

/// What a client of `name` would get; a body that cannot be read is fetched anew.
async fn get(store: &Store, name: &str) -> Option<Vec<u8>> {
    let variants = store.lookup(&key(name)).await;
    let entry = variants.iter().find(|entry| matches!(entry.record.body, BodyRef::Blob(_)))?;
    let body = store.body(entry).await.ok()?;
    let mut content = Vec::new();
    while (content.len() as u64) < body.length()? {
        content.extend_from_slice(&body.read(content.len() as u64, 100_000).await.ok()?);
    }
    Some(content)
}

/// What is on `out` is missing, all else there.
pub(super) async fn check(store: &Store, bodies: &[(String, Vec<u8>, usize)], out: Option<usize>) {
    for (name, content, home) in bodies {
        let got = tokio::time::timeout(NEVER, get(store, name)).await.expect("nobody waits");
        assert!(got.as_ref() == Some(content).filter(|_| out != Some(*home)), "{name} of drive {home}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_drive_that_hangs_and_what_is_on_it_is_there_again_when_it_does_not() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let bodies = put_all(&store, "a", 8).await;
    store.flush().await;
    let other = &bodies.iter().find(|(.., home)| *home == 1).unwrap().0;
    let on_it: Vec<_> = bodies.iter().filter(|(.., home)| *home == 0).collect();
    assert!(on_it.len() >= 2);

    store.inner.drives[0].pulse.injected.set(Inject::Hang);
    // Asked for before anybody knows: each ends while the drive still hangs.
    let asked = on_it.iter().map(|(name, ..)| get(&store, name));
    let asked = tokio::time::timeout(NEVER, futures_util::future::join_all(asked)).await.expect("nobody waits");
    assert!(asked.iter().zip(&on_it).all(|(got, (_, content, _))| got.as_ref().is_none_or(|got| got == content)));
    until_out(&store, 0, Some(Reason::Hung)).await;
    check(&store, &bodies, Some(0)).await;
    assert!(get(&store, other).await.is_some());
    // What comes now goes to the other one, under the same name too.
    let anew = tokio::time::timeout(NEVER, put_all(&store, "b", 4)).await.expect("nobody waits");
    assert!(anew.iter().all(|(.., home)| *home == 1));
    put(&store, &on_it[0].0, &on_it[0].1).await;
    assert!(get(&store, &on_it[0].0).await.as_ref() == Some(&on_it[0].1));
    tokio::time::timeout(NEVER, store.flush()).await.expect("nobody waits");

    store.inner.drives[0].pulse.injected.set(Inject::Nothing);
    until_out(&store, 0, None).await;
    check(&store, &bodies, None).await;
    put_all(&store, "c", 4).await;
    drop(store);
    let store = rig.open();
    check(&store, &bodies, None).await;
    check(&store, &anew, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_ends_while_a_drive_hangs() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let bodies = put_all(&store, "a", 6).await;
    store.flush().await;
    let pulse = Arc::clone(&store.inner.drives[0].pulse);
    // Two that it is still to write.
    let late = put_all(&store, "late", 2).await;
    pulse.injected.set(Inject::Hang);
    let ended = tokio::task::spawn_blocking(move || drop(store));
    tokio::time::timeout(NEVER, ended).await.expect("nobody waits").unwrap();
    pulse.injected.set(Inject::Nothing);
    let alone = Settings { drives: vec![rig.settings.drives[1].clone()], ..rig.settings.clone() };
    let store = Store::open(alone, Arc::new(Metrics::new().unwrap())).unwrap();
    for (name, content, home) in bodies.iter().chain(&late) {
        assert!(get(&store, name).await.as_ref() == Some(content).filter(|_| *home == 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_on_a_drive_that_hangs_is_told_and_what_it_wrote_waits_for_the_drive() {
    let rig = Rig::watched(2);
    let store = rig.open();
    // On a busy machine one may be slow to be read in.
    until("both are in service", || store.inner.drives.iter().all(|drive| drive.in_service())).await;
    let content = body_of(4 * BLOCK, 7);
    let mut writer = store.create(record("a", Some(content.len() as u64))).await.unwrap();
    fill(&mut writer, 0, &content[..2 * BLOCK]).await;
    let home = store.inner.drives.iter().position(|drive| drive.id == writer.entry().drive).unwrap();
    store.inner.drives[home].pulse.injected.set(Inject::Hang);
    let rest = vec![Bytes::copy_from_slice(&content[2 * BLOCK..])];
    let written = tokio::time::timeout(NEVER, writer.write(2 * BLOCK as u64, rest)).await.expect("nobody waits");
    assert!(written.is_err());
    writer.discard().await;
    assert!(store.lookup(&key("a")).await.is_empty());
    assert!(!put(&store, "a", &content).await.duplicate, "on the other one");
    store.inner.drives[home].pulse.injected.set(Inject::Nothing);
    until_out(&store, home, None).await;
    assert!(get(&store, "a").await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drive_that_hung_makes_late_takes_no_place() {
    let rig = Rig::watched(2);
    let store = rig.open();
    until("both are in service", || store.inner.drives.iter().all(|drive| drive.in_service())).await;
    let content = body_of(2 * BLOCK, 8);
    let length = content.len() as u64;
    let first = FirstBytes { at: 0, bytes: vec![Bytes::from(body_of(500, 9))], until: Some(length) };
    let asked = store.inner.fitting_drives(length)[0].id;
    let asked = store.inner.drives.iter().position(|drive| drive.id == asked).unwrap();
    store.inner.drives[asked].pulse.injected.set(Inject::Hang);
    let begun = store.begin(record("a", Some(length)), length, first);
    let begun = tokio::time::timeout(NEVER, begun).await.expect("nobody waits").unwrap();
    drop(begun);
    // Another version came by the time the drive answers.
    put(&store, "a", &content).await;
    assert!(store.inner.drives[asked].promised() >= length, "its job is still at it");
    store.inner.drives[asked].pulse.injected.set(Inject::Nothing);
    until_out(&store, asked, None).await;
    until("the job has ended", || store.inner.drives[asked].promised() == 0).await;
    store.flush().await;
    assert!(matches!(&store.lookup(&key("a")).await[..], [entry] if is_blob(entry)));
    assert!(get(&store, "a").await.unwrap() == content);
    let left = || fs::read_dir(rig.path_of(asked).join("partial")).unwrap().count();
    until("its files are gone", || left() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_error_is_no_outage_and_a_drive_that_always_fails_is() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let bodies = put_all(&store, "a", 8).await;
    store.flush().await;
    let pulse = &store.inner.drives[0].pulse;
    pulse.injected.set(Inject::FailOnce(Errno::IO));
    let asked = bodies.iter().map(|(name, ..)| get(&store, name));
    let got = futures_util::future::join_all(asked).await;
    assert!(got.iter().filter(|got| got.is_none()).count() <= 1);
    assert!(store.usage()[0].in_service());
    pulse.injected.set(Inject::Fail(Errno::IO));
    until_out(&store, 0, Some(Reason::Failing)).await;
    let before = &bodies.iter().filter(|(.., home)| *home == 1).cloned().collect::<Vec<_>>();
    check(&store, before, None).await;
    assert!(put_all(&store, "b", 4).await.iter().all(|(.., home)| *home == 1));
    let text = store.inner.metrics.render().unwrap();
    let label =
        format!("waystation_drive_out_of_service{{drive=\"{}\",reason=\"failing\"}} 1", rig.path_of(0).display());
    assert!(text.contains(&label), "{text}");
    pulse.injected.set(Inject::Nothing);
    until_out(&store, 0, None).await;
    check(&store, &bodies, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_drive_left_nothing_is_stored_and_nothing_waits() {
    let rig = Rig::watched(1);
    let store = rig.open();
    let bodies = put_all(&store, "a", 2).await;
    store.flush().await;
    store.inner.drives[0].pulse.injected.set(Inject::Fail(Errno::STALE));
    until_out(&store, 0, Some(Reason::Lost)).await;
    check(&store, &bodies, Some(0)).await;
    let refused = tokio::time::timeout(NEVER, store.create(record("b", Some(10)))).await.expect("nobody waits");
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })));
    store.inner.drives[0].pulse.injected.set(Inject::Nothing);
    until_out(&store, 0, None).await;
    check(&store, &bodies, None).await;
    put(&store, "b", b"again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_goes_from_its_path_is_out_and_comes_back_with_it() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let bodies = put_all(&store, "a", 8).await;
    store.flush().await;
    let (mounted, elsewhere) = (rig.path_of(1), rig.root.path().join("unmounted"));
    fs::rename(&mounted, &elsewhere).unwrap();
    fs::create_dir(&mounted).unwrap();
    until_out(&store, 1, Some(Reason::Lost)).await;
    check(&store, &bodies, Some(1)).await;
    let between = put_all(&store, "b", 4).await;
    store.flush().await;
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0, "nothing is written below a mount point");
    fs::remove_dir(&mounted).unwrap();
    // It comes back as another directory, as a mount of a disk does that was pulled.
    fs::create_dir(&mounted).unwrap();
    copy(&elsewhere, &mounted);
    until_out(&store, 1, None).await;
    check(&store, &bodies, None).await;
    fs::remove_dir_all(&elsewhere).unwrap();
    let after = put_all(&store, "c", 6).await;
    assert!(after.iter().any(|(.., home)| *home == 1));
    drop(store);
    let store = rig.open();
    for bodies in [&bodies, &between, &after] {
        check(&store, bodies, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_was_absent_comes_into_service_and_another_one_in_its_place_does_not() {
    let rig = Rig::watched(2);
    let bodies = {
        let store = rig.open();
        put_all(&store, "a", 8).await
    };
    let (mounted, elsewhere) = (rig.path_of(1), rig.root.path().join("unmounted"));
    fs::rename(&mounted, &elsewhere).unwrap();
    let store = rig.open();
    check(&store, &bodies, Some(1)).await;
    assert_eq!(store.usage()[1].out.as_ref().unwrap().reason, Reason::Lost);
    // One of another cache.
    let foreign = Rig::new();
    drop(foreign.open());
    copy(&foreign.drive(), &mounted_anew(&mounted));
    until_out(&store, 1, Some(Reason::OtherDrive)).await;
    let text = store.usage()[1].out.as_ref().unwrap().text.clone().unwrap();
    assert!(text.contains("waystation drive adopt"), "{text}");
    fs::remove_dir_all(&mounted).unwrap();
    fs::rename(&elsewhere, &mounted).unwrap();
    until_out(&store, 1, None).await;
    check(&store, &bodies, None).await;
    let more = put_all(&store, "b", 6).await;
    assert!(more.iter().any(|(.., home)| *home == 1));
    drop(store);
    check(&rig.open(), &more, None).await;
}

fn mounted_anew(path: &Path) -> PathBuf {
    fs::create_dir(path).unwrap();
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_completed_while_the_drive_that_has_its_content_hangs() {
    let rig = Rig::watched(2);
    let store = rig.open();
    let content = body_of(2 * BLOCK + 7, 41);
    let first = put(&store, "a", &content).await;
    store.flush().await;
    let home = store.inner.drives.iter().position(|drive| drive.id == first.entry.drive).unwrap();
    drop(first);
    // Nobody has the blob open, so that its file is asked for.
    store.inner.memory.forget_drive(&store.inner.drives[home]);
    let mut writers = Vec::new();
    for number in 0..2 * drive::THREADS {
        let mut writer = store.create(record(&format!("b{number}"), Some(content.len() as u64))).await.unwrap();
        fill(&mut writer, 0, &content).await;
        writers.push(writer);
    }
    writers.retain(|writer| writer.entry().drive != store.inner.drives[home].id);
    assert!(!writers.is_empty());
    store.inner.drives[home].pulse.injected.set(Inject::Hang);
    let all = writers.into_iter().map(|writer| writer.complete(content.len() as u64));
    let all = tokio::time::timeout(NEVER, futures_util::future::join_all(all)).await.expect("nobody waits");
    assert!(all.iter().all(Result::is_ok));
    assert!(store.usage()[1 - home].in_service());
    let entry = &all[0].as_ref().unwrap().entry;
    assert!(read_all(&store.body(entry).await.unwrap()).await == content);
    store.inner.drives[home].pulse.injected.set(Inject::Nothing);
    until_out(&store, home, None).await;
    assert!(get(&store, "a").await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn what_a_drive_takes_but_for_its_journal_is_put_back_at_the_next_start() {
    let mut rig = Rig::watched(1);
    // Or a probe, which succeeds, would have it in service again at once.
    rig.settings.probe_every = Duration::from_secs(3600);
    let (content, path) = (body_of(3 * BLOCK + 9, 42), rig.path_of(0));
    {
        let store = rig.open();
        let mut writer = store.create(record("a", Some(content.len() as u64))).await.unwrap();
        fill(&mut writer, 0, &content).await;
        let faults = faults::Faults::below(&path.join(layout::JOURNAL), 1, u64::MAX, Errno::STALE);
        writer.complete(content.len() as u64).await.unwrap();
        until_out(&store, 0, Some(Reason::Lost)).await;
        drop(store);
        assert!(faults.struck() > 0);
    }
    let store = rig.open();
    let entry = only_partial(&store.lookup(&key("a")).await);
    let writer = store.resume(&entry).await.unwrap();
    assert_eq!(writer.contiguous(), content.len() as u64);
    writer.complete(content.len() as u64).await.unwrap();
    assert!(get(&store, "a").await.unwrap() == content, "without a transfer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drive_has_that_went_since_it_was_asked_is_stored_anew() {
    let mut rig = Rig::watched(2);
    // Nobody finds out meanwhile that it is well.
    rig.settings.probe_every = Duration::from_secs(3600);
    let store = rig.open();
    let content = body_of(2 * BLOCK + 7, 44);
    let first = put(&store, "a", &content).await;
    store.flush().await;
    let home = store.inner.drives.iter().position(|drive| drive.id == first.entry.drive).unwrap();
    let asked = Arc::clone(&store.inner.drives[home]);
    let mut writers = Vec::new();
    let writer = loop {
        let mut writer = store.create(record("b", Some(content.len() as u64))).await.unwrap();
        fill(&mut writer, 0, &content).await;
        if writer.entry().drive != asked.id {
            break writer;
        }
        writers.push(writer);
    };
    let entry = Arc::clone(writer.entry());
    let partial = Arc::clone(entry.partial().unwrap());
    let inner = Arc::clone(&store.inner);
    let job = tokio::task::spawn_blocking(move || {
        let number = partial.state.lock().writer;
        let (finishing, finished) = stored::Finishing::finish(&partial, entry, number, content.len() as u64).unwrap();
        let gone = inner.entries.lock().gone;
        let stored = inner.look(inner.whereabouts(finished.digest));
        assert!(stored.as_ref().is_some_and(|blob| Arc::ptr_eq(blob.drive(), &asked)));
        asked.pulse.on(health::Event::Bad(health::Fault::Gone));
        match inner.publish_blob(finishing, finished, Some(stored::Told { gone, stored })) {
            Ok(stored::Attempt::Done(completed)) => (completed, partial.drive.id),
            _ => panic!("it is stored"),
        }
    });
    let (completed, here) = job.await.unwrap();
    assert!(!completed.duplicate && completed.entry.drive == here);
    drop((writer, writers, first));
    store.flush().await;
    drop(store);
    rig.settings.drives.remove(home);
    assert!(get(&rig.open(), "b").await.unwrap() == body_of(2 * BLOCK + 7, 44));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_drive_is_waited_for_at_the_end_while_another_one_hangs() {
    let mut rig = Rig::watched(2);
    rig.settings.drive_timeout = Duration::from_secs(2);
    // A probe may go on when all else has ended.
    rig.settings.probe_every = Duration::from_secs(3600);
    let store = rig.open();
    let mut writers = Vec::new();
    for number in 0..12 {
        let mut writer = store.create(record(&format!("a{number}"), Some(3 * BLOCK as u64))).await.unwrap();
        fill(&mut writer, 0, &body_of(BLOCK, number)).await;
        writers.push(writer);
    }
    store.flush().await;
    let drives = [0, 1].map(|number| Arc::clone(&store.inner.drives[number]));
    let on_slow = writers.iter().filter(|writer| writer.entry().drive == drives[1].id).count();
    assert!(on_slow >= 4);
    let pulse = &drives[1].pulse;
    drives[0].pulse.injected.set(Inject::Hang);
    let hung = writers.iter_mut().find(|writer| writer.entry().drive == drives[0].id).unwrap();
    let refused = tokio::time::timeout(NEVER, hung.write(BLOCK as u64, vec![Bytes::from_static(b"more")])).await;
    assert!(refused.expect("nobody waits").is_err());
    pulse.injected.set(Inject::Slow(Duration::from_millis(400)));
    until_out(&store, 0, Some(Reason::Hung)).await;
    let ended = tokio::task::spawn_blocking(move || drop(store));
    tokio::time::timeout(NEVER, ended).await.expect("nobody waits for what hangs").unwrap();
    assert!(pulse.rests_for(Duration::ZERO) && pulse.is_well(), "nobody is at it any more");
    drives[0].pulse.injected.set(Inject::Nothing);
}
