//! Every metric of the process, registered once; parts of the crate hold an `Arc<Metrics>` and count.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All metrics. Names carry the prefix `waystation_`; labels are bounded (never a URL, client or digest).
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
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
    /// Connections and requests refused by a limit, by `reason`.
    pub limited: IntCounterVec,
    /// Request heads refused before they reach the handler, by `reason`.
    pub bad_requests: IntCounterVec,
    /// Body bytes received from upstream.
    pub upstream_bytes: IntCounter,
    /// Upstream requests by `outcome` (2xx, 3xx, 4xx, 5xx, connect, timeout, cut, refused).
    pub upstream_requests: IntCounterVec,
    /// Fills by `outcome` (complete, cut, mismatch, abandoned).
    pub fills: IntCounterVec,
    /// Fills under way.
    pub fills_active: IntGauge,
    /// Bytes on each `drive`, in real blocks.
    pub store_bytes: IntGaugeVec,
    /// Quota of each `drive`.
    pub store_quota_bytes: IntGaugeVec,
    /// Complete blobs over all drives.
    pub store_blobs: IntGauge,
    /// Blobs evicted.
    pub evictions: IntCounter,
    /// Blocks whose CRC did not hold when they were read.
    pub damaged_blocks: IntCounter,
    /// Failed file operations by `drive`.
    pub drive_errors: IntCounterVec,
    /// Access log lines that were dropped because the log could not keep up.
    pub log_lines_dropped: IntCounter,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a fault of this file, found by its test.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("waystation".to_owned()), None)?;
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let first_byte_seconds = Histogram::with_opts(
            HistogramOpts::new("first_byte_seconds", "Time from the request head to the first body byte")
                .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
        )?;
        registry.register(Box::new(first_byte_seconds.clone()))?;
        Ok(Self {
            requests: counters("requests_total", "Requests on the data port", &["result", "class"])?,
            hit_bytes: counter("hit_bytes_total", "Body bytes sent to clients from the store")?,
            miss_bytes: counter("miss_bytes_total", "Body bytes sent to clients while they came from upstream")?,
            requests_in_flight: gauge("requests_in_flight", "Requests being answered")?,
            first_byte_seconds,
            connections: gauge("connections", "Open client connections")?,
            connections_parked: gauge("connections_parked", "Idle client connections parked without buffers")?,
            limited: counters("limited_total", "Connections and requests refused by a limit", &["reason"])?,
            bad_requests: counters("bad_requests_total", "Request heads refused", &["reason"])?,
            upstream_bytes: counter("upstream_bytes_total", "Body bytes received from upstream")?,
            upstream_requests: counters("upstream_requests_total", "Requests to upstream", &["outcome"])?,
            fills: counters("fills_total", "Fills that ended", &["outcome"])?,
            fills_active: gauge("fills_active", "Fills under way")?,
            store_bytes: gauges("store_bytes", "Bytes on a drive in real blocks", &["drive"])?,
            store_quota_bytes: gauges("store_quota_bytes", "Quota of a drive", &["drive"])?,
            store_blobs: gauge("store_blobs", "Complete blobs")?,
            evictions: counter("evictions_total", "Blobs evicted")?,
            damaged_blocks: counter("damaged_blocks_total", "Blocks whose checksum did not hold")?,
            drive_errors: counters("drive_errors_total", "Failed file operations", &["drive"])?,
            log_lines_dropped: counter("log_lines_dropped_total", "Access log lines dropped")?,
            registry,
        })
    }

    /// The registry, for the admin listener.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
