//! The demo's device: downloads, compares each byte with what the origin has, and starts anew after a cut.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_RANGE, HOST, RANGE};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::origin::{seed_of, word};

/// How often a device starts a download anew, and how long it waits before.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// How a download went.
#[derive(Debug, Default)]
pub(super) struct Download {
    pub(super) status: u16,
    pub(super) bytes: u64,
    /// Whole, and each byte that of the origin.
    pub(super) right: bool,
    /// Told to come back, or cut before the end: the device knows that it has no file.
    pub(super) unfinished: bool,
    pub(super) time: Duration,
    pub(super) cache_status: String,
}

/// Downloads `target` from `cache`, or the range `first` to `last` of it.
pub(super) async fn download(cache: SocketAddr, target: &str, range: Option<(u64, u64)>) -> io::Result<Download> {
    let started = Instant::now();
    let stream = TcpStream::connect(cache).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(target).header(HOST, cache.to_string());
    if let Some((first, last)) = range {
        request = request.header(RANGE, format!("bytes={first}-{last}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, mut body) = response.into_parts();
    let mut position = first_position(&head.headers);
    let begin = position;
    let seed = seed_of(target.split('?').next().unwrap_or(target));
    let mut right = head.status.is_success();
    let mut unfinished = head.status.is_server_error();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            unfinished = true;
            break;
        };
        if let Some(data) = frame.data_ref() {
            right &= is_content(seed, position, data);
            position += data.len() as u64;
        }
    }
    connection.abort();
    // The cache that was asked writes last.
    let last = head.headers.get_all("cache-status").iter().next_back();
    let cache_status = last.and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    Ok(Download {
        status: head.status.as_u16(),
        bytes: position - begin,
        right: right && !unfinished,
        unfinished,
        time: started.elapsed(),
        cache_status,
    })
}

/// Downloads `target` whole; a download that was cut is thrown away and begun anew, as update agents do it.
pub(super) async fn download_to_its_end(cache: SocketAddr, target: &str) -> io::Result<Download> {
    let started = Instant::now();
    let mut last = download(cache, target, None).await?;
    for _ in 1..TRIES {
        if !last.unfinished {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        last = download(cache, target, None).await?;
    }
    Ok(Download { time: started.elapsed(), ..last })
}

fn first_position(headers: &HeaderMap) -> u64 {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()).unwrap_or(0)
}

fn is_content(seed: u64, position: u64, data: &[u8]) -> bool {
    let mut at = position;
    let mut rest = data;
    while !rest.is_empty() {
        let word = word(seed, at / 8);
        let skip = (at % 8) as usize;
        let take = rest.len().min(8 - skip);
        if rest[..take] != word[skip..skip + take] {
            return false;
        }
        rest = &rest[take..];
        at += take as u64;
    }
    true
}
