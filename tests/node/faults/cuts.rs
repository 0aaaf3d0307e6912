//! Connections that end or fall silent, and origins that are away for a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::{Case, PATH, content, percent, row, spell};
use crate::rig::origin_reply::{Gate, Reply};
use crate::rig::trouble::{Strike, Trouble};

/// A row whose origin strikes at these hundredths of the content.
async fn struck(name: &str, strikes: &[(u64, Strike)]) {
    row(name, |origin| {
        let strikes: Vec<_> = strikes.iter().map(|(at, strike)| (percent(content(), *at), *strike)).collect();
        let trouble = Trouble::at(&strikes);
        origin.serve(PATH, Reply::file(content()).troubled(&trouble));
        Case::of(content(), &trouble).unseen()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_once() {
    struck("cut once", &[(41, Strike::Cut)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_three_times() {
    struck("cut three times", &[(17, Strike::Cut), (44, Strike::Cut), (79, Strike::Cut)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_cut_after_a_megabyte() {
    row("every answer cut after a megabyte", |origin| {
        let trouble = Trouble::default();
        origin.serve(PATH, Reply::file(content()).cut_after(1_000_000).troubled(&trouble));
        Case::of(content(), &trouble).unseen()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_twice() {
    struck("reset twice", &[(31, Strike::Reset), (67, Strike::Reset)]).await;
}

/// The first head does not come, nor the one after a cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stall_in_head() {
    row("stall in head", |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]);
        let (here, asked, never) = (trouble.clone(), AtomicUsize::new(0), Gate::shut());
        origin.script(PATH, move |_| {
            let reply = Reply::file(content()).troubled(&here);
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => reply.hold_head(&never),
                _ => reply,
            }
        });
        Case::of(content(), &trouble)
    })
    .await;
}

/// In the times of the field: the cache has to notice before its agents do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stall_in_body() {
    row("stall in body", |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Stall)]);
        origin.serve(PATH, Reply::file(content()).troubled(&trouble));
        Case::of(content(), &trouble).unscaled().unseen()
    })
    .await;
}

/// So slow that the cache has nothing to hold back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow() {
    row("slow", |origin| {
        let content = crate::rig::pattern::Pattern::new(2002, 300_000);
        let trouble = Trouble::default();
        trouble.strikes();
        origin.serve(PATH, Reply::file(content));
        Case::of(content, &trouble).rate(50_000).unseen()
    })
    .await;
}

/// With a digest, and longer than a cache waits for it: the last bytes are held back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_with_digest() {
    row("slow, with digest", |origin| {
        let content = crate::rig::pattern::Pattern::new(2003, 360_000);
        let trouble = Trouble::default();
        trouble.strikes();
        origin.serve(PATH, Reply::file(content).with_digest(content));
        Case::of(content, &trouble).rate(30_000).unscaled().unseen()
    })
    .await;
}

/// Each of the statuses that say that a server is in trouble, in turn.
fn server_error(number: usize) -> Reply {
    Reply::status([500, 502, 503, 504][number % 4], if number.is_multiple_of(2) { "in trouble" } else { "" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_errors_at_first() {
    row("5xx for 4 s, at first", |origin| {
        let trouble = Trouble::default();
        let (here, asked) = (trouble.clone(), AtomicUsize::new(0));
        origin.script(PATH, move |_| {
            if here.since().is_some_and(|since| since > spell()) {
                return Reply::file(content());
            }
            here.strikes();
            server_error(asked.fetch_add(1, Ordering::Relaxed))
        });
        Case::of(content(), &trouble)
    })
    .await;
}

/// All connections are cut, and each new request gets an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_errors_in_mid_fill() {
    row("5xx for 4 s, in mid-fill", |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]).with_spell(spell());
        let (here, asked) = (trouble.clone(), AtomicUsize::new(0));
        origin.script(PATH, move |_| {
            if here.since().is_some_and(|since| since < spell()) {
                return server_error(asked.fetch_add(1, Ordering::Relaxed));
            }
            Reply::file(content()).troubled(&here)
        });
        Case::of(content(), &trouble).unseen()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_at_first() {
    row("refused for 4 s, at first", |origin| {
        origin.serve(PATH, Reply::file(content()));
        Case::of(content(), &Trouble::default()).away_at_first(spell())
    })
    .await;
}

/// All connections are cut, and new ones are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_in_mid_fill() {
    row("refused for 4 s, in mid-fill", |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]);
        origin.serve(PATH, Reply::file(content()).troubled(&trouble));
        Case::of(content(), &trouble).away_when_struck(spell()).unseen()
    })
    .await;
}
