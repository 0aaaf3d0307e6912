//! What passes means one thing: gate and scanner find the ends of messages where a strict reader finds them, and the service
//! gets the same method, target, fields and body as that reader, whatever was done to the bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

use super::strict_reader::{self, Message};
use super::*;
use crate::serve::wire::chunked::ChunkScanner;
use crate::serve::wire::head_gate::{Framing, HeadGate, Verdict};

/// Longest head of these tests.
const LIMIT: usize = 32 * 1024;

/// A change of the bytes.
#[derive(Debug, Clone)]
enum Change {
    Insert(Index, &'static [u8]),
    /// Bytes behind a slash, as most targets have one.
    Target(Index, &'static [u8]),
    /// A line before another one.
    Line(Index, &'static str),
    /// Another end of a line.
    End(Index, &'static [u8]),
    Remove(Index, usize),
    Repeat(Index, usize),
    Replace(Index, u8),
}

/// What the service was asked. The body is missing when it did not come to its end.
#[derive(Debug)]
struct Asked {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

fn line() -> impl Strategy<Value = &'static str> {
    select(&[
        "X: y",
        "X:y",
        "x-long-name: \t a  b \t",
        "Y:",
        "Y: caf\u{e9}",
        "Accept: */*, text/plain;q=0.5",
        "Range: bytes=0-4",
        "Via: 1.1 a",
        "TE: trailers",
        "Content_Type: z",
        "Cookie: a=b; c=d",
    ])
}

fn target() -> impl Strategy<Value = &'static str> {
    select(&[
        "/",
        "/a",
        "/a/b?c=d&e",
        "//x/y",
        "/%2e%2F?",
        "http://h.example/a",
        "HTTP://h.example:80?x",
        "http://h",
        "*",
    ])
}

/// A body, and the lines that tell how it ends.
fn body() -> impl Strategy<Value = (String, String)> {
    let content = || select(&["", "x", "hello", "\r\n\r\n", "0\r\n\r\n", "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"]);
    let extension = select(&["", ";a", ";a=\"b;c\"", ";"]);
    let trailer = select(&["", "T: u\r\n", "Content-Length: 9\r\nHost: x\r\n"]);
    let spelling =
        select(&["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "TRANSFER-ENCODING: \tchunked "]);
    prop_oneof![
        Just((String::new(), String::new())),
        content().prop_map(|text| (format!("Content-Length: {}\r\n", text.len()), text.to_owned())),
        content().prop_map(|text| {
            (format!("content-length:00{0} \r\nX: y\r\nContent-Length: {0}\r\n", text.len()), text.to_owned())
        }),
        (proptest::collection::vec(content(), 0..3), extension, trailer, spelling).prop_map(
            |(chunks, extension, trailer, spelling)| {
                let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
                let chunks: String =
                    chunks.map(|chunk| format!("{:X}{extension}\r\n{chunk}\r\n", chunk.len())).collect();
                (format!("{spelling}\r\n"), format!("{chunks}00{extension}\r\n{trailer}\r\n"))
            }
        ),
    ]
}

fn request() -> impl Strategy<Value = String> {
    let method = select(&["GET", "POST", "HEAD", "PUT", "BREW"]);
    let lines = || proptest::collection::vec(line(), 0..3);
    let empty = select(&["", "", "", "\r\n"]);
    (empty, method, target(), lines(), body(), lines()).prop_map(
        |(empty, method, target, before, (framing, body), after)| {
            let fields = |lines: Vec<&str>| lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
            let (before, after) = (fields(before), fields(after));
            format!("{empty}{method} {target} HTTP/1.1\r\n{before}Host: h\r\n{framing}{after}\r\n{body}")
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let pieces: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"0",
        b"\0",
        b"\x0b",
        b"\x85",
        b"\xff",
        b"#",
        b"\\",
        b"%",
    ];
    let lines = &[
        "Host: h",
        "Host:",
        "Content-Length: 5",
        "Content-Length : 5",
        "Content-Length: +5",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Connection: close",
        "Expect: 100-continue",
        " folded",
        "",
        "0",
        "5",
        "hello",
        "GET /hidden HTTP/1.1",
        "X",
        ": y",
        "X\u{b}: y",
    ];
    let ends: &[&[u8]] =
        &[b"", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\n\n", b" \r\n", b"\r\n ", b"\0\r\n", b"x\n", b"\rx", b"\r\n\r\n"];
    prop_oneof![
        (any::<Index>(), select(pieces)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), select(pieces)).prop_map(|(at, piece)| Change::Target(at, piece)),
        (any::<Index>(), select(lines)).prop_map(|(at, line)| Change::Line(at, line)),
        (any::<Index>(), select(ends)).prop_map(|(at, end)| Change::End(at, end)),
        (any::<Index>(), 1_usize..30).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), 1_usize..60).prop_map(|(at, count)| Change::Repeat(at, count)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
    ]
}

/// A connection of some requests, changed or not, with one at its end that is always the same.
fn conversation() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let changes = proptest::collection::vec(change(), 0..4);
    (proptest::collection::vec(request(), 1..4), changes).prop_map(|(requests, changes)| {
        let mut bytes = requests.concat().into_bytes();
        for change in &changes {
            change.apply(&mut bytes);
        }
        bytes.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n");
        (bytes, changes.is_empty())
    })
}

/// Where lines end.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    bytes.windows(2).enumerate().filter(|(_, pair)| pair == b"\r\n").map(|(at, _)| at).collect()
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if line_ends(bytes).is_empty() {
            return;
        }
        let range = |at: &Index, count: usize| {
            let at = at.index(bytes.len());
            at..(at + count).min(bytes.len())
        };
        match self {
            Self::Insert(at, piece) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Target(at, piece) => {
                let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
                let slashes: Vec<_> = slashes.collect();
                let at = slashes.get(at.index(slashes.len().max(1))).copied().unwrap_or_default();
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Line(at, line) => {
                let ends = line_ends(bytes);
                let at = ends[at.index(ends.len())] + 2;
                bytes.splice(at..at, format!("{line}\r\n").into_bytes());
            }
            Self::End(at, end) => {
                let ends = line_ends(bytes);
                let at = ends[at.index(ends.len())];
                bytes.splice(at..at + 2, end.iter().copied());
            }
            Self::Remove(at, count) => {
                let range = range(at, *count);
                bytes.drain(range);
            }
            Self::Repeat(at, count) => {
                let range = range(at, *count);
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, piece);
            }
            Self::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
    }
}

/// Where messages end by the gate and the scanner, up to the first that is refused or cut. Of the last the head alone may
/// have come.
fn ends(bytes: &[u8]) -> (Vec<usize>, bool) {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        let Verdict::Head { end, framing, .. } = HeadGate::new(LIMIT).scan(&bytes[at..]) else { return (ends, false) };
        at += end;
        let rest = &bytes[at..];
        let body = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => usize::try_from(length).ok().filter(|length| *length <= rest.len()),
            Framing::Chunked => ChunkScanner::new().scan(rest).ok().filter(|end| end.done).map(|end| end.taken),
        };
        let Some(body) = body else { return (ends, true) };
        at += body;
        ends.push(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16 * ProptestConfig::default().cases))]
    #[test]
    fn messages_end_where_a_strict_reader_finds_their_ends((bytes, unchanged) in conversation()) {
        let messages = strict_reader::read(&bytes);
        let strict: Vec<_> = messages.iter().filter_map(|message| message.body.as_ref().map(|(_, end)| *end)).collect();
        let (ends, has_head) = ends(&bytes);
        prop_assert!(strict.starts_with(&ends), "{:?} and {:?}", strict, ends);
        prop_assert!(!has_head || messages.len() > ends.len(), "a head passes that is none");
        prop_assert!(!unchanged || strict.last() == Some(&bytes.len()));
        prop_assert!(!unchanged || ends == strict, "a request that is right is refused");
    }
}

