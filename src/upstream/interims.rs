//! [`Interims`]: who is told of interim responses of a source (RFC 9110 section 15.2).

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode};

use super::headers::clean_response;

/// Takes the interim responses that come before an answer: status and end-to-end fields.
#[derive(Clone)]
pub struct Interims(Arc<Taker>);

type Taker = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl Interims {
    /// Tells `taker`.
    pub fn new(taker: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(taker))
    }

    /// Has the taker told of what comes before the answer to `request`. That a body may be sent was asked by nobody but us, and
    /// protocols are not switched, so 100 and 101 go no further.
    pub(super) fn listen<B>(&self, request: &mut Request<B>) {
        let taker = Arc::clone(&self.0);
        hyper::ext::on_informational(request, move |response| {
            let status = response.status();
            if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
                return;
            }
            let mut fields = response.headers().clone();
            clean_response(status, &mut fields);
            taker(status, &fields);
        });
    }
}

impl fmt::Debug for Interims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interims")
    }
}
