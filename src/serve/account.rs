//! [`Account`]: one request's line in the access log and its share of the metrics, closed when its body ends.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, RANGE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method};
use prometheus::IntGauge;

use super::limits::Permit;
use super::tunnel::Side;
use super::wire::Receipt;
use crate::content::ByteRange;
use crate::resolve::{ConnectTarget, ContentRequest};
use crate::store::Gift;
use crate::telemetry::{AccessLine, AccessLog, Metrics, RequestResult};

/// Where all requests are written down.
pub(super) struct Books {
    pub(super) log: AccessLog,
    pub(super) metrics: Arc<Metrics>,
}

/// What a line says of the request itself.
#[derive(Clone)]
pub(super) struct Asked {
    method: Method,
    host: String,
    target: String,
    form: &'static str,
    range: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// Counts what one answer sent. Dropped, it writes the line.
pub(super) struct Account {
    books: Arc<Books>,
    started: Instant,
    time: SystemTime,
    client: IpAddr,
    asked: Arc<Asked>,
    status: u16,
    result: RequestResult,
    bytes: AtomicU64,
    /// How many bytes left first, and when.
    first: OnceLock<(u64, Duration)>,
    /// Why there is no content in the answer.
    reason: Option<String>,
    /// Bytes of the client, in a tunnel.
    received: Option<u64>,
    cut: OnceLock<String>,
    /// Is told whether the client got the whole body, which has so many bytes.
    gift: Option<(Gift, u64)>,
    /// Of an answer some of whose bytes were stored and others were paid for: which places of it are the stored ones.
    stored: Option<Vec<ByteRange>>,
    /// Keeps the request in flight, when nothing else does.
    permit: Option<Permit>,
}

/// Counts a tunnel as open until dropped.
pub(super) struct OpenTunnel(IntGauge);

impl Account {
    pub(super) fn open(books: &Arc<Books>, client: IpAddr, request: &Parts, started: Instant) -> Self {
        // In memory of its own: values share the buffer that they were read into, and a body may take hours.
        let own = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        let field = |name| request.headers.get_all(name).iter().next_back().and_then(own);
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("-");
        let asked = Asked {
            method: request.method.clone(),
            host: host.to_owned(),
            // Until a rule tells which parameters are secrets, none of the query is shown.
            target: if request.uri.path().is_empty() { "-" } else { request.uri.path() }.to_owned(),
            form: "-",
            range: field(RANGE),
            user_agent: field(USER_AGENT),
        };
        Self::again(books, client, Arc::new(asked), started, SystemTime::now())
    }

    /// Of a request in the same words as one before.
    pub(super) fn again(
        books: &Arc<Books>,
        client: IpAddr,
        asked: Arc<Asked>,
        started: Instant,
        time: SystemTime,
    ) -> Self {
        Self {
            books: Arc::clone(books),
            started,
            time,
            client,
            asked,
            status: 0,
            result: RequestResult::Error,
            bytes: AtomicU64::new(0),
            first: OnceLock::new(),
            reason: None,
            received: None,
            cut: OnceLock::new(),
            gift: None,
            stored: None,
            permit: None,
        }
    }

