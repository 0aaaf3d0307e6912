//! Why a fill brought nothing.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use crate::upstream::FetchError;

/// A fill that failed, for everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FillError {
    /// No source gave an answer.
    #[error(transparent)]
    Upstream(Arc<FetchError>),
    /// The answer made no sense: an unasked 206, a 304 to no condition.
    #[error("upstream answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The time for the first byte was over before one came.
    #[error("no byte from upstream in time")]
    Deadline,
    /// The flight ended without a result.
    #[error("the fill was given up")]
    Abandoned,
}

impl FillError {
    /// A short word for metrics, logs and `Cache-Status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Upstream(error) => error.as_str(),
            Self::BadAnswer(_) => "bad-answer",
            Self::Deadline => "deadline",
            Self::Abandoned => "abandoned",
        }
    }

    /// When a source may be asked again, if all are known to be down.
    pub(super) fn down_until(&self) -> Option<Instant> {
        let Self::Upstream(error) = self else { return None };
        error.ask_again_at().map(Instant::from_std)
    }

    /// With which status somebody between here and the origin has refused, if that is why.
    pub fn status(&self) -> Option<StatusCode> {
        let Self::Upstream(error) = self else { return None };
        match **error {
            FetchError::MiddlemanRefused { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Whether it is refused, and that may be the word of somebody who has it: not of a parent that asked nobody.
    pub(super) fn is_forbidden(&self) -> bool {
        let Self::Upstream(error) = self else { return false };
        let FetchError::MiddlemanRefused { status, has_no_rule, .. } = **error else { return false };
        status == StatusCode::FORBIDDEN && !has_no_rule
    }

    /// Whether the client broke the body of its request.
    pub fn is_of_the_request(&self) -> bool {
        matches!(self, Self::Upstream(error) if matches!(**error, FetchError::RequestBody))
    }

    /// Whether no source was asked, since none is allowed or all are known to be down.
    pub fn asked_nobody(&self) -> bool {
        let Self::Upstream(error) = self else { return false };
        error.ask_again_at().is_some() || matches!(**error, FetchError::NoSource { .. })
    }
}

impl From<FetchError> for FillError {
    fn from(error: FetchError) -> Self {
        Self::Upstream(Arc::new(error))
    }
}
