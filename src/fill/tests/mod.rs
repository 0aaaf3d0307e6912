//! Fills with a real store and real connections to scripted origins on the loopback interface. Here is what the tests
//! share; each file tells one part of the story.

#[cfg(target_os = "linux")]
mod full;
mod hanging;
mod leading;
mod leaving;
mod random;
mod ranging;
mod resuming;
mod table;
mod validating;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;
use crate::content::{Abandon, BodyRef, CacheKey, Origin, PartialId, Policy, Record, Scheme, UnixMillis};
use crate::store::{Body, DriveSettings, Entry, Partial, Progress, ReadError, Settings as StoreSettings};
use crate::upstream::Settings as UpstreamSettings;

pub(crate) const KIB: usize = 1024;
const BLOCK: usize = 64 * KIB;
pub(crate) const TAG: (&str, &str) = ("ETag", "\"v1\"");
pub(crate) const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// Holds an origin until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

/// What the origin does for one request; the connection stays open after the last step.
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Gate),
    Cut,
}

/// An origin that answers the n-th request, counted over all connections, by its script.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A store, upstream and the fills between.
pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) fill: Fill,
    pub(crate) metrics: Arc<Metrics>,
    /// Last, so that the store is closed before its files go.
    root: TempDir,
}

/// Redirects lead nowhere; they end the task that meets one, as a fault of the program would.
struct Explosive;

impl Redirects for Explosive {
    fn allow(&self, _: &Origin, _: &str) -> Option<Arc<Policy>> {
        panic!("a redirect, as the test wants it");
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.add_permits(1000);
    }

    async fn passed(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

impl Server {
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let log = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(follow(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, requests }
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

async fn follow<F: Fn(usize, &str) -> Vec<Step>>(mut stream: TcpStream, script: Arc<F>, log: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let number = {
            let mut log = log.lock();
            log.push(head.clone());
            log.len() - 1
        };
        for step in script(number, &head) {
            match step {
                // The other side may have gone already; the next read notices.
                Step::Send(bytes) => drop(stream.write_all(&bytes).await),
                Step::Wait(gate) => gate.passed().await,
                Step::Cut => return,
            }
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::patient(Duration::from_secs(30))
    }

    /// With this long for each part of an exchange with the origin.
    fn patient(limit: Duration) -> Self {
        Self::at(TempDir::new().unwrap(), limit)
    }

    /// With two drives whose operations are soon overdue.
    fn watching_two_drives() -> Self {
        let root = TempDir::new().unwrap();
        let drive = |name: &str| DriveSettings { path: root.path().join(name), quota: 1 << 30, min_free: 0 };
        let settings = StoreSettings {
            drives: vec![drive("drive1"), drive("drive2")],
            drive_timeout: Duration::from_millis(400),
            probe_every: Duration::from_millis(20),
            ..Self::settings(&root)
        };
        Self::with(root, settings, Duration::from_secs(30))
    }

    fn settings(root: &TempDir) -> StoreSettings {
        StoreSettings {
            state: root.path().join("state"),
            drives: vec![DriveSettings { path: root.path().join("drive"), quota: 1 << 30, min_free: 0 }],
            block_size: BLOCK as u32,
            ..StoreSettings::default()
        }
    }

    fn at(root: TempDir, limit: Duration) -> Self {
        let settings = Self::settings(&root);
        Self::with(root, settings, limit)
    }

    fn with(root: TempDir, settings: StoreSettings, limit: Duration) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(settings, Arc::clone(&metrics)).unwrap();
        let timeouts = crate::upstream::Timeouts { connect: limit, first_byte: limit, stall: limit, request: limit };
        let settings = UpstreamSettings { timeouts, ..UpstreamSettings::default() };
        let upstream = Upstream::new(settings, "cache".into(), Arc::clone(&metrics), Vec::new()).unwrap();
        let fill = Fill::new(store.clone(), upstream, Arc::new(Explosive), "cache".into(), Arc::clone(&metrics));
        Self { root, store, fill, metrics }
    }

    /// A new process on the same drive.
    pub(crate) async fn restarted(self, between: impl FnOnce(&TempDir)) -> Self {
        let Self { root, store, fill, .. } = self;
        store.flush().await;
        drop(fill);
        drop(store);
        between(&root);
        Self::at(root, Duration::from_secs(30))
    }

    /// What is stored for `want`, newest first.
    async fn stored(&self, want: &Want) -> Vec<Arc<Entry>> {
        self.store.lookup(&want.key).await.to_vec()
    }

    /// `want` with what is stored now.
    async fn look_up(&self, mut want: Want) -> Want {
        want.stored = self.stored(&want).await.into_iter().find(|entry| want.selects(&entry.record));
        want
    }

    /// Starts `obtain` on a task of its own.
    fn obtain(&self, want: &Want) -> tokio::task::JoinHandle<Obtained> {
        let (fill, want) = (self.fill.clone(), want.clone());
        tokio::spawn(async move { fill.obtain(want).await })
    }

    /// Waits until `count` clients wait for the only flight of `want`.
    async fn clients(&self, want: &Want, count: usize) {
        until(|| self.fill.inner.flights.clients(&want.key) == Some(count)).await;
    }

    /// Waits until no fill is under way.
    pub(crate) async fn idle(&self) {
        until(|| self.metrics.fills_active.get() == 0).await;
    }

    fn ended_as(&self, outcome: &str) -> u64 {
        self.metrics.fills.with_label_values(&[outcome]).get()
    }
}

/// Lets others run until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the condition never held");
}

fn policy(abandon: Abandon) -> Policy {
    Policy { allow_private: true, abandon, ..Policy::for_host("127.0.0.1") }
}

fn want(server: &Server, path: &str) -> Want {
    Want {
        key: CacheKey::new(format!("127.0.0.1{path}")),
        origin: Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port: server.address.port() },
        target: path.to_owned(),
        path: path.to_owned(),
        policy: Arc::new(policy(Abandon::Complete)),
        headers: Arc::default(),
        token: None,
        carries_token: false,
        proven: false,
        stored: None,
        conditions: None,
        stands_in: false,
        interims: None,
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

/// What is known of a body of this length with the tag `"v1"`.
fn record_of(want: &Want, length: usize) -> Record {
    Record {
        key: want.key.clone(),
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static(TAG.1))]),
        request_time: UnixMillis(1),
        response_time: UnixMillis(2),
        vary: Vec::new(),
        length: Some(length as u64),
        expected: None,
        token_protected: false,
        body: BodyRef::Partial(PartialId(0)),
    }
}

