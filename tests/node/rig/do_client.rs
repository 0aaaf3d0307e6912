//! The Delivery Optimization agent (client-lite 1.1.0) as it behaves on the wire: exact request form, header
//! look-up by case, append on resume, repeated Range lines, the rule of 4000 B/s over 20 s, and bans.
//!
//! Times can be scaled, since nobody wants to wait 20 s for a stall in a test.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::client::{Connection, Framing, Head};
use super::pattern::Pattern;

/// Lowest speed in bytes per second, over [`PATIENCE`].
const LOW_SPEED: f64 = 4000.0;
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);
/// A download without progress for so long ends with an error.
const NO_PROGRESS: Duration = Duration::from_secs(300);
/// Waits between tries, in seconds.
const BACKOFF: [u64; 5] = [2, 4, 8, 16, 30];

/// One agent process with its ban lists. The origin itself is out of reach: only the cache can deliver.
#[derive(Debug)]
pub(crate) struct DoAgent {
    cache: SocketAddr,
    /// Factor for the 20 s rule and the connect time.
    patience_scale: f64,
    /// Factor for the waits between tries and the end without progress.
    backoff_scale: f64,
    bans: Mutex<Bans>,
}

#[derive(Debug, Default)]
struct Bans {
    hosts: HashSet<String>,
    all: bool,
}

/// How a download ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The agent believes that it has the file.
    Transferred,
    /// The cache is banned, for the origin host or for all.
    Banned(String),
    /// The download failed for good.
    Fatal(&'static str),
    /// The agent process died (SIGABRT).
    Aborted(&'static str),
    /// No progress for 5 minutes.
    NoProgress,
}

/// What came of a download.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) outcome: Outcome,
    /// Bytes in its file.
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
    /// First byte of its file that is not the pattern's.
    pub(crate) first_difference: Option<u64>,
    pub(crate) requests: u32,
    /// Requests that were answered by 5xx, or cut.
    pub(crate) failures: u32,
    /// From the first request to the first body byte.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) elapsed: Duration,
}

/// The file of a running download: what was appended is hashed and compared, not kept.
struct Appended {
    pattern: Pattern,
    len: u64,
    hash: Sha256,
    first_difference: Option<u64>,
    first_byte: Option<Instant>,
}

/// What one request led to.
enum Step {
    Done,
    Paused,
    Retry,
    End(Outcome),
}

/// The low-speed rule: average of 5 ticks below 4000 B/s, for 20 ticks.
struct SpeedWatch {
    tick: Duration,
    next: Instant,
    ticks: VecDeque<u64>,
    now: u64,
    slow: u32,
}

impl DoAgent {
    pub(crate) fn new(cache: SocketAddr) -> Self {
        Self { cache, patience_scale: 1.0, backoff_scale: 0.02, bans: Mutex::default() }
    }

    /// Scales the 20 s rule, for stories about stalls.
    pub(crate) fn with_patience(mut self, scale: f64) -> Self {
        self.patience_scale = scale;
        self
    }

    /// Scales the waits between tries; 1 is as in the field.
    pub(crate) fn with_backoff(mut self, scale: f64) -> Self {
        self.backoff_scale = scale;
        self
    }

    /// Whether anything is banned.
    pub(crate) fn has_bans(&self) -> bool {
        let bans = self.bans.lock();
        bans.all || !bans.hosts.is_empty()
    }

