//! A reader of answers that knows nothing of ours: RFC 9112 sections 4 to 7, over bytes that are all there. It is slow and
//! plain on purpose.

/// How much is forgiven.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rigour {
    /// Nothing that the grammar does not have.
    Strict,
    /// What a recipient may forgive, or what harms nobody: lines that end in LF alone (section 2.2), empty lines before a
    /// status line, white space before a colon and folded values (section 5), no reason, white space behind a chunk size,
    /// and any extension or trailer.
    Lenient,
}

/// An answer that is all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Only the end of the connection tells that this is all.
    pub(super) by_close: bool,
}

struct Head {
    version: u8,
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The final answer to a GET at the begin of `bytes`, behind which the connection ends; `None` when it is not whole, or not
/// to be understood in one way.
pub(super) fn read(mut bytes: &[u8], rigour: Rigour) -> Option<Whole> {
    let head = loop {
        let (head, rest) = head(bytes, rigour)?;
        bytes = rest;
        match head.status {
            101 => return None,
            100..=199 => {}
            200..=599 => break head,
            _ => return None,
        }
    };
    let whole = |body: &[u8], by_close| Some(Whole { status: head.status, body: body.to_vec(), by_close });
    // 205 has none either (RFC 9110 section 15.3.6), but only who forgives that it is framed like others can tell.
    if matches!(head.status, 204 | 304) || head.status == 205 && rigour == Rigour::Lenient {
        return whole(b"", false);
    }
    let codings = head.values(b"transfer-encoding");
    if let [coding] = codings.as_slice() {
        let is_chunked = head.version == 1 && coding.eq_ignore_ascii_case(b"chunked");
        return is_chunked.then(|| chunks(bytes, rigour)).flatten().and_then(|body| whole(&body, false));
    }
    if !codings.is_empty() {
        return None;
    }
    match length(&head.values(b"content-length"))? {
        Some(length) => whole(bytes.get(..usize::try_from(length).ok()?)?, false),
        None => whole(bytes, true),
    }
}

/// `None`: no valid one; `Some(None)`: none at all.
fn length(values: &[&[u8]]) -> Option<Option<u64>> {
    let members = values.iter().flat_map(|value| value.split(|&b| b == b','));
    let mut length = None;
    for member in members {
        let text = std::str::from_utf8(trim(member)).ok()?;
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = is_number.then(|| text.parse().ok())??;
        if length.is_some_and(|known| known != number) {
            return None;
        }
        length = Some(number);
    }
    Some(length)
}

/// The content of a chunked body, up to the end of its trailers.
fn chunks(mut bytes: &[u8], rigour: Rigour) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (line, rest) = crlf_line(bytes)?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        let is_fine = match (trim(&line[digits..]), rigour) {
            ([], Rigour::Strict) => line.len() == digits,
            ([], Rigour::Lenient) => true,
            ([b';', ..], Rigour::Lenient) => !line.contains(&b'\n'),
            ([b';', extension @ ..], Rigour::Strict) => {
                line[digits] == b';' && !extension.is_empty() && extension.iter().all(u8::is_ascii_alphanumeric)
            }
            _ => false,
        };
        if !is_fine {
            return None;
        }
        bytes = rest;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        let chunk = bytes.get(..size)?;
        body.extend_from_slice(chunk);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (line, rest) = crlf_line(bytes)?;
        bytes = rest;
        if line.is_empty() {
            return Some(body);
        }
        if rigour == Rigour::Strict {
            field(line, rigour)?;
        }
    }
}

fn crlf_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

/// One head, and what is behind it.
fn head(mut bytes: &[u8], rigour: Rigour) -> Option<(Head, &[u8])> {
    let next_line = |bytes: &mut &[u8]| {
        let end = bytes.iter().position(|&b| b == b'\n')?;
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        *bytes = rest;
        match line.strip_suffix(b"\r") {
            None if rigour == Rigour::Strict => None,
            stripped => Some(stripped.unwrap_or(line).to_vec()),
        }
    };
    let mut first = next_line(&mut bytes)?;
    while first.is_empty() && rigour == Rigour::Lenient {
        first = next_line(&mut bytes)?;
    }
    let rest = first.strip_prefix(b"HTTP/1.")?;
    let version = rest.first()?.checked_sub(b'0').filter(|version| *version <= 1)?;
    let status = rest.get(1..)?.strip_prefix(b" ")?;
    let digits = status.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let status_number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match status.get(3..)? {
        [] if rigour == Rigour::Lenient => {}
        [b' ', reason @ ..] if is_text(reason) => {}
        _ => return None,
    }
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let line = next_line(&mut bytes)?;
        if line.is_empty() {
            break;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            let last = lines.last_mut().filter(|_| rigour == Rigour::Lenient)?;
            last.push(b' ');
            last.extend_from_slice(trim(&line));
        } else {
            lines.push(line);
        }
    }
    let fields = lines.iter().map(|line| field(line, rigour)).collect::<Option<Vec<_>>>()?;
    Some((Head { version, status: status_number, fields }, bytes))
}

fn field(line: &[u8], rigour: Rigour) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let name = if rigour == Rigour::Lenient { trim_end(name) } else { name };
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_field = !name.is_empty() && name.iter().all(is_token) && is_text(value);
    is_field.then(|| (name.to_ascii_lowercase(), trim(value).to_vec()))
}

/// HTAB, SP, VCHAR and obs-text.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7f)
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_end(bytes);
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

impl Head {
    fn values(&self, name: &[u8]) -> Vec<&[u8]> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect()
    }
}
