//! What becomes of a fill when its clients leave, when its time is over, and when its task dies.

use super::*;

/// An origin that sends `n` bytes of `body`, then holds the rest until the gate opens; it serves ranges, too.
async fn slow(body: &Arc<Vec<u8>>, n: usize) -> (Server, Gate) {
    let gate = Gate::new();
    let (held, sent) = (gate.clone(), Arc::clone(body));
    let server = Server::start(move |number, request| match number {
        0 => {
            let first = [&head("200 OK", &[TAG, FRESH], sent.len())[..], &sent[..n]].concat();
            vec![Step::Send(first), Step::Wait(held.clone()), Step::Send(sent[n..].to_vec())]
        }
        _ => vec![rest(request, &[TAG, FRESH], &sent)],
    })
    .await;
    (server, gate)
}

/// Obtains and waits until `n` bytes are there.
async fn begun(rig: &Rig, want: &Want, n: usize) -> (Arc<Partial>, FlightGuard) {
    let (_, partial, guard) = filling(rig.fill.obtain(want.clone()).await);
    assert!(matches!(partial.wait(n as u64 - 1).await, Progress::Present(_)));
    (partial, guard)
}

#[tokio::test]
async fn a_fill_that_is_for_its_clients_stops_when_they_leave_and_goes_on_with_the_next() {
    let body = Arc::new(body_of(200 * KIB, 1));
    let (server, _gate) = slow(&body, 50_000).await;
    let rig = Rig::new();
    let want = abandoning(want(&server, "/a"));
    let (partial, guard) = begun(&rig, &want, 50_000).await;
    drop(guard);
    assert_eq!(partial.wait(u64::MAX).await, Progress::Stopped);
    rig.idle().await;
    assert_eq!(rig.ended_as("abandoned"), 1);
    let obtained = rig.fill.obtain(rig.look_up(want).await).await;
    assert!(whole(&rig, obtained).await == *body);
    assert_eq!(field(&server.requests()[1], "range"), Some("bytes=50000-"), "what was present stayed");
}

#[tokio::test]
async fn a_fill_goes_on_while_one_client_is_left() {
    let body = Arc::new(body_of(200 * KIB, 2));
    let (server, gate) = slow(&body, 50_000).await;
    let rig = Rig::new();
    let want = abandoning(want(&server, "/a"));
    let (_, guard) = begun(&rig, &want, 50_000).await;
    let (follower, second) = begun(&rig, &rig.look_up(want.clone()).await, 50_000).await;
    drop(guard);
    gate.open();
    assert!(read(&follower).await.0 == *body);
    drop(second);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_fill_that_is_mostly_done_or_must_complete_goes_on_alone() {
    for (present, abandon) in [(102_400, Abandon::Stop), (1, Abandon::Complete)] {
        let body = Arc::new(body_of(200 * KIB, 3));
        let (server, gate) = slow(&body, present).await;
        let rig = Rig::new();
        let want = Want { policy: Arc::new(policy(abandon)), ..want(&server, "/a") };
        let (partial, guard) = begun(&rig, &want, present).await;
        drop(guard);
        gate.open();
        assert!(read(&partial).await.0 == *body);
        rig.idle().await;
        assert!(is_blob(&rig.stored(&want).await[0]));
    }
}

#[tokio::test]
async fn a_leader_that_leaves_before_the_head_leaves_the_fill_to_its_followers() {
    let (gate, body) = (Gate::new(), Arc::new(body_of(1000, 4)));
    let (held, sent) = (gate.clone(), Arc::clone(&body));
    let server =
        Server::start(move |_, _| vec![Step::Wait(held.clone()), answer("200 OK", &[TAG, FRESH], &sent)]).await;
    let rig = Rig::new();
    let want = abandoning(want(&server, "/a"));
    let leader = rig.obtain(&want);
    rig.clients(&want, 1).await;
    let follower = rig.obtain(&want);
    rig.clients(&want, 2).await;
    leader.abort();
    rig.clients(&want, 1).await;
    gate.open();
    assert!(whole(&rig, follower.await.unwrap()).await == *body);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn when_the_leading_task_dies_followers_are_told_and_the_next_leads() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |n, _| match n {
        0 => vec![Step::Wait(held.clone()), answer("302 Found", &[("Location", "http://127.0.0.1/b")], b"")],
        _ => vec![answer("200 OK", &[TAG, FRESH], b"fine")],
    })
    .await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let clients: Vec<_> = (0..3).map(|_| rig.obtain(&want)).collect();
    rig.clients(&want, 3).await;
    gate.open();
    for one in clients {
        assert_eq!(shown(&one.await.unwrap()), "failed: abandoned");
    }
    rig.idle().await;
    let obtained = rig.fill.obtain(want).await;
    assert_eq!(whole(&rig, obtained).await, b"fine");
}

#[tokio::test]
async fn nobody_waits_longer_than_its_deadline() {
    let gate = Gate::new();
    let held = gate.clone();
    let server =
        Server::start(move |_, _| vec![Step::Wait(held.clone()), answer("200 OK", &[TAG, FRESH], b"late")]).await;
    let (rig, want) = (Rig::new(), want(&server, "/a"));
    let leader = rig.obtain(&want);
    rig.clients(&want, 1).await;
    let hurried = Want { deadline: Instant::now(), ..want.clone() };
    assert_eq!(shown(&rig.fill.obtain(hurried).await), "failed: deadline");
    gate.open();
    assert_eq!(whole(&rig, leader.await.unwrap()).await, b"late");
}

#[tokio::test]
async fn a_source_that_gives_no_answer_fails_everybody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), requests: Arc::default() };
    drop(listener);
    let rig = Rig::new();
    assert_eq!(shown(&rig.fill.obtain(want(&server, "/a")).await), "failed: connect-failed");
    rig.idle().await;
}
