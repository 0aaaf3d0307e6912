//! The Delivery Optimization agent (client-lite 1.1.0) as it behaves on the wire: exact request form, header
//! look-up by case, append on resume, repeated Range lines, the rule of 4000 B/s over 20 s, and bans.
//!
//! Times can be scaled, since nobody wants to wait 20 s for a stall in a test.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Connection, Framing, Head, connect_as};
use super::do_file::{Appended, Download, SpeedWatch};
use super::origin_reply::Gate;
use super::pattern::Pattern;

/// How long less than 4000 B/s is borne.
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
    /// Which device it is, with an address of its own; `None` when that does not matter.
    device: Option<u16>,
    /// Factor for the 20 s rule and the connect time.
    patience_scale: f64,
    /// Factor for the waits between tries and, unless it is set, the end without progress.
    backoff_scale: f64,
    no_progress: Option<Duration>,
    long_pause: Option<LongPause>,
    bans: Mutex<Bans>,
}

/// Pauses of several agents that last until something has happened.
#[derive(Debug, Clone)]
pub(crate) struct LongPause {
    paused: Arc<watch::Sender<usize>>,
    over: Gate,
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

/// What one request led to.
enum Step {
    Done,
    Paused,
    Retry,
    End(Outcome),
}

impl DoAgent {
    pub(crate) fn new(cache: SocketAddr) -> Self {
        Self {
            cache,
            device: None,
            patience_scale: 1.0,
            backoff_scale: 0.02,
            no_progress: None,
            long_pause: None,
            bans: Mutex::default(),
        }
    }

    /// Gives it an address of its own.
    pub(crate) fn with_address(mut self, device: u16) -> Self {
        self.device = Some(device);
        self
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

    /// Sets the time without progress after which a download ends.
    pub(crate) fn with_no_progress(mut self, time: Duration) -> Self {
        self.no_progress = Some(time);
        self
    }

    /// Lets pauses last until `pause` is over.
    pub(crate) fn with_long_pause(mut self, pause: &LongPause) -> Self {
        self.long_pause = Some(pause.clone());
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
        self.download_any(host, target, &[pattern], pauses).await
    }

    /// Like `download`, of content that may change: one of `versions`, but of them just one.
    pub(crate) async fn download_any(
        &self,
        host: &str,
        target: &str,
        versions: &[Pattern],
        pauses: &[u64],
    ) -> Download {
        let start = Instant::now();
        let mut file = Appended::new(versions);
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
                Step::Paused => {
                    connection = None;
                    if let Some(pause) = &self.long_pause {
                        pause.paused.send_modify(|paused| *paused += 1);
                        pause.over.wait().await;
                        progress.1 = Instant::now();
                    }
                }
                Step::Retry => {
                    (connection, failures) = (None, failures + 1);
                    if progress.1.elapsed() > self.no_progress.unwrap_or(NO_PROGRESS.mul_f64(self.backoff_scale)) {
                        break Outcome::NoProgress;
                    }
                    let wait = BACKOFF[usize::min(tries, BACKOFF.len() - 1)];
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(wait).mul_f64(self.backoff_scale)).await;
                }
            }
        };
        file.into_download(outcome, requests, failures, start)
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
            match tokio::time::timeout(CONNECT.mul_f64(self.patience_scale), self.connect()).await {
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

    async fn connect(&self) -> std::io::Result<TcpStream> {
        match self.device {
            Some(device) => connect_as(device, self.cache).await,
            None => TcpStream::connect(self.cache).await,
        }
    }

    fn ban_all(&self, why: String) -> Step {
        self.bans.lock().all = true;
        Step::End(Outcome::Banned(why))
    }
}

impl LongPause {
    pub(crate) fn new() -> Self {
        Self { paused: Arc::new(watch::Sender::new(0)), over: Gate::shut() }
    }

    /// Waits until so many pauses have begun.
    pub(crate) async fn wait_for(&self, pauses: usize) {
        // The sender lives as long as this.
        let _ = self.paused.subscribe().wait_for(|paused| *paused >= pauses).await;
    }

    pub(crate) fn end(&self) {
        self.over.open();
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
