//! The head gate: an incremental scanner over the raw bytes of a request head. It finds the end of the head
//! and of the body behind it, and refuses what hyper would let pass or would have normalised away before a
//! service could see it. Pure: no I/O, no clock, no buffer of its own.
//!
//! It works line by line, and each verdict depends only on the bytes up to where it is given, so feeding
//! byte by byte and all at once give the same.

use super::refusal::Refusal;

/// Header fields that hyper parses without a heap allocation; also our limit.
pub(in crate::serve) const MAX_FIELDS: u8 = 100;
/// Longest request line.
pub(in crate::serve) const MAX_REQUEST_LINE: usize = 16 * 1024;
/// Empty lines that are skipped before a request line. RFC 9112 section 2.2 asks for at least one.
const MAX_EMPTY_LINES: u8 = 8;
/// The largest Content-Length that hyper can count.
const MAX_CONTENT_LENGTH: u64 = u64::MAX - 2;

/// What stands behind a complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks up to the last one and its trailer section.
    Chunked,
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The head is not complete.
    NeedMore,
    /// The head is `bytes[start..end]` and acceptable.
    Head {
        /// Where it begins, behind empty lines.
        start: usize,
        /// Where the body or the next head begins.
        end: usize,
        /// What follows.
        framing: Framing,
    },
    /// The request must be refused; nothing behind it can be trusted.
    Refuse(Refusal),
}

/// The state of one head being scanned.
#[derive(Debug, Clone)]
pub(super) struct HeadGate {
    max_head: usize,
    /// Bytes of the buffer that are known to hold no further line end.
    scanned: usize,
    line_start: usize,
    head_start: usize,
    phase: Phase,
    empty_lines: u8,
    fields: u8,
    http_11: bool,
    hosts: u8,
    encodings: u8,
    encoding_unknown: bool,
    content_length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    RequestLine,
    Fields,
}

// === impl HeadGate ===

impl HeadGate {
    /// A scanner for one head of at most `max_head` bytes, empty lines before it included.
    pub(super) fn new(max_head: usize) -> Self {
        Self {
            max_head,
            scanned: 0,
            line_start: 0,
            head_start: 0,
            phase: Phase::RequestLine,
            empty_lines: 0,
            fields: 0,
            http_11: false,
            hosts: 0,
            encodings: 0,
            encoding_unknown: false,
            content_length: None,
        }
    }

