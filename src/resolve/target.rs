//! Hygiene of request targets: what is refused before anybody looks for an origin in them.
//!
//! A cache that forwards bytes as received must not forward what it and the origin may read differently.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;

use super::error::Refusal;
use super::normalize::escape_value;

/// Longest target that is looked at, in bytes; RFC 9110 section 4.1 asks for at least 8000.
pub const MAX_TARGET_BYTES: usize = 8192;

/// What is wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetFault {
    /// Neither a path nor an absolute URL: `*`, or `host:port` without CONNECT (RFC 9112 section 3.2).
    Form,
    /// An absolute URL with another scheme than `http` or `https`.
    Scheme,
    /// A control character or white space, or an escaped control character (`%00`, `%0d`).
    Control,
    /// A byte beyond ASCII, which a URL writes as an escape.
    NonAscii,
    /// A backslash, or `%5c` in the path: some servers take it for a slash.
    Backslash,
    /// A `#`, which never goes over the wire (RFC 9112 section 3.2.1).
    Fragment,
    /// A `%` without two hexadecimal digits behind it (RFC 3986 section 2.1).
    Escape,
    /// A segment `..`, or `.` in any other spelling than this; escaped ones and those with a path parameter (`..;x`)
    /// included.
    DotSegment,
}

/// Checks a request target as it stands in the request line, or its path and query. Fragments are only found
/// in the former, since `http::Uri` drops them silently.
///
/// # Errors
/// [`Refusal::TargetTooLong`] or [`Refusal::Target`].
pub fn check_target(target: &[u8]) -> Result<(), Refusal> {
    check_length(target.len())?;
    check_bytes(target).map_err(Refusal::Target)
}

/// # Errors
/// [`Refusal::TargetTooLong`] above [`MAX_TARGET_BYTES`].
pub(super) fn check_length(length: usize) -> Result<(), Refusal> {
    if length > MAX_TARGET_BYTES { Err(Refusal::TargetTooLong { length }) } else { Ok(()) }
}

fn check_bytes(target: &[u8]) -> Result<(), TargetFault> {
    let path_length = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
    let mut rest = target;
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            0..=b' ' | 0x7f => return Err(TargetFault::Control),
            0x80.. => return Err(TargetFault::NonAscii),
            b'\\' => return Err(TargetFault::Backslash),
            b'#' => return Err(TargetFault::Fragment),
            b'%' => match escape_value(after).ok_or(TargetFault::Escape)? {
                0..0x20 | 0x7f => return Err(TargetFault::Control),
                b'\\' if target.len() - rest.len() < path_length => return Err(TargetFault::Backslash),
                _ => {}
            },
            _ => {}
        }
        rest = after;
    }
    let (path, _) = target.split_at(path_length);
    if has_dot_segment(path) { Err(TargetFault::DotSegment) } else { Ok(()) }
}

/// Looks at the decoded path, so that `%2e%2e` and `a%2F..%2Fb` count too. A plain `.` passes: it leads nowhere else,
/// and `apt` sends it for sources whose suite is `./`.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').filter(|segment| *segment != b".").any(|segment| {
        let decoded: Cow<'_, [u8]> = percent_decode(segment).into();
        decoded.split(|b| *b == b'/').any(|part| {
            let name = part.split(|b| *b == b';').next().unwrap_or(part);
            name == b"." || name == b".."
        })
    })
}

impl TargetFault {
    /// The fault for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Form => "target-form",
            Self::Scheme => "target-scheme",
            Self::Control => "target-control-character",
            Self::NonAscii => "target-non-ascii",
            Self::Backslash => "target-backslash",
            Self::Fragment => "target-fragment",
            Self::Escape => "target-escape",
            Self::DotSegment => "target-dot-segment",
        }
    }
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is neither a path nor an absolute URL; send /path or http://host/path",
            Self::Scheme => "has a scheme other than http and https; use one of these",
            Self::Control => "has white space or a control character; write a space as %20, leave out the others",
            Self::NonAscii => "has bytes beyond ASCII; percent-encode them",
            Self::Backslash => "has a backslash in it; use / between segments",
            Self::Fragment => "has a fragment; leave out # and what follows",
            Self::Escape => "has a % without two hexadecimal digits; write a literal % as %25",
            Self::DotSegment => "has a .. segment or an escaped . segment; resolve it before sending",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TargetFault as Is;
    use super::*;

    #[test]
    fn hostile_targets_are_refused_with_their_fault() {
        let table: [(TargetFault, &[&str]); 6] = [
            (Is::Control, &["/a b", "/a\0", "/a\tb", "/a\r\nX: y", "/\x7f", "/%00", "/a%0d%0aX", "/?q=%0A", "/%7F"]),
            (Is::NonAscii, &["/bücher", "/?q=é"]),
            (Is::Backslash, &["/a\\b", "/?a\\b", "/a%5cb", "/..%5C.."]),
            (Is::Fragment, &["/a#b", "/a?b#c"]),
            (Is::Escape, &["/%", "/%4", "/%zz", "/a%2", "/?100%", "/?%g0", "/%%41"]),
            (
                Is::DotSegment,
                &[
                    "/..",
                    "/../a",
                    "/a/../b",
                    "/a/..",
                    "/./../a",
                    "/a/.;x",
                    "/a%2f.",
                    "/.%2fa",
                    "/%2e%2e/a",
                    "/.%2E/a",
                    "/%2e",
                    "/a%2f..%2fb",
                    "/..;/a",
                    "/..;x=1/a",
                    "/..%3bx/a",
                    "/a/..?q",
                ],
            ),
        ];
        for (fault, targets) in table {
            for target in targets {
                assert_eq!(check_target(target.as_bytes()), Err(Refusal::Target(fault)), "{target:?}");
            }
        }
    }

    #[test]
    fn unusual_but_clear_targets_pass() {
        for target in [
            "/",
            "//a//b/",
            "/...",
            "/./Packages.gz",
            "/a/.",
            "/..a/a..",
            "/.well-known/x",
            "/a%20b/C%2Fd/x~y(1).cab?P1=1&P2=a%2Bb%3D%3D&sig=x%20y",
            "/a%252e%252e/b",
            "/caf%C3%A9",
            "/?u=../x&w=%5c&v=//",
            "/g++_1%2b.deb",
            "/a?",
            "http://dl.example.com/a",
        ] {
            assert_eq!(check_target(target.as_bytes()), Ok(()), "{target}");
        }
    }

    #[test]
    fn the_length_limit_is_exact() {
        let target = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert_eq!(check_target(target(8192).as_bytes()), Ok(()));
        assert_eq!(check_target(target(8193).as_bytes()), Err(Refusal::TargetTooLong { length: 8193 }));
    }

    proptest! {
        #[test]
        fn checking_never_panics(target: Vec<u8>) {
            let _ = check_target(&target);
        }
    }
}
