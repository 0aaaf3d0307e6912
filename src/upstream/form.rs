//! How a request is written for the source that is asked: the form of its target, its `Host`, and what is told to parents
//! alone. Pure. Which other fields go along is [`super::headers`]' business.

use std::time::Duration;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::content::{Origin, Scheme};

use super::budget::Urgency;
use super::error::FetchError;
use super::plan::{ParentKind, Source};

/// What stands in the value of `cacheHostOrigin` as it is. A colon does: not everybody who reads it decodes it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// In how many milliseconds a parent must have the first byte of its answer, for who waits at the end of the chain waits once
/// for all of it.
pub(super) const TIME_LEFT: HeaderName = HeaderName::from_static("waystation-time-left");

/// What tells a cache that its own word for what the content hashes to is wanted (RFC 9530 section 4).
pub(super) const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
pub(super) const WANTED_DIGEST: HeaderValue = HeaderValue::from_static("sha-256=10");

/// How urgent a request is (RFC 9218 section 4).
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("priority");

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The target of a request for `target` at `origin`, and the fields that go with the form. Parents are told in which time
/// the first byte must be there, `left` from now.
///
/// # Errors
/// When the target cannot be written.
pub(super) fn write(
    source: &Source,
    origin: &Origin,
    target: &str,
    left: Duration,
) -> Result<(Uri, HeaderMap), FetchError> {
    let mut fields = HeaderMap::with_capacity(16);
    let mut written = target.to_owned();
    let host = if source.parent == Some(ParentKind::ConnectedCache) { &source.peer } else { origin };
    fields.insert(HOST, HeaderValue::try_from(host.authority()).map_err(|error| invalid(&error))?);
    if source.parent == Some(ParentKind::ConnectedCache) {
        written.push(if target.contains('?') { '&' } else { '?' });
        written.push_str("cacheHostOrigin=");
        written.extend(utf8_percent_encode(&origin.authority(), PLAIN));
        // Whatever the parent is spoken to by.
        fields.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme.as_str()));
    }
    let proxy = source.proxy.as_ref().filter(|_| !source.is_tunnelled());
    let credentials = proxy.map_or(source.credentials.as_ref(), |proxy| proxy.credentials.as_ref());
    if let Some(credentials) = credentials {
        fields.insert(PROXY_AUTHORIZATION, credentials.value().clone());
    }
    let path_and_query = PathAndQuery::try_from(written).map_err(|error| invalid(&error))?;
    let uri = if proxy.is_some() || source.parent == Some(ParentKind::ForwardProxy) {
        absolute(host, path_and_query)?
    } else {
        Uri::from(path_and_query)
    };
    if source.parent.is_some() {
        fields.insert(TIME_LEFT, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
    }
    Ok((uri, fields))
}

