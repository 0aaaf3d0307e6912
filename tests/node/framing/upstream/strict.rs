//! A client that takes nothing but what RFC 9112 allows a sender to write: whatever two readers could understand differently
//! is an error here, and so is silence.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::client::connect_as;

/// Nothing that the node answers takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fields that belong to one connection (RFC 9110 section 7.6.1); `Connection` is looked at by itself.
const HOP_BY_HOP: [&str; 9] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
];

/// Fields with one value, of which two would be understood in two ways.
const SINGLE: [&str; 10] = [
    "age",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "location",
    "transfer-encoding",
];

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The connection ended before the body did.
    pub(super) is_cut: bool,
    /// Statuses of interim responses before it.
    pub(super) interims: Vec<u16>,
}

/// A connection to the node.
#[derive(Debug)]
pub(super) struct Strict {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Whether the peer has said or shown that nothing more comes.
    pub(super) is_over: bool,
}

struct Head {
    status: u16,
    fields: Vec<(String, String)>,
}

impl Heard {
    /// The value of the only field called `name`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Strict {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// From an address that only this device has: nobody resumes what another one has been given.
    pub(super) async fn open_as(device: u16, address: SocketAddr) -> Self {
        Self::over(connect_as(device, address).await.unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), is_over: false }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn ask(&mut self, request: &str) -> Result<Heard, String> {
        self.stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let answer = timeout(PATIENCE, self.answer(request.starts_with("HEAD "))).await;
        answer.map_err(|_| format!("no end of an answer in time; {} bytes wait", self.buffer.len()))?
    }

    async fn answer(&mut self, is_head: bool) -> Result<Heard, String> {
        let mut interims = Vec::new();
        let Head { status, fields } = loop {
            let head = self.head().await?;
            if head.status >= 200 {
                break head;
            }
            if head.status == 101 || head.fields.iter().any(|(name, _)| is_framing(name)) {
                return Err(format!("an interim response that is none: {} {:?}", head.status, head.fields));
            }
            interims.push(head.status);
        };
        let mut heard = Heard { status, fields, body: Vec::new(), is_cut: false, interims };
        self.is_over = heard.field("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let is_chunked = heard.field("Transfer-Encoding").is_some();
        let length = heard.field("Content-Length").map(str::parse::<u64>).transpose().map_err(|e| e.to_string())?;
        let has_body = !is_head && status != 204 && status != 304;
        let whole = match (is_chunked, length) {
            (true, _) if status == 204 || status == 304 => return Err(format!("a {status} with chunks")),
            _ if !has_body => true,
            (true, _) => self.chunks(&mut heard.body).await?,
            (false, Some(length)) => self.take(length, &mut heard.body).await,
            (false, None) => {
                return Err(format!("nobody can tell the end of this: {status} {:?}", heard.fields));
            }
        };
        heard.is_cut = !whole;
        self.is_over |= !whole;
        // What is there behind the end belongs to nobody: no other request was sent.
        if whole && !self.buffer.is_empty() {
            return Err(format!("bytes behind the answer: {}", self.buffer.escape_ascii()));
        }
        Ok(heard)
    }

    async fn head(&mut self) -> Result<Head, String> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return Err(format!("end instead of a head: {}", self.buffer.escape_ascii()));
            }
        };
        let rest = self.buffer.split_off(end + 4);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let bad = || format!("a malformed head: {}", bytes.escape_ascii());
        let mut lines = Vec::new();
        let mut left = &bytes[..end];
        while let Some(at) = left.windows(2).position(|pair| pair == b"\r\n") {
            lines.push(&left[..at]);
            left = &left[at + 2..];
        }
        lines.push(left);
        let (first, fields) = lines.split_first().ok_or_else(bad)?;
        let status = first.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..4)).ok_or_else(bad)?;
        let digits = std::str::from_utf8(&status[..3]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let status = digits.filter(|_| status[3] == b' ').and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        if !(100..600).contains(&status) || has_control(first) {
            return Err(bad());
        }
        let fields = fields.iter().map(|line| field(line).ok_or_else(bad)).collect::<Result<Vec<_>, _>>()?;
        let head = Head { status, fields };
        head.judge().map_err(|why| format!("{why}: {}", bytes.escape_ascii()))?;
        Ok(head)
    }

    /// Chunks without extensions, and no trailers; whether the last one came.
    async fn chunks(&mut self, body: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            let Some(line) = self.line().await else { return Ok(false) };
            let is_hex = !line.is_empty() && line.len() <= 16 && line.iter().all(u8::is_ascii_hexdigit);
            let text = String::from_utf8_lossy(&line).into_owned();
            if !is_hex {
                return Err(format!("a malformed chunk size: {text:?}"));
            }
            let size = u64::from_str_radix(&text, 16).map_err(|error| error.to_string())?;
            if !self.take(size, body).await {
                return Ok(false);
            }
            match self.line().await {
                Some(end) if end.is_empty() && size == 0 => return Ok(true),
                Some(end) if end.is_empty() => {}
                Some(end) => return Err(format!("bytes behind a chunk: {}", end.escape_ascii())),
                None => return Ok(false),
            }
        }
    }

    /// Whether `length` bytes came.
    async fn take(&mut self, length: u64, body: &mut Vec<u8>) -> bool {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && !self.more().await {
                return false;
            }
            let taken = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            body.extend(self.buffer.drain(..taken));
            left -= taken as u64;
        }
        true
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}

impl Head {
    /// One framing, nothing of another hop, nothing twice.
    fn judge(&self) -> Result<(), String> {
        let count = |name: &str| self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
        if let Some(name) = HOP_BY_HOP.iter().find(|name| count(name) > 0) {
            return Err(format!("{name} of another hop"));
        }
        if let Some(name) = SINGLE.iter().find(|name| count(name) > 1) {
            return Err(format!("{name} twice"));
        }
        if count("content-length") + count("transfer-encoding") > 1 {
            return Err("two framings".to_owned());
        }
        for (name, value) in &self.fields {
            let is_right = match name.to_ascii_lowercase().as_str() {
                "content-length" | "age" => !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()),
                "transfer-encoding" => value == "chunked",
                "connection" => value.eq_ignore_ascii_case("close") || value.eq_ignore_ascii_case("keep-alive"),
                _ => true,
            };
            if !is_right {
                return Err(format!("a strange value of {name}"));
            }
        }
        Ok(())
    }
}

fn is_framing(name: &str) -> bool {
    name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("Transfer-Encoding")
}

fn field(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
    (is_token && !has_control(value))
        .then(|| (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).trim().to_owned()))
}

fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f)
}
