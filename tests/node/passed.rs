//! Content that is passed on without being stored: it is no worse checked than what is.

use super::rig::client::{Answer, Connection, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const LIGHT_AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
const OLD: Pattern = Pattern { seed: 815, len: 100_000 };
const NEW: Pattern = Pattern { seed: 816, len: OLD.len };
/// Has the answer passed on, whatever the origin says of it.
const UNSTORED: &str = "Cache-Control: no-store";
const REST: &str = "Range: bytes=30000-99999";

async fn origin_with(reply: Reply) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::with(PATH, reply).await;
    let node = Setup::new().origin(HOST, origin.address, Mode::Ranged.rule()).start();
    (node, origin)
}

async fn ask_as(device: u16, node: &RunningNode, fields: &[&str]) -> Answer {
    let mut connection = Connection::open_as(device, node.data).await;
    connection.send(&get(TARGET, fields)).await;
    connection.answer(false).await
}

/// As `device`, fetches the first 30 000 bytes of `version`, and goes.
async fn begin_as(device: u16, node: &RunningNode, version: Pattern, fields: &[&str]) {
    let mut connection = Connection::open_as(device, node.data).await;
    connection.send(&get(TARGET, fields)).await;
    let head = connection.head().await;
    assert_eq!((head.status, head.length()), (200, Some(version.len)), "{}", head.raw);
    let mut framing = head.framing(false);
    let mut file = Vec::new();
    while file.len() < 30_000 {
        file.extend(connection.piece(&mut framing, 30_000 - file.len()).await.unwrap().unwrap());
    }
    assert_eq!(version.first_difference(0, &file), None);
}

fn must_be_told_to_wait(answer: &Answer) {
    assert_eq!((answer.head.status, answer.head.length()), (503, Some(0)), "{}", answer.head.raw);
}

#[tokio::test]
async fn a_part_that_was_passed_is_not_joined_with_what_is_passed_later() {
    let unstored = |version| Reply::bare(version).with("Cache-Control", "no-store");
    let (node, origin) = origin_with(unstored(OLD)).await;
    begin_as(1, &node, OLD, &[LIGHT_AGENT]).await;
    origin.serve(PATH, unstored(NEW));
    must_be_told_to_wait(&ask_as(1, &node, &[LIGHT_AGENT, REST]).await);
    assert_eq!(ask_as(1, &node, &[LIGHT_AGENT]).await.body, NEW.bytes(), "who starts anew is served");
}

#[tokio::test]
async fn a_part_that_was_passed_is_not_joined_with_what_is_stored_later() {
    let (node, origin) = origin_with(Reply::bare(OLD)).await;
    begin_as(1, &node, OLD, &[LIGHT_AGENT, UNSTORED]).await;
    origin.serve(PATH, Reply::bare(NEW).with("Cache-Control", "max-age=3600"));
    assert_eq!(ask_as(2, &node, &[]).await.body, NEW.bytes());
    node.wait_for_fills(1).await;
    must_be_told_to_wait(&ask_as(1, &node, &[LIGHT_AGENT, REST]).await);
    assert_eq!(ask_as(1, &node, &[LIGHT_AGENT]).await.body, NEW.bytes(), "who starts anew is served");
}

#[tokio::test]
async fn a_part_that_was_passed_goes_on_while_the_fields_say_that_it_is_the_same() {
    let modified = ("Last-Modified", "Mon, 23 Nov 2026 11:00:00 GMT");
    for (name, value) in [("ETag", "\"a\""), ("ETag", "W/\"a\""), modified] {
        let unstored = |version| Reply::bare(version).with("Cache-Control", "no-store").with(name, value);
        let (node, origin) = origin_with(unstored(OLD)).await;
        begin_as(1, &node, OLD, &[LIGHT_AGENT]).await;
        for fields in [&[LIGHT_AGENT, REST][..], &[REST]] {
            let rest = ask_as(1, &node, fields).await;
            assert_eq!((rest.head.status, OLD.first_difference(30_000, &rest.body)), (206, None), "{}", rest.head.raw);
        }
        origin.serve(PATH, unstored(NEW).with(name, &value.replace('a', "b").replace("11:", "10:")));
        must_be_told_to_wait(&ask_as(1, &node, &[LIGHT_AGENT, REST]).await);
    }
}

#[tokio::test]
async fn who_resumes_nothing_is_served_as_often_as_it_asks() {
    let unstored = |seed| Reply::bare(Pattern { seed, ..OLD }).with("Cache-Control", "no-store");
    let (node, origin) = origin_with(unstored(0)).await;
    for seed in 0..8 {
        origin.serve(PATH, unstored(seed));
        assert_eq!(ask_as(1, &node, &[]).await.body, Pattern { seed, ..OLD }.bytes());
        let begin = ask_as(1, &node, &[LIGHT_AGENT, "Range: bytes=0-99"]).await;
        assert_eq!((begin.head.status, &begin.body[..]), (206, &Pattern { seed, ..OLD }.slice(0, 100)[..]));
        let anywhere = ask_as(100 + seed as u16, &node, &["Range: bytes=500-599"]).await;
        assert_eq!((anywhere.head.status, anywhere.body.len()), (206, 100));
    }
}

#[tokio::test]
async fn nobody_is_passed_another_range_than_was_asked_for() {
    for shift in [-5000, 5000] {
        let (node, _origin) = origin_with(Reply::file(OLD).with("Cache-Control", "no-store").shifted(shift)).await;
        for fields in [&[LIGHT_AGENT, REST][..], &[REST], &["Range: bytes=-5000"]] {
            must_be_told_to_wait(&node.get(TARGET, fields).await);
        }
    }
    let (node, _origin) = origin_with(Reply::file(OLD).with("Cache-Control", "no-store")).await;
    for (range, from) in [(REST, 30_000), ("Range: bytes=-5000", 95_000), ("Range: bytes=99000-123456", 99_000)] {
        let part = node.get(TARGET, &[range]).await;
        assert_eq!((part.head.status, part.body), (206, OLD.slice(from, OLD.len)), "{}", part.head.raw);
    }
}
