//! Quotas, and what goes to keep them.

use super::*;

#[tokio::test]
async fn many_small_bodies_stay_below_the_quota() {
    let rig = Rig::new();
    let quota = 100 * 4096;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(settings.clone(), Arc::clone(&metrics)).unwrap();
    for number in 0..300_u64 {
        let name = number.to_string();
        put(&store, &name, &body_of(3000, number)).await;
        assert!(store.usage()[0].used <= quota, "{:?}", store.usage());
    }
    assert!(metrics.evictions.get() >= 200);
    assert_eq!(get(&store, "299").await.unwrap(), body_of(3000, 299));
    store.flush().await;
    let mut kept = Vec::new();
    for number in 0..300_u64 {
        if let Some(content) = get(&store, &number.to_string()).await {
            assert_eq!(content, body_of(3000, number));
            kept.push(number);
        }
    }
    assert!(kept.len() >= 80, "{}", kept.len());
    drop(store);
    let store = Store::open(settings, metrics).unwrap();
    for number in 0..300_u64 {
        let there = get(&store, &number.to_string()).await.is_some();
        assert_eq!(there, kept.contains(&number), "{number}");
    }
    let too_large = store.create(record("huge", Some(quota + 1))).await;
    assert!(matches!(too_large, Err(StoreError::NoSpace { .. })));
}

#[tokio::test]
async fn abandoned_partials_make_room_and_written_ones_do_not() {
    let rig = Rig::new();
    let quota = 10 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    let mut abandoned = store.create(record("abandoned", Some(5 * BLOCK as u64))).await.unwrap();
    fill(&mut abandoned, 0, &body_of(4 * BLOCK, 1)).await;
    drop(abandoned);
    let mut written = store.create(record("written", Some(4 * BLOCK as u64))).await.unwrap();
    fill(&mut written, 0, &body_of(4 * BLOCK, 2)).await;
    let content = body_of(5 * BLOCK, 3);
    put(&store, "new", &content).await;
    assert!(store.lookup(&key("abandoned")).await.is_empty());
    let other = store.create(record("other", Some(8 * BLOCK as u64))).await;
    assert!(matches!(other, Err(StoreError::NoSpace { .. })), "the written one is in the way");
    let completed = written.complete(4 * BLOCK as u64).await.unwrap();
    assert_eq!(read_all(&store.body(&completed.entry).await.unwrap()).await, body_of(4 * BLOCK, 2));
}

#[tokio::test]
async fn what_went_with_its_blob_does_not_come_back_when_the_same_bytes_come_under_another_key() {
    let rig = Rig::new();
    let content = body_of(BLOCK, 40);
    let store = rig.open();
    put(&store, "before", &content).await;
    store.flush().await;
    {
        let mut table = store.inner.entries.lock();
        store.inner.drop_blob(&mut table, &store.inner.drives[0], Digest::of(&content), None);
    }
    put(&store, "after", &content).await;
    for flushed in [false, true] {
        if flushed {
            store.flush().await;
        }
        assert!(store.lookup(&key("before")).await.is_empty(), "{flushed}: a restart would not know it");
        assert_eq!(get(&store, "after").await.unwrap(), content);
    }
    drop(store);
    let store = rig.open();
    assert!(store.lookup(&key("before")).await.is_empty());
    assert_eq!(get(&store, "after").await.unwrap(), content);
}

#[tokio::test]
async fn wrong_bytes_in_quarantine_leave_the_room_to_right_ones() {
    let rig = Rig::new();
    let quota = 40 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    put(&store, "right", &body_of(20 * BLOCK, 30)).await;
    for number in 0..20 {
        let mut wrong = record("wrong", None);
        wrong.expected = Some(ExpectedDigest::Upstream(Digest::of(b"other").into()));
        let mut writer = store.create(wrong).await.unwrap();
        fill(&mut writer, 0, &body_of(2 * BLOCK, 31 + number)).await;
        assert!(matches!(writer.complete(2 * BLOCK as u64).await, Err(CompleteError::Mismatch { .. })));
    }
    store.flush().await;
    assert_eq!(get(&store, "right").await.unwrap(), body_of(20 * BLOCK, 30));
    let data = fs::read_dir(rig.drive().join("quarantine"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_none());
    assert_eq!(data.count(), 1, "the newest is kept for people to look at");
    assert!(store.usage()[0].used <= 22 * BLOCK as u64 + 4096, "{:?}", store.usage());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fills_at_once_stay_below_the_quota_and_readers_get_right_bytes() {
    let rig = Rig::new();
    let quota = 60 * BLOCK as u64;
    let settings =
        Settings { drives: vec![DriveSettings { quota, ..rig.settings.drives[0].clone() }], ..rig.settings.clone() };
    let store = Store::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..25_u64 {
                let content = body_of((1 + (number as usize + task as usize) % 4) * BLOCK, task * 1000 + number);
                let name = format!("{task}-{number}");
                put(&store, &name, &content).await;
                if let Some(got) = get(&store, &name).await {
                    assert_eq!(got, content);
                }
                let earlier = number / 2;
                let length = (1 + (earlier as usize + task as usize) % 4) * BLOCK;
                if let Some(got) = get(&store, &format!("{task}-{earlier}")).await {
                    assert_eq!(got, body_of(length, task * 1000 + earlier));
                }
            }
        });
    }
    tasks.join_all().await;
    store.flush().await;
    let usage = &store.usage()[0];
    assert!(usage.used <= quota, "{usage:?}");
    assert!(usage.used >= quota / 2, "{usage:?}");
}

