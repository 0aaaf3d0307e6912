//! `Cache-Status` (RFC 9211): what this cache did with a request.

use std::fmt::Write as _;

/// Why a request went upstream (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FwdReason {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method.
    Method,
    /// Nothing is stored under the key.
    UriMiss,
    /// What is stored is for other requests.
    VaryMiss,
    /// The request asked for it.
    Request,
    /// What is stored is stale.
    Stale,
    /// Bytes are missing.
    Partial,
}

/// This cache's member of the field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheStatus {
    hit: bool,
    fwd: Option<FwdReason>,
    fwd_status: Option<u16>,
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    detail: Option<String>,
}

impl FwdReason {
    /// The word of the RFC.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// The answer came from the store.
    pub fn hit() -> Self {
        Self { hit: true, ..Self::default() }
    }

    /// The request went upstream, and with what result.
    pub fn forwarded(reason: FwdReason, status: Option<u16>) -> Self {
        Self { fwd: Some(reason), fwd_status: status, ..Self::default() }
    }

    /// The answer is this cache's own, and why.
    pub fn own(detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..Self::default() }
    }

    /// Seconds until the response is stale.
    #[must_use]
    pub fn with_ttl(mut self, seconds: i64) -> Self {
        self.ttl = Some(seconds);
        self
    }

    /// The response is being stored.
    #[must_use]
    pub fn stored(mut self) -> Self {
        self.stored = true;
        self
    }

    /// The request shared another one's.
    #[must_use]
    pub fn collapsed_if(mut self, collapsed: bool) -> Self {
        self.collapsed = collapsed;
        self
    }

    /// More about it, for people.
    #[must_use]
    pub fn because(mut self, detail: &str) -> Self {
        self.detail = Some(detail.to_owned());
        self
    }

    /// The member as text, under the cache's name.
    pub fn render(&self, name: &str) -> String {
        let mut text = String::with_capacity(64);
        item(name, &mut text);
        if self.hit {
            text.push_str("; hit");
        }
        if let Some(reason) = self.fwd {
            text.push_str("; fwd=");
            text.push_str(reason.as_str());
        }
        // Writing to a String cannot fail.
        if let Some(status) = self.fwd_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={}", ttl.clamp(-999_999_999_999_999, 999_999_999_999_999));
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = &self.detail {
            text.push_str("; detail=");
            item(detail, &mut text);
        }
        text
    }
}

/// As an sf-token if it is one, else as an sf-string (RFC 9651 sections 3.3.3 and 3.3.4).
fn item(value: &str, text: &mut String) {
    let begins = value.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'*');
    let is_token = begins && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_structured_fields() {
        assert_eq!(CacheStatus::hit().with_ttl(376).render("waystation"), "waystation; hit; ttl=376");
        let miss = CacheStatus::forwarded(FwdReason::UriMiss, Some(200)).stored().collapsed_if(true);
        assert_eq!(miss.render("line 4"), "\"line 4\"; fwd=uri-miss; fwd-status=200; stored; collapsed");
        assert_eq!(CacheStatus::own("no \"byte\"").render("w"), "w; detail=\"no \\\"byte\\\"\"");
        assert_eq!(CacheStatus::hit().with_ttl(i64::MIN).render("w"), "w; hit; ttl=-999999999999999");
    }
}
