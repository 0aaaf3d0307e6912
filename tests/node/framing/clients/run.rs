//! Runs the messages of a group: each with an honest request behind it on its connection and one beside it on another, sent
//! in pieces and all at once, and looks afterwards at what the origin, the store, the metrics and the log have of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::case::{After, Case, Meaning, Then, with_word};
use super::origin::{Origin, Seen, answer};
use crate::framing::strict::{self, Read, Response};
use crate::rig::client::once;
use crate::rig::running_node::{RunningNode, Setup};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Cases that run at the same time.
const AT_ONCE: usize = 8;
/// All that rules of origins can let through.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// In pieces; the honest request follows when the answer has come.
    InPieces,
    /// In one write with the honest request.
    AtOnce,
}

/// One connection: what was read, and how far it is understood.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    continues: usize,
    answers: Vec<Response>,
    ended: bool,
}

/// The origin of the tables, and a node that has it under `o.example`, and as `default.example` for all that names no other.
pub(super) async fn setup() -> (Origin, Setup) {
    let origin = Origin::start().await;
    let rule = json!({ "methods": METHODS });
    let setup = Setup::new().origin("o.example", origin.address, rule.clone());
    let setup = setup.origin("default.example", origin.address, rule);
    let setup = setup.set("reverse.default_origin", json!("http://default.example"));
    (origin, setup.set("pseudonym", json!("site-7")))
}

/// Runs a group against a node of its own.
pub(super) async fn group(cases: Vec<Case>) {
    let (origin, setup) = setup().await;
    run(setup.start(), &origin, &cases).await;
}

/// Runs `cases` and fails with all that is wrong.
pub(super) async fn run(node: RunningNode, origin: &Origin, cases: &[Case]) {
    let manners = [(Manner::InPieces, 'p'), (Manner::AtOnce, 'w')];
    let runs: Vec<_> =
        cases.iter().enumerate().flat_map(|(n, case)| manners.map(|(m, c)| (format!("{c}{n:03}"), case, m))).collect();
    let all = futures_util::stream::iter(&runs).map(|(id, case, manner)| async move {
        let said = tokio::time::timeout(3 * PATIENCE, told(node.data, case, id, *manner)).await;
        said.unwrap_or_else(|_| Err("it hangs".to_owned()))
            .err()
            .map(|fault| format!("{}, {manner:?}: {fault}", case.name))
    });
    let mut faults: Vec<_> = all.buffer_unordered(AT_ONCE).filter_map(async |fault| fault).collect().await;
    wait_until_idle(&node).await;
    let named: Vec<_> = runs.iter().map(|(id, case, _)| (id.as_str(), *case)).collect();
    faults.extend(of_the_books(&node, cases, manners.len()).await);
    faults.extend(of_the_store(node.data, &named).await);
    let seen = origin.seen();
    faults.extend(of_the_origin(&seen, &named));
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
    node.stop().await;
}

/// What was cut may be on its way for a moment.
async fn wait_until_idle(node: &RunningNode) {
    let idle = async { while node.metric("waystation_requests_in_flight", "").await > 0.0 {} };
    assert!(tokio::time::timeout(PATIENCE, idle).await.is_ok(), "a request hangs");
}

/// Tells one message, and what its client and its neighbours saw.
async fn told(address: SocketAddr, case: &Case, id: &str, manner: Manner) -> Result<(), String> {
    let (message, honest) = (case.message(id), honest(id, "behind"));
    let mut client = Client::connect(address).await;
    if case.is_cut() {
        client.send(&message).await;
        beside(address, id).await?;
        if manner == Manner::AtOnce {
            // Closed, not only ended: there is nobody to answer.
            return Ok(());
        }
    } else if manner == Manner::AtOnce {
        client.send(&[message, honest.clone()].concat()).await;
    } else {
        for piece in message.chunks(message.len().div_ceil(3)) {
            client.send(piece).await;
        }
        client.read_answers(case, case.then.len()).await?;
        beside(address, id).await?;
        client.send(&honest).await;
    }
    let _ = client.stream.shutdown().await;
    client.read_answers(case, usize::MAX).await?;
    beside(address, id).await?;
    client.judge(case, id)
}

fn honest(id: &str, place: &str) -> Vec<u8> {
    format!("GET /honest/{place}/{id} HTTP/1.1\r\nHost: o.example\r\n\r\n").into_bytes()
}

