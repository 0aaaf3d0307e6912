//! An origin that writes down each request byte for byte, as a strict reader understands it, and what no such reader could.

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
    loop {
        match strict::request(&bytes) {
            Ok(Read::Whole(request, len)) => {
                bytes.drain(..len);
                let host = request.head.one("Host").unwrap_or_default();
                let content = answer(&request.method, &host, &request.target, &request.body);
                let content = if request.method == "HEAD" { String::new() } else { content };
                let length = answer(&request.method, &host, &request.target, &request.body).len();
                seen.lock().whole.push(request);
                let head =
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\nContent-Type: text/plain\r\n";
                let reply = format!("{head}Content-Length: {length}\r\n\r\n{content}");
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
                continue;
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
