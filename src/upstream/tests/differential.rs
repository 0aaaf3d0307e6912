//! Answers out of a grammar, whole and spoiled, as we understand them and as [`reader`](super::reader) does: what we take for
//! whole is the same body to anybody, and what the grammar allows is taken.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::reader::{Rigour, Whole, read as read_alone};
use super::*;

/// How many answers are tried.
const ANSWERS: u32 = 3000;

/// Bytes that mean something to somebody.
const SPOIL: &[u8] = b"\r\n\t :;,=\"0159afx-+\0\x0b\x7f\xff";

/// Every name is that of this machine.
#[derive(Debug)]
struct Here;

impl Resolver for Here {
    fn resolve(&self, _host: Arc<str>, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
    }
}

/// What is played for a host, and whether its connection goes on then.
type Plays = Arc<Mutex<HashMap<String, (Vec<u8>, bool)>>>;

async fn serve(mut stream: TcpStream, plays: Plays) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default().to_owned();
        if head.starts_with("get /second") {
            stream.write_all(ok("second").as_bytes()).await?;
            continue;
        }
        let (bytes, goes_on) = plays.lock().get(&host).cloned().unwrap();
        stream.write_all(&bytes).await?;
        if !goes_on {
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
    }
}

fn status_line() -> impl Strategy<Value = String> {
    let version = prop_oneof![8 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => select(vec!["HTTP/1.2", "http/1.1", "HTTP/2.0"])];
    let status = prop_oneof![
        6 => Just("200"),
        4 => select(vec!["204", "205", "304", "404", "500", "203"]),
        1 => select(vec!["100", "101", "103", "600", "099", "20", "2000"]),
    ];
    let reason = select(vec![" OK", " OK", " ", "", " Caf\u{e9}", "  "]);
    (version, status, reason).prop_map(|(version, status, reason)| format!("{version} {status}{reason}\r\n"))
}

fn fields() -> impl Strategy<Value = String> {
    let length = prop_oneof![
        6 => (0..14_u32).prop_map(|length| format!("Content-Length: {length}\r\n")),
        2 => (0..14_u32, 0..14_u32).prop_map(|(a, b)| format!("Content-Length: {a}, {b}\r\n")),
        1 => select(vec!["", "-5", "+5", "0x5", "5.0", "005", "5 5", "5,", "18446744073709551615", "18446744073709551621"])
            .prop_map(|text| format!("Content-Length: {text}\r\n")),
    ];
    let coding = prop_oneof![
        6 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        2 => select(vec!["gzip, chunked", "identity", "chunked, chunked", "Chunked", "cow", "", "xchunked", "chunked;a"])
            .prop_map(|text| format!("Transfer-Encoding: {text}\r\n")),
    ];
    let other = select(vec![
        "X-A: 1\r\n",
        "X-A:\r\n",
        "X-A : 1\r\n",
        "X-A: 1\r\n 2\r\n",
        "X-A: 1\n",
        "Connection: close\r\n",
        "Connection: Content-Length, Transfer-Encoding\r\n",
    ]);
    let line = prop_oneof![3 => length, 3 => coding, 2 => other.prop_map(str::to_owned)];
    prop::collection::vec(line, 0..3).prop_map(|lines| lines.concat())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let size = select(vec!["", " ", ";a", ";a=\"b\"", " ;a"]);
    let chunk = ("[a-z]{1,9}", size).prop_map(|(text, after)| format!("{:x}{after}\r\n{text}\r\n", text.len()));
    let trailers = select(vec!["", "X-T: 1\r\n", "Content-Length: 5\r\n", "bad\r\n"]);
    let last = (select(vec!["0", "000", "0;a", "0 "]), trailers)
        .prop_map(|(last, trailers)| format!("{last}\r\n{trailers}\r\n"));
    let chunked = (prop::collection::vec(chunk, 0..4), last).prop_map(|(chunks, last)| chunks.concat() + &last);
    let surplus = select(vec!["", "", "", "x", "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"]);
    let content = prop_oneof![chunked, "[a-z0-9]{0,14}"];
    (content, surplus).prop_map(|(content, surplus)| (content + surplus).into_bytes())
}

/// An answer, and some of its bytes replaced, put in or taken away.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let before = prop_oneof![
        8 => Just(""),
        1 => select(vec!["\r\n", "\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n"]),
    ];
    let whole = (before, status_line(), fields(), body())
        .prop_map(|(before, line, fields, body)| [format!("{before}{line}{fields}\r\n").as_bytes(), &body].concat());
    let spoil = (any::<Index>(), 0..3_u8, select(SPOIL));
    let spoils = prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(spoil, 1..3)];
    (whole, spoils).prop_map(|(mut bytes, spoils)| {
        for (at, how, byte) in spoils {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// The answer as we understand it, if it comes to its end.
async fn ours(upstream: &Upstream, origin: Origin) -> Option<Whole> {
    let mut response = fetch(upstream, get(origin, "/first")).await.ok()?;
    let mut body = Vec::new();
    while let Some(bytes) = response.body.next().await {
        body.extend_from_slice(&bytes.ok()?);
    }
    Some(Whole { status: response.status.as_u16(), body, by_close: response.body.ended_by_close() })
}

#[test]
fn what_is_taken_for_whole_is_whole_to_everybody() {
    let runtime = Runtime::new().unwrap();
    let plays = Plays::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::clone(&plays);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&served)));
        }
    });
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstream =
        Upstream::with_parts(patient(), "test-cache".into(), metrics, Vec::new(), Roots::System, Arc::new(Here))
            .unwrap();
    let (mut number, mut taken) = (0, 0);
    let numbers = std::cell::RefCell::new((&mut number, &mut taken));
    let config = Config { cases: ANSWERS, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&answer(), |bytes| {
            let (strict, lenient) = (read_alone(&bytes, Rigour::Strict), read_alone(&bytes, Rigour::Lenient));
            let goes_on = lenient.as_ref().is_some_and(|whole| !whole.by_close);
            let host = {
                let mut numbers = numbers.borrow_mut();
                *numbers.0 += 1;
                format!("host-{}.test", numbers.0)
            };
            plays.lock().insert(host.clone(), (bytes, goes_on));
            let origin = Origin { scheme: Scheme::Http, host: host.as_str().into(), port };
            let (got, second) = runtime.block_on(async {
                let got = ours(&upstream, origin.clone()).await;
                // Whatever was there: the next answer on this source is its own.
                (got, text(&upstream, get(origin, "/second")).await)
            });
            plays.lock().remove(&host);
            prop_assert_eq!(second, "second");
            *numbers.borrow_mut().1 += u32::from(got.is_some());
            match got {
                Some(got) => prop_assert_eq!(Some(got), lenient),
                None => prop_assert_eq!(strict, None),
            }
            Ok(())
        })
        .unwrap();
    assert!(taken > ANSWERS / 5, "{taken} of {number} were whole");
}
