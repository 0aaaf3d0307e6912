//! A raw HTTP/2 client: what is written is exactly what is sent, frame by frame (RFC 9113 section 4.1).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// No story waits longer for a frame.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// One connection.
pub(crate) struct Frames {
    stream: TlsStream<TcpStream>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// A GET of `target` with these fields, whole in one frame.
    pub(crate) fn get(stream: u32, host: &str, target: &str, fields: &[(&str, &str)]) -> Self {
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", target)];
        let block = block(&[&pseudo[..], fields].concat());
        Self::new(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    }

    /// The status at the begin of an answer: one byte of the static table, or digits (RFC 7541 appendix A and section 6.2).
    pub(crate) fn status(&self) -> Option<u16> {
        match *self.payload.first()? {
            0x88 => Some(200),
            0x89 => Some(204),
            0x8a => Some(206),
            0x8b => Some(304),
            0x8c => Some(400),
            0x8d => Some(404),
            0x8e => Some(500),
            0x08 | 0x48 => match self.payload.get(1..)? {
                [length, code @ ..] if length & 0x80 != 0 => digits(code.get(..usize::from(length & 0x7f))?),
                [0x03, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Three digits in the Huffman code (RFC 7541 appendix B): five bits for 0 to 2, six for the others.
fn digits(code: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0_u16, |value, bit| value << 1 | u16::from(*bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(bits.get(at..at + 5)?);
        let (digit, length) = if short < 3 { (short, 5) } else { (value(bits.get(at..at + 6)?).checked_sub(0x16)?, 6) };
        number = number * 10 + digit;
        at += length;
    }
    Some(number)
}

/// Fields as literals that no table keeps (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// With a prefix of seven bits (RFC 7541 section 5.1).
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

impl Frames {
    /// Sends the preface and these settings.
    pub(crate) async fn begin(stream: TlsStream<TcpStream>, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { stream };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(Frame::new(SETTINGS, 0, 0, &payload).bytes());
        frames.send(&bytes).await.unwrap();
        frames
    }

    /// Sends bytes as they are. The other side may have closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(PATIENCE, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .unwrap()
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }

    /// Reads up to the first frame of `kind` on `stream`.
    pub(crate) async fn wait_for(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }
}
