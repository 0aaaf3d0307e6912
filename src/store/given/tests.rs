//! The memory over restarts and kills, and its bounds.

use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;
use crate::content::CacheKey;
use crate::store::disk::Dir;
use crate::store::layout;

struct Running {
    given: Arc<Given>,
    keeper: JoinHandle<()>,
}

impl Running {
    fn start(state: &TempDir) -> Self {
        let given = Arc::new(Given::new());
        let keeper = Keeper::load(Arc::clone(&given), Dir::open(state.path()).unwrap());
        Self { given, keeper: std::thread::spawn(move || keeper.run()) }
    }

    fn stop(self) {
        self.given.close();
        self.keeper.join().unwrap();
    }

    /// As the file is now: what a process would find after a kill.
    fn killed(&self, state: &TempDir) -> TempDir {
        let copy = TempDir::new().unwrap();
        std::fs::copy(state.path().join(layout::GIVEN), copy.path().join(layout::GIVEN)).unwrap();
        copy
    }

    async fn give(&self, host: u8, name: &str, birth: u64, whole: bool) -> Option<Gift> {
        self.given.give(client(host), key(name), &version(birth), whole).await
    }

    fn births(&self, host: u8, name: &str) -> Vec<u64> {
        let held = self.given.of(client(host), key(name));
        assert!(!held.more);
        let mut births: Vec<_> = held.versions.iter().map(|held| held.version.birth.0).collect();
        births.sort_unstable();
        births
    }
}

