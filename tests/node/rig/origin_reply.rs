//! What a scripted origin answers: a [`Reply`], how it looks for one request, and what is false in it.
//!
//! Faults that need a clock or a memory of earlier answers are in `trouble`.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::watch;

use super::pattern::Pattern;
use super::quarry::Content;
use super::trouble::Trouble;

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
    /// Faults that strike once, and who is told when the faults of this reply show.
    pub(crate) trouble: Option<Trouble>,
    /// The length that the origin believes its content to have.
    pub(crate) believed: Option<u64>,
    /// What the origin believes not to exist is sent all the same, behind the end of the announced body.
    pub(crate) behind: bool,
    /// The byte at this offset is wrong.
    pub(crate) damage: Option<u64>,
    /// Each answer says what its own bytes ought to be (`Content-Digest`, RFC 9530 section 2).
    pub(crate) content_digest: bool,
    /// A request without a range gets 206 with the first so many bytes.
    pub(crate) unasked: Option<u64>,
    /// A request for a range gets one that begins so much further on (or back).
    pub(crate) shift: i64,
    /// Interim responses, sent before anything else.
    pub(crate) early: &'static str,
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
    /// The head announces more than there is: the connection ends behind the last byte.
    pub(crate) ends_short: bool,
    /// This very answer is false.
    pub(crate) is_fault: bool,
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
            trouble: None,
            believed: None,
            behind: false,
            damage: None,
            content_digest: false,
            unasked: None,
            shift: 0,
            early: "",
        }
    }

    /// 200 with the bytes of `pattern`, a strong ETag, and fresh for an hour.
    pub(crate) fn file(pattern: Pattern) -> Self {
        let tag = format!("\"{:x}-{:x}\"", pattern.seed, pattern.len);
        let reply = Self { body: Body::Pattern(pattern), ..Self::status(200, "") };
        reply.with("ETag", &tag).with("Cache-Control", "max-age=3600").with("Content-Type", "application/octet-stream")
    }

    /// 200 with `content`, a strong ETag, and fresh for an hour.
    pub(crate) fn content(content: &Content) -> Self {
        let reply = Self { body: Body::Bytes(content.bytes.clone()), ..Self::status(200, "") };
        reply.with("ETag", &content.tag).with("Cache-Control", "max-age=3600")
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

    pub(crate) fn early(mut self, text: &'static str) -> Self {
        self.early = text;
        self
    }

    pub(crate) fn hold_at(mut self, offset: u64, gate: &Gate) -> Self {
        self.hold_at = Some((offset, gate.clone()));
        self
    }

    pub(crate) fn troubled(mut self, trouble: &Trouble) -> Self {
        self.trouble = Some(trouble.clone());
        self
    }

    pub(crate) fn believed(mut self, len: u64) -> Self {
        self.believed = Some(len);
        self
    }

    pub(crate) fn damaged(mut self, offset: u64) -> Self {
        self.damage = Some(offset);
        self
    }

    pub(crate) fn unasked(mut self, bytes: u64) -> Self {
        self.unasked = Some(bytes);
        self
    }

    pub(crate) fn shifted(mut self, bytes: i64) -> Self {
        self.shift = bytes;
        self
    }

    /// The digest of the whole, as it ought to be (RFC 9530 section 3).
    pub(crate) fn with_digest(self, pattern: Pattern) -> Self {
        self.with("Repr-Digest", &digest_field(pattern.sha256()))
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Makes a byte wrong, if `bytes`, which stand at `at`, have it.
    pub(crate) fn spoil(&self, at: u64, bytes: &mut [u8]) {
        let index = self.damage.and_then(|damage| damage.checked_sub(at));
        if let Some(byte) = index.and_then(|index| bytes.get_mut(index as usize)) {
            *byte ^= 0x10;
            if let Some(trouble) = &self.trouble {
                trouble.strikes();
            }
        }
    }

    /// How this reply looks for `request`: conditions and ranges applied.
    pub(crate) fn render(&self, request: &Received) -> Rendered {
        let len = self.believed.unwrap_or(self.body.len());
        let (mut status, mut from, mut to) = (self.status, 0, len);
        let (mut extra, mut is_fault) = (String::new(), false);
        if self.status == 200 {
            if self.is_unchanged(request) {
                (status, to) = (304, 0);
            } else if let Some(range) = self.ranges.then(|| request.field("Range")).flatten()
                && request.field("If-Range").is_none_or(|tag| self.field("ETag") == Some(tag))
            {
                match parse_range(range, len) {
                    Some((a, b)) => {
                        let begin = a.saturating_add_signed(self.shift).min(b - 1);
                        (status, from, to, is_fault) = (206, begin, b, begin != a);
                    }
                    None => {
                        (status, to) = (416, 0);
                        extra = format!("Content-Range: bytes */{len}\r\n");
                    }
                }
            } else if let Some(first) = self.unasked.filter(|_| request.field("Range").is_none()) {
                (status, to, is_fault) = (206, len.min(first), true);
            }
            if status == 206 {
                extra = format!("Content-Range: bytes {from}-{}/{len}\r\n", to - 1);
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
        if let (true, Body::Pattern(pattern)) = (self.content_digest && from < to, &self.body) {
            let digest = Sha256::digest(pattern.slice(from, to)).into();
            head.push_str(&format!("Content-Digest: {}\r\n", digest_field(digest)));
        }
        head.push_str("\r\n");
        let mut ends_short = false;
        if request.method == "HEAD" {
            to = from;
        } else if self.believed == Some(to) && from < to {
            // The end that the origin believes in: here its error shows.
            (is_fault, ends_short) = (true, to > self.body.len());
            to = if ends_short || self.behind { self.body.len() } else { to };
        }
        Rendered { head, from, to: to.max(from), ends_short, is_fault }
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

/// `digest` as RFC 9530 writes it.
pub(crate) fn digest_field(digest: [u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest))
}

/// The SHA-256 of `bytes` as a member of such a field.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_field(Sha256::digest(bytes).into())
}

/// The SHA-512 of `bytes` as a member of such a field.
pub(crate) fn wide_field(bytes: &[u8]) -> String {
    format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(bytes)))
}