/// A server whose service tells what it is asked.
async fn recorder() -> (SocketAddr, mpsc::UnboundedReceiver<Asked>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let context = Arc::new(WireContext::new(limits(), metrics, Drain::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let (context, tell) = (Arc::clone(&context), tell.clone());
            let service = service_fn(move |request| record(request, tell.clone()));
            tokio::spawn(async move { serve_connection(stream, peer, service, &context).await });
        }
    });
    (address, asked)
}

async fn record(
    request: Request<Incoming>,
    tell: mpsc::UnboundedSender<Asked>,
) -> Result<Response<AnswerBody>, BoxError> {
    let (parts, body) = request.into_parts();
    let fields = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let (method, target, fields) = (parts.method.to_string(), parts.uri.to_string(), fields.collect());
    let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
    tell.send(Asked { method, target, fields, body })?;
    Ok(Response::new(Full::new(Bytes::new()).map_err(|never: Infallible| match never {}).boxed_unsync()))
}

/// Values by name. Lengths are told by the body; hyper keeps one of several that are equal.
fn by_name(fields: &[(String, Vec<u8>)]) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut names: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| name != "content-length") {
        names.entry(name).or_default().push(value);
    }
    names
}

/// The target as `http::Uri` writes it.
fn written(target: &str) -> String {
    let Some((scheme, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let scheme = if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") {
        scheme.to_ascii_lowercase()
    } else {
        scheme.to_owned()
    };
    format!("{scheme}://{authority}{slash}{path}")
}

fn is_read_alike(asked: &Asked, message: &Message) -> bool {
    asked.method == message.method
        && asked.target == written(&message.target)
        && by_name(&asked.fields) == by_name(&message.fields)
        && asked.body.as_ref() == message.body.as_ref().map(|(body, _)| body)
}

#[test]
fn the_service_reads_what_a_strict_reader_reads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, asked) = runtime.block_on(recorder());
    let asked = parking_lot::Mutex::new(asked);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4 * ProptestConfig::default().cases));
    let sent = (conversation(), proptest::collection::vec(any::<Index>(), 0..4));
    let result = runner.run(&sent, |((bytes, unchanged), cuts)| {
        runtime.block_on(async {
            let mut client = Client { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() };
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            for piece in cuts.windows(2) {
                // The peer may have closed.
                let _ = client.stream.write_all(&bytes[piece[0]..piece[1]]).await;
                tokio::task::yield_now().await;
            }
            let _ = client.stream.shutdown().await;
            let read = tokio::time::timeout(NEVER, client.stream.read_to_end(&mut client.read)).await;
            prop_assert!(read.is_ok(), "it hangs");
            let strict = strict_reader::read(&bytes);
            let mut seen = 0;
            while let Ok(asked) = asked.lock().try_recv() {
                let message = strict.get(seen);
                prop_assert!(
                    message.is_some_and(|message| is_read_alike(&asked, message)),
                    "{:?} and {:?}",
                    asked,
                    message
                );
                seen += 1;
            }
            prop_assert!(!unchanged || seen == strict.len(), "{} of {} requests were seen", seen, strict.len());
            Ok(())
        })
    });
    result.unwrap();
}
