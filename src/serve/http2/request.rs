//! The head of a request in the form that HTTP/1.1 gives it, so that everything behind reads one form: its target without
//! authority, and the authority as `Host` (RFC 9113 section 8.3.1). What the two forms could say differently is refused.
//! Pure. The library has refused what is malformed in any reading: pseudo-header fields, names in capitals, fields of a
//! connection, control characters, a length that is not the content's.

use http::header::{COOKIE, HOST, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, Method, Uri};

use crate::serve::wire::{MAX_FIELDS, MAX_TARGET, Refusal, host_bytes, target_bytes};

/// Changes the head.
///
/// # Errors
/// Why the request is not taken.
pub(super) fn in_origin_form(parts: &mut Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::TunnelVersion);
    }
    if parts.headers.len() > usize::from(MAX_FIELDS) {
        return Err(Refusal::TooManyFields);
    }
    // Some servers of HTTP/1.1 read `_` as `-`: to them it would be framing.
    if ["content_length", "transfer_encoding"].iter().any(|name| parts.headers.contains_key(*name)) {
        return Err(Refusal::FieldName);
    }
    // A proxy in front may pass on by which scheme it was asked itself.
    if parts.uri.scheme().is_some_and(|scheme| *scheme != UriScheme::HTTPS && *scheme != UriScheme::HTTP) {
        return Err(Refusal::Scheme);
    }
    let host = host(&parts.uri, &parts.headers)?;
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if target.as_str().len() > MAX_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    target_bytes(target.as_str().as_bytes())?;
    parts.headers.insert(HOST, host);
    join_cookies(&mut parts.headers)?;
    parts.uri = Uri::from(target);
    Ok(())
}

/// The authority. Beside `:authority` a `Host` must say the same.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut fields = headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(Refusal::HostRepeated),
        (field, None) => field,
    };
    let host = match (uri.authority(), field) {
        (None, None) => return Err(Refusal::HostMissing),
        (None, Some(field)) => field.clone(),
        (Some(authority), field) => {
            let said = authority.as_str().as_bytes();
            if field.is_some_and(|field| !field.as_bytes().eq_ignore_ascii_case(said)) {
                return Err(Refusal::HostDiffers);
            }
            HeaderValue::from_bytes(said).map_err(|_| Refusal::HostInvalid)?
        }
    };
    host_bytes(host.as_bytes())?;
    Ok(host)
}

/// Several fields become one, as a reader of HTTP/1.1 expects it (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut all = headers.get_all(COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| Refusal::FieldValue)?;
    headers.insert(COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn changed(uri: &str, fields: &[(&str, &str)]) -> Result<Parts, Refusal> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        in_origin_form(&mut parts).map(|()| parts)
    }

    #[test]
    fn the_authority_becomes_the_host() {
        for (uri, fields, target, host) in [
            ("https://gateway/a/b?x=1", &[][..], "/a/b?x=1", "gateway"),
            ("https://gateway:8443/a", &[("host", "Gateway:8443")], "/a", "gateway:8443"),
            ("/a", &[("host", "[::1]:8443")], "/a", "[::1]:8443"),
            ("https://gateway", &[], "/", "gateway"),
            ("http://gateway/a", &[], "/a", "gateway"),
        ] {
            let parts = changed(uri, fields).unwrap();
            assert_eq!(
                (parts.uri.to_string().as_str(), parts.headers[HOST].as_bytes()),
                (target, host.as_bytes()),
                "{uri}"
            );
            assert_eq!((parts.uri.scheme(), parts.uri.authority()), (None, None), "{uri}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (uri, fields, refusal) in [
            ("/a", &[][..], Refusal::HostMissing),
            ("/a", &[("host", "a"), ("host", "a")], Refusal::HostRepeated),
            ("https://a/", &[("host", "b")], Refusal::HostDiffers),
            ("https://a/", &[("host", "")], Refusal::HostDiffers),
            ("https://user@a/", &[], Refusal::HostInvalid),
            ("/a", &[("host", "a,b")], Refusal::HostInvalid),
            ("ftp://a/", &[], Refusal::Scheme),
            ("https://a/b\\c", &[], Refusal::Target),
            ("https://a/b\"c", &[], Refusal::Target),
            ("https://a/", &[("content_length", "5")], Refusal::FieldName),
            ("https://a/", &[("transfer_encoding", "chunked")], Refusal::FieldName),
        ] {
            assert_eq!(changed(uri, fields).err(), Some(refusal), "{uri} {fields:?}");
        }
        let long = format!("https://a/{}", "x".repeat(MAX_TARGET));
        assert_eq!(changed(&long, &[]).err(), Some(Refusal::TargetTooLong));
        let many: Vec<_> = (0..=MAX_FIELDS).map(|_| ("x-a", "b")).collect();
        assert_eq!(changed("https://a/", &many).err(), Some(Refusal::TooManyFields));
        let mut connect = Request::connect("a:443").body(()).unwrap().into_parts().0;
        assert_eq!(in_origin_form(&mut connect), Err(Refusal::TunnelVersion));
    }

    #[test]
    fn cookies_in_pieces_are_one() {
        let parts = changed("https://a/", &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]).unwrap();
        assert_eq!(parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d"]);
        assert_eq!(changed("https://a/", &[("cookie", "a=b")]).unwrap().headers[COOKIE], "a=b");
    }
}
