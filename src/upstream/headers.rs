//! Which fields go to a source and which of its fields are kept. Pure. How a body is framed is
//! [`super::framing`]'s business, loops are [`super::loops`]'s.

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, EXPECT, FORWARDED, HOST,
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, StatusCode};

use super::form::TIME_LEFT;

/// What becomes of the answer, and so which request fields may influence it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It may be stored and given to others.
    Cacheable,
    /// It is for this client only.
    Bypass,
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
];

/// Fields that `Connection` cannot take away, since what we do depends on them, or since they show a loop (RFC 8586
/// section 2).
const NOT_NAMEABLE: [HeaderName; 6] =
    [HOST, CONTENT_LENGTH, CACHE_CONTROL, RANGE, VIA, HeaderName::from_static("cdn-loop")];

/// Request fields that are never passed on: made anew for each connection, or telling of the clients' network.
const NEVER_FORWARDED: [HeaderName; 10] = [
    HOST,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    TIME_LEFT,
];

/// Request fields that could change an answer without being part of its key (cache poisoning), or that the
/// client's own answer depends on, not the stored one.
const NOT_WHEN_CACHEABLE: [HeaderName; 19] = [
    COOKIE,
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    HeaderName::from_static("cookie2"),
    // One client's wish for no digest would take away the check of what all are given.
    HeaderName::from_static("want-repr-digest"),
    HeaderName::from_static("want-content-digest"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-http-host-override"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-http-path-override"),
];

/// The end-to-end fields of a client's request that go to a source. `Host`, `Via` and `CDN-Loop` are added
/// by the fetch. For [`Forwarding::Cacheable`] the client's `Range` and `If-*` fields are dropped too: the
/// caller adds those that it wants itself. `identity_only` asks for unencoded bytes, so that ranges and digests
/// of all clients refer to the same ones.
pub fn request_fields(client: &HeaderMap, forwarding: Forwarding, identity_only: bool) -> HeaderMap {
    let named = named_by_connection(client);
    let mut fields = HeaderMap::with_capacity(client.len() + 4);
    for (name, value) in client {
        let dropped = is_hop_by_hop(name, &named)
            || NEVER_FORWARDED.contains(name)
            || name.as_str().starts_with("x-forwarded-")
            || (forwarding == Forwarding::Cacheable && NOT_WHEN_CACHEABLE.contains(name))
            || (identity_only && name == ACCEPT_ENCODING);
        if !dropped {
            fields.append(name, value.clone());
        }
    }
    if identity_only {
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    fields
}

/// Whether a request has only fields of which an answer that others get may depend: none that is kept back from cacheable
/// requests.
pub fn is_for_all(client: &HeaderMap) -> bool {
    !NOT_WHEN_CACHEABLE.iter().any(|name| client.contains_key(name))
}

/// What of these request fields goes further than one connection, whatever becomes of the answer.
pub(super) fn end_to_end(fields: &HeaderMap) -> HeaderMap {
    request_fields(fields, Forwarding::Bypass, false)
}

/// Removes what is not end-to-end from an answer, and its framing, which is given in parsed form. To other statuses than
/// 206 and 416 a `Content-Range` means nothing (RFC 9110 section 14.4): there it is a field like any other.
pub(super) fn clean_response(status: StatusCode, headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    for name in named.iter().chain(&HOP_BY_HOP).chain(&[CONTENT_LENGTH]) {
        headers.remove(name);
    }
    if status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE {
        headers.remove(CONTENT_RANGE);
    }
}

/// The valid field names in `Connection`, without those that it must not take away.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION);
    let tokens = values.iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let names = tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok());
    names.filter(|name| !NOT_NAMEABLE.contains(name)).collect()
}