/// The same for a `target` of a parent's own, which names no origin.
///
/// # Errors
/// When the target cannot be written.
pub(super) fn write_own(source: &Source, target: &str, left: Duration) -> Result<(Uri, HeaderMap), FetchError> {
    let direct = Source { parent: None, ..source.clone() };
    let (uri, mut fields) = write(&direct, &source.peer, target, left)?;
    fields.insert(TIME_LEFT, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
    Ok((uri, fields))
}

/// What a parent is told of a request that is less urgent than those of who waits (RFC 9218 section 4.1): 3 is what counts
/// without a word, 7 is for what nobody waits for.
pub(super) fn urgency(source: &Source, urgency: Urgency) -> Option<HeaderValue> {
    let value = match urgency {
        Urgency::Awaited => return None,
        Urgency::Ahead => HeaderValue::from_static("u=5"),
        Urgency::Background => HeaderValue::from_static("u=7"),
    };
    (source.parent == Some(ParentKind::ConnectedCache)).then_some(value)
}

/// The time in which the first byte must be there, as a cache below says it. A value that is none counts as not given.
pub fn time_left(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(TIME_LEFT)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// `http://host/path` (RFC 9112 section 3.2.2).
fn absolute(host: &Origin, path_and_query: PathAndQuery) -> Result<Uri, FetchError> {
    let scheme = match host.scheme {
        Scheme::Http => UriScheme::HTTP,
        Scheme::Https => UriScheme::HTTPS,
    };
    let uri = Uri::builder().scheme(scheme).authority(host.authority()).path_and_query(path_and_query);
    uri.build().map_err(|error| invalid(&error))
}

fn invalid(error: &dyn std::error::Error) -> FetchError {
    FetchError::InvalidRequest { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::upstream::proxy::{Credentials, Proxy};

    fn origin(scheme: Scheme, host: &str, port: u16) -> Origin {
        Origin { scheme, host: host.into(), port }
    }

    fn written(source: &Source, origin: &Origin, target: &str) -> (String, Vec<String>) {
        let (uri, fields) = write(source, origin, target, Duration::from_millis(13_500)).unwrap();
        (uri.to_string(), fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn each_source_is_asked_in_its_own_form() {
        let plain = origin(Scheme::Http, "dl.example.com", 80);
        let secure = origin(Scheme::Https, "dl.example.com", 8443);
        let direct = |origin: &Origin| Source::origin(origin.clone(), None, false);
        let proxy = Proxy { host: "p".into(), port: 3128, credentials: Credentials::basic("a", "b") };
        let through = |source: Source| Source { proxy: Some(Arc::new(proxy.clone())), ..source };
        let parent = |kind| Source { parent: Some(kind), ..direct(&origin(Scheme::Http, "l4.lan", 8081)) };
        let cache = parent(ParentKind::ConnectedCache);
        let forward = Source { credentials: Credentials::basic("a", "b"), ..parent(ParentKind::ForwardProxy) };
        let (host, secure_host) = ("host: dl.example.com", "host: dl.example.com:8443");
        let (own, left) = ("host: l4.lan:8081", "waystation-time-left: 13500");
        let (plain_proto, proto) = ("x-forwarded-proto: http", "x-forwarded-proto: https");
        let basic = "proxy-authorization: Basic YTpi";
        for (source, origin, target, uri, fields) in [
            (direct(&plain), &plain, "/a?b", "/a?b", vec![host]),
            (direct(&secure), &secure, "/a", "/a", vec![secure_host]),
            (through(direct(&plain)), &plain, "/a?b", "http://dl.example.com/a?b", vec![host, basic]),
            (through(direct(&secure)), &secure, "/a", "/a", vec![secure_host]),
            (cache.clone(), &plain, "/a", "/a?cacheHostOrigin=dl.example.com", vec![own, plain_proto, left]),
            (
                through(cache.clone()),
                &plain,
                "/a?b",
                "http://l4.lan:8081/a?b&cacheHostOrigin=dl.example.com",
                vec![own, plain_proto, basic, left],
            ),
            (cache, &secure, "/a?", "/a?&cacheHostOrigin=dl.example.com:8443", vec![own, proto, left]),
            (through(forward.clone()), &plain, "/a", "http://dl.example.com/a", vec![host, basic, left]),
            (forward.clone(), &plain, "/a", "http://dl.example.com/a", vec![host, basic, left]),
            (forward, &secure, "/a", "https://dl.example.com:8443/a", vec![secure_host, basic, left]),
        ] {
            assert_eq!(
                written(&source, origin, target),
                (uri.to_owned(), fields.iter().map(|f| (*f).to_owned()).collect())
            );
        }
    }

    #[test]
    fn only_parents_in_the_form_of_connected_cache_are_told_what_is_less_urgent() {
        let direct = Source::origin(origin(Scheme::Http, "l4.lan", 8081), None, false);
        let parent = |kind| Source { parent: Some(kind), ..direct.clone() };
        let cache = parent(ParentKind::ConnectedCache);
        assert_eq!(urgency(&cache, Urgency::Awaited), None);
        assert_eq!(urgency(&cache, Urgency::Ahead).unwrap(), "u=5");
        assert_eq!(urgency(&cache, Urgency::Background).unwrap(), "u=7");
        for other in [direct.clone(), parent(ParentKind::ForwardProxy)] {
            assert_eq!(urgency(&other, Urgency::Background), None);
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let (origin, left) = (origin(Scheme::Http, "dl.example.com", 80), Duration::ZERO);
        let source = Source::origin(origin.clone(), None, false);
        assert!(matches!(write(&source, &origin, "/a b", left), Err(FetchError::InvalidRequest { .. })));
    }
}
