//! From a URL that a person wrote down to the content that devices ask for by it. What requests mean, and which are
//! refused, is the business of [`resolve`] alone.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::error::Refusal;
use super::inbound::Inbound;
use super::request::ContentRequest;
use super::{Settings, resolve};
use crate::content::Scheme;

/// Why a text names no content.
#[derive(Debug, thiserror::Error)]
pub enum UrlFault {
    /// It is no URL, or one without a scheme.
    #[error("this is not a URL; write one like http://host/path, as devices ask for it")]
    Form,
    /// Devices that ask for it are refused, too.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Finds out what devices get that ask for `url`: the origin's own, or one with `cacheHostOrigin`. Where the origin's rule
/// fixes the scheme both schemes name the same.
///
/// # Errors
/// [`UrlFault`].
pub fn resolve_url(url: &str, settings: &Settings) -> Result<ContentRequest, UrlFault> {
    // A fragment never leaves a client (RFC 9110 section 7.1).
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let uri: Uri = url.parse().map_err(|_| UrlFault::Form)?;
    if uri.scheme().is_none() {
        return Err(UrlFault::Form);
    }
    let resolved = |uri: &Uri| {
        let (method, headers, version) = (&Method::GET, &HeaderMap::new(), Version::HTTP_11);
        resolve(&Inbound { method, uri, version, headers, scheme: Scheme::Http }, settings)
    };
    match resolved(&uri) {
        // Devices that name no origin mean the default one; they write the cache's address, or are led here by its name.
        Err(Refusal::UnknownOrigin { .. }) if settings.default_origin.is_some() => {
            let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
            let (Some(authority), Some(path)) = (authority, uri.path_and_query()) else { return Err(UrlFault::Form) };
            let (method, version, scheme) = (&Method::GET, Version::HTTP_11, Scheme::Http);
            let headers = &HeaderMap::from_iter([(HOST, authority)]);
            let uri = &Uri::from(path.clone());
            Ok(resolve(&Inbound { method, uri, version, headers, scheme }, settings)?)
        }
        Err(Refusal::Downgrade { .. }) => {
            let plain = format!("http{}", url.get("https".len()..).unwrap_or_default());
            Ok(resolved(&plain.parse().map_err(|_| UrlFault::Form)?)?)
        }
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Origin, Policy};
    use crate::resolve::Rules;

    #[test]
    fn all_ways_to_write_it_name_the_same() {
        let mut rules = Rules::default();
        rules.insert(Policy::for_host("dl.example.com")).unwrap();
        let settings = Settings { rules, ..Settings::default() };
        let key = |url: &str| resolve_url(url, &settings).map(|request| request.key.to_string());
        for url in [
            "http://dl.example.com/p/a.swu",
            "https://dl.example.com/p/a.swu",
            "HTTP://DL.example.com:80/p/a.swu#part",
            "http://gateway:8081/p/a.swu?cacheHostOrigin=dl.example.com",
        ] {
            assert_eq!(key(url).unwrap(), "dl.example.com/p/a.swu", "{url}");
        }
        for url in ["", "a.swu", "/p/a.swu", "dl.example.com/p/a.swu", "http://", "http:///p", "ftp://dl.example.com/p"]
        {
            assert!(key(url).is_err(), "{url}");
        }
        let origin = Origin { scheme: Scheme::Http, host: "mirror.example.com".into(), port: 80 };
        let with_default = Settings { default_origin: Some(origin), ..settings.clone() };
        for url in ["http://cache:8081/p/a.swu", "http://mirror.example.com/p/a.swu"] {
            let key = resolve_url(url, &with_default).unwrap().key.to_string();
            assert_eq!(key, "mirror.example.com/p/a.swu", "{url}");
        }
        let unknown = key("http://other.example.com/p").unwrap_err().to_string();
        assert!(unknown.contains("other.example.com"), "{unknown}");
    }
}
