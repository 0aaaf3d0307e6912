//! Hostile HTTP/2 clients (RFC 9113 section 10.5): each costs itself its connection, upstream next to nothing, and others
//! nothing.

use std::time::Instant;

use serde_json::json;

use super::{HOST, PATIENCE, ask, client, request, setup, wait_for_metric};
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block,
};
use crate::rig::origin_reply::{Gate, Reply};
use crate::rig::pattern::Pattern;
use crate::rig::running_node::RunningNode;
use crate::rig::tls::{Authority, CACHE, Caller};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// Sends `bytes` of frames again and again until the other side closes, and returns how often.
async fn flood(frames: &mut Frames, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    for count in 0.. {
        // Answers are read away: a client that does not is stopped by its own window.
        if frames.send(&next(count)).await.is_err() {
            return count;
        }
        if count % 50 == 49 {
            tokio::task::yield_now().await;
        }
        assert!(Instant::now() < deadline, "{count} times, and the connection stands");
    }
    unreachable!("a count without end")
}

async fn honest(node: &RunningNode, authority: &Authority, pattern: Pattern) {
    let (mut sender, _connection) = client(node, authority).await;
    let answer = ask(&mut sender, request(&format!("/-/{HOST}/file"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.body() == &pattern.bytes());
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_and_nothing_else() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(1, 50_000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let never = Gate::shut();
    origin.script("/held", move |_| Reply::file(Pattern::new(2, 1000)).hold_head(&never));
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    honest(&node, &authority, pattern).await;
    let caller = Caller::new(&authority);
    let held = format!("/-/{HOST}/held");
    let open = |frames: u32| 2 * frames + 1;
    type Next<'a> = Box<dyn FnMut(u32) -> Vec<u8> + Send + 'a>;
    let floods: Vec<(&str, Next<'_>)> = vec![
        ("PING", Box::new(|_| Frame::new(PING, 0, 0, &[7; 8]).bytes())),
        ("SETTINGS", Box::new(|_| Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).bytes())),
        ("PRIORITY", Box::new(|n| Frame::new(PRIORITY, 0, open(n), &[0, 0, 0, 0, 16]).bytes())),
        ("unknown frames", Box::new(|_| Frame::new(0xbe, 0, 0, b"xyz").bytes())),
        (
            "rapid reset",
            Box::new(|n| {
                let get = Frame::get(open(n), CACHE, &format!("{held}?{n}"), &[]).bytes();
                [get, Frame::new(RST_STREAM, 0, open(n), &8_u32.to_be_bytes()).bytes()].concat()
            }),
        ),
        (
            "resets that the other side is made to send",
            Box::new(|n| {
                let get = Frame::get(open(n), CACHE, &format!("{held}?{n}"), &[]).bytes();
                [get, Frame::new(WINDOW_UPDATE, 0, open(n), &[0; 4]).bytes()].concat()
            }),
        ),
        (
            "empty DATA",
            Box::new(|n| match n {
                0 => {
                    let fields =
                        [(":method", "POST"), (":scheme", "https"), (":authority", CACHE), (":path", held.as_str())];
                    Frame::new(HEADERS, END_HEADERS, 1, &block(&fields)).bytes()
                }
                _ => Frame::new(DATA, 0, 1, b"").bytes(),
            }),
        ),
        (
            "CONTINUATION without end",
            Box::new(|n| match n {
                0 => Frame::new(HEADERS, 0, 1, &block(&[(":method", "GET"), (":scheme", "https")])).bytes(),
                n => Frame::new(CONTINUATION, 0, 1, &block(&[(&format!("x-{n}"), "y")])).bytes(),
            }),
        ),
        (
            "empty CONTINUATION",
            Box::new(|n| match n {
                0 => Frame::new(HEADERS, 0, 1, &block(&[(":method", "GET"), (":scheme", "https")])).bytes(),
                _ => Frame::new(CONTINUATION, 0, 1, b"").bytes(),
            }),
        ),
        ("WINDOW_UPDATE", Box::new(|_| Frame::new(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).bytes())),
        ("frames of a size that is not allowed", Box::new(|_| Frame::new(PING, 0, 0, &[0; 20_000]).bytes())),
        ("frames on stream 0", Box::new(|_| Frame::new(DATA, 0, 0, b"x").bytes())),
        ("even streams", Box::new(|n| Frame::get(2 * n + 2, CACHE, "/", &[]).bytes())),
    ];
    for (name, next) in floods {
        let before = origin.requests();
        let mut frames = Frames::begin(caller.connect_http2(node.http2.unwrap()).await, &[]).await;
        let sent = flood(&mut frames, next).await;
        wait_for_metric(&node, "waystation_http2_connections", "", 0.0).await;
        wait_for_metric(&node, "waystation_requests_in_flight", "", 0.0).await;
        let asked = origin.requests() - before;
        println!("{name}: closed after {sent}, {asked} requests upstream");
        // Some wait in the sockets when the connection ends.
        assert!(asked <= 400, "{name}: {asked} requests upstream");
        honest(&node, &authority, pattern).await;
    }
    assert!(node.metric("waystation_bad_requests_total", "reason=\"frames\"").await >= 5.0);
    assert!(node.says("more frames") || node.says("\"reason\":\"frames\""));
}

#[tokio::test]
async fn fields_beyond_the_limit_are_refused_and_the_connection_goes_on() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(1, 50_000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let node = setup(&authority).origin(HOST, origin.address, json!({})).start();
    let stream = Caller::new(&authority).connect_http2(node.http2.unwrap()).await;
    let mut frames = Frames::begin(stream, &[]).await;
    let long = "x".repeat(9000);
    let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", CACHE), (":path", "/")];
    frames.send(&Frame::new(HEADERS, END_STREAM, 1, &block(&pseudo)).bytes()).await.unwrap();
    for n in 0..5 {
        let flags = if n == 4 { END_HEADERS } else { 0 };
        frames.send(&Frame::new(CONTINUATION, flags, 1, &block(&[("x-long", &long)])).bytes()).await.unwrap();
    }
    let answer = frames.wait_for(HEADERS, 1).await.unwrap();
    assert_eq!(answer.status(), Some(431), "{answer:?}");
    frames.send(&Frame::get(3, CACHE, &format!("/-/{HOST}/file"), &[]).bytes()).await.unwrap();
    assert_eq!(frames.wait_for(HEADERS, 3).await.unwrap().status(), Some(200));
}

#[tokio::test]
async fn malformed_requests_are_reset_and_nothing_of_them_goes_upstream() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(1, 5000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let rule = json!({ "methods": ["GET", "HEAD", "POST"] });
    let node = setup(&authority).origin(HOST, origin.address, rule).start();
    let target = format!("/-/{HOST}/file");
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", CACHE), (":path", target.as_str())];
    let with = |fields: &[(&str, &str)]| block(&[&pseudo[..], fields].concat());
    let whole = END_HEADERS | END_STREAM;
    let data = |text: &str| Frame::new(DATA, END_STREAM, 1, text.as_bytes()).bytes();
    let head = |flags: u8, block: &[u8]| Frame::new(HEADERS, flags, 1, block).bytes();
    for (name, bytes) in [
        ("a name in capitals", head(whole, &with(&[("X-Big", "y")]))),
        ("Connection", head(whole, &with(&[("connection", "close")]))),
        ("Transfer-Encoding", head(whole, &with(&[("transfer-encoding", "chunked")]))),
        ("Upgrade", head(whole, &with(&[("upgrade", "h2c")]))),
        ("Proxy-Connection", head(whole, &with(&[("proxy-connection", "x")]))),
        ("TE", head(whole, &with(&[("te", "gzip")]))),
        ("CR LF in a value", head(whole, &with(&[("x", "a\r\nsmuggled: yes")]))),
        ("NUL in a value", head(whole, &with(&[("x", "a\0b")]))),
        ("a colon in a name", head(whole, &with(&[("x:y", "a")]))),
        ("a space in a name", head(whole, &with(&[("x y", "a")]))),
        ("an empty name", head(whole, &with(&[("", "a")]))),
        ("a pseudo-header field twice", head(whole, &with(&[(":path", "/other")]))),
        ("an unknown pseudo-header field", head(whole, &with(&[(":x", "/other")]))),
        ("a pseudo-header field behind others", head(whole, &block(&[&[("x", "y")], &pseudo[..]].concat()))),
        ("no method", head(whole, &block(&pseudo[1..]))),
        ("no path", head(whole, &block(&pseudo[..3]))),
        ("no scheme", head(whole, &block(&[pseudo[0], pseudo[2], pseudo[3]]))),
        ("an empty path", head(whole, &block(&[pseudo[0], pseudo[1], pseudo[2], (":path", "")]))),
        (
            "a method with CR LF",
            head(whole, &block(&[(":method", "GET / HTTP/1.1\r\nx: y"), pseudo[1], pseudo[2], pseudo[3]])),
        ),
        ("a path with a space", head(whole, &block(&[pseudo[0], pseudo[1], pseudo[2], (":path", "/a HTTP/1.1")]))),
        ("a length and no content", head(whole, &with(&[("content-length", "5")]))),
        ("less content than its length", [head(END_HEADERS, &with(&[("content-length", "5")])), data("abc")].concat()),
        ("more content than its length", [head(END_HEADERS, &with(&[("content-length", "2")])), data("abc")].concat()),
        ("two lengths", head(END_HEADERS, &with(&[("content-length", "2"), ("content-length", "3")]))),
        ("a length that is no number", head(END_HEADERS, &with(&[("content-length", "+3")]))),
    ] {
        let before = origin.requests();
        let stream = Caller::new(&authority).connect_http2(node.http2.unwrap()).await;
        let mut frames = Frames::begin(stream, &[]).await;
        frames.send(&bytes).await.unwrap();
        // Reset, refused, or the end of the connection: never an answer of the origin.
        let met = loop {
            match frames.next().await {
                None => break "closed".to_owned(),
                Some(Frame { kind: GOAWAY, .. }) => break "GOAWAY".to_owned(),
                Some(Frame { kind: RST_STREAM, .. }) => break "reset".to_owned(),
                Some(frame) if frame.kind == HEADERS => break format!("{:?}", frame.status()),
                Some(_) => {}
            }
        };
        let refused = ["closed", "GOAWAY", "reset", "Some(400)", "Some(503)"];
        assert!(refused.contains(&met.as_str()), "{name}: {met}");
        // A body that turned out too short had begun on its way, and was cut there.
        let complete = origin.requests() - before;
        assert_eq!(complete, 0, "{name}: it went upstream");
    }
    // Trailers are dropped, whatever they are.
    let trailers = [head(END_HEADERS, &with(&[])), head(whole, &block(&[(":path", "/x"), ("x-late", "y")]))].concat();
    let mut frames = Frames::begin(Caller::new(&authority).connect_http2(node.http2.unwrap()).await, &[]).await;
    frames.send(&trailers).await.unwrap();
    assert_eq!(frames.wait_for(HEADERS, 1).await.unwrap().status(), Some(200));
    let received = origin.received();
    let posted = received.iter().find(|received| received.method == "POST").unwrap();
    assert_eq!((posted.target.as_str(), posted.field("x-late")), ("/file", None));
    honest(&node, &authority, pattern).await;
}

#[tokio::test]
async fn a_client_that_begins_and_does_not_go_on_is_closed() {
    let authority = Authority::new("site");
    let node = setup(&authority).set("limits.header_time", json!("1s")).set("limits.idle_time", json!("2s")).start();
    let caller = Caller::new(&authority);
    let preface = caller.connect_http2(node.http2.unwrap()).await;
    let mut part = Frames::begin(caller.connect_http2(node.http2.unwrap()).await, &[]).await;
    part.send(&Frame::new(PING, 0, 0, &[0; 8]).bytes()[..11]).await.unwrap();
    let mut open = Frames::begin(caller.connect_http2(node.http2.unwrap()).await, &[]).await;
    open.send(&Frame::new(HEADERS, 0, 1, &block(&[(":method", "GET")])).bytes()).await.unwrap();
    let mut idle = Frames::begin(caller.connect_http2(node.http2.unwrap()).await, &[]).await;
    wait_for_metric(&node, "waystation_http2_connections", "", 0.0).await;
    assert_eq!(node.metric("waystation_bad_requests_total", "reason=\"head-timeout\"").await, 2.0);
    assert!(idle.wait_for(GOAWAY, 0).await.is_some(), "one that was idle is told to go");
    drop((preface, part, open));
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_reset_and_others_go_on() {
    let authority = Authority::new("site");
    let pattern = Pattern::new(1, 3_000_000);
    let origin = FakeOrigin::with("/file", Reply::file(pattern)).await;
    let node = setup(&authority).origin(HOST, origin.address, json!({})).set("limits.body_time", json!("2s")).start();
    let stream = Caller::new(&authority).connect_http2(node.http2.unwrap()).await;
    // No window for content at all, and plenty for the connection.
    let mut frames = Frames::begin(stream, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    frames.send(&Frame::new(WINDOW_UPDATE, 0, 0, &[0, 0x40, 0, 0]).bytes()).await.unwrap();
    let target = format!("/-/{HOST}/file");
    frames.send(&Frame::get(1, CACHE, &target, &[]).bytes()).await.unwrap();
    assert_eq!(frames.wait_for(HEADERS, 1).await.unwrap().status(), Some(200));
    let reset = frames.wait_for(RST_STREAM, 1).await;
    assert!(reset.is_some(), "the connection ended");
    frames.send(&Frame::get(3, CACHE, &target, &[]).bytes()).await.unwrap();
    frames.send(&Frame::new(WINDOW_UPDATE, 0, 3, &[0, 0x40, 0, 0]).bytes()).await.unwrap();
    let mut got: Vec<u8> = Vec::new();
    loop {
        let frame = frames.next().await.unwrap();
        if frame.kind == DATA && frame.stream == 3 {
            got.extend(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert!(got == pattern.bytes());
    wait_for_metric(&node, "waystation_requests_in_flight", "", 0.0).await;
}

#[tokio::test]
async fn a_refusal_that_is_not_taken_holds_nothing() {
    let authority = Authority::new("site");
    let node = setup(&authority).set("limits.body_time", json!("1s")).start();
    let stream = Caller::new(&authority).connect_http2(node.http2.unwrap()).await;
    let mut frames = Frames::begin(stream, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let pseudo = [(":method", "GET"), (":scheme", "ftp"), (":authority", CACHE), (":path", "/")];
    frames.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, &block(&pseudo)).bytes()).await.unwrap();
    assert_eq!(frames.wait_for(HEADERS, 1).await.unwrap().status(), Some(400));
    assert!(frames.wait_for(RST_STREAM, 1).await.is_some(), "the connection ended");
}

#[tokio::test]
async fn a_client_that_reads_nothing_at_all_is_cut() {
    let authority = Authority::new("site");
    let origin = FakeOrigin::with("/file", Reply::file(Pattern::new(1, 30_000_000))).await;
    let node = setup(&authority).origin(HOST, origin.address, json!({})).set("limits.body_time", json!("2s")).start();
    let stream = Caller::new(&authority).connect_http2(node.http2.unwrap()).await;
    let mut frames = Frames::begin(stream, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
    frames.send(&Frame::new(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0]).bytes()).await.unwrap();
    for stream in [1, 3, 5] {
        frames.send(&Frame::get(stream, CACHE, &format!("/-/{HOST}/file"), &[]).bytes()).await.unwrap();
    }
    // Its windows are wide open, and it does not read its socket.
    node.wait_for_fills(1).await;
    wait_for_metric(&node, "waystation_http2_connections", "", 0.0).await;
    wait_for_metric(&node, "waystation_requests_in_flight", "", 0.0).await;
    drop(frames);
}
