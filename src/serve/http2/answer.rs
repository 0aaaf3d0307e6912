//! [`Http2Service`]: the service as the library sees it. It brings each request into the one form that the service knows,
//! and takes out of the answer what belongs to HTTP/1.1.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method, Request, Response};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::request::in_origin_form;
use super::shared::Shared;
use super::stream::{Stream, StreamBody};
use crate::content::Scheme;
use crate::serve::wire::{ConnectionInfo, Peer, PieceBody, Refusal, WireContext};

/// Fields that say something of an HTTP/1.1 connection (RFC 9113 section 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// One connection's service.
pub(super) struct Http2Service<S> {
    pub(super) inner: S,
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
    pub(super) context: Arc<WireContext>,
}

pin_project! {
    /// An answer to come.
    pub(super) struct Answer<F> {
        #[pin]
        inner: Option<F>,
        refusal: Option<Refusal>,
        is_head: bool,
        stream: Arc<Stream>,
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Http2Service<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    B: PieceBody,
{
    type Response = Response<StreamBody<B>>;
    type Error = S::Error;
    type Future = Answer<Oneshot<S, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let stream = Stream::new(&self.shared);
        let is_head = request.method() == Method::HEAD;
        self.shared.begins(Arc::clone(&stream));
        let (mut parts, body) = request.into_parts();
        if let Err(refusal) = in_origin_form(&mut parts) {
            let length = if is_head { 0 } else { refusal.content_length() };
            self.context.note_refusal(self.peer.address, refusal, length);
            return Answer { inner: None, refusal: Some(refusal), is_head, stream };
        }
        let Peer { address: peer, speaks: peer_speaks } = self.peer;
        // The library sends no response before the response.
        let info =
            ConnectionInfo { peer, peer_speaks, scheme: Scheme::Https, head_complete: Instant::now(), interim: None };
        parts.extensions.insert(info);
        let inner = self.inner.clone().oneshot(Request::from_parts(parts, body));
        Answer { inner: Some(inner), refusal: None, is_head, stream }
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<StreamBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let stream = Arc::clone(this.stream);
        let mut response = match (this.inner.as_pin_mut(), this.refusal.take()) {
            (Some(inner), _) => ready!(inner.poll(cx))?.map(|body| StreamBody::of_service(body, stream)),
            (None, refusal) => {
                let answer = refusal.map_or_else(|| Response::new(Bytes::new()), Refusal::answer);
                let is_head = *this.is_head;
                answer.map(|text| StreamBody::text(if is_head { Bytes::new() } else { text }, stream))
            }
        };
        for name in &OF_CONNECTION {
            response.headers_mut().remove(name);
        }
        Poll::Ready(Ok(response))
    }
}
