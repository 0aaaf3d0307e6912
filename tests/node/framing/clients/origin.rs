//! An origin that writes down each request byte for byte, as a strict reader understands it, and what no such reader could.
//! It answers what is below `/early/` as soon as it has the head.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::framing::strict::{self, Read, Request};

/// Dropping it does not end it: its task goes with the runtime.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// What came.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Whole requests.
    pub(super) whole: Vec<Request>,
    /// What came of requests whose connection ended before they did.
    pub(super) cut: Vec<Vec<u8>>,
    /// Whatever is ambiguous or malformed.
    pub(super) faults: Vec<String>,
}

impl Origin {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&origin.seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move { serve(stream, &seen).await });
            }
        });
        origin
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}

/// The body of the answer to a request.
pub(super) fn answer(method: &str, host: &str, target: &str, body: &[u8]) -> String {
    format!("{method} http://{host}{target} with {} bytes\n", body.len())
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut answered = false;
    loop {
        match strict::request(&bytes) {
            Ok(Read::Whole(request, len)) => {
                bytes.drain(..len);
                let reply = reply(&request);
                seen.lock().whole.push(request);
                if !std::mem::take(&mut answered) && stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Read::More) if !answered && bytes.starts_with(b"POST /early/") => {
                if let Ok(Read::Whole(head, _)) = strict::head(&bytes) {
                    answered = true;
                    let target = head.line.split(' ').nth(1).unwrap_or_default().to_owned();
                    let early = Request { method: "POST".to_owned(), target, head, body: Vec::new() };
                    if stream.write_all(reply(&early).as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            Ok(Read::More) => {}
            Err(fault) => {
                seen.lock().faults.push(fault);
                return;
            }
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            if !bytes.is_empty() {
                seen.lock().cut.push(bytes);
            }
            return;
        }
    }
}

fn reply(request: &Request) -> String {
    let host = request.head.one("Host").unwrap_or_default();
    let content = answer(&request.method, &host, &request.target, &request.body);
    let length = content.len();
    let content = if request.method == "HEAD" { String::new() } else { content };
    let fields = "Cache-Control: max-age=600\r\nETag: \"1\"\r\nContent-Type: text/plain";
    format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{content}")
}