fn with_fields(mut want: Want, fields: &[(&'static str, &str)]) -> Want {
    let mut headers = HeaderMap::clone(&want.headers);
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    want.headers = Arc::new(headers);
    want
}

fn abandoning(want: Want) -> Want {
    Want { policy: Arc::new(policy(Abandon::Stop)), ..want }
}

/// A head with `length` as its `Content-Length`.
pub(crate) fn head(status: &str, fields: &[(&str, &str)], length: usize) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n").into_bytes()
}

pub(crate) fn answer(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Step {
    Step::Send([&head(status, fields, body.len())[..], body].concat())
}

/// The part of `body` that the request asks for.
pub(crate) fn rest(request: &str, fields: &[(&str, &str)], body: &[u8]) -> Step {
    let (from, to) = asked(request, body.len());
    let range = format!("bytes {from}-{}/{}", to - 1, body.len());
    answer("206 Partial Content", &[fields, &[("Content-Range", &range)]].concat(), &body[from..to])
}

/// Which bytes of a body of this length the request asks for.
fn asked(request: &str, length: usize) -> (usize, usize) {
    let (first, last) = field(request, "range").unwrap()["bytes=".len()..].split_once('-').unwrap();
    let to = if last.is_empty() { length } else { (last.parse::<usize>().unwrap() + 1).min(length) };
    (first.parse().unwrap(), to)
}

/// The value of a field of a request in lower case.
pub(crate) fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

pub(crate) fn body_of(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Reads a body that is being filled from its begin; how it ended, too.
async fn read(partial: &Arc<Partial>) -> (Vec<u8>, Progress) {
    let mut bytes = Vec::new();
    loop {
        match partial.wait(bytes.len() as u64).await {
            Progress::Present(_) => {
                match Body::Partial(Arc::clone(partial)).read(bytes.len() as u64, 1 << 20).await {
                    Ok(piece) => bytes.extend_from_slice(&piece),
                    // Found damaged when all had come: the body is gone with it.
                    Err(_) if partial.is_complete() => return (bytes, Progress::Stopped),
                    // Found damaged while the body is filled: it comes again.
                    Err(ReadError::Damaged { .. } | ReadError::Absent { .. }) => {}
                    // Nothing can be joined to it, so it was discarded.
                    Err(ReadError::Gone) => return (bytes, Progress::Stopped),
                    Err(error) => panic!("{error}"),
                }
            }
            end => return (bytes, end),
        }
    }
}

/// The whole body of what was obtained, which must be whole.
async fn whole(rig: &Rig, obtained: Obtained) -> Vec<u8> {
    match obtained {
        Obtained::Filling { partial, guard, .. } => {
            let (bytes, end) = read(&partial).await;
            assert_eq!(end, Progress::Ended(bytes.len() as u64));
            drop(guard);
            bytes
        }
        #[cfg(target_os = "linux")]
        Obtained::Passing { guard, .. } => full::follow(&Arriving::new(None, &guard), &guard).await,
        Obtained::Validated { entry, .. } => stored_bytes(rig, &entry).await,
        Obtained::Through(mut response) => {
            let mut bytes = Vec::new();
            while let Some(piece) = response.body.next().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            bytes
        }
        other => panic!("no body but {}", shown(&other)),
    }
}

async fn stored_bytes(rig: &Rig, entry: &Arc<Entry>) -> Vec<u8> {
    let body = rig.store.body(entry).await.unwrap();
    let mut bytes: Vec<u8> = Vec::new();
    while (bytes.len() as u64) < body.length().unwrap() {
        let piece: Bytes = body.read(bytes.len() as u64, 1 << 20).await.unwrap();
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn filling(obtained: Obtained) -> (Arc<Entry>, Arc<Partial>, FlightGuard) {
    match obtained {
        Obtained::Filling { entry, partial, guard, .. } => (entry, partial, guard),
        other => panic!("not filling but {}", shown(&other)),
    }
}

fn shown(obtained: &Obtained) -> String {
    match obtained {
        Obtained::Filling { collapsed, .. } => format!("filling, collapsed: {collapsed}"),
        Obtained::Passing { collapsed, .. } => format!("passing, collapsed: {collapsed}"),
        Obtained::Validated { .. } => "validated".to_owned(),
        Obtained::Changed => "changed".to_owned(),
        Obtained::Answer { answer, .. } => format!("answer {}", answer.status),
        Obtained::Through(response) => format!("through {}", response.status),
        Obtained::Behind { length } => format!("behind the end at {length}"),
        Obtained::NeedsProof => "needs proof".to_owned(),
        Obtained::Failed(error) => format!("failed: {}", error.as_str()),
    }
}

fn is_blob(entry: &Entry) -> bool {
    matches!(entry.record.body, BodyRef::Blob(_))
}
