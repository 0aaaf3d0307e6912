//! [`Inbound`] and the forms in which a request can name its origin. Which origins are allowed is not looked
//! at here.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, Method, Uri, Version};
use percent_encoding::percent_decode_str;

use crate::content::Scheme;

use super::error::{HostField, Refusal, Shown};
use super::host::{HostPort, parse_encoded_host_port, parse_host_port};
use super::query::{parameters, retain, split_target};
use super::target::{TargetFault, check_length, check_target};

/// The parameter that Delivery Optimization agents append.
const CACHE_HOST_ORIGIN: &str = "cacheHostOrigin";

/// The head of a request as it came in.
#[derive(Clone, Copy)]
pub struct Inbound<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target. `http::Uri` has dropped a fragment, so see [`super::check_target`] for the raw line.
    pub uri: &'a Uri,
    /// Its version: from HTTP/1.1 on, `Host` must be there.
    pub version: Version,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// How the client speaks to the listener.
    pub scheme: Scheme,
}

/// How a request named its origin; tried in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestForm {
    /// `?cacheHostOrigin=host`: Delivery Optimization agents, and caches below.
    CacheHostOrigin,
    /// `GET http://host/path`: the cache is set as forward proxy.
    Absolute,
    /// `/-/host/path`, for clients that can do neither of the above.
    Path,
    /// `Host: host`: names that were made to point to the cache.
    Host,
    /// Nothing: the configured default origin.
    Default,
}

/// The origin as a request names it.
pub(super) struct Named {
    pub(super) form: RequestForm,
    /// `None` only with [`RequestForm::Host`]: no usable `Host` either.
    pub(super) host: Option<HostPort>,
    /// What the client speaks, or wrote in an absolute URL.
    pub(super) scheme: Scheme,
    /// Path and query without what named the origin.
    pub(super) target: String,
}

impl Inbound<'_> {
    /// Finds the origin's name. Everything that could name one is checked, whether it decides or not.
    pub(super) fn name_origin(&self) -> Result<Named, Refusal> {
        self.check_length()?;
        let absolute = self.absolute_authority()?;
        let target = self.path_and_query()?;
        check_target(target.as_bytes())?;
        let host = self.host_field(absolute.is_some())?;
        let scheme = absolute.as_ref().map_or(self.scheme, |(scheme, _)| *scheme);
        let named = |form, host, target| Ok(Named { form, host, scheme, target });

        if let Some((host, target)) = take_parameter(&target)? {
            return named(RequestForm::CacheHostOrigin, Some(host), target);
        }
        if let Some((_, host)) = absolute {
            return named(RequestForm::Absolute, Some(host), target.into_owned());
        }
        if let Some((host, target)) = take_path_segment(&target)? {
            return named(RequestForm::Path, Some(host), target);
        }
        named(RequestForm::Host, host, target.into_owned())
    }

    /// The path for a log line about a request that was refused: escaped, cut, and without query, since what
    /// is secret in it is not known yet.
    pub fn loggable_path(&self) -> Shown {
        Shown::new(self.uri.path().as_bytes())
    }

    fn check_length(&self) -> Result<(), Refusal> {
        let authority = self.uri.authority().map_or(0, |a| a.as_str().len() + "://".len());
        let path_and_query = self.uri.path_and_query().map_or(0, |p| p.as_str().len());
        check_length(self.uri.scheme_str().map_or(0, str::len) + authority + path_and_query)
    }

    fn absolute_authority(&self) -> Result<Option<(Scheme, HostPort)>, Refusal> {
        let (Some(scheme), Some(authority)) = (self.uri.scheme_str(), self.uri.authority()) else {
            return Ok(None);
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(Refusal::Target(TargetFault::Scheme)),
        };
        let host = parse_host_port(authority.as_str());
        Ok(Some((scheme, in_field(HostField::Target, authority.as_str(), host)?)))
    }

    fn path_and_query(&self) -> Result<Cow<'_, str>, Refusal> {
        let text = self.uri.path_and_query().map_or("", |p| p.as_str());
        match text.bytes().next() {
            Some(b'/') => Ok(Cow::Borrowed(text)),
            Some(b'?') if self.uri.scheme().is_some() => Ok(Cow::Owned(format!("/{text}"))),
            _ => Err(Refusal::Target(TargetFault::Form)),
        }
    }

    /// `Host` is checked in every form (RFC 9112 section 3.2), though an absolute URL makes it needless.
    fn host_field(&self, absolute: bool) -> Result<Option<HostPort>, Refusal> {
        let mut values = self.headers.get_all(HOST).iter();
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(Refusal::HostRepeated),
            (Some(value), None) if absolute && value.is_empty() => Ok(None),
            (Some(value), None) => parse_host_field(value.as_bytes()).map(Some),
            (None, _) if absolute || self.version < Version::HTTP_11 => Ok(None),
            (None, _) => Err(Refusal::HostMissing),
        }
    }
}

