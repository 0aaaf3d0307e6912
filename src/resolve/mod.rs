//! From a request to what it means: which content of which origin, under which rule.
//!
//! Pure. [`resolve`] looks at nothing but the head of one request and the settings; it opens no connection
//! and looks up no name, so inner layers without DNS resolve like outer ones. Whether an address may be
//! connected to is judged later, by [`crate::content::refuse_address`].
//!
//! Parsers are public, so that each can be fuzzed by itself.

mod by_digest;
mod connect;
mod error;
mod host;
mod inbound;
mod normalize;
mod query;
mod request;
mod rules;
mod sas;
mod target;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;

use http::Method;

use crate::content::{Origin, Policy, Scheme, SchemePolicy};

pub use by_digest::resolve_digest;
pub use connect::{ConnectRule, ConnectTarget, resolve_connect};
pub use error::{HostField, Refusal, Shown};
pub use host::{HostFault, HostPort, parse_encoded_host_port, parse_host_port};
pub use inbound::{Inbound, RequestForm, parse_host_field, take_parameter, take_path_segment};
pub use normalize::{key_query, normalize_path, normalize_query};
pub use query::{Parameter, parameters};
pub use request::ContentRequest;
pub use rules::{PatternError, Rules};
pub use sas::{AZURE_SAS, AuthToken, parse_expiry};
pub use target::{MAX_TARGET_BYTES, TargetFault, check_target};
pub use url::{UrlFault, resolve_url};

/// What requests are resolved against.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which hosts are served, and how.
    pub rules: Rules,
    /// The origin of requests that name no configured one. Its host's rule applies; without a rule, the
    /// defaults do.
    pub default_origin: Option<Origin>,
    /// What CONNECT may name.
    pub connect: Vec<ConnectRule>,
    /// Ports of the data listeners. A client that was made to come here by DNS writes them into `Host`; of the
    /// origin they say nothing.
    pub own_ports: Vec<u16>,
}

/// Finds out what a request asks for.
///
/// # Errors
/// [`Refusal`] says why it is not answered, with status and remedy. CONNECT asks for no content: see
/// [`resolve_connect`].
pub fn resolve(request: &Inbound<'_>, settings: &Settings) -> Result<ContentRequest, Refusal> {
    if request.method == Method::CONNECT {
        return Err(Refusal::method(request.method, &[Method::GET, Method::HEAD]));
    }
    let named = request.name_origin()?;
    let rule = named.host.as_ref().and_then(|host| settings.rules.find(&host.host));
    let (policy, form, origin, usual_port) = match (rule, &named.host, &settings.default_origin) {
        (Some(policy), Some(host), _) => {
            let own_port =
                named.form == RequestForm::Host && host.port.is_some_and(|p| settings.own_ports.contains(&p));
            let origin = choose_origin(host, named.scheme, named.form, policy, own_port)?;
            let usual_port = policy.port.unwrap_or(origin.scheme.default_port());
            (Arc::clone(policy), named.form, origin, usual_port)
        }
        (_, _, Some(origin)) if named.form == RequestForm::Host => {
            let policy = settings.rules.find(&origin.host).cloned();
            let policy = policy.unwrap_or_else(|| Arc::new(Policy::for_host(&origin.host)));
            let usual_port = policy.port.unwrap_or(origin.scheme.default_port());
            (policy, RequestForm::Default, origin.clone(), usual_port)
        }
        (_, Some(host), _) => {
            let host = Shown::new(host.host.as_bytes());
            return Err(Refusal::UnknownOrigin { field: named.form.field(), host });
        }
        (_, None, _) => return Err(Refusal::NoOrigin),
    };
    if !policy.methods.contains(request.method) {
        return Err(Refusal::method(request.method, &policy.methods));
    }
    Ok(ContentRequest::new(origin, usual_port, named.target, policy, form))
}

/// Scheme and port by the rule. The scheme that the client speaks to us does not matter unless the rule says
/// so, but who writes `https` in an absolute URL is never served from plain HTTP.
fn choose_origin(
    host: &HostPort,
    asked: Scheme,
    form: RequestForm,
    policy: &Policy,
    own_port: bool,
) -> Result<Origin, Refusal> {
    let scheme = match policy.scheme {
        SchemePolicy::AsAsked => asked,
        SchemePolicy::Fixed(Scheme::Http) if form == RequestForm::Absolute && asked == Scheme::Https => {
            return Err(Refusal::Downgrade { host: Shown::new(host.host.as_bytes()) });
        }
        SchemePolicy::Fixed(scheme) => scheme,
    };
    let port = choose_port(host, asked, scheme, policy, own_port)?;
    Ok(Origin { scheme, host: host.host.as_str().into(), port })
}

/// A written port must be the rule's or the scheme's. The default port of the scheme that was asked, where the
/// rule uses another scheme, says no more than no port at all, and so does our own.
fn choose_port(
    host: &HostPort,
    asked: Scheme,
    scheme: Scheme,
    policy: &Policy,
    own_port: bool,
) -> Result<u16, Refusal> {
    let usual = policy.port.unwrap_or(scheme.default_port());
    match host.port {
        None => Ok(usual),
        Some(port) if port == usual || port == scheme.default_port() => Ok(port),
        Some(port) if own_port || port == asked.default_port() => Ok(usual),
        Some(port) => Err(Refusal::Port { host: Shown::new(host.host.as_bytes()), port, allowed: policy.port }),
    }
}
