//! Which fields go to a source and which of its fields are kept. Pure. How a body is framed is
//! [`super::framing`]'s business, loops are [`super::loops`]'s.

use http::header::{
    ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, ETAG, EXPECT, EXPIRES, FORWARDED, HOST, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY, VIA,
};
use http::{HeaderMap, StatusCode};

use super::form::{PRIORITY, TIME_LEFT};

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

/// Fields that `Connection` cannot take away, since what we do depends on them: a sender must not name what is meant for all
/// (RFC 9110 section 7.6.1), and who does would have an answer stored that must not be, or for others than
/// it is for, or hide a loop (RFC 8586 section 2).
const NOT_NAMEABLE: [HeaderName; 12] = [
    HOST,
    CONTENT_LENGTH,
    CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    RANGE,
    AGE,
    CONTENT_ENCODING,
    DATE,
    EXPIRES,
    VARY,
    VIA,
    HeaderName::from_static("cdn-loop"),
];

/// Fields of one value (RFC 9110 section 5.3) of which the first line counts when there are several.
const FIRST_COUNTS: [HeaderName; 5] = [AGE, CONTENT_LOCATION, CONTENT_TYPE, LOCATION, RETRY_AFTER];

/// Fields of one value that say nothing when several lines differ: none of them is a version or a time to rely on.
const NONE_COUNTS: [HeaderName; 3] = [DATE, ETAG, LAST_MODIFIED];

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
            // How urgent one client's request is says nothing of the one for all.
            || (forwarding == Forwarding::Cacheable && (NOT_WHEN_CACHEABLE.contains(name) || name == PRIORITY))
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
/// 206 and 416 a `Content-Range` means nothing (RFC 9110 section 14.4): there it is a field like any other. Of a field of one
/// value one line is left at most, so that nobody further down takes another one for it than we do.
pub(super) fn clean_response(status: StatusCode, headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    for name in named.iter().chain(&HOP_BY_HOP).chain(&[CONTENT_LENGTH]) {
        headers.remove(name);
    }
    if status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE {
        headers.remove(CONTENT_RANGE);
    }
    for name in FIRST_COUNTS {
        leave_one(headers, name, Some);
    }
    for name in NONE_COUNTS {
        leave_one(headers, name, |_| None);
    }
    // RFC 9111 section 4.2.1: the answer counts as stale then.
    leave_one(headers, EXPIRES, |_| Some(HeaderValue::from_static("0")));
    // RFC 9111 section 5.1: one that is no number of seconds is ignored.
    let is_age = |value: &HeaderValue| {
        let first = value.as_bytes().split(|&b| b == b',').next().unwrap_or_default().trim_ascii();
        !first.is_empty() && first.iter().all(u8::is_ascii_digit)
    };
    if headers.get(AGE).is_some_and(|age| !is_age(age)) {
        headers.remove(AGE);
    }
}

/// Makes several lines of `name` one: what all say, or else what is made of the first.
fn leave_one(headers: &mut HeaderMap, name: HeaderName, of_first: impl Fn(HeaderValue) -> Option<HeaderValue>) {
    let mut lines = headers.get_all(&name).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let is_agreed = first == second && lines.all(|line| line == first);
    let first = first.clone();
    let one = if is_agreed { Some(first) } else { of_first(first) };
    headers.remove(&name);
    headers.extend(one.map(|value| (name, value)));
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
        ("priority", false, true),
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

    #[test]
    fn what_has_one_value_has_one_line() {
        for (name, lines, left) in [
            ("etag", &["\"a\"", "\"b\""][..], None),
            ("etag", &["\"a\"", "\"a\""], Some("\"a\"")),
            ("etag", &["\"a\", \"b\""], Some("\"a\", \"b\"")),
            ("last-modified", &["x", "y"], None),
            ("date", &["x", "x", "y"], None),
            ("expires", &["x", "y"], Some("0")),
            ("expires", &["x", "x"], Some("x")),
            ("content-type", &["text/html", "text/plain"], Some("text/html")),
            ("location", &["/a", "/b"], Some("/a")),
            ("age", &["1", "5"], Some("1")),
            ("age", &["1, 5"], Some("1, 5")),
            ("age", &["-5"], None),
            ("age", &["soon", "5"], None),
            ("age", &["99999999999999999999"], Some("99999999999999999999")),
        ] {
            let mut answer = HeaderMap::new();
            for line in lines {
                answer.append(HeaderName::from_static(name), HeaderValue::from_static(line));
            }
            clean_response(StatusCode::OK, &mut answer);
            let got: Vec<_> = answer.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(got, left.into_iter().collect::<Vec<_>>(), "{name} {lines:?}");
        }
    }

    #[test]
    fn an_answer_keeps_what_says_for_whom_and_how_long_it_is() {
        let names = ["vary", "cache-control", "cdn-cache-control", "content-encoding", "age", "date", "expires"];
        let mut answer = headers(&names.map(|name| (name, "1")));
        answer.append(CONNECTION, HeaderValue::from_static("set-cookie, etag"));
        for name in names {
            answer.append(CONNECTION, HeaderValue::from_static(name));
        }
        answer.append("set-cookie", HeaderValue::from_static("a=b"));
        clean_response(StatusCode::OK, &mut answer);
        assert_eq!(answer, headers(&names.map(|name| (name, "1"))));
    }
}
