//! Look-ups by a resolver that answers when it is told to. It has as many places as the system's, each taken until it answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::future::join_all;

use super::*;

/// Answers by the state of the name's first label: those that begin with `dead` hang until they are freed.
#[derive(Debug)]
struct Scripted {
    places: Arc<Semaphore>,
    calls: AtomicUsize,
    /// What is answered: an address, or why there is none. `None` hangs.
    answer: Mutex<Option<Result<SocketAddr, &'static str>>>,
    freed: watch::Sender<bool>,
}

impl Scripted {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(LOOKUPS)),
            calls: AtomicUsize::new(0),
            answer: Mutex::new(Some(Ok(address(1)))),
            freed: watch::Sender::new(false),
        })
    }

    fn answers(&self, answer: Option<Result<SocketAddr, &'static str>>) {
        *self.answer.lock() = answer;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Resolver for Scripted {
    fn resolve(&self, host: Arc<str>, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().filter(|_| !host.starts_with("dead"));
        let (places, mut freed) = (Arc::clone(&self.places), self.freed.subscribe());
        Box::pin(async move {
            let _place = places.acquire_owned().await.map_err(io::Error::other)?;
            match answer {
                Some(answer) => answer.map(|address| vec![address]).map_err(io::Error::other),
                None => {
                    let _ = freed.wait_for(|freed| *freed).await;
                    Err(io::Error::other(TEMPORARY))
                }
            }
        })
    }
}

/// How long connecting may take.
const LIMIT: Duration = Duration::from_millis(200);

const TEMPORARY: &str = "failed to lookup address information: Temporary failure in name resolution";
const REFUSED: &str = "failed to lookup address information: Non-recoverable failure in name resolution";
const NONE: &str = "failed to lookup address information: Name or service not known";

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

async fn resolve(names: &Names, host: &str) -> Result<Vec<SocketAddr>, String> {
    names.resolve(host.into(), 80, Instant::now() + LIMIT).await.map_err(|error| error.to_string())
}

/// Lets everything run that can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn names_that_hang_hold_up_no_other() {
    let resolver = Scripted::new();
    let names = Names::new(Arc::clone(&resolver) as Arc<dyn Resolver>);
    assert_eq!(resolve(&names, "parent.lan").await, Ok(vec![address(1)]));
    let ask = |host: String| {
        let names = names.clone();
        tokio::spawn(async move { resolve(&names, &host).await })
    };
    // Of one domain, as a wildcard rule lets clients choose them.
    let mut dead: Vec<_> = (0..200).map(|n| ask(format!("dead{n}.b.example.com"))).collect();
    settle().await;
    assert_eq!(resolver.calls(), 1 + OF_A_DOMAIN);
    assert_eq!(resolve(&names, "good.example.org").await, Ok(vec![address(1)]), "one that is new");
    // Of many domains: what resolved before goes on.
    dead.extend((0..200).map(|n| ask(format!("dead.example{n}.com"))));
    settle().await;
    resolver.answers(Some(Ok(address(2))));
    assert_eq!(resolve(&names, "parent.lan").await, Ok(vec![address(2)]));
    assert!(resolver.calls() < LOOKUPS + 3, "{}", resolver.calls());
    // When nobody waits any more, what has not begun does not.
    let begun = resolver.calls();
    dead.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    resolver.freed.send_replace(true);
    settle().await;
    assert_eq!(resolver.calls(), begun);
    let state = names.shared.state.lock();
    assert_eq!((state.running.len(), state.domains.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn all_who_want_one_name_share_one_look_up() {
    let resolver = Scripted::new();
    let names = Names::new(Arc::clone(&resolver) as Arc<dyn Resolver>);
    let left = tokio::time::timeout(PATIENCE, resolve(&names, "dead.example.com")).await;
    assert!(left.is_err());
    let waiting = join_all((0..50).map(|_| resolve(&names, "dead.example.com")));
    let freed = async {
        settle().await;
        resolver.freed.send_replace(true);
    };
    let (results, ()) = tokio::join!(waiting, freed);
    assert!(results.iter().all(|result| result == &Err(TEMPORARY.to_owned())), "{results:?}");
    assert_eq!(resolver.calls(), 1, "also with the one that was given up");
}

#[tokio::test(start_paused = true)]
async fn old_addresses_are_used_while_the_resolver_is_dead() {
    for dead in [None, Some(Err(TEMPORARY)), Some(Err(REFUSED)), Some(Err("Too many open files (os error 24)"))] {
        let resolver = Scripted::new();
        let names = Names::new(Arc::clone(&resolver) as Arc<dyn Resolver>);
        let known = async || resolve(&names, "a.example.com").await;
        assert_eq!(known().await, Ok(vec![address(1)]));
        resolver.answers(dead);
        assert_eq!(known().await, Ok(vec![address(1)]), "{dead:?}");
        let (asked, begun) = (resolver.calls(), Instant::now());
        assert_eq!(known().await, Ok(vec![address(1)]));
        assert_eq!((resolver.calls(), begun.elapsed()), (asked, Duration::ZERO), "the next one does not wait");
        // It is back.
        resolver.answers(Some(Ok(address(2))));
        resolver.freed.send_replace(true);
        tokio::time::advance(RECHECK).await;
        assert_eq!(known().await, Ok(vec![address(2)]), "{dead:?}");
        // Not for ever.
        resolver.answers(Some(Err(TEMPORARY)));
        tokio::time::advance(OLDEST).await;
        assert_eq!(known().await, Err(TEMPORARY.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_gone_has_no_old_addresses() {
    let resolver = Scripted::new();
    let names = Names::new(Arc::clone(&resolver) as Arc<dyn Resolver>);
    assert!(resolve(&names, "a.example.com").await.is_ok());
    resolver.answers(Some(Err(NONE)));
    assert_eq!(resolve(&names, "a.example.com").await, Err(NONE.to_owned()));
    resolver.answers(Some(Err(TEMPORARY)));
    assert_eq!(resolve(&names, "a.example.com").await, Err(TEMPORARY.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded() {
    let resolver = Scripted::new();
    let names = Names::new(Arc::clone(&resolver) as Arc<dyn Resolver>);
    for n in 0..KEPT + 10 {
        assert!(resolve(&names, &format!("a{n}.example.com")).await.is_ok());
    }
    assert_eq!(names.shared.state.lock().known.len(), KEPT);
}

#[test]
fn a_domain_is_the_last_two_labels() {
    for (host, domain) in [
        ("a.b.example.com", "example.com"),
        ("example.com", "example.com"),
        ("a.example.com", "example.com"),
        ("localhost", "localhost"),
        ("a.example.com.", "example.com."),
        ("", ""),
    ] {
        assert_eq!(domain_of(host), domain, "{host}");
    }
}
