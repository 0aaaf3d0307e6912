//! One probe at a time, and how many sources are remembered.

use super::*;
use crate::content::{Origin, Scheme};

fn sources() -> Arc<Sources> {
    Arc::new(Sources::new(Arc::new(Metrics::new().unwrap()), &[]))
}

fn source(host: &str) -> Source {
    let origin = Origin { scheme: Scheme::Http, host: host.into(), port: 80 };
    Source::origin(origin, None, false)
}

#[test]
fn one_probe_at_a_time_and_a_dropped_one_is_replaced() {
    let sources = sources();
    let dead = source("dead.example.com");
    let now = Instant::now();
    for _ in 0..2 {
        sources.admit(&dead, now).unwrap().report(Outcome::ConnectFailure);
    }
    let now = Instant::now();
    let until = sources.admit(&dead, now).unwrap_err();
    assert_eq!(sources.down(now), [DownSource { source: dead.clone(), until, refusal: None }]);
    assert!(sources.admit(&source("other.example.com"), now).is_ok());
    let probe = sources.admit(&dead, until).unwrap();
    assert!(sources.admit(&dead, until).is_err());
    drop(probe);
    let mut probe = sources.admit(&dead, until).unwrap();
    probe.answered();
    assert!(sources.admit(&dead, now).is_ok());
    assert!(sources.down(now).is_empty());
}

#[test]
fn the_whole_body_of_a_server_error_is_no_success() {
    let sources = sources();
    let (failing, now) = (source("failing.example.com"), Instant::now());
    for _ in 0..10 {
        let mut ticket = sources.admit(&failing, now).unwrap();
        ticket.report(Outcome::ServerError);
        ticket.report(Outcome::Success);
    }
    assert!(sources.admit(&failing, now).is_err());
}

#[test]
fn made_up_names_do_not_fill_the_memory() {
    let sources = sources();
    for n in 0..REMEMBERED + 10 {
        let source = source(&format!("n{n}.example.com"));
        sources.admit(&source, Instant::now()).unwrap().report(Outcome::ConnectFailure);
    }
    assert_eq!(sources.table.lock().len(), REMEMBERED);
}
