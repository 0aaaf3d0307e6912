//! [`DataService`]: the handler as the innermost service of the data port. Answers are counted as work that a drain
//! waits for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tower::Service;

use super::Handler;
use super::body::SegmentBody;

/// The handler as a tower service. Cheap to clone.
#[derive(Clone)]
pub struct DataService {
    handler: Arc<Handler>,
}

impl DataService {
    /// Serves with `handler`.
    pub fn new(handler: Arc<Handler>) -> Self {
        Self { handler }
    }
}

impl Service<Request<Incoming>> for DataService {
    type Response = Response<SegmentBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move { Ok(handler.handle(request).await) })
    }
}