/// An honest request on a connection of its own.
async fn beside(address: SocketAddr, id: &str) -> Result<(), String> {
    let mut client = Client::connect(address).await;
    client.send(&honest(id, "beside")).await;
    let _ = client.stream.shutdown().await;
    client.read(|_| false, |answers| answers > 1).await?;
    let expected = answer("GET", "o.example", &format!("/honest/beside/{id}"), b"");
    match &client.answers[..] {
        [only] if only.status == 200 && only.body == expected.as_bytes() => Ok(()),
        other => Err(format!("beside it: {other:?}")),
    }
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new(), continues: 0, answers: Vec::new(), ended: false }
    }

    /// The peer may have gone.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        tokio::task::yield_now().await;
    }

    /// Reads until there are `count` answers or the connection ends.
    async fn read_answers(&mut self, case: &Case, count: usize) -> Result<(), String> {
        self.read(|number| case.is_to_head(number), |answers| answers >= count).await
    }

    async fn read(&mut self, is_to_head: impl Fn(usize) -> bool, enough: impl Fn(usize) -> bool) -> Result<(), String> {
        loop {
            while let Read::Whole(response, len) = strict::response(&self.unread, is_to_head(self.answers.len()))? {
                self.unread.drain(..len);
                match response.status {
                    100..200 => self.continues += 1,
                    _ => self.answers.push(response),
                }
            }
            if self.ended || enough(self.answers.len()) {
                return Ok(());
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
            let read = read.map_err(|_| format!("no answer and no end after {:?}", self.answers))?;
            self.ended = !matches!(read, Ok(1..));
        }
    }

    /// Compares what was read to the end with what should have come.
    fn judge(&self, case: &Case, id: &str) -> Result<(), String> {
        if !self.unread.is_empty() {
            return Err(format!("more bytes than answers: {:?}", self.unread.escape_ascii().to_string()));
        }
        if self.continues != case.continues {
            return Err(format!("{} interim responses before {:?}", self.continues, self.answers));
        }
        let told: Vec<_> = case.then.iter().filter(|then| !matches!(then, Then::Cut)).collect();
        let (answers, rest) =
            self.answers.split_at_checked(told.len()).ok_or_else(|| format!("only {:?}", self.answers))?;
        for (answer, then) in answers.iter().zip(told) {
            is_answer(answer, then, id)?;
        }
        match rest {
            [] if case.after != After::Stays => Ok(()),
            // A refusal of what ended before its end.
            [only] if case.is_cut() && only.status >= 400 => Ok(()),
            [only] if case.after != After::Closes => {
                let meaning = Meaning::new("GET", "/honest/behind/{id}", b"");
                is_answer(only, &Then::Forwarded(meaning), id)
            }
            [] => Err(format!("the connection ended behind {answers:?}")),
            more => Err(format!("answers that nobody asked for: {more:?}")),
        }
    }
}

fn is_answer(answer: &Response, then: &Then, id: &str) -> Result<(), String> {
    let (status, closes) = match then {
        Then::Refused(status, _) => (*status, true),
        Then::Broken => (400, true),
        Then::Answered(status, _) => (*status, *status == 400),
        Then::Forwarded(meaning) | Then::Stored(meaning) => (meaning.status, false),
        Then::Cut => (0, false),
    };
    let says_close = answer.head.one("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if answer.status != status || (closes && !says_close) {
        return Err(format!("{status} was to come, not {answer:?}"));
    }
    if let Then::Forwarded(meaning) | Then::Stored(meaning) = then
        && meaning.status == 200
        && meaning.method != "HEAD"
    {
        let target = meaning.target.replace("{id}", id);
        let body = if target.starts_with("/early/") { &[] } else { &meaning.body[..] };
        let expected = self::answer(meaning.method, meaning.host, &target, body);
        if answer.body != expected.as_bytes() {
            return Err(format!("the answer is {:?}, not {expected:?}", String::from_utf8_lossy(&answer.body)));
        }
    }
    Ok(())
}

/// Nothing is stored that was not forwarded.
async fn of_the_store(address: SocketAddr, runs: &[(&str, &Case)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, case) in runs {
        let mut paths = vec![format!("/smuggled/{id}")];
        if case.meanings().next().is_none() {
            paths.push(format!("/{id}"));
        }
        for path in paths {
            let ask = format!("GET {path} HTTP/1.1\r\nHost: o.example\r\nCache-Control: only-if-cached\r\n\r\n");
            let status = once(address, &ask).await.head.status;
            if status != 504 {
                faults.push(format!("{}: {path} is stored: {status}", case.name));
            }
        }
    }
    faults
}

