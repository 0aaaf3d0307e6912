//! Every metric of the process, registered once; parts of the crate hold an `Arc<Metrics>` and count.

use std::time::Duration;

const FILLS: &str = "Fills that ended: complete, part (all that was asked for), abandoned (by its clients), cut (upstream gave no \
                     more), changed (another version), mismatch (wrong digest), store (it could not be kept), \
                     window (passed on, since no drive has room), known (nothing was transferred, since the content was stored \
                     under another URL)";

use http::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::names::{Description, Registrar};
use super::process::Process;
use super::requests::{RequestCounters, RequestResult};

/// All metrics. Names carry the prefix `waystation_`; labels are bounded (never a URL, client or digest).
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<Description>,
    process: Process,
    request_counters: RequestCounters,
    /// Requests on the data port by `result` (hit, partial, miss, stale, revalidated, bypass, refused, error)
    /// and `class` (2xx, 3xx, 4xx, 5xx).
    pub requests: IntCounterVec,
    /// Body bytes sent to clients from the store.
    pub hit_bytes: IntCounter,
    /// Body bytes sent to clients while they came from upstream.
    pub miss_bytes: IntCounter,
    /// Requests being answered.
    pub requests_in_flight: IntGauge,
    /// Time from the request head to the first body byte handed to the connection.
    pub first_byte_seconds: Histogram,
    /// Open client connections.
    pub connections: IntGauge,
    /// Of them, those that are idle and parked without buffers.
    pub connections_parked: IntGauge,
    /// Of them, those that speak HTTP/2.
    pub http2_connections: IntGauge,
    /// Connections and requests refused by a limit, by `reason`.
    pub limited: IntCounterVec,
    /// Request heads refused before they reach the handler, by `reason`.
    pub bad_requests: IntCounterVec,
    /// TLS handshakes of clients that failed, by `reason`.
    pub tls_handshake_failures: IntCounterVec,
    /// When the certificate of the TLS listener ends, in seconds of Unix time; 0 without one.
    pub tls_certificate_expiry_seconds: IntGauge,
    /// Why the system clock is not believed: 1 for the `reason`, 0 for others.
    pub clock_untrusted: IntGaugeVec,
    /// Tunnels (CONNECT) that are open.
    pub tunnels: IntGauge,
    /// Bytes that passed through tunnels, by `direction` (to-host, to-client).
    pub tunnel_bytes: IntCounterVec,
    /// Refused request heads without an access line, since there were too many.
    pub refusals_unlogged: IntCounter,
    /// Hits that were answered as an earlier request in the same words.
    pub ready_answers: IntCounter,
    /// Body bytes received from upstream.
    pub upstream_bytes: IntCounter,
    /// Upstream requests by `outcome` (2xx, 3xx, 4xx, 5xx, connect, timeout, cut, refused, middleman).
    pub upstream_requests: IntCounterVec,
    /// Answers of upstream that were refused, or whose body broke, by `reason` (unparsable, head-too-large, status,
    /// unasked-upgrade, length, transfer-encoding, content-range, cut, stalled, malformed, wrong-digest).
    pub upstream_faults: IntCounterVec,
    /// 1 while the budget of upstream bytes is open.
    pub upstream_budget_open: IntGauge,
    /// Its rate at present, in bytes per second; 0 without one.
    pub upstream_budget_rate: IntGauge,
    /// Body bytes that have come from upstream today, if there is a budget.
    pub upstream_budget_day: IntGauge,
    /// Whether a `parent` is asked at present: 1, or 0 while it is known to be down.
    pub parent_up: IntGaugeVec,
    /// Whether a `parent` is asked after the others, since it gave wrong bytes for several contents: 1 or 0.
    pub parent_lowered: IntGaugeVec,
    /// Fills by `outcome` (complete, cut, mismatch, abandoned).
    pub fills: IntCounterVec,
    /// Resumes that were not answered, since no stored version was sure to be the client's, by `reason`.
    pub resumes_refused: IntCounterVec,
    /// Fills under way.
    pub fills_active: IntGauge,
    /// Bytes on each `drive`, in real blocks.
    pub store_bytes: IntGaugeVec,
    /// Quota of each `drive`.
    pub store_quota_bytes: IntGaugeVec,
    /// Changes on each `drive` that are visible and not durable yet.
    pub store_uncommitted: IntGaugeVec,
    /// 1 while a journal says more of large bodies than its second copy.
    pub store_mirror_behind: IntGauge,
    /// Complete blobs over all drives.
    pub store_blobs: IntGauge,
    /// Pins that hold.
    pub store_pins: IntGauge,
    /// Evictions that ended early, since all that was left was pinned or in use.
    pub pin_refusals: IntCounter,
    /// Blobs evicted.
    pub evictions: IntCounter,
    /// Blocks whose CRC did not hold when they were read.
    pub damaged_blocks: IntCounter,
    /// Bytes of stored bodies that were read in the background and compared with their sums.
    pub scrubbed_bytes: IntCounter,
    /// Blocks of stored bodies that did not hold and were fetched again.
    pub mended_blocks: IntCounter,
    /// Failed file operations by `drive`.
    pub drive_errors: IntCounterVec,
    /// Whether each `drive` takes new content: 1 or 0.
    pub drive_in_service: IntGaugeVec,
    /// Why a `drive` is out of service: 1 for the `reason`, 0 for others.
    pub drive_out_of_service: IntGaugeVec,
    /// Access log lines that were dropped because the log could not keep up.
    pub log_lines_dropped: IntCounter,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a fault of this file, found by its test.
    pub fn new() -> prometheus::Result<Self> {
        let registrar = Registrar::new()?;
        let counter = |name: &str, help: &str| registrar.counter(name, help);
        let counters = |name: &str, help: &str, labels: &[&str]| registrar.counters(name, help, labels);
        let gauge = |name: &str, help: &str| registrar.gauge(name, help);
        let gauges = |name: &str, help: &str, labels: &[&str]| registrar.gauges(name, help, labels);

        let build_info = gauges("build_info", "Always 1; its label names the running release", &["version"])?;
        build_info.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        let process = Process::new(&registrar)?;
        let requests = counters("requests_total", "Requests on the data port", &["result", "class"])?;
        let request_counters = RequestCounters::new(&requests)?;
        let first_byte_seconds = registrar.histogram(
            "first_byte_seconds",
            "Time from the request head to the first body byte",
            &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        )?;
        let mut metrics = Self {
            registry: Registry::new(),
            descriptions: Vec::new(),
            process,
            request_counters,
            requests,
            hit_bytes: counter("hit_bytes_total", "Body bytes sent to clients from the store")?,
            miss_bytes: counter("miss_bytes_total", "Body bytes sent to clients while they came from upstream")?,
            requests_in_flight: gauge("requests_in_flight", "Requests being answered")?,
            first_byte_seconds,
            connections: gauge("connections", "Open client connections")?,
            connections_parked: gauge("connections_parked", "Idle client connections parked without buffers")?,
            http2_connections: gauge("http2_connections", "Client connections that speak HTTP/2")?,
            limited: counters("limited_total", "Connections and requests refused by a limit", &["reason"])?,
            bad_requests: counters("bad_requests_total", "Request heads refused", &["reason"])?,
            refusals_unlogged: counter(
                "refusals_unlogged_total",
                "Refused request heads without an access line, since there were too many",
            )?,
            tls_handshake_failures: counters(
                "tls_handshake_failures_total",
                "TLS handshakes of clients that failed",
                &["reason"],
            )?,
            tls_certificate_expiry_seconds: gauge(
                "tls_certificate_expiry_seconds",
                "When the certificate of the TLS listener ends, in seconds of Unix time; 0 without one",
            )?,
            clock_untrusted: gauges(
                "clock_untrusted",
                "Whether the clock of this machine is not believed, by reason: before-build, behind-kept-time, too-late, \
                 jumped",
                &["reason"],
            )?,
            tunnels: gauge("tunnels", "Open tunnels (CONNECT)")?,
            tunnel_bytes: counters("tunnel_bytes_total", "Bytes that passed through tunnels", &["direction"])?,
            ready_answers: counter(
                "ready_answers_total",
                "Hits that were answered as an earlier request in the same words, at less cost",
            )?,
            upstream_bytes: counter("upstream_bytes_total", "Body bytes received from upstream")?,
            upstream_requests: counters("upstream_requests_total", "Requests to upstream", &["outcome"])?,
            upstream_faults: counters(
                "upstream_faults_total",
                "Answers of upstream whose head was refused (unparsable, head-too-large, status, unasked-upgrade, length, \
                 transfer-encoding, content-range), or whose body broke (cut, stalled, malformed) or was not what its digest \
                 says (wrong-digest)",
                &["reason"],
            )?,
            upstream_budget_open: gauge(
                "upstream_budget_open",
                "Whether content may be asked for: 1, or 0 while the budget is closed by its hours or the bytes of the day",
            )?,
            upstream_budget_rate: gauge(
                "upstream_budget_rate_bytes",
                "Bytes per second that may come from upstream at present; 0 without a limit, or while closed",
            )?,
            upstream_budget_day: gauge(
                "upstream_budget_day_bytes",
                "Body bytes received today, in the time zone of the budget, if there is one",
            )?,
            parent_up: gauges(
                "parent_up",
                "Whether a parent is asked: 1, or 0 while it is known to be down",
                &["parent"],
            )?,
            parent_lowered: gauges(
                "parent_lowered",
                "Whether a parent is asked after the others, since it gave wrong bytes for several contents: 1 or 0",
                &["parent"],
            )?,
            fills: counters("fills_total", FILLS, &["outcome"])?,
            resumes_refused: counters(
                "resumes_refused_total",
                "Resumes refused because the rest of the client's version is not to be had",
                &["reason"],
            )?,
            fills_active: gauge("fills_active", "Fills under way")?,
            store_bytes: gauges("store_bytes", "Bytes on a drive in real blocks", &["drive"])?,
            store_quota_bytes: gauges("store_quota_bytes", "Quota of a drive", &["drive"])?,
            store_uncommitted: gauges(
                "store_uncommitted",
                "Changes on a drive that are visible and would be lost with the power",
                &["drive"],
            )?,
            store_mirror_behind: gauge(
                "store_mirror_behind",
                "Whether a journal says more of large bodies than its second copy: 1 or 0",
            )?,
            store_blobs: gauge("store_blobs", "Complete blobs")?,
            store_pins: gauge("store_pins", "Pins that hold")?,
            pin_refusals: counter("pin_refusals_total", "Attempts to make room that pins kept from their end")?,
            evictions: counter("evictions_total", "Blobs evicted")?,
            damaged_blocks: counter("damaged_blocks_total", "Blocks whose checksum did not hold")?,
            scrubbed_bytes: counter(
                "scrubbed_bytes_total",
                "Bytes of stored bodies that were read in the background and compared with their sums",
            )?,
            mended_blocks: counter(
                "mended_blocks_total",
                "Blocks of stored bodies that were fetched again and put in place",
            )?,
            drive_errors: counters("drive_errors_total", "Failed file operations", &["drive"])?,
            drive_in_service: gauges("drive_in_service", "Whether a drive takes new content: 1 or 0", &["drive"])?,
            drive_out_of_service: gauges(
                "drive_out_of_service",
                "Why a drive is out of service: 1 for the reason, else 0",
                &["drive", "reason"],
            )?,
            log_lines_dropped: counter("log_lines_dropped_total", "Access log lines dropped")?,
        };
        (metrics.registry, metrics.descriptions) = registrar.finish();
        Ok(metrics)
    }

    /// The registry, for parts that collect by themselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every metric, as the documentation lists it.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// Counts one answered request. Takes no lock and no memory.
    pub fn count_request(&self, result: RequestResult, status: StatusCode) {
        self.request_counters.count(result, status);
    }

    /// Requests that ended with `result`, whatever their status.
    pub fn requests_counted(&self, result: RequestResult) -> u64 {
        self.request_counters.total(result)
    }

    /// How long the process has been running, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.process.uptime()
    }

    /// Everything in the text format 0.0.4. Reads files of `/proc`: not for an async worker.
    ///
    /// # Errors
    /// When a metric cannot be written in the format: a fault of this file, found by its test.
    pub fn render(&self) -> prometheus::Result<String> {
        self.process.refresh();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_has_a_value_for_what_was_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.hit_bytes.inc_by(42);
        metrics.count_request(RequestResult::Hit, StatusCode::PARTIAL_CONTENT);
        metrics.store_bytes.with_label_values(&["/data/drive1"]).set(7);
        let text = metrics.render().unwrap();
        for line in [
            "# TYPE waystation_hit_bytes_total counter",
            "waystation_hit_bytes_total 42",
            "waystation_requests_total{class=\"2xx\",result=\"hit\"} 1",
            "waystation_requests_total{class=\"5xx\",result=\"error\"} 0",
            "waystation_store_bytes{drive=\"/data/drive1\"} 7",
            concat!("waystation_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE waystation_first_byte_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
