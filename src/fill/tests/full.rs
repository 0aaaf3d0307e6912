//! Drives that are full at any write, as clients see it: they get all bytes, right ones, and from one transfer, when the
//! drive had room at the begin or not.

use futures_util::StreamExt as _;
use rustix::io::Errno;

use super::*;
use crate::content::Digest;
use crate::fill::{Arrived, Arriving};
use crate::store::tests::faults::Faults;

const LENGTH: usize = 12 * BLOCK + 345;
const CLIENTS: usize = 3;
/// Stories that are told at a time.
const AT_A_TIME: usize = 8;

async fn server() -> Server {
    let body = body_of(LENGTH, 31);
    Server::start(move |_, request| match field(request, "range") {
        Some(_) => vec![rest(request, &[TAG, FRESH], &body)],
        None => vec![answer("200 OK", &[TAG, FRESH], &body)],
    })
    .await
}

/// Reads a body on its way from its begin on.
pub(super) async fn follow(arriving: &Arriving, guard: &FlightGuard) -> Vec<u8> {
    follow_from(0, arriving, guard).await
}

/// The same from another position on.
async fn follow_from(start: u64, arriving: &Arriving, guard: &FlightGuard) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let at = start + bytes.len() as u64;
        guard.advance(at);
        match arriving.wait(at).await {
            Progress::Present(until) => match arriving.take(at, until) {
                Some(Arrived::Bytes(more)) => bytes.extend_from_slice(&more),
                Some(Arrived::Stored(body, until)) => match body.read(at, (until - at) as usize).await {
                    Ok(more) => bytes.extend_from_slice(&more),
                    Err(_) => return bytes,
                },
                None => return bytes,
            },
            Progress::Ended(_) | Progress::Stopped => return bytes,
        }
    }
}

/// What a client gets that is cut a few times at most; and how often it was.
async fn download(rig: &Rig, want: &Want, body: &[u8]) -> usize {
    for attempt in 0..4 {
        let want = rig.look_up(want.clone()).await;
        let stored = want.stored.as_ref().filter(|entry| is_blob(entry));
        if let Some(entry) = stored
            && rig.store.body(entry).await.is_ok()
        {
            assert!(stored_bytes(rig, entry).await == body);
            return attempt;
        }
        let got = match rig.fill.obtain(want).await {
            Obtained::Filling { partial, guard, .. } => follow(&Arriving::new(Some(partial), &guard), &guard).await,
            Obtained::Passing { guard, .. } => follow(&Arriving::new(None, &guard), &guard).await,
            Obtained::Changed => continue,
            other => panic!("{}", shown(&other)),
        };
        assert!(body.starts_with(&got), "a wrong byte");
        if got.len() == body.len() {
            return attempt;
        }
    }
    panic!("a client is cut again and again");
}

/// So many operations from the `first`-th on fail while some clients want a body. How many operations there were, and how
/// often a client was cut.
async fn story(mode: FillMode, first: u64, many: u64, error: Errno) -> (u64, usize) {
    let (rig, server, body) = (Rig::new(), server().await, body_of(LENGTH, 31));
    rig.store.ready().await;
    let policy = Policy { fill: mode, ..policy(Abandon::Complete) };
    let want = Want { policy: Arc::new(policy), ..want(&server, "/f") };
    let faults = Faults::below(rig.root.path(), first, many, error);
    let clients = (0..CLIENTS).map(|_| download(&rig, &want, &body));
    let cuts: usize = futures_util::future::join_all(clients).await.into_iter().sum();
    rig.idle().await;
    rig.store.flush().await;
    let (count, struck) = (faults.count(), faults.struck());
    drop(faults);
    let paid = server.requests().len();
    assert!(
        cuts <= CLIENTS,
        "{mode:?} {first} {many} {error:?}: {cuts} cuts, {paid} requests, {struck} operations failed"
    );
    // There is room again: it is stored as usual.
    download(&rig, &want, &body).await;
    rig.idle().await;
    rig.store.flush().await;
    let entry = rig.stored(&want).await.into_iter().find(|entry| is_blob(entry));
    assert!(entry.is_some(), "{mode:?} {first} {many} {error:?}: not stored");
    let rig = rig.restarted(|_| {}).await;
    rig.store.ready().await;
    assert!(rig.stored(&want).await.iter().any(|entry| is_blob(entry)), "{mode:?} {first} {many} {error:?}: lost");
    (count, cuts)
}

#[tokio::test]
async fn a_full_drive_is_no_error_to_any_client() {
    for mode in [FillMode::Ranged, FillMode::Whole] {
        let (operations, _) = story(mode, u64::MAX, 0, Errno::NOSPC).await;
        println!("{mode:?}: {operations} operations");
        let told = futures_util::stream::iter(1..=operations).map(|first| {
            let error = if first % 2 == 0 { Errno::NOSPC } else { Errno::DQUOT };
            let many = if first % 3 == 0 { u64::MAX } else { 1 };
            story(mode, first, many, error)
        });
        // Each waits for its disk most of the time.
        told.buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await;
    }
}

#[tokio::test]
async fn a_write_that_fails_once_cuts_nobody() {
    let (operations, _) = story(FillMode::Ranged, u64::MAX, 0, Errno::IO).await;
    let told = futures_util::stream::iter(1..=operations).map(|first| async move {
        let (_, cuts) = story(FillMode::Ranged, first, 1, Errno::IO).await;
        assert_eq!(cuts, 0, "operation {first}");
    });
    told.buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await;
}

