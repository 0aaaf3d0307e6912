//! A drive that hangs in mid-fill.

use super::*;
use crate::content::ByteRange;
use crate::fill::{Arrived, Arriving};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_on_a_drive_that_hangs_ends_and_the_next_one_is_on_another() {
    let body = Arc::new(body_of(200 * KIB, 31));
    let (gate, sent) = (Gate::new(), Arc::clone(&body));
    let held = gate.clone();
    let server = Server::start(move |number, _| match number {
        0 => {
            let first = [&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..50_000]].concat();
            vec![Step::Send(first), Step::Wait(held.clone()), Step::Send(sent[50_000..].to_vec())]
        }
        _ => vec![answer("200 OK", &[TAG, FRESH], &sent)],
    })
    .await;
    let rig = Rig::watching_two_drives();
    let want = want(&server, "/a");
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert!(matches!(partial.wait(49_999).await, Progress::Present(_)));
    let hanging = rig.store.hang(0);
    gate.open();
    let ended = tokio::time::timeout(Duration::from_secs(30), partial.wait(u64::MAX)).await;
    assert_eq!(ended.expect("nobody waits for the drive"), Progress::Stopped);
    drop(guard);
    rig.idle().await;
    // Whether somebody was still there to whom the rest could be passed.
    assert_eq!(rig.ended_as("store") + rig.ended_as("window"), 1);

    assert!(asked_again(&rig, &want).await == *body);
    assert_eq!(server.requests().len(), 2);
    drop(hanging);
    until(|| rig.store.usage().iter().all(|usage| usage.in_service())).await;
    assert!(asked_again(&rig, &want).await == *body);
}

/// The body, as a client gets it that looks again when what is stored changes meanwhile.
async fn asked_again(rig: &Rig, want: &Want) -> Vec<u8> {
    loop {
        match rig.fill.obtain(rig.look_up(want.clone()).await).await {
            Obtained::Changed => {}
            obtained => return whole(rig, obtained).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_drive_left_each_client_gets_its_answer_from_upstream() {
    let body = Arc::new(body_of(100 * KIB, 32));
    let sent = Arc::clone(&body);
    let server = Server::start(move |_, _| vec![answer("200 OK", &[TAG, FRESH], &sent)]).await;
    let rig = Rig::watching_two_drives();
    rig.store.ready().await;
    let hanging = [rig.store.hang(0), rig.store.hang(1)];
    until(|| rig.store.usage().iter().all(|usage| !usage.in_service())).await;
    for _ in 0..2 {
        let want = want(&server, "/a");
        let asked = async { whole(&rig, rig.fill.obtain(rig.look_up(want).await).await).await };
        let got = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("nobody waits for a drive");
        assert!(got == *body);
    }
    drop(hanging);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_is_not_gone_on_with() {
    let (old, new) = (Arc::new(body_of(200 * KIB, 33)), Arc::new(body_of(200 * KIB, 34)));
    let fields = [("ETag", "W/\"v1\""), FRESH];
    let gate = Gate::new();
    let (sent, other, held) = (Arc::clone(&old), Arc::clone(&new), gate.clone());
    let server = Server::start(move |number, _| match number {
        0 => vec![Step::Send([&head("200 OK", &fields, sent.len())[..], &sent[..100_000]].concat()), Step::Cut],
        // It says that it is the same version, and is another one.
        1 => vec![
            Step::Send([&head("200 OK", &fields, other.len())[..], &sent[..10]].concat()),
            Step::Wait(held.clone()),
            Step::Send(other[10..].to_vec()),
        ],
        _ => vec![answer("200 OK", &fields, &other)],
    })
    .await;
    let rig = Rig::watching_two_drives();
    let want = want(&server, "/a");
    let (entry, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    until(|| server.requests().len() == 2).await;
    let reading = tokio::spawn({
        let (partial, arriving) = (Arc::clone(&partial), Arriving::new(Some(Arc::clone(&partial)), &guard));
        async move {
            let mut bytes = Vec::new();
            guard.reads(ByteRange::new(100_000, 200 * KIB as u64).unwrap(), Some(200 * KIB as u64));
            while let Progress::Present(until) = arriving.wait(100_000 + bytes.len() as u64).await {
                let at = 100_000 + bytes.len() as u64;
                match arriving.take(at, until) {
                    Some(Arrived::Bytes(more)) => bytes.extend_from_slice(&more),
                    _ => break,
                }
                guard.advance(at);
            }
            drop(partial);
            bytes
        }
    });
    let home = rig.store.usage().iter().position(|usage| usage.used > 0).unwrap();
    let hanging = rig.store.hang(home);
    gate.open();
    let got = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("nobody waits").unwrap();
    assert!(got.is_empty(), "bytes of another version behind those of {entry:?}");
    rig.idle().await;
    assert_eq!((rig.ended_as("store"), rig.ended_as("window")), (1, 0));
    drop(hanging);
}
