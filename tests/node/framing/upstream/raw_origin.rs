//! An origin that plays bytes as they are written down, for one path and as often as it is told; every other request, and
//! each one after it has been told to, is answered as RFC 9110 says.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::rig::pattern::Pattern;

/// Where the bad answer is.
pub(super) const BAD: &str = "/bad";
/// What is always answered as it should be, so that a poisoned connection shows.
pub(super) const GOOD: &str = "/good";

/// What is at [`BAD`] once the origin is honest.
pub(super) const OBJECT: Pattern = Pattern { seed: 7001, len: 40_000 };
/// What is at [`GOOD`].
pub(super) const OTHER: Pattern = Pattern { seed: 7002, len: 5_000 };
/// The entity tag of [`OBJECT`].
pub(super) const TAG: &str = "\"object\"";

/// How often a play writes its bytes: in one piece or in about so many.
const PIECES: usize = 12;

/// What happens behind the bytes of a play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The connection goes on with the next request.
    GoOn,
    /// Both directions end.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more is written, but the connection is read on.
    HalfClose,
    /// Nothing happens any more.
    Hang,
}

/// What is played.
#[derive(Debug, Clone)]
pub(super) struct Play {
    /// Written on the first connection as soon as it is there, before any request.
    pub(super) greeting: Vec<u8>,
    /// The answers, one after the other; then the origin is honest, unless the last one is given for ever.
    pub(super) answers: Vec<(Vec<u8>, After)>,
    pub(super) for_ever: bool,
    /// Written behind an answer while the connection is idle, when the story says so.
    pub(super) late: Vec<u8>,
    /// In pieces, each a packet of its own.
    pub(super) in_pieces: bool,
}

/// The origin; dropping it ends it.
#[derive(Debug)]
pub(super) struct RawOrigin {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    play: Play,
    is_honest: AtomicBool,
    has_greeted: AtomicBool,
    /// Whether anything was asked on a connection on which a bad answer had been given.
    is_used_again: AtomicBool,
    played: AtomicUsize,
    is_late: watch::Sender<bool>,
    /// How many connections have written what is late.
    written: watch::Sender<usize>,
}

impl RawOrigin {
    pub(super) async fn start(play: Play) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            play,
            is_honest: AtomicBool::new(false),
            has_greeted: AtomicBool::new(false),
            is_used_again: AtomicBool::new(false),
            played: AtomicUsize::new(0),
            is_late: watch::Sender::new(false),
            written: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, accepting }
    }

    /// Plays nothing any more.
    pub(super) fn be_honest(&self) {
        self.state.is_honest.store(true, Ordering::SeqCst);
    }

    /// Whether a connection went on behind a bad answer.
    pub(super) fn is_used_again(&self) -> bool {
        self.state.is_used_again.load(Ordering::SeqCst)
    }

    /// Has what is late written, and waits until it is.
    pub(super) async fn be_late(&self) {
        self.state.is_late.send_replace(true);
        let mut written = self.state.written.subscribe();
        let wait = written.wait_for(|written| *written > 0);
        assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "no connection was kept");
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            connections.spawn(async move {
                // Whoever is told nonsense may go at any time.
                let _ = state.serve(stream).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

impl State {
    fn is_honest(&self) -> bool {
        self.is_honest.load(Ordering::SeqCst)
    }

    /// The bad answer that is due, which counts as given.
    fn next(&self) -> Option<&(Vec<u8>, After)> {
        if self.is_honest() {
            return None;
        }
        let number = self.played.fetch_add(1, Ordering::SeqCst);
        let last = self.play.answers.last().filter(|_| self.play.for_ever);
        self.play.answers.get(number).or(last)
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if !self.has_greeted.swap(true, Ordering::SeqCst) {
            stream.write_all(&self.play.greeting).await?;
        }
        let (mut buffer, mut has_played, mut is_late) = (Vec::new(), false, false);
        loop {
            let head = tokio::select! {
                head = read_head(&mut stream, &mut buffer) => head?,
                () = self.due(), if has_played && !is_late && !self.play.late.is_empty() => {
                    stream.write_all(&self.play.late).await?;
                    self.written.send_modify(|written| *written += 1);
                    is_late = true;
                    continue;
                }
            };
            let Some(head) = head else { return Ok(()) };
            if has_played {
                self.is_used_again.store(true, Ordering::SeqCst);
            }
            let next = if path_of(&head) == BAD { self.next() } else { None };
            let Some((bytes, after)) = next else {
                stream.write_all(&honest(&head)).await?;
                continue;
            };
            has_played = true;
            self.write(&mut stream, bytes).await?;
            match after {
                After::GoOn => {}
                After::Close => return stream.shutdown().await,
                After::Reset => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
                After::HalfClose => {
                    stream.shutdown().await?;
                    return stream.read_to_end(&mut Vec::new()).await.map(|_| ());
                }
                After::Hang => return stream.read_to_end(&mut Vec::new()).await.map(|_| ()),
            }
        }
    }

    async fn due(&self) {
        let _ = self.is_late.subscribe().wait_for(|is_late| *is_late).await;
    }

    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let piece = if self.play.in_pieces { bytes.len().div_ceil(PIECES).max(5) } else { bytes.len().max(1) };
        for piece in bytes.chunks(piece) {
            stream.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// The path of a request in any form, without its query.
fn path_of(head: &str) -> &str {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}

/// The first field called `name` of a head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The answer of an origin without faults: GET and HEAD, one range, `If-Range` and `If-None-Match`.
fn honest(head: &str) -> Vec<u8> {
    let (content, tag) = match path_of(head) {
        BAD => (OBJECT, TAG),
        GOOD => (OTHER, "\"other\""),
        _ => return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    };
    let fields = format!("ETag: {tag}\r\nCache-Control: max-age=3600\r\nAccept-Ranges: bytes\r\n");
    if field(head, "If-None-Match") == Some(tag) {
        return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
    }
    let range = field(head, "Range").filter(|_| field(head, "If-Range").is_none_or(|condition| condition == tag));
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).and_then(|(first, last)| {
        let last = last.parse::<u64>().ok();
        let range = match first.parse().ok() {
            Some(first) => (first, last.map_or(content.len, |last| (last + 1).min(content.len))),
            None => (content.len.saturating_sub(last?), content.len),
        };
        Some(range).filter(|(from, to)| from < to)
    });
    let mut answer = match range {
        Some((from, to)) => format!(
            "HTTP/1.1 206 Partial Content\r\n{fields}Content-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            to - 1,
            content.len,
            to - from
        ),
        None => format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", content.len),
    }
    .into_bytes();
    if !head.starts_with("HEAD ") {
        let (from, to) = range.unwrap_or((0, content.len));
        answer.extend(content.slice(from, to));
    }
    answer
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            return Ok(Some(String::from_utf8_lossy(&std::mem::replace(buffer, rest)).into_owned()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
