//! Origins that can do less than others, and answers to another question than was asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::{Case, PATH, content, percent, row, row_in};
use crate::rig::bars;
use crate::rig::origin_reply::{Delimiter, Reply};
use crate::rig::rules::Mode;
use crate::rig::trouble::{Strike, Trouble};

/// What is read again up to the cut, and compared, was paid for twice.
const READ_AGAIN: f64 = 1.5;

/// What was on its way when an answer was refused was sent for nothing; a small file shows it.
fn some_refused() -> f64 {
    if bars() { 1.05 } else { 1.2 }
}

/// A row whose origin answers by `reply` and is cut once.
async fn cut_once(name: &str, origin_at_most: f64, reply: Reply) {
    row(name, |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]);
        origin.serve(PATH, reply.clone().troubled(&trouble));
        Case::of(content(), &trouble).origin_at_most(origin_at_most).unseen()
    })
    .await;
}

fn bare() -> Reply {
    Reply::bare(content()).with("Cache-Control", "max-age=3600")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ranges() {
    cut_once("no ranges, cut once", READ_AGAIN, Reply::file(content()).without_ranges()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_validators() {
    cut_once("no validators, cut once", READ_AGAIN, bare()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_ranges_nor_validators() {
    cut_once("neither ranges nor validators, cut once", READ_AGAIN, bare().without_ranges()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_validator() {
    cut_once("weak validator, cut once", READ_AGAIN, bare().with("ETag", "W/\"1\"")).await;
}

/// A date is a strong validator when it is a minute older than the answer (RFC 9110 section 8.8.2.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_date() {
    cut_once("only a date, cut once", READ_AGAIN, bare().with("Last-Modified", "Mon, 02 Nov 2026 08:00:00 GMT")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked() {
    row("chunked", |origin| {
        let trouble = Trouble::default();
        trouble.strikes();
        origin.serve(PATH, Reply::file(content()).without_ranges().delimited(Delimiter::Chunked));
        Case::of(content(), &trouble)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_and_cut() {
    let reply = Reply::file(content()).without_ranges().delimited(Delimiter::Chunked);
    cut_once("chunked and cut", READ_AGAIN, reply).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_with_ranges_and_cut() {
    cut_once("chunked with ranges, cut", 1.05, Reply::file(content()).delimited(Delimiter::Chunked)).await;
}

/// The first two plain requests get 206 with the first half. Only plain requests can be answered so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unasked_206() {
    row_in("unasked 206 to the first two requests", &[Mode::Whole], |origin| {
        let trouble = Trouble::default();
        let here = trouble.clone();
        origin.script(PATH, move |_| {
            let reply = Reply::file(content()).troubled(&here);
            if here.struck() < 2 { reply.unasked(content().len / 2) } else { reply }
        });
        Case::of(content(), &trouble).origin_at_most(some_refused())
    })
    .await;
}

/// The first two requests for a range get one that begins 4 KiB further on, the third one that begins 4 KiB before;
/// each says so in its `Content-Range`. A cut makes the plain mode ask for a range, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_range_than_asked() {
    row("206 of another range to the first three", |origin| {
        let trouble = Trouble::at(&[(percent(content(), 41), Strike::Cut)]);
        let (here, asked) = (trouble.clone(), AtomicUsize::new(0));
        origin.script(PATH, move |request| {
            let reply = Reply::file(content()).troubled(&here);
            if request.field("Range").is_none() {
                return reply;
            }
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => reply.shifted(4096),
                2 => reply.shifted(-4096),
                _ => reply,
            }
        });
        Case::of(content(), &trouble).origin_at_most(some_refused())
    })
    .await;
}