    /// The request in its words.
    pub(super) fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// The request is in flight as long as this lives.
    pub(super) fn admitted(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// The request was mapped to content.
    pub(super) fn resolved(&mut self, content: &ContentRequest) {
        let asked = Arc::make_mut(&mut self.asked);
        asked.host = content.origin.authority();
        asked.target.clone_from(&content.loggable);
        asked.form = content.form.as_str();
    }

    /// The answer is known.
    pub(super) fn answered(&mut self, status: u16, result: RequestResult) {
        self.status = status;
        self.result = result;
    }

    /// The answer has the whole of a body, of that length if it is known.
    pub(super) fn gives(&mut self, gift: Option<Gift>, length: Option<u64>) {
        self.gift = gift.zip(length);
    }

    /// At these places of the answer are bytes that were stored when the request came, at all others bytes that it paid
    /// for.
    pub(super) fn found(&mut self, stored: Option<Vec<ByteRange>>) {
        self.stored = stored;
    }

    /// There is no content in the answer, for this reason.
    pub(super) fn explained(&mut self, reason: &str) {
        self.reason = Some(reason.to_owned());
    }

    /// The request was mapped to a tunnel.
    pub(super) fn tunnels_to(&mut self, target: &ConnectTarget) {
        let asked = Arc::make_mut(&mut self.asked);
        asked.host = format!("{}:{}", target.host, target.port);
        asked.form = "connect";
    }

    /// The tunnel is open.
    pub(super) fn open_tunnel(&self) -> OpenTunnel {
        self.books.metrics.tunnels.inc();
        OpenTunnel(self.books.metrics.tunnels.clone())
    }

    /// `bytes` of one side of the tunnel were handed to the other. They are neither hits nor misses, since they could
    /// not have been stored.
    pub(super) fn carried(&mut self, from: Side, bytes: u64) {
        let direction = match from {
            Side::Client => {
                self.received = Some(self.received.unwrap_or_default() + bytes);
                "to-host"
            }
            Side::Host => {
                *self.bytes.get_mut() += bytes;
                "to-client"
            }
        };
        self.books.metrics.tunnel_bytes.with_label_values(&[direction]).inc_by(bytes);
    }
}

impl Receipt for Account {
    fn sent(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 {
            let elapsed = self.started.elapsed();
            let _ = self.first.set((bytes, elapsed));
            self.books.metrics.first_byte_seconds.observe(elapsed.as_secs_f64());
        }
        // Bytes that the request paid for itself are misses, bytes that were stored or paid for by another are hits;
        // what we say ourselves is neither.
        let hits = match (self.result, &self.stored) {
            (RequestResult::Refused | RequestResult::Error, _) => return,
            (RequestResult::Miss | RequestResult::Bypass, _) => 0,
            (_, Some(stored)) => hits(stored, before, bytes),
            (_, None) => bytes,
        };
        for (counter, bytes) in [(&self.books.metrics.hit_bytes, hits), (&self.books.metrics.miss_bytes, bytes - hits)]
        {
            if bytes > 0 {
                counter.inc_by(bytes);
            }
        }
    }

    /// The first reason counts.
    fn cut(&self, reason: &str) {
        let _ = self.cut.set(reason.to_owned());
    }
}

/// How many of the `bytes` behind place `at` are `stored`, whose ranges are disjoint.
fn hits(stored: &[ByteRange], at: u64, bytes: u64) -> u64 {
    let Some(sent) = ByteRange::new(at, at.saturating_add(bytes)) else { return 0 };
    stored.iter().filter_map(|range| range.intersect(sent)).map(|range| range.len()).sum()
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some((gift, _)) = self.gift.take_if(|(_, length)| *length == *self.bytes.get_mut()) {
            gift.handed_out();
        }
        self.books.metrics.count_request(self.result, http::StatusCode::from_u16(self.status).unwrap_or_default());
        let bytes = *self.bytes.get_mut();
        self.books.log.log(&AccessLine {
            time: self.time,
            client: self.client,
            method: self.asked.method.as_str(),
            host: &self.asked.host,
            target: &self.asked.target,
            status: self.status,
            bytes,
            received: self.received,
            // Of what left at once the end was seen already.
            duration: match self.first.get() {
                Some((all, elapsed)) if *all == bytes => *elapsed,
                _ => self.started.elapsed(),
            },
            result: self.result,
            form: self.asked.form,
            range: self.asked.range.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.asked.user_agent.as_ref().map(HeaderValue::as_bytes),
            reason: self.reason.as_deref(),
            cut: self.cut.get().map(String::as_str),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_to_the_byte() {
        let stored = [ByteRange::new(10, 20).unwrap(), ByteRange::new(30, 40).unwrap()];
        for (at, bytes, expected) in
            [(0, 100, 20), (0, 10, 0), (5, 10, 5), (15, 20, 10), (20, 10, 0), (39, 5, 1), (7, 0, 0)]
        {
            assert_eq!(hits(&stored, at, bytes), expected, "{at} {bytes}");
        }
        let by_steps: u64 = (0..50).map(|at| hits(&stored, at, 1)).sum();
        assert_eq!(by_steps, 20);
        assert_eq!(hits(&[], 0, 10), 0);
    }
}
