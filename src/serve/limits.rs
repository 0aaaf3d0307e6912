//! The outer edge of the service: how many requests may be in flight, and 503 to new ones while the process
//! drains. A request is in flight until its answer's body has ended or was dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::tunnel::Tunnel;
use super::wire::{Piece, PieceBody};
use crate::shutdown::Drain;
use crate::telemetry::Metrics;

/// Bounds the requests in flight over all connections. Clones share the count.
#[derive(Debug, Clone)]
pub struct RequestLimit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    in_flight: AtomicUsize,
    metrics: Arc<Metrics>,
    drain: Drain,
}

/// A service behind a [`RequestLimit`].
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct Permit {
    shared: Arc<Shared>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    Requests,
    Draining,
}

pin_project! {
    /// The future of a [`Limited`] service.
    pub struct LimitedFuture<F> {
        #[pin]
        inner: Option<F>,
        permit: Option<Permit>,
        denied: Option<Denied>,
    }
}

pin_project! {
    /// A body that keeps its request in flight; empty for a request that was not let in.
    #[derive(Debug)]
    pub struct LimitedBody<B> {
        #[pin]
        inner: Option<B>,
        permit: Option<Permit>,
    }
}

// === impl RequestLimit ===

impl RequestLimit {
    /// At most `most` requests in flight (`limits.requests`); none while `drain` is on.
    pub fn new(most: usize, metrics: Arc<Metrics>, drain: Drain) -> Self {
        Self { shared: Arc::new(Shared { most, in_flight: AtomicUsize::new(0), metrics, drain }) }
    }

    /// Lets a request in that does not come through the service; nothing when it has to be refused, which the service
    /// does.
    pub(super) fn admit(&self) -> Option<Permit> {
        Permit::acquire(&self.shared).ok()
    }
}

impl<S> Layer<S> for RequestLimit {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, shared: Arc::clone(&self.shared) }
    }
}

// === impl Permit ===

impl Permit {
    fn acquire(shared: &Arc<Shared>) -> Result<Self, Denied> {
        if shared.drain.draining() {
            return Err(Denied::Draining);
        }
        let more = |count: usize| (count < shared.most).then(|| count.saturating_add(1));
        shared.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Denied::Requests)?;
        shared.metrics.requests_in_flight.inc();
        Ok(Self { shared: Arc::clone(shared) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.shared.metrics.requests_in_flight.dec();
    }
}

// === impl Denied ===

impl Denied {
    fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Draining => "draining",
        }
    }

    /// 503 and never 429: any 4xx makes the Delivery Optimization agent avoid the cache for 15 minutes. No
    /// body, since with one it would close the connection.
    fn response<B>(self) -> Response<LimitedBody<B>> {
        let mut response = Response::new(LimitedBody { inner: None, permit: None });
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        if self == Self::Draining {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

// === impl Limited ===

impl<S, Q, B> Service<Q> for Limited<S>
where
    S: Service<Q, Response = Response<B>>,
{
    type Response = Response<LimitedBody<B>>;
    type Error = S::Error;
    type Future = LimitedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        match Permit::acquire(&self.shared) {
            Ok(permit) => LimitedFuture { inner: Some(self.inner.call(request)), permit: Some(permit), denied: None },
            Err(denied) => {
                self.shared.metrics.limited.with_label_values(&[denied.as_str()]).inc();
                LimitedFuture { inner: None, permit: None, denied: Some(denied) }
            }
        }
    }
}

impl<F, B, E> Future for LimitedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<LimitedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.inner.as_pin_mut(), this.denied.take()) {
            (Some(inner), _) => {
                let response = ready!(inner.poll(cx))?;
                let mut permit = this.permit.take();
                // A tunnel goes on when its answer has ended.
                if let Some(tunnel) = response.extensions().get::<Tunnel>() {
                    tunnel.hold(permit.take());
                }
                Poll::Ready(Ok(response.map(|body| LimitedBody { inner: Some(body), permit })))
            }
            (None, Some(denied)) => Poll::Ready(Ok(denied.response())),
            (None, None) => Poll::Pending, // Polled after completion.
        }
    }
}

impl<B: Body> Body for LimitedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(inner.poll_frame(cx));
        if frame.is_none() {
            this.inner.set(None);
            *this.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: PieceBody> PieceBody for LimitedBody<B> {
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>, files: bool) -> Poll<Option<Result<Piece, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let piece = ready!(inner.poll_piece(cx, files));
        if piece.is_none() {
            this.inner.set(None);
            *this.permit = None;
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn limited(
        most: usize,
        metrics: &Arc<Metrics>,
        drain: &Drain,
    ) -> impl Service<Request<()>, Response = Response<LimitedBody<Full<Bytes>>>, Error = Infallible, Future: Send>
    + Clone
    + use<> {
        RequestLimit::new(most, Arc::clone(metrics), drain.clone()).layer(service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"body"))))
        }))
    }

    #[tokio::test]
    async fn a_request_is_in_flight_until_its_body_ends_or_is_dropped() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let service = limited(1, &metrics, &Drain::new());
        let first = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(metrics.requests_in_flight.get(), 1);

        let second = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(second.headers()[CONTENT_LENGTH], "0");
        assert!(second.headers().contains_key(RETRY_AFTER));
        assert!(second.into_body().is_end_stream());
        assert_eq!(metrics.limited.with_label_values(&["requests"]).get(), 1);

        let mut body = first.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "body");
        assert!(body.frame().await.is_none());
        assert_eq!(metrics.requests_in_flight.get(), 0);
        drop(service.clone().oneshot(Request::new(())).await.unwrap());
        assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK);
        assert_eq!(metrics.requests_in_flight.get(), 0);
    }

    #[tokio::test]
    async fn new_requests_get_503_and_close_while_draining() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let drain = Drain::new();
        let service = limited(1, &metrics, &drain);
        drain.start();
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(metrics.limited.with_label_values(&["draining"]).get(), 1);
    }
}
