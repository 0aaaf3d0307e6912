//! The pure functions that every hit passes through: `cargo bench`. What a whole hit costs is in `docs/performance.md`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, HOST, LAST_MODIFIED, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use waystation::content::{BodyRef, CacheKey, Digest, Policy, Record, Scheme, UnixMillis};
use waystation::decide::{self, CacheStatus, Options, RequestFacts};
use waystation::resolve::{self, Inbound};
use waystation::serve;
use waystation::telemetry::{AccessLine, LogFormat, RequestResult};

const RECEIVED: UnixMillis = UnixMillis(1_795_435_200_000);
const HOSTNAME: &str = "fleet--factory.b.nlu.dl.adu.microsoft.com";
const PATH: &str = "/westeurope/fleet--factory/0123456789abcdef/update-image-1.2.3.swu";

fn fields(fields: &[(http::HeaderName, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn request_fields() -> HeaderMap {
    fields(&[
        (HOST, "gateway.example"),
        (USER_AGENT, "Microsoft-Delivery-Optimization-Lite/10.0.0.1"),
        (ACCEPT, "*/*"),
        (RANGE, "bytes=1048576-2097151"),
    ])
}

fn record() -> Record {
    Record {
        key: CacheKey::new(format!("{HOSTNAME}{PATH}")),
        status: StatusCode::OK,
        headers: fields(&[
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, "public, max-age=86400"),
            (ETAG, "\"0x8DB7A1B2C3D4E5F\""),
            (LAST_MODIFIED, "Mon, 02 Nov 2026 10:00:00 GMT"),
            (DATE, "Mon, 23 Nov 2026 12:00:00 GMT"),
        ]),
        request_time: RECEIVED,
        response_time: RECEIVED,
        vary: Vec::new(),
        length: Some(1 << 30),
        expected: None,
        token_protected: false,
        body: BodyRef::Blob(Digest::of(b"content")),
    }
}

fn resolving(bench: &mut Criterion) {
    let mut settings = resolve::Settings::default();
    if settings.rules.insert(Policy::for_host("*.b.nlu.dl.adu.microsoft.com")).is_err() {
        return;
    }
    let headers = request_fields();
    for (name, target) in [
        ("resolve", format!("{PATH}?cacheHostOrigin={HOSTNAME}")),
        (
            "resolve with SAS",
            format!(
                "{PATH}?sv=2021-08-06&se=2027-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=a%2Bb%3D&cacheHostOrigin={HOSTNAME}"
            ),
        ),
    ] {
        let Ok(uri) = target.parse::<Uri>() else { continue };
        let inbound = Inbound {
            method: &Method::GET,
            uri: &uri,
            version: Version::HTTP_11,
            headers: &headers,
            scheme: Scheme::Http,
        };
        bench.bench_function(name, |b| b.iter(|| resolve::resolve(black_box(&inbound), &settings)));
    }
    let key = format!("{HOSTNAME}{PATH}");
    bench.bench_function("key hashing", |b| b.iter(|| CacheKey::new(black_box(key.as_str()))));
}

fn deciding(bench: &mut Criterion) {
    let (record, headers, policy) = (record(), request_fields(), Policy::for_host(HOSTNAME));
    let facts = RequestFacts { method: &Method::GET, headers: &headers };
    let options = Options { clients_may_refetch: true };
    let now = UnixMillis(RECEIVED.0 + 60_000);
    bench.bench_function("decide", |b| {
        b.iter(|| decide::decide(black_box(&facts), Some(&record), &policy, PATH, &options, now));
    });
    bench.bench_function("preconditions", |b| {
        b.iter(|| decide::preconditions(&Method::GET, black_box(&headers), &record));
    });
    bench.bench_function("range parsing", |b| {
        b.iter(|| decide::ranges(black_box(&headers), &record, record.length, 16));
    });
    bench.bench_function("cache status", |b| {
        b.iter(|| CacheStatus::hit().with_ttl(black_box(86_340)).render("waystation-01"));
    });
}

fn rendering(bench: &mut Criterion) {
    let record = record();
    let prepared = serve::prepared_fields(&record, "waystation-01");
    let status = CacheStatus::hit().with_ttl(86_340);
    bench.bench_function("fields of a hit", |b| {
        b.iter(|| serve::fields_now(black_box(&prepared), &record, 60, &status, "waystation-01"));
    });
}

fn telling(bench: &mut Criterion) {
    let line = AccessLine {
        time: UNIX_EPOCH + Duration::from_millis(RECEIVED.0),
        client: IpAddr::V4(Ipv4Addr::new(10, 20, 30, 40)),
        method: "GET",
        host: HOSTNAME,
        target: PATH,
        status: 206,
        received: None,
        bytes: 1 << 20,
        duration: Duration::from_millis(12),
        result: RequestResult::Hit,
        form: "connected-cache",
        range: Some(b"bytes=1048576-2097151"),
        user_agent: Some(b"Microsoft-Delivery-Optimization-Lite/10.0.0.1"),
        reason: None,
        cut: None,
    };
    for format in LogFormat::ALL {
        let mut text = String::new();
        bench.bench_function(&format!("access line, {format}"), |b| {
            b.iter(|| {
                text.clear();
                black_box(&line).render(format, &mut text);
            });
        });
    }
}

criterion_group!(benches, resolving, deciding, rendering, telling);
criterion_main!(benches);
