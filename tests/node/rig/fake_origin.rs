//! A scripted origin on a raw socket: serves patterns of any length, counts every byte, and can be slow,
//! broken or gone.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::origin_reply::{Body, Delimiter, Received, Rendered, Reply};
use super::trouble::Strike;

type Script = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// The origin; dropping it ends it.
#[derive(Debug)]
pub(crate) struct FakeOrigin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    /// Bound but not listening: keeps the port while the origin is off, so that it refuses connections.
    _port: Socket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    scripts: Mutex<HashMap<String, Script>>,
    directory: Mutex<Option<PathBuf>>,
    received: watch::Sender<Vec<Received>>,
    body_bytes: watch::Sender<u64>,
    ledger: Ledger,
    /// Whether little waits in the sockets, so that what was counted as sent has hardly more than arrived.
    tight: AtomicBool,
    /// Bytes per second over all connections; 0 is unlimited.
    rate: AtomicU64,
    /// When the next paced byte may go.
    next: Mutex<Option<Instant>>,
    first_byte: Mutex<Option<std::time::Instant>>,
    /// How often it was switched off.
    off: AtomicU64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("body_bytes", &self.body_bytes.borrow()).finish_non_exhaustive()
    }
}

impl FakeOrigin {
    pub(crate) async fn start() -> Self {
        Self::at(Ipv4Addr::LOCALHOST).await
    }

    /// On an address of this machine or of the namespace that the thread is in.
    pub(crate) async fn at(address: Ipv4Addr) -> Self {
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let state = Arc::new(State {
            scripts: Mutex::default(),
            directory: Mutex::default(),
            received: watch::Sender::new(Vec::new()),
            body_bytes: watch::Sender::new(0),
            ledger: Ledger::default(),
            tight: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            next: Mutex::default(),
            first_byte: Mutex::default(),
            off: AtomicU64::new(0),
        });
        let origin = Self { address, state, _port: port, accepting: Mutex::default() };
        origin.switch_on();
        origin
    }

    /// An origin with one file at `path`.
    pub(crate) async fn with(path: &str, reply: Reply) -> Self {
        let origin = Self::start().await;
        origin.serve(path, reply);
        origin
    }

    /// Answers `path` (with any query) always with `reply`.
    pub(crate) fn serve(&self, path: &str, reply: Reply) {
        self.script(path, move |_| reply.clone());
    }

    /// Answers `path` (with any query) by `script`.
    pub(crate) fn script(&self, path: &str, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        self.state.scripts.lock().insert(path.to_owned(), Arc::new(script));
    }

    /// Serves the files below `root` for all paths without a script.
    pub(crate) fn serve_directory(&self, root: &Path) {
        *self.state.directory.lock() = Some(root.to_owned());
    }

    /// Refuses connections and cuts those that exist.
    pub(crate) fn switch_off(&self) {
        self.state.off.fetch_add(1, Ordering::AcqRel);
        if let Some(task) = self.accepting.lock().take() {
            task.abort();
        }
    }

    /// Cuts all connections, and takes new ones.
    pub(crate) async fn restart(&self) {
        let task = self.accepting.lock().take();
        if let Some(task) = task {
            task.abort();
            // The error says that it was aborted.
            let _ = task.await;
        }
        self.switch_on();
    }

    pub(crate) fn switch_on(&self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let task = tokio::spawn(accept(listener, self.state.clone()));
        if let Some(before) = self.accepting.lock().replace(task) {
            before.abort();
        }
    }

    /// Paces body bytes over all connections; 0 is unlimited.
    pub(crate) fn limit_rate(&self, bytes_per_second: u64) {
        self.state.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Keeps little in the sockets of new connections.
    pub(crate) fn keep_sockets_short(&self) {
        self.state.tight.store(true, Ordering::Relaxed);
    }

    /// What was handed to the network so far.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// Body bytes handed to the network so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        *self.state.body_bytes.borrow()
    }

    /// Waits until so many body bytes were handed to the network.
    pub(crate) async fn wait_for_bytes(&self, bytes: u64) {
        let mut sent = self.state.body_bytes.subscribe();
        let wait = sent.wait_for(|sent| *sent >= bytes);
        let came = tokio::time::timeout(Duration::from_secs(120), wait).await.is_ok();
        assert!(came, "{} of {bytes} bytes were asked of the origin", self.body_bytes());
    }

    /// Requests so far, all heads of them.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.borrow().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.received.borrow().len()
    }

    /// Waits until `count` requests have come.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let mut received = self.state.received.subscribe();
        let wait = received.wait_for(|received| received.len() >= count);
        assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "the origin was not asked");
    }

    /// When the first body byte of all was written.
    pub(crate) fn first_byte(&self) -> Option<std::time::Instant> {
        *self.state.first_byte.lock()
    }
}

