//! The wire on real sockets: a client that writes bytes, a service that answers with what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tower::service_fn;

use super::*;

mod ending;
mod messages;
mod readings;
mod strict_reader;
mod waiting;

/// No event of these tests takes this long; it only keeps a fault from hanging them.
const NEVER: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// A listener whose connections are served by [`answer`].
struct Rig {
    address: SocketAddr,
    context: Arc<WireContext>,
    /// Tells when a body of `/endless` or a future of `/silent` was dropped.
    dropped: mpsc::UnboundedReceiver<()>,
}

struct TellDrop(mpsc::UnboundedSender<()>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Bytes without end, and no length; or after the first piece no more, forever.
struct Endless {
    stall: bool,
    sent: bool,
    _drop: TellDrop,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.stall && self.sent {
            return Poll::Pending;
        }
        self.sent = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

/// One frame that is larger than hyper's write buffer, and comes at the second asking.
struct SecondAsking {
    asked: bool,
    frame: Option<Bytes>,
}

impl Body for SecondAsking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !std::mem::replace(&mut self.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.frame.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn limits() -> Limits {
    Limits { header_time: NEVER, idle_time: NEVER, body_time: NEVER, ..Limits::default() }
}

impl Rig {
    async fn new(limits: Limits) -> Self {
        Self::parking(limits, PARK_AFTER).await
    }

    async fn parking(limits: Limits, park_after: Duration) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let context = Arc::new(WireContext::new(limits, metrics, Drain::new()).park_after(park_after));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, dropped) = mpsc::unbounded_channel();
        let shared = Arc::clone(&context);
        tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (context, tell) = (Arc::clone(&shared), tell.clone());
                let service = service_fn(move |request| answer(request, tell.clone()));
                tokio::spawn(async move { serve_connection(stream, peer, service, &context).await });
            }
        });
        Self { address, context, dropped }
    }

    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, read: Vec::new() }
    }

    /// Waits until a metric or the drain shows what is expected.
    async fn until(&self, mut reached: impl FnMut(&WireContext) -> bool) {
        let wait = async {
            while !reached(&self.context) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(NEVER, wait).await.unwrap();
    }

    fn refused(&self, reason: &str) -> u64 {
        self.context.metrics.bad_requests.with_label_values(&[reason]).get()
    }

    async fn dropped(&mut self) {
        tokio::time::timeout(NEVER, self.dropped.recv()).await.unwrap().unwrap();
    }
}

/// Answers with the method, the target and the request body; some paths do special things.
async fn answer(request: Request<Incoming>, tell: mpsc::UnboundedSender<()>) -> Result<Response<AnswerBody>, BoxError> {
    let info = request.extensions().get::<ConnectionInfo>().cloned().ok_or("no connection info")?;
    let (parts, body) = request.into_parts();
    let full = |text: String| Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync();
    let body = match parts.uri.path() {
        "/endless" => Endless { stall: false, sent: false, _drop: TellDrop(tell) }.boxed_unsync(),
        "/stalled" => Endless { stall: true, sent: false, _drop: TellDrop(tell) }.boxed_unsync(),
        "/silent" => {
            let _drop = TellDrop(tell);
            std::future::pending().await
        }
        "/big" => {
            Full::new(Bytes::from(vec![b'y'; 8 << 20])).map_err(|never: Infallible| match never {}).boxed_unsync()
        }
        "/cut" => {
            let first = Ok(Frame::data(Bytes::from_static(b"first")));
            let frames = futures_util::stream::iter([first, Err(BoxError::from("cut"))]);
            BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames))
        }
        "/late" => {
            // The length is known from the head only, and the end comes long after the last byte.
            let frames = futures_util::stream::unfold(0, |step| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                (step < 2).then(|| (Ok(Frame::data(Bytes::from_static(b"half"))), step + 1))
            });
            let body = BodyExt::boxed_unsync(http_body_util::StreamBody::new(Box::pin(frames)));
            return Ok(Response::builder().header("content-length", 8).body(body)?);
        }
        "/second" => {
            let body = SecondAsking { asked: false, frame: Some(Bytes::from(vec![b'z'; 70_000])) };
            return Ok(Response::builder().header("content-length", 70_000).body(body.boxed_unsync())?);
        }
        "/peer" => full(info.peer.to_string()),
        "/unread" => full("unread".to_owned()),
        _ => {
            let text = match body.collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(error) => format!("error: {error}"),
            };
            full(format!("{} {} {text}", parts.method, parts.uri))
        }
    };
    Ok(Response::new(body))
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Leaves with a reset, as a client does that is killed while bytes are on their way to it.
    fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    async fn get(&mut self, target: &str) -> (String, String) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.response().await
    }

    /// Reads more; `false` at the end.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read);
        tokio::time::timeout(NEVER, read).await.unwrap().unwrap() > 0
    }

    /// The next head.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more().await, "closed before a head: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next head and its body by Content-Length.
    async fn response(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect(&head);
        let length: usize = length.parse().unwrap();
        while self.read.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        let body: Vec<u8> = self.read.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    /// Nothing more comes, and the end is no reset.
    async fn end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.read), "");
        assert!(!self.more().await, "{:?}", String::from_utf8_lossy(&self.read));
    }
}
