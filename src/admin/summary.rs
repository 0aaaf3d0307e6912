//! `/summary`: what the cache did since it started, under the names that Connected Cache gives (`eggressBytes` is
//! spelled so there) and some of our own.

use serde_json::{Map, Value, json};

use super::Readiness;
use super::health::of_drive;
use crate::store::DriveUsage;
use crate::telemetry::{Metrics, RequestResult};

/// The body of `/summary`. Figures count from the start of the process.
pub(super) fn summary(metrics: &Metrics, readiness: &Readiness, drives: &[DriveUsage]) -> Value {
    let (hit, miss) = (metrics.hit_bytes.get(), metrics.miss_bytes.get());
    let egress = hit.saturating_add(miss);
    let upstream = metrics.upstream_bytes.get();
    let requests: Map<String, Value> = RequestResult::ALL
        .into_iter()
        .map(|result| (result.as_str().to_owned(), metrics.requests_counted(result).into()))
        .collect();
    let drives: Vec<Value> = drives
        .iter()
        .map(|drive| {
            let mut value = of_drive(drive);
            value["quotaBytes"] = drive.quota.into();
            value["usedBytes"] = drive.used.into();
            value["blobs"] = drive.blobs.into();
            value
        })
        .collect();
    json!({
        "hitBytes": hit,
        "missBytes": miss,
        "eggressBytes": egress,
        "hitRatioBytes": ratio(hit, egress),
        "upstreamBytes": upstream,
        "savedBytes": egress.saturating_sub(upstream),
        "requests": requests,
        "drives": drives,
        "parents": readiness.parents_as_json(),
        "state": readiness.state.as_str(),
        "reasons": readiness.reasons,
        "uptimeSeconds": metrics.uptime().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// `part` of `whole`, from 0 to 1; 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http::StatusCode;

    use super::*;
    use crate::admin::NodeState;

    #[test]
    fn figures_stand_under_the_names_of_connected_cache() {
        let metrics = Metrics::new().unwrap();
        metrics.hit_bytes.inc_by(750);
        metrics.miss_bytes.inc_by(250);
        metrics.upstream_bytes.inc_by(300);
        metrics.count_request(RequestResult::Hit, StatusCode::OK);
        let path = PathBuf::from("/nginx/cache1");
        let drive = DriveUsage { path, quota: 1000, used: 10, blobs: 2, out: None, journal_gaps: 0 };
        let reasons = vec!["no source".to_owned()];
        let readiness = Readiness { reasons, ..Readiness::of(NodeState::Offline) };
        let summary = summary(&metrics, &readiness, &[drive]);
        assert_eq!(summary["hitBytes"], 750);
        assert_eq!(summary["missBytes"], 250);
        assert_eq!(summary["eggressBytes"], 1000);
        assert_eq!(summary["hitRatioBytes"], 0.75);
        assert_eq!(summary["savedBytes"], 700);
        assert_eq!(summary["requests"]["hit"], 1);
        assert_eq!(summary["requests"]["miss"], 0);
        assert_eq!(summary["drives"][0]["path"], "/nginx/cache1");
        assert_eq!(summary["drives"][0]["usedBytes"], 10);
        assert_eq!(summary["state"], "offline");
        assert_eq!(summary["reasons"][0], "no source");
    }

    #[test]
    fn a_fresh_cache_has_a_ratio() {
        let summary = summary(&Metrics::new().unwrap(), &Readiness::of(NodeState::Online), &[]);
        assert_eq!(summary["hitRatioBytes"], 0.0);
        assert_eq!(summary["savedBytes"], 0);
    }
}
