//! Content that is passed on without being stored: it is no worse checked than what is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::rig::client::{Answer, Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::{Body, Delimiter, Gate, Reply};
use super::rig::pattern::Pattern;
use super::rig::rules::Mode;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TARGET: &str = "/-/dl.example.com/f.bin";
const PATH: &str = "/f.bin";
const LIGHT_AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1";
/// One that asks for pieces.
const AGENT: &str = "User-Agent: Microsoft-Delivery-Optimization/10.0";
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

#[tokio::test]
async fn what_is_passed_has_its_digest_or_is_not_given_out_whole() {
    for len in [0, 5, 100_000, 3 << 20] {
        let content = Pattern::new(813, len);
        let claimed = Reply::file(content).with("Cache-Control", "no-store").with_digest(content);
        for delimiter in [Delimiter::Length, Delimiter::Chunked] {
            let right = claimed.clone().delimited(delimiter);
            let (node, origin) = origin_with(right.clone()).await;
            for range in [&[][..], &["Range: bytes=0-"]] {
                let answer = node.get(TARGET, range).await;
                assert!(answer.end == End::Complete && answer.body == content.bytes(), "{}", answer.head.raw);
            }
            origin.serve(PATH, right.damaged(4));
            let answer = node.get(TARGET, &[]).await;
            let is_whole = answer.head.status == 200 && answer.end == End::Complete;
            assert!(!is_whole || answer.body == content.bytes(), "wrong and whole: {}", answer.head.raw);
            assert!(answer.body.len() as u64 <= len.saturating_sub(16 * 1024), "the end left: {}", answer.head.raw);
        }
    }
}

#[tokio::test]
async fn what_is_passed_has_the_digest_that_the_operator_says() {
    let wanted = STANDARD.encode(NEW.sha256());
    for control in ["no-store", "private"] {
        let origin = FakeOrigin::with(PATH, Reply::bare(OLD).with("Cache-Control", control)).await;
        let node = Setup::new().origin(HOST, origin.address, json!({ "digests": { PATH: wanted } })).start();
        must_be_told_to_wait(&node.get(TARGET, &[]).await);
        origin.serve(PATH, Reply::bare(NEW).with("Cache-Control", control));
        assert_eq!(node.get(TARGET, &[]).await.body, NEW.bytes());
        let part = ask_as(2, &node, &[REST]).await;
        assert_eq!((part.head.status, part.body), (206, NEW.slice(30_000, NEW.len)), "of a part nothing tells");
    }
}

#[tokio::test]
async fn who_was_passed_wrong_bytes_is_not_given_the_rest() {
    let content = Pattern::new(814, 3 << 20);
    let claimed = Reply::file(content).with("Cache-Control", "no-store").with_digest(content);
    let (node, origin) = origin_with(claimed.clone().damaged(4)).await;
    let answer = ask_as(1, &node, &[LIGHT_AGENT]).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Cut), "{}", answer.head.raw);
    assert_eq!(content.first_difference(0, &answer.body), Some(4));
    origin.serve(PATH, claimed);
    let rest = format!("Range: bytes={}-{}", answer.body.len(), content.len - 1);
    must_be_told_to_wait(&ask_as(1, &node, &[LIGHT_AGENT, &rest]).await);
    let other = ask_as(2, &node, &[LIGHT_AGENT]).await;
    assert!(other.end == End::Complete && other.body == content.bytes(), "{}", other.head.raw);
}

/// What one client was passed says nothing of what others were, before or after.
#[tokio::test]
async fn who_was_passed_right_bytes_goes_on_although_another_was_passed_wrong_ones() {
    let content = Pattern::new(823, 3 << 20);
    let claimed = Reply::file(content).with("Cache-Control", "no-store").with_digest(content);
    let (node, origin) = origin_with(claimed.clone()).await;
    begin_as(3, &node, content, &[LIGHT_AGENT]).await;
    origin.serve(PATH, claimed.clone().damaged(4));
    let answer = ask_as(1, &node, &[LIGHT_AGENT]).await;
    assert_eq!((answer.head.status, answer.end), (200, End::Cut), "{}", answer.head.raw);
    origin.serve(PATH, claimed);
    begin_as(2, &node, content, &[LIGHT_AGENT]).await;
    let rest = format!("Range: bytes=30000-{}", content.len - 1);
    for device in [2, 3] {
        let answer = ask_as(device, &node, &[LIGHT_AGENT, &rest]).await;
        assert_eq!((answer.head.status, answer.end), (206, End::Complete), "{device}: {}", answer.head.raw);
        assert_eq!(content.first_difference(30_000, &answer.body), None);
    }
    begin_as(1, &node, content, &[LIGHT_AGENT]).await;
    must_be_told_to_wait(&ask_as(1, &node, &[LIGHT_AGENT, &rest]).await);
}

