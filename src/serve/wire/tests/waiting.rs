//! Clients that are slow, idle or stuck, and what they cost.

use super::*;

const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_slow_head_gets_408() {
    let rig = Rig::new(Limits { header_time: SHORT, ..limits() }).await;
    let mut client = rig.connect().await;
    client.send("GET / HT").await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    client.end().await;

    let mut client = rig.connect().await;
    assert_eq!(client.get("/x").await.1, "GET /x ");
    client.send("G").await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    client.end().await;
    assert_eq!(rig.refused("head-timeout"), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_silently() {
    let rig = Rig::new(Limits { idle_time: SHORT, ..limits() }).await;
    rig.connect().await.end().await;
    let mut client = rig.connect().await;
    assert_eq!(client.get("/x").await.1, "GET /x ");
    client.end().await;

    let rig = Rig::parking(Limits { idle_time: SHORT, ..limits() }, Duration::from_millis(1)).await;
    let mut client = rig.connect().await;
    assert_eq!(client.get("/x").await.1, "GET /x ");
    client.end().await;
}

#[tokio::test]
async fn a_parked_connection_serves_again() {
    let rig = Rig::parking(limits(), Duration::from_millis(1)).await;
    let mut client = rig.connect().await;
    for round in 0..3 {
        let target = format!("/{round}");
        assert_eq!(client.get(&target).await.1, format!("GET {target} "));
        rig.until(|context| context.metrics.connections_parked.get() == 1).await;
        assert_eq!(context_unfinished(&rig), 0);
    }
    // A head in two pieces, the first of which ends the parking.
    client.send("GET /split HT").await;
    rig.until(|context| context.metrics.connections_parked.get() == 0).await;
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET /split ");
    assert_eq!(rig.context.metrics.connections.get(), 1);
    drop(client);
    rig.until(|context| context.metrics.connections.get() == 0).await;
    assert_eq!(rig.context.metrics.connections_parked.get(), 0);
}

#[tokio::test]
async fn an_answer_whose_end_comes_late_leaves_the_connection_usable() {
    let rig = Rig::parking(limits(), Duration::from_millis(1)).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        assert_eq!(client.get("/late").await.1, "halfhalf");
        rig.until(|context| context.metrics.connections_parked.get() == 1).await;
    }
    assert_eq!(client.get("/second").await.1.len(), 70_000);
    rig.until(|context| context.metrics.connections_parked.get() == 1).await;
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "halfhalf");
    assert_eq!(client.response().await.1, "GET /next ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_meet_the_parking_are_not_lost() {
    let rig = Arc::new(Rig::parking(limits(), Duration::from_millis(1)).await);
    let clients = (0..8_u64).map(|seed| {
        let rig = Arc::clone(&rig);
        tokio::spawn(async move {
            let mut client = rig.connect().await;
            for number in 0..100_u64 {
                // Around the time at which the connection is parked.
                tokio::time::sleep(Duration::from_micros((seed * 977 + number * 389) % 2500)).await;
                let target = format!("/{seed}/{number}");
                assert_eq!(client.get(&target).await.1, format!("GET {target} "));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

fn context_unfinished(rig: &Rig) -> usize {
    rig.context.drain.unfinished()
}

#[tokio::test]
async fn a_request_body_that_stops_is_given_up() {
    let rig = Rig::new(Limits { body_time: SHORT, ..limits() }).await;
    let mut client = rig.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await;
    let (_, body) = client.response().await;
    assert!(body.starts_with("POST /x error: "), "{body}");
    client.end().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed() {
    let mut rig = Rig::new(Limits { body_time: Duration::from_millis(300), ..limits() }).await;
    let mut client = rig.connect().await;
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rig.dropped().await;
    rig.until(|context| context.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_client_that_takes_little_is_not_closed() {
    let rig = Rig::new(Limits { body_time: Duration::from_secs(2), ..limits() }).await;
    // The window is closed most of the time, as with a small device.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Slow for several times body_time, then to the end.
    let mut piece = vec![0; 4000];
    let mut total = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        total += tokio::time::timeout(NEVER, stream.read(&mut piece)).await.unwrap().unwrap();
    }
    let mut rest = vec![0; 64 * 1024];
    while total < 8 << 20 {
        let count = tokio::time::timeout(NEVER, stream.read(&mut rest)).await.unwrap().unwrap();
        assert!(count > 0, "cut after {total} bytes");
        total += count;
    }
}

#[tokio::test]
async fn a_waiting_connection_is_small() {
    let rig = Rig::new(limits()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let ((stream, peer), _client) = (accepted.unwrap(), client.unwrap());
    let (tell, _) = mpsc::unbounded_channel();
    let service = service_fn(move |request| answer(request, tell.clone()));
    let connection = serve_connection(stream, peer, service, &rig.context);
    let size = std::mem::size_of_val(&connection);
    println!("the future of a connection: {size} bytes");
    assert!(size <= 640, "{size}");
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Alone in its process, since it looks at the memory of all of it:
/// `cargo test --lib memory_of_two_thousand -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures the memory of the whole process"]
async fn memory_of_two_thousand_clients() {
    use std::io::{Read as _, Write as _};
    const CLIENTS: usize = 2000;
    let rig = Rig::parking(limits(), Duration::from_millis(50)).await;
    let warm: Vec<Client> = futures_util::future::join_all((0..50).map(|_| rig.connect())).await;
    rig.until(|context| context.metrics.connections.get() == 50).await;
    drop(warm);
    rig.until(|context| context.metrics.connections.get() == 0).await;

    let address = rig.address;
    let connect = move || (0..CLIENTS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect::<Vec<_>>();
    let clients = CLIENTS as i64;

    // A few ask at a time, as in life: what the allocator keeps of the buffers of many that were active at
    // once is no cost of a parked connection.
    let before = resident();
    let mut idle = tokio::task::spawn_blocking(connect).await.unwrap();
    rig.until(|context| context.metrics.connections.get() == clients).await;
    let mut parked = 0;
    for some in idle.chunks_mut(50) {
        for client in some.iter_mut() {
            client.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        }
        parked += some.len() as i64;
        rig.until(|context| context.metrics.connections_parked.get() == parked).await;
    }
    println!("parked: {} bytes each", (resident() - before) / CLIENTS);
    let mut answer = [0; 64];
    assert!(idle[0].read(&mut answer).unwrap() > 0);

    let before = resident();
    let mut slow = tokio::task::spawn_blocking(connect).await.unwrap();
    rig.until(|context| context.metrics.connections.get() == 2 * clients).await;
    for piece in [b"G", b"E", b"T", b" ", b"/"] {
        for client in &mut slow {
            client.write_all(piece).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("slow head: {} bytes each", (resident() - before) / CLIENTS);
    drop((idle, slow));
    rig.until(|context| context.metrics.connections.get() == 0).await;
}
