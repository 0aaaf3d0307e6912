//! [`AnswerFault`]: what is wrong with the head of an answer, and how logs and metrics call it.

use std::fmt;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFault {
    /// Its head is not HTTP/1.1.
    Unparsable,
    /// Its head is larger than the limit.
    HeadTooLarge,
    /// Its status is no number from 100 to 599 (RFC 9110 section 15), or its status line goes on as none may (RFC 9112
    /// section 4).
    Status,
    /// It switches protocols although nobody asked for that.
    UnaskedUpgrade,
    /// `Content-Length` is no number, or several differ (RFC 9112 section 6.3).
    Length,
    /// `Transfer-Encoding` is anything but one `chunked` (RFC 9112 section 6.1).
    TransferEncoding,
    /// `Content-Range` is missing from a single-part 206, is malformed, or contradicts `Content-Length`
    /// (RFC 9110 section 14.4).
    ContentRange,
}

impl AnswerFault {
    /// What hyper says of a head that it refuses: there is nothing but its words.
    pub(super) fn named_by(text: &str) -> Self {
        let words = [
            ("content-length", Self::Length),
            ("transfer-encoding", Self::TransferEncoding),
            ("status-code", Self::Status),
        ];
        words.into_iter().find(|(word, _)| text.contains(word)).map_or(Self::Unparsable, |(_, fault)| fault)
    }

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unparsable => "unparsable",
            Self::HeadTooLarge => "head-too-large",
            Self::Status => "status",
            Self::UnaskedUpgrade => "unasked-upgrade",
            Self::Length => "length",
            Self::TransferEncoding => "transfer-encoding",
            Self::ContentRange => "content-range",
        }
    }
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unparsable => "not HTTP/1.1",
            Self::HeadTooLarge => "its head is too large",
            Self::Status => "invalid status line",
            Self::UnaskedUpgrade => "it switches protocols unasked",
            Self::Length => "invalid Content-Length",
            Self::TransferEncoding => "unknown Transfer-Encoding",
            Self::ContentRange => "invalid Content-Range",
        })
    }
}