    /// Looks at `bytes`, which begin where the head begins and must have only grown since the last call.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Verdict {
        loop {
            let (cap, too_long) = self.line_cap();
            let end = bytes.len().min(cap);
            if self.phase == Phase::RequestLine && bytes.get(self.line_start) == Some(&0x16) {
                return Verdict::Refuse(Refusal::Tls);
            }
            let fresh = bytes.get(self.scanned..end).unwrap_or_default();
            let Some(newline) = fresh.iter().position(|&b| b == b'\n') else {
                self.scanned = self.scanned.max(end);
                return if bytes.len() >= cap { Verdict::Refuse(too_long) } else { Verdict::NeedMore };
            };
            let newline = self.scanned.saturating_add(newline);
            let line = bytes.get(self.line_start..newline).unwrap_or_default();
            self.scanned = newline.saturating_add(1);
            self.line_start = self.scanned;
            match self.line(line) {
                Ok(false) => {}
                Ok(true) => {
                    return match self.framing() {
                        Ok(framing) => Verdict::Head { start: self.head_start, end: self.scanned, framing },
                        Err(refusal) => Verdict::Refuse(refusal),
                    };
                }
                Err(refusal) => return Verdict::Refuse(refusal),
            }
        }
    }

    /// Where the present line must have ended, and what to say when it has not.
    fn line_cap(&self) -> (usize, Refusal) {
        let line_cap = self.line_start.saturating_add(MAX_REQUEST_LINE);
        if self.phase == Phase::RequestLine && line_cap < self.max_head {
            (line_cap, Refusal::TargetTooLong)
        } else {
            (self.max_head, Refusal::HeadTooLarge)
        }
    }

    /// Takes one line without its LF; `true` when it was the empty line that ends the head.
    fn line(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        let line = match line.split_last() {
            Some((b'\r', line)) => line,
            _ => return Err(Refusal::BareLf),
        };
        if line.contains(&b'\r') {
            return Err(Refusal::BareCr);
        }
        match self.phase {
            Phase::RequestLine if line.is_empty() => {
                self.empty_lines = self.empty_lines.saturating_add(1);
                self.head_start = self.line_start;
                if self.empty_lines > MAX_EMPTY_LINES { Err(Refusal::EmptyLines) } else { Ok(false) }
            }
            Phase::RequestLine => {
                self.phase = Phase::Fields;
                self.request_line(line).map(|()| false)
            }
            Phase::Fields if line.is_empty() => Ok(true),
            Phase::Fields => self.field(line).map(|()| false),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut parts = line.splitn(3, |&b| b == b' ');
        let method = parts.next().unwrap_or_default();
        if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
            // The signature of that header is two empty lines, then this one.
            let is_proxy_header = self.empty_lines == 2 && line == b"\0";
            return Err(if is_proxy_header { Refusal::ProxyHeaderUnexpected } else { Refusal::Method });
        }
        let target = parts.next().ok_or(Refusal::Target)?;
        if target.is_empty() {
            return Err(Refusal::Target);
        }
        target_bytes(target)?;
        // The rare forms are left to the parser that hyper uses, which would refuse without a reason.
        if !target.starts_with(b"/") && http::Uri::try_from(target).is_err() {
            return Err(Refusal::Target);
        }
        match parts.next().ok_or(Refusal::Version)? {
            b"HTTP/1.1" => self.http_11 = true,
            b"HTTP/1.0" => self.http_11 = false,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Refusal::VersionUnsupported),
            _ => return Err(Refusal::Version),
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::ObsFold);
        }
        if self.fields == MAX_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        self.fields = self.fields.saturating_add(1);
        let colon = line.iter().position(|&b| b == b':').ok_or(Refusal::FieldName)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(Refusal::SpaceBeforeColon);
        }
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
            return Err(Refusal::FieldName);
        }
        if value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(Refusal::FieldValue);
        }
        // The three fields that matter here are told apart by length first: most names are none of them.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(trim_space(value)),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(trim_space(value)),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.encoding(trim_space(value)),
            // Some servers read `_` as `-`: to them it would be framing, to others not.
            14 if name.eq_ignore_ascii_case(b"content_length") => Err(Refusal::FieldName),
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => Err(Refusal::FieldName),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.hosts > 0 {
            return Err(Refusal::HostRepeated);
        }
        self.hosts = 1;
        host_bytes(value)
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let length = decimal(value).filter(|&n| n <= MAX_CONTENT_LENGTH).ok_or(Refusal::ContentLength)?;
        if self.content_length.is_some_and(|earlier| earlier != length) {
            return Err(Refusal::ContentLengthDiffers);
        }
        self.content_length = Some(length);
        Ok(())
    }

    fn encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.encodings = self.encodings.saturating_add(1);
        if self.encodings > 1 || value.is_empty() || value.contains(&b',') {
            return Err(Refusal::TransferEncoding);
        }
        self.encoding_unknown = !value.eq_ignore_ascii_case(b"chunked");
        Ok(())
    }

    /// What only the whole head can tell.
    fn framing(&self) -> Result<Framing, Refusal> {
        if self.http_11 && self.hosts == 0 {
            return Err(Refusal::HostMissing);
        }
        match (self.content_length, self.encodings > 0) {
            (Some(_), true) => Err(Refusal::LengthAndEncoding),
            (None, true) if !self.http_11 => Err(Refusal::TransferEncoding),
            (None, true) if self.encoding_unknown => Err(Refusal::TransferCodingUnknown),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::None),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

/// Whether a target has only bytes that RFC 3986 allows there, and no fragment.
pub(in crate::serve) fn target_bytes(target: &[u8]) -> Result<(), Refusal> {
    for &byte in target {
        match byte {
            b'#' => return Err(Refusal::Fragment),
            b'\\' | b'"' | b'<' | b'>' | b'`' | 0..=b' ' | 0x7f.. => return Err(Refusal::Target),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a host has only bytes of a reg-name, an IP literal or a port (RFC 3986 section 3.2); "," would make two hosts
/// look like one.
pub(in crate::serve) fn host_bytes(host: &[u8]) -> Result<(), Refusal> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(b);
    if host.iter().all(allowed) { Ok(()) } else { Err(Refusal::HostInvalid) }
}

/// Which bytes are token characters (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Without the optional whitespace around a field value (RFC 9110 section 5.6.3).
fn trim_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit.wrapping_sub(b'0'))?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
#[path = "head_gate_tests.rs"]
mod tests;