fn client(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

fn key(name: &str) -> KeyHash {
    CacheKey::new(name).hash()
}

fn version(birth: u64) -> Version {
    Version { birth: PartialId(birth), validator: Some(birth), length: Some(100), digest: None }
}

#[tokio::test]
async fn what_was_given_is_known_after_a_stop_and_after_a_kill() {
    let state = TempDir::new().unwrap();
    let running = Running::start(&state);
    running.give(1, "a", 1, false).await;
    running.give(2, "a", 2, true).await.unwrap().handed_out();
    // A second version: returns once it is durable, and with it everything before.
    running.give(1, "a", 2, false).await;
    let killed = running.killed(&state);
    running.stop();
    for state in [state, killed] {
        let running = Running::start(&state);
        assert_eq!(running.births(1, "a"), [1, 2]);
        assert_eq!(running.births(2, "a"), [2]);
        assert!(running.births(3, "a").is_empty() && running.births(1, "b").is_empty());
        let held = running.given.of(client(2), key("a")).versions;
        assert_eq!(held, [Held { version: version(2), spoiled: None }]);
        running.stop();
    }
}

#[tokio::test]
async fn what_is_learnt_of_a_version_is_known_of_all_its_holders_and_after_a_kill() {
    let state = TempDir::new().unwrap();
    let running = Running::start(&state);
    for host in 1..100 {
        running.give(host, "a", 1, false).await;
    }
    running.give(1, "b", 1, false).await;
    let complete = Version { digest: Some([7; 16]), ..version(1) };
    running.given.complete(key("a"), &complete);
    assert!(running.given.spoil(key("a"), PartialId(1), Spoiled::Throughout));
    running.given.wait_durable();
    let killed = running.killed(&state);
    let again = Running::start(&killed);
    for running in [&running, &again] {
        for host in 1..100 {
            let held = running.given.of(client(host), key("a")).versions;
            assert_eq!(held, [Held { version: complete, spoiled: Some(Spoiled::Throughout) }], "{host}");
        }
        assert_eq!(running.given.of(client(1), key("b")).versions, [Held { version: version(1), spoiled: None }]);
        assert_eq!(running.given.spoiled_of(key("a")), [PartialId(1)]);
    }
    let known = Spoiled::From { first_difference: 5, right: [9; 16] };
    assert!(again.given.spoil(key("a"), PartialId(1), known));
    assert!(!again.given.spoil(key("b"), PartialId(2), known), "nobody has it");
    assert!(again.given.spoiled_of(key("a")).is_empty());
    // Somebody who is given the first bytes at the same time.
    again.give(100, "a", 1, false).await;
    for host in [1, 100] {
        assert_eq!(again.given.of(client(host), key("a")).versions[0].spoiled, Some(known), "{host}");
    }
    running.stop();
    again.stop();
}

#[tokio::test]
async fn damage_of_the_file_costs_what_it_hit() {
    let state = TempDir::new().unwrap();
    let running = Running::start(&state);
    for host in 1..11 {
        running.give(host, "a", u64::from(host), false).await;
    }
    running.stop();
    let path = state.path().join(layout::GIVEN);
    let intact = std::fs::read(&path).unwrap();
    for (at, lost) in [(64 * 3 + 5, 1), (intact.len() - 1, 1), (5, 10)] {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        // A line that was being written.
        bytes.extend_from_slice(&[4; 30]);
        std::fs::write(&path, bytes).unwrap();
        let running = Running::start(&state);
        let known = (1..11).filter(|host| running.births(*host, "a") == [u64::from(*host)]).count();
        let of_one = |host| running.given.of(client(host), key("a")).versions.first().copied();
        let told = (1..11).filter_map(of_one).filter(|held| held.version.validator.is_some()).count();
        assert_eq!(known.min(told), 10 - lost, "{at}");
        running.give(20, "a", 20, false).await;
        running.give(20, "a", 21, false).await;
        let killed = running.killed(&state);
        running.stop();
        let again = Running::start(&killed);
        assert_eq!(again.births(20, "a"), [20, 21], "{at}: it goes on behind the damage");
        again.stop();
    }
}

#[tokio::test]
async fn the_file_does_not_grow_for_ever() {
    let state = TempDir::new().unwrap();
    let running = Running::start(&state);
    let again = |round: u64| Version { digest: Some([1; 16]), ..version(round) };
    for round in 0..100_000_u64 {
        let (host, name) = ((round % 200) as u8, (round % 7).to_string());
        running.given.give(client(host), key(&name), &again(round), true).await.unwrap().handed_out();
        if round % 10_000 == 0 {
            running.given.bell.durable().await.unwrap();
        }
    }
    running.given.bell.durable().await.unwrap();
    let length = std::fs::metadata(state.path().join(layout::GIVEN)).unwrap().len();
    println!("{length} bytes");
    assert!(length < 7 * 1024 * 1024, "{length}");
    let killed = running.killed(&state);
    running.stop();
    let written = std::fs::metadata(state.path().join(layout::GIVEN)).unwrap().len();
    assert!(written < 300_000, "{written}");
    for state in [state, killed] {
        let running = Running::start(&state);
        assert_eq!(running.births(((99_999) % 200) as u8, &(99_999 % 7).to_string()), [99_999]);
        running.stop();
    }
}

#[tokio::test]
async fn pairs_are_bounded_and_those_that_may_come_back_stay() {
    let given = Arc::new(Given::with_capacity(SHELVES * 20));
    for number in 0..SHELVES as u64 * 4 {
        given.give(client(1), key(&format!("part{number}")), &version(number), false).await;
    }
    for number in 0..20_000_u64 {
        let whole = given.give(client(2), key(&format!("whole{number}")), &version(number), true).await;
        whole.unwrap().handed_out();
    }
    let count: usize = given.shelves.iter().map(|shelf| shelf.lock().len()).sum();
    assert!(count <= SHELVES * 20 && count > SHELVES * 19, "{count}");
    let kept = |number: &u64| !given.of(client(1), key(&format!("part{number}"))).versions.is_empty();
    let kept = (0..SHELVES as u64 * 4).filter(kept).count();
    assert_eq!(kept, SHELVES * 4);
    assert_eq!(given.of(client(2), key("whole19999")).versions.len(), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_keeper_that_is_gone_or_cannot_write() {
    let given = Arc::new(Given::new());
    given.close();
    given.give(client(1), key("a"), &version(1), false).await;
    given.give(client(1), key("a"), &version(2), false).await;
    let state = TempDir::new().unwrap();
    let running = Running::start(&state);
    std::fs::create_dir(state.path().join(layout::GIVEN_NEW)).unwrap();
    running.give(1, "a", 1, false).await;
    running.give(1, "a", 2, false).await;
    assert_eq!(running.births(1, "a"), [1, 2]);
    running.stop();
}
