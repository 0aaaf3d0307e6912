//! Who asks the origin, who follows, and what becomes of each kind of answer.

use futures_util::future::join_all;

use super::*;
use crate::fill::flight::{Head, Role};
use crate::store::FirstBytes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_cost_one_request() {
    let body = Arc::new(body_of(300 * KIB, 1));
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let server =
        Server::start(move |_, _| vec![Step::Wait(held.clone()), answer("200 OK", &[TAG, FRESH], &sent)]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let clients: Vec<_> = (0..50).map(|_| rig.obtain(&want)).collect();
    rig.clients(&want, 50).await;
    gate.open();
    let obtained: Vec<_> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    let leaders = obtained.iter().filter(|o| matches!(o, Obtained::Filling { collapsed: false, .. })).count();
    assert_eq!(leaders, 1);
    for one in obtained {
        assert!(whole(&rig, one).await == *body);
    }
    assert_eq!(server.requests().len(), 1);
    rig.idle().await;
    assert_eq!(rig.metrics.upstream_bytes.get(), body.len() as u64);
    assert!(is_blob(&rig.stored(&want).await[0]));
}

#[tokio::test]
async fn followers_get_bytes_as_they_land() {
    let body = Arc::new(body_of(100_000, 2));
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        let first = [&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..10]].concat();
        vec![Step::Send(first), Step::Wait(held.clone()), Step::Send(sent[10..].to_vec())]
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let leader = rig.fill.obtain(want.clone()).await;
    let (_, partial, _guard) = filling(rig.fill.obtain(rig.look_up(want).await).await);
    assert_eq!(partial.wait(0).await, Progress::Present(10), "while the origin holds the rest back");
    gate.open();
    assert!(read(&partial).await.0 == *body);
    assert!(whole(&rig, leader).await == *body);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn bodies_of_every_size_come_whole_in_any_framing() {
    let sizes = [1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 512 * KIB, 512 * KIB + 1, 1500 * KIB + 7];
    for size in sizes {
        let body = Arc::new(body_of(size, size as u64));
        for chunked in [false, true] {
            let sent = Arc::clone(&body);
            let server = Server::start(move |_, _| {
                if !chunked {
                    return vec![answer("200 OK", &[TAG, FRESH], &sent)];
                }
                let head = "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
                let chunk = [format!("{:x}\r\n", sent.len()).as_bytes(), &sent, b"\r\n0\r\n\r\n"].concat();
                vec![Step::Send([head.as_bytes(), &chunk].concat())]
            })
            .await;
            let (rig, want) = (Rig::new(), want(&server, "/a"));
            let obtained = rig.fill.obtain(want.clone()).await;
            assert!(whole(&rig, obtained).await == *body, "{size} {chunked}");
            rig.idle().await;
            assert!(is_blob(&rig.stored(&want).await[0]), "{size} {chunked}");
            assert_eq!(server.requests().len(), 1, "{size} {chunked}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_shared_is_asked_for_by_each() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |n, _| {
        let mut steps = vec![answer("200 OK", &[("Cache-Control", "private")], format!("for {n}").as_bytes())];
        if n == 0 {
            steps.insert(0, Step::Wait(held.clone()));
        }
        steps
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let clients: Vec<_> = (0..5).map(|_| rig.obtain(&want)).collect();
    rig.clients(&want, 5).await;
    gate.open();
    let mut bodies = Vec::new();
    for one in join_all(clients).await {
        bodies.push(String::from_utf8(whole(&rig, one.unwrap()).await).unwrap());
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["for 0", "for 1", "for 2", "for 3", "for 4"]);
    assert!(rig.stored(&want).await.is_empty());
}

#[tokio::test]
async fn a_range_of_what_cannot_be_stored_is_asked_for_as_a_range() {
    let server = Server::start(move |_, request| match field(request, "range") {
        Some("bytes=7-8") => {
            let fields = [("Cache-Control", "private"), ("Content-Range", "bytes 7-8/10")];
            vec![answer("206 Partial Content", &fields, b"78")]
        }
        Some(_) => vec![answer("400 Bad Request", &[], b"")],
        None => vec![answer("200 OK", &[("Cache-Control", "private")], b"0123456789")],
    })
    .await;
    let rig = Rig::new();
    let want = with_fields(want(&server, "/a"), &[("range", "bytes=0-3"), ("range", "bytes=7-8")]);
    let obtained = rig.fill.obtain(want).await;
    assert_eq!(shown(&obtained), "through 206 Partial Content");
    assert_eq!(whole(&rig, obtained).await, b"78");
}

#[tokio::test]
async fn a_failure_of_the_origin_goes_to_everybody_who_waits() {
    let gate = Gate::new();
    let held = gate.clone();
    let server =
        Server::start(move |_, _| vec![Step::Wait(held.clone()), answer("500 Internal Server Error", &[], b"sorry")])
            .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let clients: Vec<_> = (0..10).map(|_| rig.obtain(&want)).collect();
    rig.clients(&want, 10).await;
    gate.open();
    for one in join_all(clients).await {
        let Obtained::Answer { answer, .. } = one.unwrap() else { panic!("no answer") };
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::INTERNAL_SERVER_ERROR, &b"sorry"[..]));
    }
    assert_eq!(server.requests().len(), 1);
    assert!(rig.stored(&want).await.is_empty());
}

#[tokio::test]
async fn a_long_or_cut_failure_is_shared_without_its_body() {
    let server = Server::start(move |n, _| match n {
        0 => vec![answer("502 Bad Gateway", &[("Content-Encoding", "gzip")], &[0; 100 * KIB])],
        _ => vec![Step::Send(head("502 Bad Gateway", &[], 10)), Step::Cut],
    })
    .await;
    let rig = Rig::new();
    for _ in 0..2 {
        let Obtained::Answer { answer, .. } = rig.fill.obtain(want(&server, "/a")).await else { panic!("no answer") };
        assert!(answer.body.is_empty() && !answer.headers.contains_key("content-encoding"));
        rig.idle().await;
    }
}

#[tokio::test]
async fn a_failure_for_one_client_is_not_shared() {
    let fields = [("Cache-Control", "private")];
    let server = Server::start(move |_, _| vec![answer("503 Service Unavailable", &fields, b"mine")]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    assert_eq!(shown(&rig.fill.obtain(want).await), "through 503 Service Unavailable");
}

#[tokio::test]
async fn a_refused_request_says_nothing_about_others() {
    let body = Arc::new(body_of(1000, 3));
    let sent = Arc::clone(&body);
    let server = Server::start(move |_, request| match field(request, "authorization") {
        Some(_) => vec![answer("403 Forbidden", &[], b"no")],
        None => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let rig = Rig::new();
    let good = want(&server, "/a");
    let bad = with_fields(good.clone(), &[("authorization", "Basic nonsense")]);
    assert_eq!(shown(&rig.fill.obtain(bad).await), "through 403 Forbidden");
    rig.idle().await;
    let obtained = rig.fill.obtain(good.clone()).await;
    assert_eq!(shown(&obtained), "filling, collapsed: false");
    assert!(whole(&rig, obtained).await == *body);
}

#[tokio::test]
async fn a_follower_of_a_refused_request_asks_with_its_own_credentials() {
    let (gate, body) = (Gate::new(), Arc::new(body_of(1000, 3)));
    let (held, sent) = (gate.clone(), Arc::clone(&body));
    let server = Server::start(move |_, request| match field(request, "authorization") {
        Some(_) => vec![Step::Wait(held.clone()), answer("403 Forbidden", &[], b"no")],
        None => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let rig = Rig::new();
    let good = want(&server, "/a");
    let bad = rig.obtain(&with_fields(good.clone(), &[("authorization", "Basic nonsense")]));
    rig.clients(&good, 1).await;
    let follower = rig.obtain(&good);
    rig.clients(&good, 2).await;
    gate.open();
    assert_eq!(shown(&bad.await.unwrap()), "through 403 Forbidden");
    assert!(whole(&rig, follower.await.unwrap()).await == *body);
    rig.idle().await;
    assert!(is_blob(&rig.stored(&good).await[0]), "it was stored for all");
}

#[tokio::test]
async fn answers_without_a_marked_end_or_out_of_place_are_not_stored() {
    let server = Server::start(move |_, request| {
        if request.starts_with("get /close") {
            let text = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=60\r\n\r\nall of it";
            vec![Step::Send(text.into()), Step::Cut]
        } else if request.starts_with("get /part") {
            vec![answer("206 Partial Content", &[TAG, FRESH, ("Content-Range", "bytes 0-3/10")], b"0123")]
        } else {
            vec![Step::Send(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec())]
        }
    })
    .await;
    let rig = Rig::new();
    let close = want(&server, "/close");
    let obtained = rig.fill.obtain(close.clone()).await;
    assert_eq!(shown(&obtained), "through 200 OK");
    assert_eq!(whole(&rig, obtained).await, b"all of it");
    for path in ["/part", "/304"] {
        assert_eq!(shown(&rig.fill.obtain(want(&server, path)).await), "failed: bad-answer");
        assert!(rig.stored(&want(&server, path)).await.is_empty());
    }
    assert!(rig.stored(&close).await.is_empty());
}

#[tokio::test]
async fn variants_are_filled_beside_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |_, request| {
        let language = field(request, "accept-language").unwrap().to_owned();
        let fields = [("ETag", &*format!("\"{language}\"")), FRESH, ("Vary", "Accept-Language")];
        vec![Step::Send(head("200 OK", &fields, 2)), Step::Wait(held.clone()), Step::Send(language.into_bytes())]
    })
    .await;
    let rig = Rig::new();
    let of = |language| with_fields(want(&server, "/a"), &[("accept-language", language)]);
    let clients: Vec<_> = ["en", "de", "en", "de"].into_iter().map(|language| rig.obtain(&of(language))).collect();
    let obtained: Vec<_> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(rig.metrics.fills_active.get(), 2);
    gate.open();
    for (one, expected) in obtained.into_iter().zip(["en", "de", "en", "de"]) {
        assert_eq!(whole(&rig, one).await, expected.as_bytes());
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_flight_is_for_its_token_until_another_is_proven() {
    let (gate, body) = (Gate::new(), Arc::new(body_of(1000, 3)));
    let (held, sent) = (gate.clone(), Arc::clone(&body));
    let server = Server::start(move |_, request| {
        let refused = request.contains("sig=bad");
        let get = request.starts_with("get");
        match (get, refused) {
            (false, true) => vec![Step::Send(head("403 Forbidden", &[], 0))],
            (false, false) => vec![Step::Send(head("200 OK", &[TAG], 1000))],
            (true, _) => vec![Step::Wait(held.clone()), answer("200 OK", &[TAG, FRESH], &sent)],
        }
    })
    .await;
    let rig = Rig::new();
    let with_token = |token: u8, target: &str| Want {
        token: Some([token; 32]),
        carries_token: true,
        target: target.to_owned(),
        ..want(&server, "/a")
    };
    let leader = rig.obtain(&with_token(1, "/a?sig=one"));
    rig.clients(&with_token(1, ""), 1).await;
    let same = rig.obtain(&with_token(1, "/a?sig=one"));
    rig.clients(&with_token(1, ""), 2).await;
    let (other, bad) = (with_token(2, "/a?sig=two"), with_token(3, "/a?sig=bad"));
    let none = Want { token: Some([4; 32]), ..want(&server, "/a") };
    for unproven in [&other, &bad, &none] {
        assert_eq!(shown(&rig.fill.obtain(unproven.clone()).await), "needs proof");
    }
    assert_eq!(rig.fill.prove(&bad).await.unwrap(), StatusCode::FORBIDDEN);
    assert_eq!(rig.fill.prove(&other).await.unwrap(), StatusCode::OK);
    let follower = rig.obtain(&Want { proven: true, ..other.clone() });
    rig.clients(&with_token(1, ""), 3).await;
    gate.open();
    for one in [leader, same, follower] {
        assert!(whole(&rig, one.await.unwrap()).await == *body);
    }
    assert_eq!(server.requests().iter().filter(|request| request.starts_with("get")).count(), 1);
    rig.idle().await;
    assert!(rig.stored(&other).await[0].record.token_protected);
}

#[tokio::test]
async fn a_source_without_head_proves_by_one_byte() {
    let server = Server::start(move |_, request| match (request.starts_with("head"), field(request, "range")) {
        (true, _) => vec![Step::Send(head("405 Method Not Allowed", &[], 0))],
        (false, Some("bytes=0-0")) if request.starts_with("get /empty") => {
            vec![answer("416 Range Not Satisfiable", &[("Content-Range", "bytes */0")], b"")]
        }
        (false, Some("bytes=0-0")) => {
            vec![answer("206 Partial Content", &[("Content-Range", "bytes 0-0/9")], b"0")]
        }
        _ => vec![answer("500 Internal Server Error", &[], b"")],
    })
    .await;
    let rig = Rig::new();
    for path in ["/a", "/empty"] {
        assert!(rig.fill.prove(&want(&server, path)).await.unwrap().is_success(), "{path}");
    }
}

/// The leader's token ends in mid-fill: those who wait with a good one are not cut.
#[tokio::test]
async fn a_fill_goes_on_with_the_credentials_of_who_waits_when_those_of_its_leader_end() {
    let body = Arc::new(body_of(300 * KIB, 21));
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let server = Server::start(move |n, request| match n {
        0 => {
            let part = [&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..100_000]].concat();
            vec![Step::Send(part), Step::Wait(held.clone()), Step::Cut]
        }
        _ if request.contains("sig=good") => vec![rest(request, &[TAG, FRESH], &sent)],
        _ => vec![answer("403 Forbidden", &[], b"ended")],
    })
    .await;
    let (rig, plain) = (Rig::new(), want(&server, "/a"));
    let with_token = |name: &str, id: u8| Want {
        target: format!("/a?sig={name}"),
        token: Some([id; 32]),
        carries_token: true,
        proven: true,
        ..plain.clone()
    };
    let leader = rig.fill.obtain(with_token("first", 1)).await;
    let mut waiting = Vec::new();
    for (name, id) in [("first", 1), ("second", 2), ("good", 3)] {
        waiting.push(rig.fill.obtain(rig.look_up(with_token(name, id)).await).await);
    }
    gate.open();
    for obtained in waiting {
        assert!(whole(&rig, obtained).await == *body);
    }
    drop(leader);
    let asked: Vec<_> = server.requests().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    let targets = ["/a?sig=first", "/a?sig=first", "/a?sig=second", "/a?sig=good"];
    assert_eq!(asked, targets.map(|target| format!("get {target} http/1.1")));
}

/// The answer has come and its file is being made: whoever waits gets it, and nobody else.
#[tokio::test]
async fn a_change_while_a_body_is_begun_leaves_it_to_those_who_wait() {
    let server = Server::start(move |n, _| {
        vec![answer("200 OK", &[("ETag", &format!("\"v{n}\"")), FRESH], &body_of(100, n as u64))]
    })
    .await;
    let (rig, plain) = (Rig::new(), want(&server, "/a"));
    // So that the look-up needs no drive any more.
    assert!(rig.stored(&plain).await.is_empty());
    let busy = rig.store.occupy_threads();
    let waiting = rig.obtain(&plain);
    until(|| rig.metrics.upstream_bytes.get() == 100).await;
    rig.fill.part_from(&plain.key);
    drop(busy);
    let (entry, partial, guard) = filling(waiting.await.unwrap());
    assert!(rig.stored(&plain).await.is_empty(), "{entry:?}");
    assert_eq!(read(&partial).await, (body_of(100, 0), Progress::Ended(100)));
    drop(guard);
    rig.idle().await;
    assert!(rig.stored(&plain).await.is_empty());
    assert_eq!(whole(&rig, rig.fill.obtain(rig.look_up(plain.clone()).await).await).await, body_of(100, 1));
}

#[tokio::test]
async fn a_body_that_is_shown_behind_a_change_is_never_current() {
    let server = Server::start(|_, _| Vec::new()).await;
    let rig = Rig::new();
    for (path, is_changed) in [("/same", false), ("/changed", true)] {
        let plain = want(&server, path);
        let flights = &rig.fill.inner.flights;
        let Role::Lead(permit, _guard) = flights.join(&plain) else { panic!("somebody leads") };
        let body = rig.store.begin(record_of(&plain, 100), 100, FirstBytes::default()).await.unwrap();
        if is_changed {
            rig.fill.part_from(&plain.key);
        }
        let writer = permit.show(body);
        assert_eq!(rig.stored(&plain).await.is_empty(), is_changed, "{path}");
        assert_eq!(rig.store.known(&plain.key).await.older().len(), usize::from(is_changed), "{path}");
        drop(writer);
    }
}

#[tokio::test]
async fn what_was_made_current_behind_a_change_is_given_to_nobody() {
    let server = Server::start(|_, _| Vec::new()).await;
    let rig = Rig::new();
    for (path, is_changed) in [("/same", false), ("/changed", true)] {
        let plain = want(&server, path);
        let Role::Lead(permit, guard) = rig.fill.inner.flights.join(&plain) else { panic!("somebody leads") };
        let mut writer = rig.store.create(record_of(&plain, 100)).await.unwrap();
        writer.write(0, vec![Bytes::from(body_of(100, 3))]).await.unwrap();
        let entry = writer.complete(100).await.unwrap().entry;
        if is_changed {
            rig.fill.part_from(&plain.key);
        }
        permit.publish_stored(&rig.store, entry);
        assert_eq!(rig.stored(&plain).await.is_empty(), is_changed, "{path}");
        assert_eq!(matches!(guard.flight().head().await, Head::Changed), is_changed, "{path}");
    }
}
