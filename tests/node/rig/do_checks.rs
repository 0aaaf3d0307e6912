//! What the emulators do when a server is not made for agents; else their silence would prove nothing.

use super::do_client::{DoAgent, Outcome};
use super::fake_origin::FakeOrigin;
use super::origin_reply::{Delimiter, Gate, Reply};
use super::pattern::Pattern;

#[tokio::test]
async fn the_agent_suffers_from_what_it_cannot_bear() {
    let pattern = Pattern::new(1, 300_000);
    let origin = FakeOrigin::start().await;
    let agent = || DoAgent::new(origin.address);
    origin.serve("/fine", Reply::file(pattern));
    agent().download("h", "/fine", pattern, &[100_000]).await.must_be(pattern, pattern.sha256());

    origin.serve("/no-ranges", Reply::file(pattern).without_ranges());
    let corrupt = agent().download("h", "/no-ranges", pattern, &[100_000]).await;
    assert_eq!(corrupt.outcome, Outcome::Transferred);
    assert!(corrupt.first_difference.is_some() && corrupt.len > pattern.len, "{corrupt:?}");

    origin.serve("/chunked", Reply::file(pattern).delimited(Delimiter::Chunked));
    let fatal = agent().download("h", "/chunked", pattern, &[100_000]).await;
    assert!(matches!(fatal.outcome, Outcome::Fatal(_)), "{fatal:?}");
    origin.serve("/chunked-cut", Reply::file(pattern).delimited(Delimiter::Chunked).cut_after(100_000));
    let aborted = agent().download("h", "/chunked-cut", pattern, &[]).await;
    assert!(matches!(aborted.outcome, Outcome::Aborted(_)), "{aborted:?}");

    origin.serve("/cut", Reply::file(pattern).cut_after(100_000));
    let resumed = agent().download("h", "/cut", pattern, &[]).await;
    resumed.must_be(pattern, pattern.sha256());
    assert_eq!((resumed.requests, resumed.failures), (3, 2));
    let ranges: Vec<_> = origin.received().last().unwrap().fields.iter().filter(|f| f.0 == "Range").cloned().collect();
    let line = |from: u64| ("Range".to_owned(), format!("bytes={from}-299999"));
    assert_eq!(ranges, [line(100_000), line(200_000)], "oldest first");

    let banned = agent();
    assert!(matches!(banned.download("h", "/absent", pattern, &[]).await.outcome, Outcome::Banned(_)));
    assert!(banned.has_bans());
    let slow = agent().with_patience(0.01);
    origin.serve("/stall", Reply::file(pattern).hold_at(1000, &Gate::shut()));
    assert!(matches!(slow.download("h", "/stall", pattern, &[]).await.outcome, Outcome::Banned(_)));
    origin.switch_off();
    let refused = agent();
    assert!(matches!(refused.download("h", "/fine", pattern, &[]).await.outcome, Outcome::Banned(_)));
}
