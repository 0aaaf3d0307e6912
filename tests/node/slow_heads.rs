//! Connections that send their heads a byte at a time cost little, end in time, and harm nobody.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::rig::bars;
use super::rig::client::{Connection, End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::Setup;
use super::rig::slow_client::{self, Pace};

const HOST: &str = "dl.example.com";
const SLOW: u64 = 2000;
const HEADER_TIME: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_slow_heads_are_cheap_and_good_clients_do_not_notice() {
    let pattern = Pattern::new(81, 4 << 20);
    let origin = FakeOrigin::with("/f.bin", Reply::file(pattern)).await;
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    let setup = setup.set("limits.connections_per_client", json!(5000)).set("log.access", json!(false));
    let node = setup.set("limits.header_time", json!(format!("{}s", HEADER_TIME.as_secs()))).start();
    let text = get("/f.bin", &[&format!("Host: {HOST}")]);
    for _cold_then_warm in 0..3 {
        assert!(node.ask(&text).await.body == pattern.bytes());
    }
    let before = node.resident();

    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        let mut connection = Connection::open(node.data).await;
        slow.spawn(async move {
            let opened = Instant::now();
            for byte in b"GET /f.bin HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a')) {
                let closed = connection.try_send(&[*byte]).await.is_err();
                let pause = tokio::time::timeout(Duration::from_secs(1), connection.read_more(4096)).await;
                if closed || matches!(pause, Ok(Ok(0) | Err(_))) {
                    return opened.elapsed();
                }
            }
            opened.elapsed()
        });
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.metric("waystation_connections", "").await < SLOW as f64 {
        assert!(Instant::now() < deadline && slow.len() == SLOW as usize, "the node did not take all connections");
    }
    let each = node.resident().saturating_sub(before) / SLOW;

    // Together they take 50 MB/s when nothing is in their way.
    let pace = Pace { window: 1 << 20, bytes_per_second: 2_500_000, sip: 16 * 1024 };
    let start = Instant::now();
    let mut good = JoinSet::new();
    for _ in 0..20 {
        let (text, address) = (text.clone(), node.data);
        good.spawn(async move {
            let mut client = slow_client::connect(address, pace).await;
            slow_client::sip(&mut client, &text, pace, pattern, 0, || false).await.1
        });
    }
    while let Some(done) = good.join_next().await {
        let checked = done.unwrap();
        assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    }
    let kept = pattern.len as f64 / pace.bytes_per_second as f64 / start.elapsed().as_secs_f64();
    let mut longest = Duration::ZERO;
    while let Some(done) = slow.join_next().await {
        longest = longest.max(done.unwrap());
    }
    println!(
        "2,000 slow heads: {each} bytes each, longest {longest:.2?}; 20 good clients keep {:.1} % of 50 MB/s",
        100.0 * kept
    );
    if bars() {
        assert!(kept >= 0.95, "good clients keep {kept} of their rate");
    }
    assert!(each <= 8 * 1024, "{each} bytes of memory for each slow connection");
    assert!(longest < 4 * HEADER_TIME, "a slow head was kept for {longest:?}");
}

#[tokio::test]
async fn a_head_that_does_not_end_in_time_gets_408_or_a_close() {
    let origin = FakeOrigin::start().await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).set("limits.header_time", json!("200ms")).start();
    let mut connection = Connection::open(node.data).await;
    connection.send("GET /f.bin HTTP/1.1\r\nHost:").await;
    if let Ok(head) = connection.try_head().await {
        assert_eq!(head.status, 408, "{}", head.raw);
    }
    assert_eq!(node.metric("waystation_requests_in_flight", "").await, 0.0);
}
