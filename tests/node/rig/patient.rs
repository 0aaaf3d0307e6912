//! A client that wants its file whatever happens to the cache: it keeps what it has, asks for the rest, and compares every
//! byte with the versions that there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::{Connection, Framing, Head, connect_as, get};
use super::quarry::Content;

/// Pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(10);
/// Attempts without a byte after which what is kept is thrown away, as an update agent does in the end.
const ENOUGH: u32 = 60;
/// A file that does not come in this time fails the story.
const PATIENCE: Duration = Duration::from_secs(60);

/// All versions that a path has had.
pub(crate) type Versions = Arc<Mutex<Vec<Content>>>;

/// One device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patient {
    pub(crate) to: SocketAddr,
    /// Its own address.
    pub(crate) device: u16,
    /// Whether it says of which version it has a part (RFC 9110 section 13.1.5). Update agents do not.
    pub(crate) says_which: bool,
}

/// A file that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) tag: String,
    /// Answers that ended too soon.
    pub(crate) cuts: u32,
    /// Answers without content, and connections refused.
    pub(crate) refused: u32,
    /// How often it began anew.
    pub(crate) restarts: u32,
}

/// What the client has of a file.
struct Kept {
    content: Option<Content>,
    len: u64,
}

impl Patient {
    /// Downloads `target`; panics at the first wrong byte.
    pub(crate) async fn download(&self, target: &str, versions: &Versions) -> Got {
        let begun = Instant::now();
        let mut got = Got { tag: String::new(), cuts: 0, refused: 0, restarts: 0 };
        let mut kept = Kept { content: None, len: 0 };
        let mut in_vain = 0;
        loop {
            let before = kept.len;
            match self.attempt(target, versions, &mut kept).await {
                Attempt::Whole => {
                    got.tag = kept.content.map(|content| content.tag).unwrap_or_default();
                    return got;
                }
                Attempt::Cut => got.cuts += 1,
                Attempt::Refused => got.refused += 1,
            }
            in_vain = if kept.len == before { in_vain + 1 } else { 0 };
            if in_vain >= ENOUGH && kept.len > 0 {
                (kept, in_vain) = (Kept { content: None, len: 0 }, 0);
                got.restarts += 1;
            }
            assert!(begun.elapsed() < PATIENCE, "{target} does not come: {got:?}, {} bytes are there", kept.len);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, target: &str, versions: &Versions, kept: &mut Kept) -> Attempt {
        let Ok(stream) = connect_as(self.device, self.to).await else { return Attempt::Refused };
        let mut connection = Connection::over(stream);
        let mut fields = Vec::new();
        if let Some(content) = kept.content.as_ref().filter(|_| kept.len > 0) {
            fields.push(format!("Range: bytes={}-{}", kept.len, content.len() - 1));
            if self.says_which {
                fields.push(format!("If-Range: {}", content.tag));
            }
        }
        if !self.says_which {
            fields.push("User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1".to_owned());
        }
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        if connection.try_send(get(target, &fields).as_bytes()).await.is_err() {
            return Attempt::Cut;
        }
        let Ok(head) = connection.try_head().await else { return Attempt::Cut };
        match head.status {
            200 => *kept = Kept { content: Some(version_of(&head, versions)), len: 0 },
            206 => {
                let sent = version_of(&head, versions);
                assert_eq!(Some(&sent), kept.content.as_ref(), "a part of another version of {target}: {}", head.raw);
                let begins = format!("bytes {}-", kept.len);
                assert!(head.field("Content-Range").is_some_and(|range| range.starts_with(&begins)), "{}", head.raw);
            }
            500..=599 => return Attempt::Refused,
            _ => panic!("{target}: {}", head.raw),
        }
        let Some(content) = &kept.content else { return Attempt::Refused };
        let mut framing = head.framing(false);
        while let Ok(Some(piece)) = connection.piece(&mut framing, 256 * 1024).await {
            assert!(content.has(kept.len, &piece), "wrong bytes of {target} behind {}: {}", kept.len, head.raw);
            kept.len += piece.len() as u64;
        }
        match framing {
            Framing::Done if kept.len == content.len() => Attempt::Whole,
            Framing::Done => panic!("{target} ends after {} of {} bytes: {}", kept.len, content.len(), head.raw),
            _ => Attempt::Cut,
        }
    }

    /// Asks for the bytes `from..to` until all have come.
    pub(crate) async fn range(&self, target: &str, versions: &Versions, from: u64, to: u64) -> Got {
        let begun = Instant::now();
        let mut got = Got { tag: String::new(), cuts: 0, refused: 0, restarts: 0 };
        loop {
            match self.try_range(target, versions, from, to).await {
                Attempt::Whole => return got,
                Attempt::Cut => got.cuts += 1,
                Attempt::Refused => got.refused += 1,
            }
            assert!(begun.elapsed() < PATIENCE, "{from}..{to} of {target} do not come: {got:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for the bytes `from..to` once, and compares what comes.
    pub(crate) async fn try_range(&self, target: &str, versions: &Versions, from: u64, to: u64) -> Attempt {
        let Ok(stream) = connect_as(self.device, self.to).await else { return Attempt::Refused };
        let mut connection = Connection::over(stream);
        let mut fields = vec![format!("Range: bytes={from}-{}", to - 1)];
        if let Some(content) = versions.lock().last().filter(|_| self.says_which) {
            fields.push(format!("If-Range: {}", content.tag));
        }
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        if connection.try_send(get(target, &fields).as_bytes()).await.is_err() {
            return Attempt::Cut;
        }
        let Ok(head) = connection.try_head().await else { return Attempt::Cut };
        let mut at = match head.status {
            200 => 0,
            206 => from,
            416 | 500..=599 => return Attempt::Refused,
            _ => panic!("{target}: {}", head.raw),
        };
        let content = version_of(&head, versions);
        let mut framing = head.framing(false);
        while let Ok(Some(piece)) = connection.piece(&mut framing, 256 * 1024).await {
            assert!(content.has(at, &piece), "wrong bytes of {target} behind {at}: {}", head.raw);
            at += piece.len() as u64;
        }
        if framing == Framing::Done { Attempt::Whole } else { Attempt::Cut }
    }
}

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Whole,
    Cut,
    Refused,
}

/// The version that an answer says it is of.
fn version_of(head: &Head, versions: &Versions) -> Content {
    let tag = head.field("ETag").unwrap_or_else(|| panic!("no ETag: {}", head.raw));
    let known = versions.lock().iter().find(|content| content.tag == tag).cloned();
    known.unwrap_or_else(|| panic!("a version that never was: {}", head.raw))
}
