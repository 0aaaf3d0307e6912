//! [`CacheStatus`]: what this cache did with a request, as a member of the `Cache-Status` field (RFC 9211).

use std::fmt::Write as _;

use crate::content::CacheKey;

/// The parameter by which a cache says that `Repr-Digest` is its own word (see `own_digest`).
pub(super) const OWN_DIGEST: &str = "digest=own";

/// One cache's account of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStatus {
    kind: Kind,
    stored: bool,
    collapsed: bool,
    ttl: Option<i64>,
    key: Option<CacheKey>,
    own_digest: bool,
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    Forwarded { reason: FwdReason, status: Option<u16> },
    Own,
}

/// Why a request went upstream (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FwdReason {
    /// The cache does not handle such requests.
    Bypass,
    /// The method has to be passed on.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// What is stored for the URI is not selected by the request.
    VaryMiss,
    /// Nothing usable is stored.
    Miss,
    /// A fresh response is stored, and the request wants another.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored, and more is wanted.
    Partial,
}

impl FwdReason {
    /// The token of RFC 9211.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// Answered from what is stored, without asking upstream.
    pub fn hit() -> Self {
        Self::new(Kind::Hit)
    }

    /// Asked upstream for `reason`, which answered `fwd_status`, if it did.
    pub fn forwarded(reason: FwdReason, fwd_status: Option<u16>) -> Self {
        Self::new(Kind::Forwarded { reason, status: fwd_status })
    }

    /// An answer that this cache made itself, and why.
    pub fn own(detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..Self::new(Kind::Own) }
    }

    fn new(kind: Kind) -> Self {
        Self { kind, stored: false, collapsed: false, ttl: None, key: None, own_digest: false, detail: None }
    }

    /// The same of a request that has gone upstream all the same, for `reason`, and was answered `fwd_status` there, if it
    /// was; whatever the client gets in its place.
    #[must_use]
    pub fn after(self, reason: FwdReason, fwd_status: Option<u16>) -> Self {
        match self.kind {
            Kind::Hit | Kind::Own => Self { kind: Kind::Forwarded { reason, status: fwd_status }, ..self },
            Kind::Forwarded { .. } => self,
        }
    }

    /// The answer of upstream was stored, if `stored` (RFC 9211 section 2.5).
    #[must_use]
    pub fn stored_if(self, stored: bool) -> Self {
        Self { stored, ..self }
    }

    /// The request shared another one's answer of upstream, if `collapsed` (RFC 9211 section 2.6).
    #[must_use]
    pub fn collapsed_if(self, collapsed: bool) -> Self {
        Self { collapsed, ..self }
    }

    /// With the remaining lifetime in seconds; negative when stale (RFC 9211 section 2.4).
    #[must_use]
    pub fn with_ttl(self, seconds: i64) -> Self {
        Self { ttl: Some(seconds), ..self }
    }

    /// With the key that was looked up, if it is to be told (RFC 9211 section 2.7). Of a query nothing is shown: what no rule
    /// calls a secret may be one, and a cache below stores the field and gives it to others. A hash of the whole key stands
    /// in its place, so that two keys can be told apart.
    #[must_use]
    pub fn with_key(self, key: Option<CacheKey>) -> Self {
        Self { key, ..self }
    }

    /// The answer's `Repr-Digest` is this cache's own word, not one that it passes on.
    #[must_use]
    pub fn with_own_digest(self) -> Self {
        Self { own_digest: true, ..self }
    }

    /// With what is said beyond the tokens of RFC 9211 (section 2.8).
    #[must_use]
    pub fn because(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }

    /// What is said beyond the tokens of RFC 9211.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The member under this cache's name, for example `waystation; fwd=uri-miss; fwd-status=200; stored`.
    pub fn render(&self, cache_name: &str) -> String {
        let mut text = String::new();
        push_item(&mut text, cache_name);
        match self.kind {
            Kind::Hit => text.push_str("; hit"),
            Kind::Forwarded { reason, status } => {
                text.push_str("; fwd=");
                text.push_str(reason.as_str());
                if let Some(status) = status {
                    // Writing to a string does not fail.
                    let _ = write!(text, "; fwd-status={status}");
                }
            }
            Kind::Own => {}
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={}", ttl.clamp(-LARGEST_INTEGER, LARGEST_INTEGER));
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(key) = &self.key {
            text.push_str("; key=");
            push_string(&mut text, &shown(key));
        }
        if self.own_digest {
            text.push_str("; ");
            text.push_str(OWN_DIGEST);
        }
        if let Some(detail) = &self.detail {
            text.push_str("; detail=");
            push_item(&mut text, detail);
        }
        text
    }
}

/// RFC 9651 section 3.3.1.
const LARGEST_INTEGER: i64 = 999_999_999_999_999;

/// Most characters of a key that are shown. With what is added it is a string that every recipient can read (RFC 9651 section
/// 3.3.3).
const LONGEST_KEY: usize = 1000;
/// Hexadecimal digits of the hash that stands for the rest.
const HASH_DIGITS: usize = 16;

