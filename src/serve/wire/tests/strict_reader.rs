//! A second reading of the same bytes, by the letter of RFC 9112 and in the plainest way: text that is split. It shares no
//! code with the gate, the chunk scanner and hyper, and stops at the first thing that could be read in two ways.

/// A request as this reader understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in small letters, values without the space around them.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// The body and the place behind it; `None` when it is broken or cut.
    pub(super) body: Option<(Vec<u8>, usize)>,
}

/// All requests of a connection, up to the first that is malformed, ambiguous or cut.
pub(super) fn read(bytes: &[u8]) -> Vec<Message> {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some(message) = message(bytes, at) {
        let end = message.body.as_ref().map(|(_, end)| *end);
        messages.push(message);
        match end {
            Some(end) => at = end,
            None => break,
        }
    }
    messages
}

fn message(bytes: &[u8], mut at: usize) -> Option<Message> {
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let end = at + bytes[at..].windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut lines = lines(&bytes[at..end])?.into_iter();
    let line = std::str::from_utf8(lines.next()?).ok()?;
    let words: Vec<_> = line.split(' ').collect();
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = words[..] else { return None };
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(method.as_bytes()) || !is_target {
        return None;
    }
    let fields = lines.map(field).collect::<Option<Vec<_>>>()?;
    let all =
        |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect::<Vec<_>>();
    let (hosts, lengths, codings) = (all("host"), all("content-length"), all("transfer-encoding"));
    if hosts.len() > 1 || (hosts.is_empty() && version == "HTTP/1.1") {
        return None;
    }
    let behind = end + 4;
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Some((Vec::new(), behind)),
        ([first, more @ ..], []) => {
            let length = number(first)?;
            if more.iter().any(|other| number(other) != Some(length)) {
                return None;
            }
            let end = usize::try_from(length).ok().and_then(|length| behind.checked_add(length));
            end.and_then(|end| Some((bytes.get(behind..end)?.to_vec(), end)))
        }
        ([], [coding]) if version == "HTTP/1.1" && coding.eq_ignore_ascii_case(b"chunked") => chunks(bytes, behind),
        _ => return None,
    };
    Some(Message { method: method.to_owned(), target: target.to_owned(), fields, body })
}

/// The lines of `text`, which end in CR LF and have neither CR nor LF in them.
fn lines(text: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')).then_some(lines)
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_value = value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    let from = value.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !b" \t".contains(byte)).map_or(from, |last| last + 1);
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    (is_token(name.as_bytes()) && is_value).then(|| (name, value[from..to].to_vec()))
}

fn chunks(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let end = at + bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let line = &bytes[at..end];
        let (size, extension) = line.split_at(line.iter().position(|byte| *byte == b';').unwrap_or(line.len()));
        let is_size = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        if !is_size || !extension.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        body.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Some((body, at + 2));
    }
    let end = at + bytes[at..].windows(4).position(|window| window == b"\r\n\r\n")?;
    lines(&bytes[at..end])?.into_iter().all(|line| field(line).is_some()).then_some((body, end + 4))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte))
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