impl Drop for FakeOrigin {
    fn drop(&mut self) {
        self.switch_off();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let (mut connections, off) = (JoinSet::new(), state.off.load(Ordering::Acquire));
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let state = state.clone();
            connections.spawn(async move {
                let _ = state.serve(stream, off).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

impl State {
    async fn serve(&self, mut stream: TcpStream, off: u64) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        loop {
            let Some(request) = read_request(&mut stream, &mut buffer).await? else { return Ok(()) };
            // The task ends a moment later than it is told to.
            if self.off.load(Ordering::Acquire) != off {
                return Ok(());
            }
            self.received.send_modify(|received| received.push(request.clone()));
            let reply = self.reply(&request);
            stream.write_all(reply.early.as_bytes()).await?;
            if let Some(gate) = &reply.hold_head {
                gate.wait().await;
            }
            let rendered = reply.render(&request);
            if reply.trouble.is_some() || self.tight.load(Ordering::Relaxed) {
                // What stands in this buffer when the connection is reset was sent for nothing.
                SockRef::from(&stream).set_send_buffer_size(16 * 1024)?;
            }
            if rendered.is_fault
                && let Some(trouble) = &reply.trouble
            {
                trouble.strikes();
            }
            stream.write_all(rendered.head.as_bytes()).await?;
            match self.send_body(&mut stream, request.path(), &reply, &rendered).await? {
                None if reply.delimiter == Delimiter::Close => return stream.shutdown().await,
                None => {}
                Some(Strike::Cut) => return stream.shutdown().await,
                Some(Strike::Reset) => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
                // Nothing comes any more until the peer goes.
                Some(Strike::Stall) => return stream.read(&mut [0]).await.map(|_| ()),
            }
            if reply.delimiter == Delimiter::Chunked && request.method != "HEAD" && !rendered.head.contains(" 304 ") {
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    }

    fn reply(&self, request: &Received) -> Reply {
        let script = self.scripts.lock().get(request.path()).cloned();
        if let Some(script) = script {
            return script(request);
        }
        let path = percent_decode_str(request.path().trim_start_matches('/')).decode_utf8_lossy().into_owned();
        let file = self.directory.lock().as_ref().map(|root| root.join(path)).filter(|file| file.is_file());
        let Some((file, facts)) = file.and_then(|file| Some((file.clone(), file.metadata().ok()?))) else {
            return Reply::status(404, "there is no such file\n");
        };
        let modified = facts.modified().map(httpdate::fmt_http_date).unwrap_or_default();
        let reply = Reply { body: Body::File(file, facts.len()), ..Reply::status(200, "") };
        reply.with("Last-Modified", &modified).with("ETag", &format!("\"{:x}\"", facts.len()))
    }

    /// What ended the body before its end, if anything did.
    async fn send_body(
        &self,
        stream: &mut TcpStream,
        path: &str,
        reply: &Reply,
        rendered: &Rendered,
    ) -> io::Result<Option<Strike>> {
        let (from, to) = (rendered.from, rendered.to);
        let file = match &reply.body {
            Body::File(path, _) if from < to => std::fs::read(path)?,
            _ => Vec::new(),
        };
        let mut piece = vec![0; 64 * 1024];
        let mut at = from;
        while at < to {
            let rate = self.rate.load(Ordering::Relaxed);
            let mut take = (to - at).min(if rate == 0 { piece.len() as u64 } else { 16 * 1024 });
            if let Some((offset, gate)) = &reply.hold_at {
                if at >= *offset {
                    gate.wait().await;
                } else {
                    take = take.min(offset - at);
                }
            }
            if let Some(most) = reply.cut_after {
                take = take.min(most.saturating_sub(at - from));
                if take == 0 {
                    if let Some(trouble) = &reply.trouble {
                        trouble.strikes();
                    }
                    return Ok(Some(Strike::Cut));
                }
            }
            self.pace(rate, take).await;
            if let Some(trouble) = &reply.trouble {
                match trouble.allow(take) {
                    Ok(allowed) => take = allowed,
                    Err(strike) => return Ok(Some(strike)),
                }
            }
            let bytes = &mut piece[..take as usize];
            match &reply.body {
                Body::Pattern(pattern) => pattern.fill(at, bytes),
                Body::Bytes(all) => bytes.copy_from_slice(&all[at as usize..(at + take) as usize]),
                Body::File(..) => bytes.copy_from_slice(&file[at as usize..(at + take) as usize]),
            }
            reply.spoil(at, bytes);
            // Before it is written, so that nobody has a byte that was not counted.
            self.ledger.note(path, reply.field("ETag").unwrap_or_default(), at, at + take);
            self.body_bytes.send_modify(|sent| *sent += take);
            if reply.delimiter == Delimiter::Chunked {
                stream.write_all(format!("{take:x}\r\n").as_bytes()).await?;
            }
            // What the system does not take any more, since the connection is gone, has not left.
            let mut written = 0;
            while written < bytes.len() {
                match stream.write(&bytes[written..]).await {
                    Ok(count) => written += count,
                    Err(error) => {
                        let left = at + written as u64;
                        self.ledger.take_back(path, reply.field("ETag").unwrap_or_default(), left, at + take);
                        self.body_bytes.send_modify(|sent| *sent -= at + take - left);
                        return Err(error);
                    }
                }
            }
            if reply.delimiter == Delimiter::Chunked {
                stream.write_all(b"\r\n").await?;
            }
            self.first_byte.lock().get_or_insert_with(std::time::Instant::now);
            at += take;
        }
        Ok(rendered.ends_short.then_some(Strike::Cut))
    }

    /// Waits until `bytes` more may go, over all connections together.
    async fn pace(&self, rate: u64, bytes: u64) {
        if rate == 0 {
            return;
        }
        let due = {
            let mut next = self.next.lock();
            let now = Instant::now();
            let due = next.unwrap_or(now).max(now - Duration::from_millis(20));
            *next = Some(due + Duration::from_secs_f64(bytes as f64 / rate as f64));
            due
        };
        tokio::time::sleep_until(due).await;
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Received>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let mut more = [0; 4096];
        match stream.read(&mut more).await? {
            0 => return Ok(None),
            read => buffer.extend_from_slice(&more[..read]),
        }
    };
    let rest = buffer.split_off(end);
    let head = String::from_utf8_lossy(&std::mem::replace(buffer, rest)).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields: Vec<_> =
        lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    let mut request = Received { method, target, fields, body: Vec::new() };
    let length = request.field("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}
