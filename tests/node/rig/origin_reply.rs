//! What a scripted origin answers: a [`Reply`], and how it looks for one request.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::pattern::Pattern;

/// A request as the origin received it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// The request target, path and query.
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    /// By `Content-Length`.
    pub(crate) body: Vec<u8>,
}

/// The bytes of a reply.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Pattern(Pattern),
    Bytes(Bytes),
    File(PathBuf, u64),
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimiter {
    Length,
    Chunked,
    Close,
}

/// One answer of the origin and the faults that come with it.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) delimiter: Delimiter,
    /// Whether Range is understood.
    pub(crate) ranges: bool,
    /// The connection is cut after this many body bytes of one answer.
    pub(crate) cut_after: Option<u64>,
    /// The head is held back until this is open.
    pub(crate) hold_head: Option<Gate>,
    /// The body is held back from this offset on until the gate is open.
    pub(crate) hold_at: Option<(u64, Gate)>,
}

/// A signal that stays given.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

/// A reply to one request: head, and which bytes of the body follow.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) head: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Received {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The last field called `name` in any case: of several Range lines the last one is meant.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Pattern(pattern) => pattern.len,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }
}

impl Reply {
    /// A status with a small text.
    pub(crate) fn status(status: u16, text: &'static str) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Body::Bytes(Bytes::from_static(text.as_bytes())),
            delimiter: Delimiter::Length,
            ranges: true,
            cut_after: None,
            hold_head: None,
            hold_at: None,
        }
    }

    /// 200 with the bytes of `pattern`, a strong ETag, and fresh for an hour.
    pub(crate) fn file(pattern: Pattern) -> Self {
        let tag = format!("\"{:x}-{:x}\"", pattern.seed, pattern.len);
        let reply = Self { body: Body::Pattern(pattern), ..Self::status(200, "") };
        reply.with("ETag", &tag).with("Cache-Control", "max-age=3600").with("Content-Type", "application/octet-stream")
    }

    /// 200 with `pattern` and no other field.
    pub(crate) fn bare(pattern: Pattern) -> Self {
        Self { body: Body::Pattern(pattern), ..Self::status(200, "") }
    }

    /// Adds a field, or replaces the one with this name.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn delimited(mut self, delimiter: Delimiter) -> Self {
        self.delimiter = delimiter;
        self
    }

    pub(crate) fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    pub(crate) fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    pub(crate) fn hold_head(mut self, gate: &Gate) -> Self {
        self.hold_head = Some(gate.clone());
        self
    }

    pub(crate) fn hold_at(mut self, offset: u64, gate: &Gate) -> Self {
        self.hold_at = Some((offset, gate.clone()));
        self
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How this reply looks for `request`: conditions and ranges applied.
    pub(crate) fn render(&self, request: &Received) -> Rendered {
        let len = self.body.len();
        let (mut status, mut from, mut to) = (self.status, 0, len);
        let mut extra = String::new();
        if self.status == 200 {
            if self.is_unchanged(request) {
                (status, to) = (304, 0);
            } else if let Some(range) = self.ranges.then(|| request.field("Range")).flatten()
                && request.field("If-Range").is_none_or(|tag| self.field("ETag") == Some(tag))
            {
                match parse_range(range, len) {
                    Some((a, b)) => {
                        (status, from, to) = (206, a, b);
                        extra = format!("Content-Range: bytes {a}-{}/{len}\r\n", b - 1);
                    }
                    None => {
                        (status, to) = (416, 0);
                        extra = format!("Content-Range: bytes */{len}\r\n");
                    }
                }
            }
            if self.ranges {
                extra.push_str("Accept-Ranges: bytes\r\n");
            }
        }
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        if self.field("Date").is_none() {
            head.push_str(&format!("Date: {}\r\n", httpdate::fmt_http_date(std::time::SystemTime::now())));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.delimiter {
            _ if status == 304 => {}
            Delimiter::Length => head.push_str(&format!("Content-Length: {}\r\n", to - from)),
            Delimiter::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Delimiter::Close => head.push_str("Connection: close\r\n"),
        }
        head.push_str(&extra);
        head.push_str("\r\n");
        if request.method == "HEAD" {
            to = from;
        }
        Rendered { head, from, to }
    }

    fn is_unchanged(&self, request: &Received) -> bool {
        match request.field("If-None-Match") {
            Some(tags) => self.field("ETag").is_some_and(|tag| tags.split(',').any(|t| t.trim() == tag)),
            None => request.field("If-Modified-Since").is_some_and(|since| self.field("Last-Modified") == Some(since)),
        }
    }
}

/// One range as `from..to`; `None` when it cannot be satisfied.
fn parse_range(range: &str, len: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), Some(last)) => (first, len.min(last + 1)),
        (Some(first), None) => (first, len),
        (None, Some(suffix)) => (len.saturating_sub(suffix), len),
        (None, None) => return None,
    };
    (from < to).then_some((from, to))
}
