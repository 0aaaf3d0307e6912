//! Where a redirect of an origin leads, by the same rules as a request.
//!
//! Redirects are followed inside, since a client that follows one leaves the cache. The content stays under
//! the key of the request that was redirected.

use std::sync::Arc;

use crate::content::{Origin, Policy, Scheme, SchemePolicy};

use super::Settings;
use super::choose_port;
use super::error::{HostField, Refusal, Shown};
use super::host::parse_host_port;
use super::query::split_target;
use super::request::ContentRequest;
use super::target::{TargetFault, check_target};

/// The next place to ask.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Where to connect to.
    pub origin: Origin,
    /// Path and query to ask for; may hold a token.
    pub target: String,
    /// The rule of that origin: its address guard applies.
    pub policy: Arc<Policy>,
}

/// Resolves a `Location` value (RFC 9110 section 10.2.2) against the request that it answers; `from` and
/// `from_target` are where the redirecting answer came from, which is not the request's own origin from the
/// second hop on.
///
/// # Errors
/// [`Refusal`] when it leads to a host without a rule, from `https` to `http`, or is malformed.
pub fn resolve_redirect(
    location: &str,
    from: &Origin,
    from_target: &str,
    request: &ContentRequest,
    settings: &Settings,
) -> Result<Redirect, Refusal> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, rest) = split_scheme(location)?;
    let Some(rest) = rest.strip_prefix("//") else {
        if scheme.is_some() {
            return Err(Refusal::Target(TargetFault::Form));
        }
        let target = merge(from_target, rest);
        check_target(target.as_bytes())?;
        let policy = settings.rules.find(&from.host).unwrap_or(&request.policy);
        return Ok(Redirect { origin: from.clone(), target, policy: Arc::clone(policy) });
    };
    let asked = scheme.unwrap_or(from.scheme);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = parse_host_port(authority).map_err(|fault| Refusal::Host {
        field: HostField::Location,
        fault,
        value: Shown::new(authority.as_bytes()),
    })?;
    let shown = || Shown::new(host.host.as_bytes());
    let (policy, origin) = match settings.rules.find(&host.host) {
        Some(policy) => {
            // A rule may demand https, but an origin that moves to https is followed there.
            let scheme = if policy.scheme == SchemePolicy::Fixed(Scheme::Https) { Scheme::Https } else { asked };
            let port = match (scheme, policy.scheme) {
                (Scheme::Https, SchemePolicy::Fixed(Scheme::Http)) if host.port.is_none() => scheme.default_port(),
                _ => choose_port(&host, asked, scheme, policy)?,
            };
            (policy, Origin { scheme, host: host.host.as_str().into(), port })
        }
        None if *from.host == *host.host => {
            let port = host.port.unwrap_or(asked.default_port());
            if port != from.port && port != asked.default_port() {
                return Err(Refusal::Port { host: shown(), port, allowed: None });
            }
            (&request.policy, Origin { scheme: asked, host: Arc::clone(&from.host), port })
        }
        None => return Err(Refusal::UnknownOrigin { field: HostField::Location, host: shown() }),
    };
    if from.scheme == Scheme::Https && origin.scheme == Scheme::Http {
        return Err(Refusal::Downgrade { host: shown() });
    }
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let target = remove_dot_segments(&target);
    check_target(target.as_bytes())?;
    Ok(Redirect { origin, target, policy: Arc::clone(policy) })
}

/// Splits off a scheme; what stands before a `:` is one only if no `/` or `?` comes first.
fn split_scheme(location: &str) -> Result<(Option<Scheme>, &str), Refusal> {
    let Some((scheme, rest)) = location.split_once(':').filter(|(scheme, _)| !scheme.contains(['/', '?'])) else {
        return Ok((None, location));
    };
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Ok((Some(Scheme::Http), rest)),
        _ if scheme.eq_ignore_ascii_case("https") => Ok((Some(Scheme::Https), rest)),
        _ => Err(Refusal::Target(TargetFault::Scheme)),
    }
}

/// The target that a relative reference means (RFC 3986 section 5.2.2).
fn merge(base: &str, reference: &str) -> String {
    let (base_path, _) = split_target(base);
    if reference.is_empty() {
        return base.to_owned();
    }
    if reference.starts_with('?') {
        return format!("{base_path}{reference}");
    }
    if reference.starts_with('/') {
        return remove_dot_segments(reference);
    }
    let folder = base_path.rfind('/').map_or("/", |at| base_path.get(..=at).unwrap_or("/"));
    remove_dot_segments(&format!("{folder}{reference}"))
}

/// Resolves plain `.` and `..` segments (RFC 3986 section 5.2.4); escaped ones are left for the target check.
fn remove_dot_segments(target: &str) -> String {
    let (path, query) = split_target(target);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        }
        if segment != "." && segment != ".." {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    let path = format!("/{}", kept.join("/"));
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}