/// An agent that is cut in a body without length aborts.
#[tokio::test]
async fn an_agent_is_not_passed_a_body_without_length() {
    let unstored = |content| Reply::file(content).with("Cache-Control", "no-store").delimited(Delimiter::Chunked);
    let (short, long) = (Pattern::new(821, 200_000), Pattern::new(822, 3 << 20));
    let (node, origin) = origin_with(unstored(short)).await;
    let answer = node.get(TARGET, &[LIGHT_AGENT]).await;
    assert_eq!((answer.head.status, answer.head.exact("Content-Length")), (200, Some("200000")), "{}", answer.head.raw);
    assert!(answer.end == End::Complete && answer.body == short.bytes());
    let chunked = node.get(TARGET, &[]).await;
    assert!(chunked.head.length().is_none() && chunked.body == short.bytes(), "{}", chunked.head.raw);
    origin.serve(PATH, unstored(short).cut_after(150_000));
    must_be_told_to_wait(&node.get(TARGET, &[LIGHT_AGENT]).await);
    origin.serve(PATH, unstored(long));
    must_be_told_to_wait(&node.get(TARGET, &[LIGHT_AGENT]).await);
    assert!(node.says("let its origin send Content-Length"), "{}", node.said());
    let part = ask_as(2, &node, &[LIGHT_AGENT, "Range: bytes=1000000-3145727"]).await;
    assert_eq!((part.head.status, part.head.exact("Content-Length")), (206, Some("2145728")), "{}", part.head.raw);
    assert!(part.end == End::Complete && part.body == long.slice(1_000_000, long.len));
}

#[tokio::test]
async fn an_agent_does_not_wait_too_long_for_a_body_without_length() {
    let gate = Gate::shut();
    let reply = Reply::file(OLD).with("Cache-Control", "no-store").delimited(Delimiter::Chunked).hold_at(50_000, &gate);
    let origin = FakeOrigin::with(PATH, reply).await;
    let setup = Setup::new().origin(HOST, origin.address, Mode::Whole.rule());
    let node = setup.set("upstream.timeouts.request", json!("500ms")).start();
    must_be_told_to_wait(&node.get(TARGET, &[LIGHT_AGENT]).await);
    gate.open();
    assert_eq!(node.get(TARGET, &[LIGHT_AGENT]).await.body, OLD.bytes());
}

/// A node whose origin answers each request for a range with `part`, and lets nothing be stored.
async fn node_with_part(part: Reply) -> (RunningNode, FakeOrigin) {
    let (node, origin) = origin_with(Reply::file(OLD)).await;
    let whole = Reply::file(OLD).with("Cache-Control", "no-store");
    origin.script(PATH, move |request| if request.field("Range").is_some() { part.clone() } else { whole.clone() });
    (node, origin)
}

/// Who appends what comes to what it has gets no byte that it did not ask for.
#[tokio::test]
async fn a_part_is_no_longer_and_no_shorter_than_it_says() {
    for (to, is_right) in [(40_000, true), (35_000, false), (60_000, false)] {
        let digest = STANDARD.encode(Sha256::digest(OLD.slice(30_000, to)));
        let part = Reply { body: Body::Bytes(OLD.slice(30_000, to).into()), ..Reply::status(206, "") };
        let part = part.with("Cache-Control", "no-store").with("Content-Digest", &format!("sha-256=:{digest}:"));
        let part = part.with("Content-Range", "bytes 30000-39999/100000").delimited(Delimiter::Chunked);
        let (node, _origin) = node_with_part(part.with("ETag", "\"a\"")).await;
        for fields in [&[AGENT, "Range: bytes=30000-39999"][..], &["Range: bytes=30000-39999"]] {
            let answer = node.get(TARGET, fields).await;
            let is_whole = answer.head.status == 206 && answer.end == End::Complete;
            assert_eq!(is_whole, is_right, "{to}: {}", answer.head.raw);
            assert!(answer.body.len() <= 10_000, "{to}: {}", answer.head.raw);
        }
    }
}

/// RFC 9110 section 15.3.7.2: one range is not answered with several parts, whose frames would end in the file.
#[tokio::test]
async fn one_range_is_not_answered_with_a_frame_around_it() {
    let text = "--b\r\nContent-Range: bytes 30000-30001/100000\r\n\r\nab\r\n--b--\r\n";
    let part = Reply::status(206, text).with("Content-Type", "multipart/byteranges; boundary=b");
    let (node, _origin) = node_with_part(part.with("Cache-Control", "no-store").with("ETag", "\"a\"")).await;
    for fields in [&[AGENT, "Range: bytes=30000-30001"][..], &["Range: bytes=30000-30001"]] {
        must_be_told_to_wait(&node.get(TARGET, fields).await);
    }
    let several = node.get(TARGET, &["Range: bytes=0-1,30000-30001"]).await;
    assert_eq!((several.head.status, several.body), (206, text.as_bytes().to_vec()), "{}", several.head.raw);
}