/// A client that comes back for the rest of what it has gets its end, though nothing can tell the digest of the whole.
#[tokio::test]
async fn who_goes_on_behind_a_gap_gets_the_end() {
    let body = Arc::new(body_of(LENGTH, 35));
    let (sent, digest) = (Arc::clone(&body), format!("sha-256=:{}:", Digest::of(&body).to_base64()));
    let server = Server::start(move |_, request| vec![rest(request, &[TAG, FRESH, ("Repr-Digest", &digest)], &sent)]);
    let (server, rig) = (server.await, Rig::new());
    let policy = Policy { fill: FillMode::Ranged, ..policy(Abandon::Stop) };
    let want = Want { policy: Arc::new(policy), ..want(&server, "/f") };
    let (_, partial, guard) = filling(rig.fill.obtain(with_fields(want.clone(), &[("range", "bytes=0-99")])).await);
    assert!(matches!(partial.wait(99).await, Progress::Present(_)));
    drop(guard);
    rig.idle().await;
    assert!(partial.present_total() < LENGTH as u64 / 2);

    let faults = Faults::below(rig.root.path(), 1, u64::MAX, Errno::NOSPC);
    let (from, length) = (8 * BLOCK as u64, LENGTH as u64);
    let want = rig.look_up(with_fields(want, &[("range", &format!("bytes={from}-"))])).await;
    let (_, partial, guard) = filling(rig.fill.obtain(want).await);
    let arriving = Arriving::new(Some(partial), &guard);
    let got = follow_from(from, &arriving, &guard).await;
    assert!(got == body[from as usize..], "{} bytes", got.len());
    assert_eq!(arriving.wait(u64::MAX).await, Progress::Ended(length), "what is held back of it is let go");
    drop((guard, faults));
}

/// A part that has less than it says is a failure of the source: it is asked again after a pause.
#[tokio::test]
async fn a_part_that_is_short_is_asked_for_again_after_a_pause() {
    let body = Arc::new(body_of(LENGTH, 36));
    let (sent, asked) = (Arc::clone(&body), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let log = Arc::clone(&asked);
    let server = Server::start(move |number, request| {
        log.lock().push(std::time::Instant::now());
        let range = format!(
            "bytes {}-{}/{LENGTH}",
            field(request, "range").unwrap()[6..].split('-').next().unwrap(),
            LENGTH - 1
        );
        match number {
            0 => {
                let range = format!("bytes 0-{}/{LENGTH}", BLOCK - 1);
                vec![answer("206 Partial Content", &[TAG, FRESH, ("Content-Range", &range)], &sent[..BLOCK])]
            }
            1..=3 => vec![answer("206 Partial Content", &[TAG, FRESH, ("Content-Range", &range)], b"")],
            _ => vec![rest(request, &[TAG, FRESH], &sent)],
        }
    });
    let (server, rig) = (server.await, Rig::new());
    rig.store.ready().await;
    let faults = Faults::below(rig.root.path(), 1, u64::MAX, Errno::NOSPC);
    let policy = Policy { fill: FillMode::Ranged, ..policy(Abandon::Stop) };
    let want = Want { policy: Arc::new(policy), ..want(&server, "/f") };
    let Obtained::Passing { guard, .. } = rig.fill.obtain(want).await else { panic!("there is no room") };
    assert!(follow(&Arriving::new(None, &guard), &guard).await == *body);
    let asked = asked.lock();
    assert_eq!(asked.len(), 5);
    assert!(asked[2..].windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(40)), "{asked:?}");
    drop(faults);
}

/// What goes on in a window asks with the credentials that upstream takes, not with those that the fill was begun with.
#[tokio::test]
async fn a_window_asks_with_the_credentials_that_are_taken() {
    let (gate, full) = (Gate::new(), Gate::new());
    let body = Arc::new(body_of(LENGTH, 37));
    let (sent, held, stopped) = (Arc::clone(&body), gate.clone(), full.clone());
    let fields = [TAG, ("Cache-Control", "max-age=3600, public")];
    let server = Server::start(move |number, request| match (number, field(request, "authorization")) {
        (0, _) => {
            let first = [&head("200 OK", &fields, LENGTH)[..], &sent[..BLOCK]].concat();
            vec![Step::Send(first), Step::Wait(held.clone()), Step::Cut]
        }
        (_, Some("basic a")) => vec![answer("403 Forbidden", &[], b"no")],
        (2, _) => {
            let (from, to) = asked(request, LENGTH);
            let range = format!("bytes {from}-{}/{LENGTH}", to - 1);
            let part = head("206 Partial Content", &[&fields[..], &[("Content-Range", &range)]].concat(), to - from);
            vec![Step::Wait(stopped.clone()), Step::Send([&part[..], &sent[from..from + BLOCK]].concat()), Step::Cut]
        }
        _ => vec![rest(request, &fields, &sent)],
    });
    let (server, rig) = (server.await, Rig::new());
    let of = |credentials| with_fields(want(&server, "/f"), &[("authorization", credentials)]);
    let (_, partial, guard) = filling(rig.fill.obtain(of("Basic a")).await);
    let (_, shared, follower) = filling(rig.fill.obtain(of("Basic b")).await);
    assert!(matches!(partial.wait(BLOCK as u64 - 1).await, Progress::Present(_)));
    gate.open();
    until(|| server.requests().len() == 3).await;
    let faults = Faults::below(rig.root.path(), 1, u64::MAX, Errno::NOSPC);
    full.open();
    let arriving = [Arriving::new(Some(partial), &guard), Arriving::new(Some(shared), &follower)];
    let (one, other) = tokio::join!(follow(&arriving[0], &guard), follow(&arriving[1], &follower));
    assert!(one == *body && other == *body, "{} and {} bytes, {:?}", one.len(), other.len(), server.requests());
    drop(faults);
}