impl RequestForm {
    /// The form for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheHostOrigin => "connected-cache",
            Self::Absolute => "forward-proxy",
            Self::Path => "path",
            Self::Host => "host",
            Self::Default => "default-origin",
        }
    }

    pub(super) fn field(self) -> HostField {
        match self {
            Self::CacheHostOrigin => HostField::CacheHostOrigin,
            Self::Absolute => HostField::Target,
            Self::Path => HostField::Path,
            Self::Host | Self::Default => HostField::Host,
        }
    }
}

/// Parses the value of a `Host` field.
///
/// # Errors
/// [`Refusal::Host`].
pub fn parse_host_field(value: &[u8]) -> Result<HostPort, Refusal> {
    let text = String::from_utf8_lossy(value);
    in_field(HostField::Host, &text, parse_host_port(&text))
}

/// Takes `cacheHostOrigin` out of a target: the host it names, and the target without it. Of several the last
/// one counts, if it is the final parameter, since that is where an agent appends its own. All go.
///
/// # Errors
/// [`Refusal::OriginRepeated`], or [`Refusal::Host`] for its value.
pub fn take_parameter(target: &str) -> Result<Option<(HostPort, String)>, Refusal> {
    let (path, Some(query)) = split_target(target) else { return Ok(None) };
    let mut found = parameters(query).rev().enumerate().filter(|(_, p)| p.is_named_ignoring_case(CACHE_HOST_ORIGIN));
    let Some((from_end, parameter)) = found.next() else { return Ok(None) };
    if from_end > 0 && found.next().is_some() {
        return Err(Refusal::OriginRepeated);
    }
    let value = parameter.value.unwrap_or_default();
    let host = in_encoded_field(HostField::CacheHostOrigin, value)?;
    let target = match retain(query, |p| !p.is_named_ignoring_case(CACHE_HOST_ORIGIN)) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    Ok(Some((host, target)))
}

/// Takes `/-/host` from the front of a target.
///
/// # Errors
/// [`Refusal::Host`] for the segment.
pub fn take_path_segment(target: &str) -> Result<Option<(HostPort, String)>, Refusal> {
    let Some(rest) = target.strip_prefix("/-/") else { return Ok(None) };
    let (segment, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = in_encoded_field(HostField::Path, segment)?;
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(Some((host, target)))
}

fn in_encoded_field(field: HostField, value: &str) -> Result<HostPort, Refusal> {
    parse_encoded_host_port(value).map_err(|fault| {
        let decoded: Vec<u8> = percent_decode_str(value).collect();
        Refusal::Host { field, fault, value: Shown::new(&decoded) }
    })
}

fn in_field<T>(field: HostField, value: &str, parsed: Result<T, super::host::HostFault>) -> Result<T, Refusal> {
    parsed.map_err(|fault| Refusal::Host { field, fault, value: Shown::new(value.as_bytes()) })
}
