//! Asking whether what is stored is current, and what a failure does to it.

use http::header::{ETAG, IF_NONE_MATCH};

use super::*;

const NOT_MODIFIED: &str = "HTTP/1.1 304 Not Modified\r\n";

/// `want` with what is stored, and the condition made from it.
async fn validating(rig: &Rig, want: Want) -> Want {
    let mut want = rig.look_up(want).await;
    let tag = want.stored.as_ref().unwrap().record.headers[ETAG].clone();
    want.conditions = Some(HeaderMap::from_iter([(IF_NONE_MATCH, tag)]));
    want
}

async fn filled(rig: &Rig, want: &Want) -> Vec<u8> {
    let obtained = rig.fill.obtain(rig.look_up(want.clone()).await).await;
    let bytes = whole(rig, obtained).await;
    rig.idle().await;
    bytes
}

#[tokio::test]
async fn a_304_freshens_what_is_stored() {
    let body = Arc::new(body_of(1000, 1));
    let sent = Arc::clone(&body);
    let server = Server::start(move |n, request| match (n, field(request, "if-none-match")) {
        (0, None) => vec![answer("200 OK", &[TAG, ("Cache-Control", "max-age=0"), ("X-Kept", "1")], &sent)],
        (1, Some("\"v1\"")) => {
            vec![Step::Send(format!("{NOT_MODIFIED}ETag: \"v1\"\r\nCache-Control: max-age=60\r\n\r\n").into())]
        }
        _ => vec![answer("500 Internal Server Error", &[], b"")],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    filled(&rig, &want).await;
    let before = rig.stored(&want).await;
    let Obtained::Validated { entry, .. } = rig.fill.obtain(validating(&rig, want.clone()).await).await else {
        panic!("not validated");
    };
    assert_eq!(
        (&entry.record.headers["cache-control"], &entry.record.headers["x-kept"]),
        (&HeaderValue::from_static("max-age=60"), &HeaderValue::from_static("1"))
    );
    assert!(entry.record.request_time >= before[0].record.response_time);
    assert!(stored_bytes(&rig, &entry).await == *body);
    assert_eq!(rig.stored(&want).await[0].record.headers["cache-control"], "max-age=60", "for later requests too");
}

#[tokio::test]
async fn a_304_for_another_version_is_asked_again_without_conditions() {
    let new = Arc::new(body_of(2000, 2));
    let sent = Arc::clone(&new);
    let server = Server::start(move |n, request| match (n, field(request, "if-none-match")) {
        (0, None) => vec![answer("200 OK", &[TAG, ("Cache-Control", "max-age=0")], b"old")],
        (1, Some(_)) => vec![Step::Send(format!("{NOT_MODIFIED}ETag: \"v2\"\r\n\r\n").into())],
        (2, None) => vec![answer("200 OK", &[("ETag", "\"v2\""), FRESH], &sent)],
        _ => vec![answer("500 Internal Server Error", &[], b"")],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    filled(&rig, &want).await;
    let obtained = rig.fill.obtain(validating(&rig, want.clone()).await).await;
    assert!(whole(&rig, obtained).await == *new);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_200_replaces_what_is_stored_and_readers_keep_what_they_have() {
    let server = Server::start(move |n, _| match n {
        0 => vec![answer("200 OK", &[TAG, ("Cache-Control", "max-age=0")], b"old")],
        _ => vec![answer("200 OK", &[("ETag", "\"v2\""), FRESH], b"newer")],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    filled(&rig, &want).await;
    let old = rig.stored(&want).await[0].clone();
    let reader = rig.store.body(&old).await.unwrap();
    let obtained = rig.fill.obtain(validating(&rig, want.clone()).await).await;
    assert_eq!(whole(&rig, obtained).await, b"newer");
    rig.idle().await;
    assert_eq!(&reader.read(0, 100).await.unwrap()[..], b"old");
    assert_eq!(stored_bytes(&rig, &rig.stored(&want).await[0]).await, b"newer");
}

#[tokio::test]
async fn a_failure_with_a_lifetime_does_not_take_the_place_of_content() {
    let server = Server::start(move |n, _| match n {
        0 => vec![answer("200 OK", &[TAG, ("Cache-Control", "max-age=0")], b"content")],
        _ => vec![answer("503 Service Unavailable", &[FRESH], b"later")],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    filled(&rig, &want).await;
    assert_eq!(shown(&rig.fill.obtain(validating(&rig, want.clone()).await).await), "answer 503 Service Unavailable");
    rig.idle().await;
    let stored = rig.stored(&want).await;
    assert_eq!((stored.len(), stored[0].record.status), (1, StatusCode::OK));
}

#[tokio::test]
async fn a_failure_with_a_lifetime_is_stored_where_nothing_is() {
    let server = Server::start(move |_, _| vec![answer("503 Service Unavailable", &[FRESH], b"later")]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    assert_eq!(filled(&rig, &want).await, b"later");
    assert_eq!(rig.stored(&want).await[0].record.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_was_stored_since_the_look_up_is_not_fetched_again() {
    let server = Server::start(move |_, _| vec![answer("200 OK", &[TAG, FRESH], b"once")]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    filled(&rig, &want).await;
    // Looked up before the fill, its turn comes after it.
    assert_eq!(shown(&rig.fill.obtain(want.clone()).await), "changed");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_fill_that_ended_since_the_look_up_is_not_begun_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        vec![Step::Send(head("200 OK", &[TAG, FRESH], 4)), Step::Wait(held.clone()), Step::Send(b"once".into())]
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let leader = rig.fill.obtain(want.clone()).await;
    let late = rig.look_up(want).await;
    assert!(!is_blob(late.stored.as_ref().unwrap()));
    gate.open();
    assert_eq!(whole(&rig, leader).await, b"once");
    rig.idle().await;
    assert_eq!(shown(&rig.fill.obtain(late).await), "changed");
    assert_eq!(server.requests().len(), 1);
}

/// A version that was replaced and comes back is there already.
#[tokio::test]
async fn an_older_version_that_upstream_has_again_is_not_transferred() {
    for fill in [crate::content::FillMode::Whole, crate::content::FillMode::Ranged] {
        let (old, new) = (Arc::new(body_of(300 * KIB, 3)), Arc::new(body_of(300 * KIB, 4)));
        let (sent, gate) = ((Arc::clone(&old), Arc::clone(&new)), Gate::new());
        let asked = Arc::new(Mutex::new(0));
        let (round, shut) = (Arc::clone(&asked), gate.clone());
        let server = Server::start(move |_, request| {
            let round = *round.lock();
            let (body, tag) = if round == 1 { (&sent.1, "\"v2\"") } else { (&sent.0, "\"v1\"") };
            let fields = [("ETag", tag), ("Cache-Control", "max-age=0")];
            match field(request, "range").is_some() {
                // The third time no byte of it comes.
                _ if round == 2 => vec![Step::Send(head("200 OK", &fields, body.len())), Step::Wait(shut.clone())],
                true => vec![rest(request, &fields, body)],
                false => vec![answer("200 OK", &fields, body)],
            }
        })
        .await;
        let (rig, mut want) = (Rig::new(), want(&server, "/a"));
        want.policy = Arc::new(Policy { fill, ..policy(Abandon::Complete) });
        assert!(filled(&rig, &want).await == *old);
        *asked.lock() = 1;
        let obtained = rig.fill.obtain(validating(&rig, want.clone()).await).await;
        assert!(whole(&rig, obtained).await == *new);
        rig.idle().await;
        *asked.lock() = 2;
        let Obtained::Validated { entry, .. } = rig.fill.obtain(validating(&rig, want.clone()).await).await else {
            panic!("not the stored one, {fill:?}");
        };
        assert!(stored_bytes(&rig, &entry).await == *old);
        assert_eq!(rig.stored(&want).await[0].record.headers[ETAG], "\"v1\"", "for later requests too");
        assert_eq!(rig.store.known(&want.key).await.older()[0].record.headers[ETAG], "\"v2\"");
        gate.open();
    }
}

#[tokio::test]
async fn one_failure_is_enough_where_what_is_stored_stands_in() {
    for stands_in in [true, false] {
        let server = Server::start(|n, _| match n {
            0 => vec![answer("200 OK", &[TAG, ("Cache-Control", "max-age=0")], b"old")],
            1..=4 => vec![Step::Cut],
            _ => vec![answer("200 OK", &[("ETag", "\"v2\""), FRESH], b"new")],
        })
        .await;
        let (rig, want) = (Rig::new(), want(&server, "/a"));
        filled(&rig, &want).await;
        let obtained = rig.fill.obtain(Want { stands_in, ..validating(&rig, want.clone()).await }).await;
        assert_eq!(matches!(obtained, Obtained::Failed(_)), stands_in);
        // A connection that was idle and turns out to be closed is no failure.
        let (first, asked) = (2..=3, server.requests().len());
        assert_eq!(first.contains(&asked), stands_in, "{asked}");
    }
}