/// Where the other test has mounted a small file system for this one.
const SMALL: &str = "WAYSTATION_TEST_SMALL";

/// Not everybody may mount: that is said aloud, and where CI=true it is a failure.
fn not_run(why: &str) {
    println!("NOT RUN: full file systems are not tested here, unshare and tmpfs are needed: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
}

#[test]
fn a_full_file_system_costs_old_content_and_nothing_else() {
    for (options, bodies) in [("size=24m", "60 1000000"), ("size=64m,nr_inodes=700", "900 100")] {
        let root = TempDir::new().unwrap();
        let script = format!(
            "mount -t tmpfs -o {options} none \"$1\" || exit 42; shift; exec \"$@\" --ignored --exact store::tests::eviction::on_a_small_file_system"
        );
        let mount = root.path().display().to_string();
        let program = std::env::current_exe().unwrap();
        let outcome = std::process::Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script, "sh", &mount])
            .arg(program)
            .env(SMALL, format!("{mount} {bodies}"))
            .output();
        match outcome {
            Ok(output) if output.status.success() => {}
            Err(error) => return not_run(&error.to_string()),
            Ok(output) if output.status.code() == Some(42) => return not_run("mounting is not permitted"),
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare") => {
                return not_run(&String::from_utf8_lossy(&output.stderr));
            }
            Ok(output) => panic!("{options}: {}", String::from_utf8_lossy(&output.stdout)),
        }
    }
}

#[tokio::test]
#[ignore = "started by another test, on a file system of its own"]
async fn on_a_small_file_system() {
    let text = std::env::var(SMALL).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let (count, length): (u64, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut rig = Rig::new();
    rig.settings.drives[0].path = PathBuf::from(words[0]).join("drive");
    let store = rig.open();
    for number in 0..count {
        let content = body_of(length, number);
        put(&store, &number.to_string(), &content).await;
        assert_eq!(get(&store, &number.to_string()).await.unwrap(), content, "{number}");
    }
    store.flush().await;
    drop(store);
    let store = rig.open();
    let last = count - 1;
    assert_eq!(get(&store, &last.to_string()).await.unwrap(), body_of(length, last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_above_a_smaller_quota_goes_bit_by_bit_while_fills_go_on() {
    let mut rig = Rig::watched(1);
    let bodies: Vec<_> = (0..40u64).map(|number| (number.to_string(), body_of(4 * BLOCK, 600 + number))).collect();
    {
        let store = rig.open();
        for (name, content) in &bodies {
            put(&store, name, content).await;
        }
    }
    let (all, quota) = (40 * 4 * BLOCK as u64, 16 * 4 * BLOCK as u64);
    rig.settings.drives[0].quota = quota;
    // Some seconds for all of it.
    rig.settings.shrink_rate = (all - quota) / 3;
    let store = rig.open();
    // What is there is counted in the background.
    while store.usage()[0].used <= quota {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let (mut seen, mut number) = (Vec::new(), 0);
    while store.inner.drives[0].ceiling() != quota || store.usage()[0].used > quota {
        number += 1;
        put(&store, &format!("new{number}"), &body_of(BLOCK, 700 + number)).await;
        let used = store.usage()[0].used;
        if seen.last() != Some(&used) {
            seen.push(used);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let steps = seen.iter().filter(|used| (quota + quota / 4..all - quota / 4).contains(used)).count();
    assert!(steps >= 4, "all at once: {seen:?}");
    assert_eq!(get(&store, &format!("new{number}")).await.unwrap(), body_of(BLOCK, 700 + number));
    let left = futures_util::future::join_all(bodies.iter().map(|(name, _)| get(&store, name))).await;
    assert!(left.iter().zip(&bodies).all(|(got, (_, content))| got.as_ref().is_none_or(|got| got == content)));
    assert!(left.iter().any(Option::is_some));
}