fn is_hop_by_hop(name: &HeaderName, named: &[HeaderName]) -> bool {
    HOP_BY_HOP.contains(name) || named.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    /// (field, kept when cacheable, kept on bypass)
    const REQUEST_TABLE: &[(&str, bool, bool)] = &[
        ("accept", true, true),
        ("accept-encoding", true, true),
        ("authorization", true, true),
        ("user-agent", true, true),
        ("cache-control", true, true),
        ("via", true, true),
        ("cdn-loop", true, true),
        ("x-anything", true, true),
        ("cookie", false, true),
        ("want-repr-digest", false, true),
        ("want-content-digest", false, true),
        ("range", false, true),
        ("if-range", false, true),
        ("if-none-match", false, true),
        ("if-modified-since", false, true),
        ("if-match", false, true),
        ("if-unmodified-since", false, true),
        ("x-original-url", false, true),
        ("x-rewrite-url", false, true),
        ("x-http-method-override", false, true),
        ("x-forwarded-for", false, false),
        ("x-forwarded-host", false, false),
        ("x-forwarded-anything", false, false),
        ("forwarded", false, false),
        ("x-real-ip", false, false),
        ("host", false, false),
        ("content-length", false, false),
        ("transfer-encoding", false, false),
        ("expect", false, false),
        ("keep-alive", false, false),
        ("te", false, false),
        ("trailer", false, false),
        ("upgrade", false, false),
        ("http2-settings", false, false),
        ("proxy-connection", false, false),
        ("proxy-authorization", false, false),
        ("x-per-hop", false, false),
        ("x-also-per-hop", false, false),
    ];

    #[test]
    fn only_what_belongs_to_the_request_is_forwarded() {
        let mut client = headers(&[
            ("connection", "close, X-Per-Hop ,, cache-control, host, range, Via, CDN-Loop"),
            ("connection", "x-also-per-hop, not a name, (bad)"),
        ]);
        for (name, _, _) in REQUEST_TABLE {
            client.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
            client.append(HeaderName::from_static(name), HeaderValue::from_static("2"));
        }
        for (forwarding, kept) in [
            (Forwarding::Cacheable, REQUEST_TABLE.iter().map(|row| row.1).collect::<Vec<_>>()),
            (Forwarding::Bypass, REQUEST_TABLE.iter().map(|row| row.2).collect()),
        ] {
            let fields = request_fields(&client, forwarding, false);
            assert!(!fields.contains_key(CONNECTION));
            assert!(!is_for_all(&client));
            assert!(forwarding == Forwarding::Bypass || is_for_all(&fields));
            for ((name, _, _), kept) in REQUEST_TABLE.iter().zip(kept) {
                let count = fields.get_all(*name).iter().count();
                assert_eq!(count, if kept { 2 } else { 0 }, "{name} {forwarding:?}");
            }
        }
    }

    #[test]
    fn identity_replaces_what_the_client_accepts() {
        let client = headers(&[("accept-encoding", "gzip"), ("accept-encoding", "br")]);
        let fields = request_fields(&client, Forwarding::Cacheable, true);
        assert_eq!(fields.get_all(ACCEPT_ENCODING).iter().collect::<Vec<_>>(), ["identity"]);
        assert_eq!(request_fields(&HeaderMap::new(), Forwarding::Bypass, true)[ACCEPT_ENCODING], "identity");
    }

    #[test]
    fn answers_lose_what_belongs_to_the_connection_and_their_framing() {
        let mut answer = headers(&[
            ("connection", "x-per-hop, etag-like"),
            ("connection", "Keep-Alive, Cache-Control"),
            ("keep-alive", "timeout=5"),
            ("x-per-hop", "1"),
            ("etag-like", "1"),
            ("cache-control", "no-store"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("content-range", "bytes 0-4/5"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("etag", "\"1\""),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        let mut whole = answer.clone();
        clean_response(StatusCode::PARTIAL_CONTENT, &mut answer);
        let expected =
            headers(&[("cache-control", "no-store"), ("etag", "\"1\""), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        assert_eq!(answer, expected);
        clean_response(StatusCode::OK, &mut whole);
        assert_eq!(whole.remove(CONTENT_RANGE).unwrap(), "bytes 0-4/5");
        assert_eq!(whole, expected);
    }
}
