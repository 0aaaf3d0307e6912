//! Ways in for the fuzz targets: what sources answer, as the private parsers see it. No serving build has this.

use http::{HeaderMap, Method, StatusCode};

pub use super::budget::fuzzing::{calendar, day};
use super::framing::{Framing, dimensions};
use super::headers::clean_response;
use super::loops::{mark_request, request_loops};
use super::redirect;
use crate::content::{Origin, Scheme};

/// Reads the fields of an answer and checks that what they say is possible.
///
/// # Panics
/// When it is not.
pub fn answer(method: &Method, status: StatusCode, mut headers: HeaderMap) {
    if let Ok(found) = dimensions(method, status, &headers) {
        if let (Framing::Length(length), Some(part)) = (found.framing, found.content_range) {
            assert_eq!(Some(length), part.range().map(|range| range.len()));
        }
        if let Some(part) = found.content_range {
            assert!(part.first <= part.last && part.total.is_none_or(|total| part.last < total));
        }
    }
    clean_response(StatusCode::OK, &mut headers);
    assert!(!headers.contains_key("connection") && !headers.contains_key("transfer-encoding"));
    for name in ["age", "content-type", "date", "etag", "expires", "last-modified", "location"] {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is there twice");
    }
    mark_request(&mut headers, "waystation");
    assert!(request_loops(&headers, "waystation"), "a marked request is not recognised");
}

/// Resolves a redirect and checks that it leads to a clean target.
///
/// # Panics
/// When it does not, or when it leads from https to http.
pub fn redirect(target: &str, location: &[u8]) {
    for scheme in [Scheme::Http, Scheme::Https] {
        let origin = Origin { scheme, host: "origin.example".into(), port: 80 };
        let Ok((to, target)) = redirect::resolve(&origin, target, location) else { continue };
        assert!(scheme == Scheme::Http || to.scheme == Scheme::Https);
        assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()), "{target:?}");
        assert!(!to.host.is_empty() && !to.host.contains(['@', '/', '?', '#', '\\', ' ']), "{to:?}");
    }
}