    /// Downloads `http://host{target}` through the cache. The download is paused and resumed each time it
    /// has reached one of `pauses`, which rise.
    pub(crate) async fn download(&self, host: &str, target: &str, pattern: Pattern, pauses: &[u64]) -> Download {
        let start = Instant::now();
        let mut file = Appended { pattern, len: 0, hash: Sha256::new(), first_difference: None, first_byte: None };
        let mut pauses: VecDeque<u64> = pauses.iter().copied().collect();
        let (mut requests, mut failures, mut total) = (0, 0, None);
        let mut range_lines = Vec::new();
        let mut connection = None;
        let (mut tries, mut progress) = (0, (0, Instant::now()));
        let outcome = loop {
            if self.bans.lock().all || self.bans.lock().hosts.contains(host) {
                break Outcome::Banned("banned before the request".to_owned());
            }
            if total.is_some_and(|total| file.len > total) {
                break Outcome::Fatal("the file is longer than its total");
            }
            if file.len > 0 {
                let Some(total) = total.filter(|total| *total > 0) else {
                    break Outcome::Fatal("0x80070216: resume without a known length");
                };
                range_lines.push(format!("Range: bytes={}-{}\r\n", file.len, total - 1));
            }
            requests += 1;
            let text = self.request(host, target, &range_lines);
            let step = self.step(&mut connection, &text, &mut file, &mut total, &mut pauses, host).await;
            if file.len > progress.0 {
                (tries, progress) = (0, (file.len, Instant::now()));
            }
            match step {
                Step::Done => break Outcome::Transferred,
                Step::End(outcome) => break outcome,
                Step::Paused => connection = None,
                Step::Retry => {
                    (connection, failures) = (None, failures + 1);
                    if progress.1.elapsed() > NO_PROGRESS.mul_f64(self.backoff_scale) {
                        break Outcome::NoProgress;
                    }
                    let wait = BACKOFF[usize::min(tries, BACKOFF.len() - 1)];
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(wait).mul_f64(self.backoff_scale)).await;
                }
            }
        };
        Download {
            outcome,
            len: file.len,
            sha256: file.hash.finalize().into(),
            first_difference: file.first_difference,
            requests,
            failures,
            first_byte: file.first_byte.map(|at| at - start),
            elapsed: start.elapsed(),
        }
    }

    fn request(&self, host: &str, target: &str, range_lines: &[String]) -> String {
        let join = if target.contains('?') { '&' } else { '?' };
        let cache = self.cache;
        format!(
            "GET {target}{join}cacheHostOrigin={host} HTTP/1.1\r\nHost: {cache}\r\n\
             User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1\r\nAccept: */*\r\n{}\r\n",
            range_lines.concat()
        )
    }

    async fn step(
        &self,
        slot: &mut Option<Connection>,
        text: &str,
        file: &mut Appended,
        total: &mut Option<u64>,
        pauses: &mut VecDeque<u64>,
        host: &str,
    ) -> Step {
        if slot.is_none() {
            let connect = tokio::net::TcpStream::connect(self.cache);
            match tokio::time::timeout(CONNECT.mul_f64(self.patience_scale), connect).await {
                Ok(Ok(stream)) => *slot = Some(Connection::over(stream)),
                Ok(Err(error)) => return self.ban_all(format!("connect: {error}")),
                Err(_) => return self.ban_all("connect took too long".to_owned()),
            }
        }
        let Some(connection) = slot.as_mut() else { return Step::Retry };
        if connection.try_send(text.as_bytes()).await.is_err() {
            return Step::Retry;
        }
        let mut watch = SpeedWatch::new(PATIENCE.mul_f64(self.patience_scale));
        let head = loop {
            match tokio::time::timeout_at(watch.next, connection.try_head()).await {
                Ok(Ok(head)) => break head,
                Ok(Err(_)) => return Step::Retry,
                Err(_) if watch.is_too_slow() => return self.ban_all("no body byte for 20 s".to_owned()),
                Err(_) => {}
            }
        };
        match head.status {
            200..=206 => {}
            400..=499 => {
                self.bans.lock().hosts.insert(host.to_owned());
                return Step::End(Outcome::Banned(format!("status {}: {}", head.status, head.raw)));
            }
            _ => return Step::Retry,
        }
        if let Err(fatal) = take_total(&head, file, total) {
            return Step::End(Outcome::Fatal(fatal));
        }
        let mut framing = head.framing(false);
        loop {
            match tokio::time::timeout_at(watch.next, connection.piece(&mut framing, 64 * 1024)).await {
                Ok(Ok(Some(piece))) => {
                    file.append(&piece);
                    watch.now += piece.len() as u64;
                    if pauses.front().is_some_and(|pause| file.len >= *pause) {
                        while pauses.front().is_some_and(|pause| file.len >= *pause) {
                            pauses.pop_front();
                        }
                        if framing != Framing::Length(0) {
                            return Step::Paused;
                        }
                    }
                }
                Ok(Ok(None)) if framing == Framing::Done => return Step::Done,
                Ok(Ok(None) | Err(_)) if total.is_none_or(|total| total == 0) => {
                    return Step::End(Outcome::Aborted("cut without a known length"));
                }
                Ok(Ok(None) | Err(_)) => return Step::Retry,
                Err(_) if watch.is_too_slow() => return self.ban_all("less than 4000 B/s for 20 s".to_owned()),
                Err(_) => {}
            }
        }
    }

    fn ban_all(&self, why: String) -> Step {
        self.bans.lock().all = true;
        Step::End(Outcome::Banned(why))
    }
}

