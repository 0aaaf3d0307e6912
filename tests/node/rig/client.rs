//! A raw HTTP/1.1 client: what was written is exactly what is sent, and heads are kept byte for byte.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::pattern::Pattern;

/// No answer of a story takes longer than this between two bytes.
const PATIENCE: Duration = Duration::from_secs(40);

/// A response head as it came.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The bytes up to and with the empty line.
    pub(crate) raw: String,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the head promised.
    Complete,
    /// The connection ended before.
    Cut,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

/// What a streamed body was compared to a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) len: u64,
    pub(crate) first_difference: Option<u64>,
    pub(crate) end: End,
}

/// Where in a body the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    /// Bytes left in the present chunk.
    Chunked(u64),
    UntilClose,
    Done,
}

/// One connection, in the clear or under TLS.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Opens a connection from an address that only this device has.
    pub(crate) async fn open_as(device: u16, to: SocketAddr) -> Self {
        Self::over(connect_as(device, to).await.unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn on(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The socket, and what was read of it beyond the last answer.
    pub(crate) fn into_stream(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Like `send`, for peers that may have gone.
    pub(crate) async fn try_send(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.write_all(text).await
    }

    /// Reads at most `most` bytes more; 0 is the end. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn read_more(&mut self, most: usize) -> io::Result<usize> {
        self.buffer.reserve(most);
        let mut room = (&mut self.buffer).limit(most);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut room)).await;
        read.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no byte within the patience")))
    }

    /// The next response head; an error when the connection ends before it.
    pub(crate) async fn try_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let raw = std::mem::replace(&mut self.buffer, rest);
                return Head::parse(&raw);
            }
            if self.read_more(16 * 1024).await? == 0 {
                let got = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("end instead of a head: {got:?}")));
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.unwrap()
    }

    /// The next piece of the body, at most `most` bytes; `None` at its end. `framing` is [`Framing::Done`]
    /// afterwards when the body came whole, else it was cut.
    pub(crate) async fn piece(&mut self, framing: &mut Framing, most: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            match *framing {
                Framing::Done | Framing::Length(0) => {
                    *framing = Framing::Done;
                    return Ok(None);
                }
                Framing::Chunked(0) => {
                    let Some(line) = self.line().await? else { return Ok(None) };
                    if line.is_empty() {
                        continue; // the line end behind a chunk
                    }
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                    if size == 0 {
                        while self.line().await?.is_some_and(|trailer| !trailer.is_empty()) {}
                        *framing = Framing::Done;
                    } else {
                        *framing = Framing::Chunked(size);
                    }
                }
                Framing::Length(left) | Framing::Chunked(left) => {
                    let Some(piece) = self.take(left.min(most as u64) as usize).await? else { return Ok(None) };
                    let left = left - piece.len() as u64;
                    *framing = if matches!(framing, Framing::Length(_)) {
                        Framing::Length(left)
                    } else {
                        Framing::Chunked(left)
                    };
                    return Ok(Some(piece));
                }
                Framing::UntilClose => {
                    let piece = self.take(most).await?;
                    if piece.is_none() {
                        *framing = Framing::Done;
                    }
                    return Ok(piece);
                }
            }
        }
    }

    /// Between 1 and `most` bytes; `None` at the end of the connection.
    async fn take(&mut self, most: usize) -> io::Result<Option<Vec<u8>>> {
        if self.buffer.is_empty() && self.read_more(most.min(64 * 1024)).await? == 0 {
            return Ok(None);
        }
        let rest = self.buffer.split_off(most.min(self.buffer.len()));
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.read_more(4096).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// One answer with its body. `head_only` for answers to HEAD.
    pub(crate) async fn answer(&mut self, head_only: bool) -> Answer {
        let head = self.head().await;
        let mut framing = head.framing(head_only);
        let mut body = Vec::new();
        loop {
            match self.piece(&mut framing, 1 << 20).await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("{error} after {}", head.raw),
                Err(_) => break,
            }
        }
        let end = if framing == Framing::Done { End::Complete } else { End::Cut };
        Answer { head, body, end }
    }

    /// Reads the body behind `head` and compares it with `pattern` from `offset` on, without keeping it.
    pub(crate) async fn checked(&mut self, head: &Head, pattern: Pattern, offset: u64) -> Checked {
        let mut framing = head.framing(false);
        let (mut len, mut first_difference) = (0, None);
        while let Ok(Some(piece)) = self.piece(&mut framing, 256 * 1024).await {
            first_difference = first_difference.or_else(|| pattern.first_difference(offset + len, &piece));
            len += piece.len() as u64;
        }
        Checked { len, first_difference, end: if framing == Framing::Done { End::Complete } else { End::Cut } }
    }

    /// Whether the peer closes without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !matches!(self.read_more(1).await, Ok(1..))
    }
}

impl Head {
    fn parse(raw: &[u8]) -> io::Result<Self> {
        let raw = String::from_utf8_lossy(raw).into_owned();
        let mut lines = raw.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {raw:?}")))?;
        Ok(Self { status, fields, raw })
    }

    /// The first field spelled exactly `name`.
    pub(crate) fn exact(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first field called `name` in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.field("Content-Length").and_then(|value| value.parse().ok())
    }

    /// How the body behind this head is delimited (RFC 9112 section 6.3).
    pub(crate) fn framing(&self, head_only: bool) -> Framing {
        if head_only || self.status == 304 || self.status == 204 {
            Framing::Done
        } else if self.field("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            Framing::Chunked(0)
        } else if let Some(length) = self.length() {
            Framing::Length(length)
        } else {
            Framing::UntilClose
        }
    }
}

/// Connects from an address on loopback that only this device has: a cache may tell devices apart by it.
pub(crate) async fn connect_as(device: u16, to: SocketAddr) -> io::Result<TcpStream> {
    let [high, low] = device.to_be_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 77, high, low), 0).into())?;
    socket.connect(to).await
}

/// A GET head with `fields` (without line ends); `Host` is `cache` unless one of them is a Host.
pub(crate) fn get(target: &str, fields: &[&str]) -> String {
    request("GET", target, fields)
}

/// A request head for any method.
pub(crate) fn request(method: &str, target: &str, fields: &[&str]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
        text.push_str("Host: cache\r\n");
    }
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

/// Sends `text` on a connection of its own and reads one answer.
pub(crate) async fn once(address: SocketAddr, text: &str) -> Answer {
    let mut connection = Connection::open(address).await;
    connection.send(text).await;
    connection.answer(text.starts_with("HEAD ")).await
}
