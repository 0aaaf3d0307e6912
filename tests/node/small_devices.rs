//! Devices with a receive window of 2 KiB that take 3 KB/s: slow progress is progress, and no limit cuts it.

use serde_json::json;
use tokio::task::JoinSet;

use super::rig::client::{End, get};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::Setup;
use super::rig::slow_client::{self, Pace};

const HOST: &str = "dl.example.com";
const LEN: u64 = 16_000;
const CHUNK: u64 = 3_200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_small_devices_get_their_files_right() {
    let origin = FakeOrigin::start().await;
    // Limits far below the time that a download takes: they are about silence, not about slowness.
    let node = Setup::new().origin(HOST, origin.address, json!({}));
    let node = node.set("limits.header_time", json!("1s")).set("limits.body_time", json!("2s")).start();
    let mut devices = JoinSet::new();
    for number in 0..20 {
        let pattern = Pattern::new(700 + number % 4, LEN);
        let path = format!("/firmware/{}.bin", number % 4);
        origin.serve(&path, Reply::file(pattern));
        let (address, version) = (node.data, if number % 2 == 0 { "1.1" } else { "1.0" });
        devices.spawn(async move {
            let head = format!("GET {path} HTTP/{version}\r\nHost: {HOST}\r\n");
            if number < 10 {
                let mut device = slow_client::connect(address, Pace::TINY).await;
                let whole = format!("{head}\r\n");
                let (answer, checked) = slow_client::sip(&mut device, &whole, Pace::TINY, pattern, 0, || false).await;
                assert_eq!(answer.status, 200, "{}", answer.raw);
                assert_eq!(
                    (checked.len, checked.first_difference, checked.end),
                    (LEN, None, End::Complete),
                    "{number}"
                );
                return;
            }
            for from in (0..LEN).step_by(CHUNK as usize) {
                let mut device = slow_client::connect(address, Pace::TINY).await;
                let part = format!("{head}Range: bytes={from}-{}\r\n\r\n", from + CHUNK - 1);
                let (answer, checked) = slow_client::sip(&mut device, &part, Pace::TINY, pattern, from, || false).await;
                assert_eq!(answer.status, 206, "{}", answer.raw);
                assert_eq!(
                    (checked.len, checked.first_difference, checked.end),
                    (CHUNK, None, End::Complete),
                    "{number}"
                );
            }
        });
    }
    while let Some(done) = devices.join_next().await {
        done.unwrap();
    }
    assert_eq!(origin.body_bytes(), 4 * LEN);
}

/// What lies in the kernel for a device takes it longer than the body time: only its acknowledgements tell that it
/// goes on. The times of a device that takes 500 bytes a second, divided by 60.
#[tokio::test]
async fn a_device_that_takes_little_all_the_time_is_not_cut() {
    let pattern = Pattern::new(72, 200_000);
    let origin = FakeOrigin::with("/big", Reply::file(pattern)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).set("limits.body_time", json!("1s")).start();
    let request = get("/big", &[&format!("Host: {HOST}")]);
    for _miss_then_hit in 0..2 {
        let pace = Pace { bytes_per_second: 30_000, ..Pace::TINY };
        let mut device = slow_client::connect(node.data, pace).await;
        let (_, checked) = slow_client::sip(&mut device, &request, pace, pattern, 0, || false).await;
        assert_eq!((checked.len, checked.first_difference, checked.end), (pattern.len, None, End::Complete));
    }
}

#[tokio::test]
async fn a_device_that_takes_nothing_is_closed_after_the_body_time() {
    let pattern = Pattern::new(71, 20_000_000);
    let origin = FakeOrigin::with("/big", Reply::file(pattern)).await;
    let node = Setup::new().origin(HOST, origin.address, json!({})).set("limits.body_time", json!("300ms")).start();
    let mut silent = slow_client::connect(node.data, Pace::TINY).await;
    silent.send(&get("/big", &[&format!("Host: {HOST}")])).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while node.metric("waystation_requests_in_flight", "").await > 0.0 || origin.requests() == 0 {
        assert!(std::time::Instant::now() < deadline, "the silent device still holds its request");
    }
}