/// Each refusal is counted by its reason, and told in the access log.
async fn of_the_books(node: &RunningNode, cases: &[Case], runs: usize) -> Vec<String> {
    let (mut refused, mut told) = (BTreeMap::new(), BTreeMap::new());
    for then in cases.iter().flat_map(|case| &case.then) {
        // No line tells why, when it is answered well.
        let (counted, in_log) = match then {
            Then::Refused(_, reason) => (Some(*reason), *reason),
            Then::Broken => (Some("chunk"), "request-body"),
            Then::Answered(400.., reason) => (None, *reason),
            Then::Answered(..) | Then::Forwarded(_) | Then::Stored(_) | Then::Cut => continue,
        };
        counted.into_iter().for_each(|reason| *refused.entry(reason).or_insert(0) += runs);
        *told.entry(in_log).or_insert(0) += runs;
    }
    let mut faults = Vec::new();
    for (reason, count) in &refused {
        let counted = node.metric("waystation_bad_requests_total", &format!("reason=\"{reason}\"")).await;
        if counted != *count as f64 {
            faults.push(format!("{counted} requests are counted as {reason}, not {count}"));
        }
    }
    let (all, counted) = (refused.values().sum::<usize>(), node.metric("waystation_bad_requests_total", "").await);
    if counted != all as f64 {
        faults.push(format!("{counted} refusals are counted, not {all}"));
    }
    // The last lines may be on their way.
    let last = "GET /honest/last HTTP/1.1\r\nHost: o.example\r\n\r\n";
    once(node.data, last).await;
    assert!(node.says("/honest/last"));
    let said = node.said();
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (reason, count) in &told {
        let said = lines.iter().filter(|line| line["reason"] == *reason).count();
        if said != *count {
            faults.push(format!("{said} lines of the access log say {reason}, not {count}"));
        }
    }
    faults
}

/// What the origin got is what was meant, once, and nothing else.
fn of_the_origin(seen: &Seen, runs: &[(&str, &Case)]) -> Vec<String> {
    let mut faults: Vec<_> = seen.faults.iter().map(|fault| format!("the origin got {fault}")).collect();
    let mut expected = 0;
    for (id, case) in runs {
        let behind = format!("/honest/behind/{id}");
        if case.after == After::Closes && seen.whole.iter().any(|request| request.target == behind) {
            faults.push(format!("{}: what stands behind it went on to the origin", case.name));
        }
        for meaning in case.meanings() {
            let target = meaning.target.replace("{id}", id);
            let got: Vec<_> = seen.whole.iter().filter(|request| request.target == target).collect();
            let is_meant = |request: &&strict::Request| {
                let head = &request.head;
                request.method == meaning.method
                    && head.one("Host").as_deref() == Some(meaning.host)
                    && request.body == with_word(&meaning.body, id)
                    && meaning.has.iter().all(|(name, value)| head.all(name) == [*value])
                    && meaning.with.iter().all(|(name, value)| head.all(name).contains(value))
                    && meaning.lacks.iter().all(|name| head.all(name).is_empty())
            };
            expected += 1;
            if got.len() != 1 || !got.iter().all(is_meant) {
                faults.push(format!("{}: the origin got {got:?}, not {meaning:?}", case.name));
            }
        }
    }
    let others: Vec<_> = seen.whole.iter().filter(|request| !request.target.starts_with("/honest/")).collect();
    if others.len() != expected {
        let targets: Vec<_> = others.iter().map(|request| &request.target).collect();
        faults.push(format!("the origin got {} requests, not {expected}: {targets:?}", others.len()));
    }
    let hop_by_hop = [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Expect",
    ];
    for request in &seen.whole {
        if let Some(name) = hop_by_hop.iter().find(|name| !request.head.all(name).is_empty()) {
            faults.push(format!("{name} went on to the origin: {request:?}"));
        }
    }
    for cut in &seen.cut {
        let may_be = |(id, case): &(&str, &Case)| {
            let breaks = case.then.iter().any(|then| matches!(then, Then::Cut | Then::Broken));
            breaks && cut.windows(id.len()).any(|window| window == id.as_bytes())
        };
        if !runs.iter().any(may_be) {
            faults.push(format!("the origin got a cut request: {:?}", cut.escape_ascii().to_string()));
        }
    }
    faults
}
