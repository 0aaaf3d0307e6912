//! A reader of HTTP/1.1 messages that takes nothing but the plainest form of each: what two readers could understand
//! differently is a fault here. It shares no code with the cache.

use std::fmt;

/// The head of a message.
#[derive(Clone)]
pub(super) struct Head {
    /// The first line.
    pub(super) line: String,
    /// Names as they came, values without the space around them.
    pub(super) fields: Vec<(String, Vec<u8>)>,
}

/// A whole request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// A whole response.
#[derive(Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Read<T> {
    /// A message, and how many bytes it has.
    Whole(T, usize),
    /// The begin of one.
    More,
}

/// How the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

impl Head {
    /// The values of all fields called `name`.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// The value of the only field called `name`, as text.
    pub(super) fn one(&self, name: &str) -> Option<String> {
        match self.all(name)[..] {
            [value] => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " | {name}: {}", value.escape_ascii()))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{:?} || {}>", self.head, self.body.escape_ascii())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{:?} || {}>", self.head, self.body.escape_ascii())
    }
}

/// Reads a head and tells how long it is.
pub(super) fn head(bytes: &[u8]) -> Result<Read<Head>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > 128 * 1024 { Err("a head without end".to_owned()) } else { Ok(Read::More) };
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let ends = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
    let pairs = bytes[..end].windows(2).filter(|window| window == b"\r\n").count();
    if ends != pairs || bytes[..end].iter().filter(|byte| **byte == b'\r').count() != pairs {
        return Err(format!("a bare CR or LF in {:?}", bytes[..end].escape_ascii().to_string()));
    }
    let line = lines.next().unwrap_or_default();
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(format!("the first line {:?}", line.escape_ascii().to_string()));
    }
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Read::Whole(Head { line: String::from_utf8_lossy(line).into_owned(), fields }, end + 4))
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let fault = || format!("the field line {:?}", line.escape_ascii().to_string());
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(fault)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_name = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
    let is_value = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
    if !is_name || !is_value {
        return Err(fault());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How the body behind `head` ends. Both fields at once, or either of them twice, is a fault.
fn framing(head: &Head) -> Result<Framing, String> {
    match (&head.all("Content-Length")[..], &head.all("Transfer-Encoding")[..]) {
        ([], []) => Ok(Framing::None),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let length = String::from_utf8_lossy(length).parse().map_err(|_| format!("{head:?}"))?;
            Ok(Framing::Length(length))
        }
        ([], [coding]) if *coding == b"chunked" => Ok(Framing::Chunked),
        _ => Err(format!("the framing of {head:?}")),
    }
}

/// Reads the body that begins with `bytes`.
fn body(framing: Framing, bytes: &[u8]) -> Result<Read<Vec<u8>>, String> {
    match framing {
        Framing::None => Ok(Read::Whole(Vec::new(), 0)),
        Framing::Length(length) => {
            Ok(bytes.get(..length).map_or(Read::More, |body| Read::Whole(body.to_vec(), length)))
        }
        Framing::Chunked => chunks(bytes),
    }
}

/// Chunks without extensions and trailers, which nobody needs to send.
fn chunks(bytes: &[u8]) -> Result<Read<Vec<u8>>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return if rest.len() > 16 { Err(format!("a chunk size {rest:?}")) } else { Ok(Read::More) };
        };
        let digits = std::str::from_utf8(&rest[..end]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let size = size.ok_or_else(|| format!("a chunk size {:?}", rest[..end].escape_ascii().to_string()))?;
        let (from, to) = (at + end + 2, at + end + 2 + size);
        match bytes.get(to..to + 2) {
            None => return Ok(Read::More),
            Some(b"\r\n") => body.extend_from_slice(&bytes[from..to]),
            Some(other) => return Err(format!("{:?} behind a chunk", other.escape_ascii().to_string())),
        }
        at = to + 2;
        if size == 0 {
            return Ok(Read::Whole(body, at));
        }
    }
}

/// Reads a request in origin-form.
pub(super) fn request(bytes: &[u8]) -> Result<Read<Request>, String> {
    let Read::Whole(head, head_len) = head(bytes)? else { return Ok(Read::More) };
    let words: Vec<_> = head.line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("the request line {:?}", head.line)) };
    let is_target = target.starts_with('/') && !target.contains(['#', '\\', '"', '<', '>', '`']);
    if method.is_empty() || !method.bytes().all(is_token) || !is_target {
        return Err(format!("the request line {:?}", head.line));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    let is_host = |host: &String| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if head.one("Host").filter(is_host).is_none() {
        return Err(format!("the Host of {head:?}"));
    }
    match body(framing(&head)?, &bytes[head_len..])? {
        Read::Whole(body, len) => Ok(Read::Whole(Request { method, target, head, body }, head_len + len)),
        Read::More => Ok(Read::More),
    }
}

/// Reads a response; `to_head` when HEAD was asked.
pub(super) fn response(bytes: &[u8], to_head: bool) -> Result<Read<Response>, String> {
    let Read::Whole(head, head_len) = head(bytes)? else { return Ok(Read::More) };
    let status = head.line.strip_prefix("HTTP/1.1 ").or_else(|| head.line.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|line| line.split(' ').next()).filter(|code| code.len() == 3);
    let Some(status) = status.and_then(|code| code.parse::<u16>().ok()).filter(|code| (100..600).contains(code)) else {
        return Err(format!("the status line {:?}", head.line));
    };
    let framing = match framing(&head)? {
        Framing::None if !to_head && !matches!(status, 100..200 | 204 | 304) => {
            return Err(format!("only the close could end the body behind {head:?}"));
        }
        Framing::Length(_) | Framing::Chunked if matches!(status, 100..200 | 204) => {
            return Err(format!("a body behind {head:?}"));
        }
        _ if to_head || status == 304 => Framing::None,
        framing => framing,
    };
    match body(framing, &bytes[head_len..])? {
        Read::Whole(body, len) => Ok(Read::Whole(Response { status, head, body }, head_len + len)),
        Read::More => Ok(Read::More),
    }
}