/// Takes the total length from the fields as the agent does: by their exact spelling.
fn take_total(head: &Head, file: &Appended, total: &mut Option<u64>) -> Result<(), &'static str> {
    if head.status == 206 {
        let range = head.exact("Content-Range").ok_or("0x80070490: no Content-Range spelled so")?;
        let of = range.rsplit('/').next().and_then(|of| of.parse::<u64>().ok());
        *total = Some(of.ok_or("0x8007023E: Content-Range without a total")?);
    } else if file.len == 0 {
        *total = head.exact("Content-Length").and_then(|length| length.parse().ok());
    }
    Ok(())
}

impl Appended {
    fn append(&mut self, piece: &[u8]) {
        self.first_difference = self.first_difference.or_else(|| self.pattern.first_difference(self.len, piece));
        self.first_byte.get_or_insert_with(Instant::now);
        self.hash.update(piece);
        self.len += piece.len() as u64;
    }
}

impl SpeedWatch {
    fn new(patience: Duration) -> Self {
        let tick = patience / 20;
        Self { tick, next: Instant::now() + tick, ticks: VecDeque::new(), now: 0, slow: 0 }
    }

    /// To be called at the end of each tick.
    fn is_too_slow(&mut self) -> bool {
        self.ticks.push_back(std::mem::take(&mut self.now));
        if self.ticks.len() > 5 {
            self.ticks.pop_front();
        }
        self.next += self.tick;
        let seconds = self.tick.as_secs_f64() * self.ticks.len() as f64;
        let slow = (self.ticks.iter().sum::<u64>() as f64) < LOW_SPEED * seconds;
        self.slow = if slow { self.slow + 1 } else { 0 };
        self.slow >= 20
    }
}

impl Download {
    /// Fails unless the file is the pattern, byte for byte.
    pub(crate) fn must_be(&self, pattern: Pattern, sha256: [u8; 32]) {
        assert_eq!(self.outcome, Outcome::Transferred, "{self:?}");
        assert_eq!((self.first_difference, self.len), (None, pattern.len), "{self:?}");
        assert_eq!(self.sha256, sha256, "{self:?}");
    }
}

/// What the emulator does when a server is not made for agents; else its silence would prove nothing.
mod checks {
    use super::super::fake_origin::FakeOrigin;
    use super::super::origin_reply::{Delimiter, Reply};
    use super::*;

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
        let ranges: Vec<_> =
            origin.received().last().unwrap().fields.iter().filter(|f| f.0 == "Range").cloned().collect();
        let line = |from: u64| ("Range".to_owned(), format!("bytes={from}-299999"));
        assert_eq!(ranges, [line(100_000), line(200_000)], "oldest first");

        let banned = agent();
        assert!(matches!(banned.download("h", "/absent", pattern, &[]).await.outcome, Outcome::Banned(_)));
        assert!(banned.has_bans());
        let slow = agent().with_patience(0.01);
        origin.serve("/stall", Reply::file(pattern).hold_at(1000, &super::super::origin_reply::Gate::shut()));
        assert!(matches!(slow.download("h", "/stall", pattern, &[]).await.outcome, Outcome::Banned(_)));
        origin.switch_off();
        let refused = agent();
        assert!(matches!(refused.download("h", "/fine", pattern, &[]).await.outcome, Outcome::Banned(_)));
    }
}
