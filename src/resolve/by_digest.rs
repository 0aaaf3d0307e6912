//! Requests by digest: `GET /.well-known/ni/sha-256/<base64url>` (RFC 6920 section 4). They name content, not an origin,
//! so nothing is ever fetched for them. Who may make them is the caller's business: a digest is a capability.

use std::sync::Arc;

use http::Method;

use crate::content::{Digest, Origin, Policy, Scheme};

use super::error::Refusal;
use super::inbound::{Inbound, RequestForm};
use super::query::split_target;
use super::request::ContentRequest;

const PREFIX: &str = "/.well-known/ni/";

/// The name that such requests have in logs in place of an origin's.
const NAME: &str = "ni";

/// Reads a request by digest in origin form; `None` when the request is something else. The query (`ct=`) is ignored.
///
/// # Errors
/// [`Refusal::Digest`] when the name is no whole SHA-256, [`Refusal::Method`] for other methods than GET and HEAD.
pub fn resolve_digest(request: &Inbound<'_>) -> Option<Result<(Digest, ContentRequest), Refusal>> {
    if request.uri.authority().is_some() {
        return None;
    }
    let target = request.uri.path_and_query()?.as_str();
    let name = split_target(target).0.strip_prefix(PREFIX)?;
    let policy = Policy::for_host(NAME);
    if !policy.methods.contains(request.method) {
        return Some(Err(Refusal::method(request.method, &[Method::GET, Method::HEAD])));
    }
    // Truncated digests (sha-256-32 and others) and other algorithms name nothing that is stored here.
    let digest = name.strip_prefix("sha-256/").and_then(|text| Digest::from_base64url(text).ok());
    let Some(digest) = digest else { return Some(Err(Refusal::Digest)) };
    let origin = Origin { scheme: Scheme::Http, host: NAME.into(), port: 80 };
    let target = format!("{PREFIX}sha-256/{}", digest.to_base64url());
    Some(Ok((digest, ContentRequest::new(origin, 80, target, Arc::new(policy), RequestForm::Digest))))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode, Uri, Version};

    use super::*;

    fn ask(method: Method, target: &str) -> Option<Result<Digest, Refusal>> {
        let (uri, headers) = (target.parse::<Uri>().unwrap(), HeaderMap::new());
        let request =
            Inbound { method: &method, uri: &uri, version: Version::HTTP_11, headers: &headers, scheme: Scheme::Http };
        resolve_digest(&request).map(|found| found.map(|(digest, _)| digest))
    }

    #[test]
    fn whole_sha_256_names_only() {
        let digest = Digest::of(b"abc");
        let name = digest.to_base64url();
        assert_eq!(ask(Method::GET, &format!("/.well-known/ni/sha-256/{name}")), Some(Ok(digest)));
        assert_eq!(ask(Method::HEAD, &format!("/.well-known/ni/sha-256/{name}?ct=a/b")), Some(Ok(digest)));
        for other in [format!("sha-256/{name}="), "sha-256/abc".into(), format!("sha-256-32/{name}"), String::new()] {
            assert_eq!(ask(Method::GET, &format!("/.well-known/ni/{other}")), Some(Err(Refusal::Digest)), "{other}");
        }
        let post = ask(Method::POST, &format!("/.well-known/ni/sha-256/{name}"));
        assert_eq!(post.map(|found| found.map_err(|e| e.status())), Some(Err(StatusCode::METHOD_NOT_ALLOWED)));
        assert_eq!(ask(Method::GET, "/other"), None);
        assert_eq!(ask(Method::GET, &format!("http://dl.example.com/.well-known/ni/sha-256/{name}")), None);
    }
}
