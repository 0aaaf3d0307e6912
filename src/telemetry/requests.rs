//! Counting requests on the hot path: how a request ended, and counters that were looked up once.

use std::fmt;

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec};

/// How a request on the data port was answered; the value of `result` in metrics and access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestResult {
    /// All bytes came from the store, which held them fresh.
    Hit,
    /// Some bytes were stored, others came from upstream.
    Partial,
    /// All bytes came from upstream and were offered to the store.
    Miss,
    /// Stored bytes whose lifetime was over: upstream could not be asked.
    Stale,
    /// Stored bytes that upstream confirmed during the request.
    Revalidated,
    /// Passed through: neither taken from the store nor offered to it.
    Bypass,
    /// Not answered with content because of a rule or a limit.
    Refused,
    /// Not answered with content because of a fault here or upstream.
    Error,
}

/// First digit of a final status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusClass {
    Success,
    Redirection,
    ClientError,
    ServerError,
}

/// One counter for each result and status class, so that counting takes no lock and no memory.
#[derive(Debug)]
pub(super) struct RequestCounters {
    /// By result, then class.
    counters: Vec<IntCounter>,
}

impl RequestResult {
    /// Every result.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Partial,
        Self::Miss,
        Self::Stale,
        Self::Revalidated,
        Self::Bypass,
        Self::Refused,
        Self::Error,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Partial => "partial",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for RequestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StatusClass {
    const ALL: [Self; 4] = [Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

impl RequestCounters {
    pub(super) fn new(requests: &IntCounterVec) -> prometheus::Result<Self> {
        let pairs =
            RequestResult::ALL.iter().flat_map(|result| StatusClass::ALL.iter().map(move |class| (result, class)));
        let counters =
            pairs.map(|(result, class)| requests.get_metric_with_label_values(&[result.as_str(), class.as_str()]));
        Ok(Self { counters: counters.collect::<prometheus::Result<_>>()? })
    }

    pub(super) fn count(&self, result: RequestResult, status: StatusCode) {
        if let Some(counter) = self.counter(result, StatusClass::of(status)) {
            counter.inc();
        }
    }

    pub(super) fn total(&self, result: RequestResult) -> u64 {
        StatusClass::ALL.into_iter().filter_map(|class| self.counter(result, class)).map(IntCounter::get).sum()
    }

    fn counter(&self, result: RequestResult, class: StatusClass) -> Option<&IntCounter> {
        self.counters.get(result as usize * StatusClass::ALL.len() + class as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn each_result_and_class_has_a_counter_of_its_own() {
        let metrics = Metrics::new().unwrap();
        let statuses = [(200, "2xx"), (304, "3xx"), (403, "4xx"), (503, "5xx")];
        for result in RequestResult::ALL {
            for (status, class) in statuses {
                let counter = metrics.requests.with_label_values(&[result.as_str(), class]);
                assert_eq!(counter.get(), 0, "{result} {class}");
                metrics.count_request(result, StatusCode::from_u16(status).unwrap());
                assert_eq!(counter.get(), 1, "{result} {class}");
            }
            assert_eq!(metrics.requests_counted(result), 4, "{result}");
        }
    }

    #[test]
    fn statuses_fall_into_the_class_of_their_first_digit() {
        for (status, class) in [(206, "2xx"), (299, "2xx"), (300, "3xx"), (416, "4xx"), (500, "5xx"), (999, "5xx")] {
            assert_eq!(StatusClass::of(StatusCode::from_u16(status).unwrap()).as_str(), class, "{status}");
        }
    }
}