/// `key` without its query.
fn shown(key: &CacheKey) -> String {
    let whole = key.as_str();
    let path = whole.split('?').next().unwrap_or_default();
    let mut shown: String = path.chars().take(LONGEST_KEY).collect();
    if shown.len() < whole.len() {
        shown.push('?');
        for byte in key.hash().as_bytes().iter().take(HASH_DIGITS / 2) {
            // Writing to a string does not fail.
            let _ = write!(shown, "{byte:02x}");
        }
    }
    shown
}

/// As a token, or as a string if it is none (RFC 9651 sections 3.3.3 and 3.3.4).
fn push_item(text: &mut String, item: &str) {
    let is_token = item.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && item.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        text.push_str(item);
    } else {
        push_string(text, item);
    }
}

/// As a string (RFC 9651 section 3.3.3). Strings are ASCII: other characters become `?`.
fn push_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_look_as_in_rfc_9211() {
        for (status, expected) in [
            (CacheStatus::hit(), "waystation; hit"),
            (CacheStatus::hit().with_ttl(376), "waystation; hit; ttl=376"),
            (CacheStatus::hit().with_ttl(-412), "waystation; hit; ttl=-412"),
            (CacheStatus::hit().with_ttl(i64::MIN), "waystation; hit; ttl=-999999999999999"),
            (
                CacheStatus::forwarded(FwdReason::UriMiss, Some(200)).stored_if(true).collapsed_if(true),
                "waystation; fwd=uri-miss; fwd-status=200; stored; collapsed",
            ),
            (CacheStatus::forwarded(FwdReason::Stale, None).collapsed_if(false), "waystation; fwd=stale"),
            (
                CacheStatus::forwarded(FwdReason::Stale, None).with_ttl(-9).because("disconnected"),
                "waystation; fwd=stale; ttl=-9; detail=disconnected",
            ),
            (
                CacheStatus::forwarded(FwdReason::Miss, Some(200)).with_ttl(60).stored_if(true).collapsed_if(false),
                "waystation; fwd=miss; fwd-status=200; ttl=60; stored",
            ),
            (
                CacheStatus::own("deadline").after(FwdReason::UriMiss, Some(200)),
                "waystation; fwd=uri-miss; fwd-status=200; detail=deadline",
            ),
            (CacheStatus::hit().with_ttl(5).after(FwdReason::Stale, None), "waystation; fwd=stale; ttl=5"),
            (
                CacheStatus::forwarded(FwdReason::Stale, Some(500)).after(FwdReason::UriMiss, Some(200)),
                "waystation; fwd=stale; fwd-status=500",
            ),
            (CacheStatus::own("only-if-cached"), "waystation; detail=only-if-cached"),
            (CacheStatus::own("no \"way\""), "waystation; detail=\"no \\\"way\\\"\""),
            (CacheStatus::own("429"), "waystation; detail=\"429\""),
            (CacheStatus::own(""), "waystation; detail=\"\""),
        ] {
            assert_eq!(status.render("waystation"), expected);
        }
        assert_eq!(CacheStatus::hit().render("waystation-01.example:8081"), "waystation-01.example:8081; hit");
        assert_eq!(CacheStatus::hit().render("Halle 3 – \\links"), "\"Halle 3 ? \\\\links\"; hit");
    }

    #[test]
    fn a_key_is_a_string_and_tells_nothing_of_its_query() {
        let shown = |key: &str| CacheStatus::hit().with_ttl(5).with_key(Some(CacheKey::new(key))).render("w");
        assert_eq!(shown("a.example/f.bin"), "w; hit; ttl=5; key=\"a.example/f.bin\"");
        assert_eq!(shown("f"), "w; hit; ttl=5; key=\"f\"", "never a token");
        assert_eq!(shown("a/\"x\\; hit"), "w; hit; ttl=5; key=\"a/\\\"x\\\\; hit\"");
        assert_eq!(shown("a/é"), "w; hit; ttl=5; key=\"a/?\"");
        let (one, other) = (shown("a/f?v=1&token=secret"), shown("a/f?v=2&token=secret"));
        assert!(one.starts_with("w; hit; ttl=5; key=\"a/f?") && one.len() == other.len(), "{one}");
        assert!(one != other && !one.contains("secret") && !one.contains("v="), "{one}");
        assert_eq!(one, shown("a/f?v=1&token=secret"));
        let (long, longer) = (format!("a/{}", "x".repeat(LONGEST_KEY - 2)), format!("a/{}", "x".repeat(8000)));
        assert!(shown(&long).ends_with(&format!("\"{long}\"")));
        let cut = shown(&longer);
        assert_eq!(cut.len(), shown(&long).len() + 1 + HASH_DIGITS);
        let field = CacheStatus::own("x").with_key(Some(CacheKey::new("a/b"))).with_own_digest().render("w");
        assert_eq!(field, "w; key=\"a/b\"; digest=own; detail=x");
    }

    proptest! {
        #[test]
        fn any_text_makes_a_field_value(name in any::<String>(), detail in any::<String>(), key in any::<String>()) {
            let text = CacheStatus::own(&detail).with_key(Some(CacheKey::new(key))).render(&name);
            prop_assert!(text.is_ascii());
            prop_assert!(HeaderValue::from_str(&text).is_ok());
        }
    }
}
