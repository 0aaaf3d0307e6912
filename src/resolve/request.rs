//! [`ContentRequest`]: what a client asks for, once it is understood. Made once, read by all who handle it.

use std::fmt;
use std::sync::Arc;

use crate::content::{CacheKey, Origin, Policy, SchemePolicy};

use super::inbound::RequestForm;
use super::normalize::{key_query, normalize_path};
use super::query::split_target;
use super::sas::{AuthToken, Secrets, redact};

/// A request for content of an allowed origin.
#[derive(Clone)]
pub struct ContentRequest {
    /// What the content is stored under; free of secrets.
    pub key: CacheKey,
    /// Where it comes from.
    pub origin: Origin,
    /// Path and query as they go to the origin: every byte as received, but for what named the origin. May
    /// hold a token: not for logs.
    pub target: String,
    /// The rule that applies.
    pub policy: Arc<Policy>,
    /// How the request named its origin.
    pub form: RequestForm,
    /// The auth parameters, when it has any.
    pub token: Option<AuthToken>,
    /// The target for logs, with `REDACTED` for the values of auth parameters.
    pub loggable: String,
    /// Length of the origin's part of the key, and of the path behind it.
    path_in_key: (usize, usize),
    usual_port: u16,
}

impl ContentRequest {
    /// `usual_port` is the port of requests that name none.
    pub(super) fn new(origin: Origin, usual_port: u16, target: String, policy: Arc<Policy>, form: RequestForm) -> Self {
        let (path, query) = split_target(&target);
        let secrets = Secrets::of(query.unwrap_or_default(), &policy.auth_parameters);
        let mut key = key_origin(&origin, usual_port, &policy);
        let start = key.len();
        key.push_str(&normalize_path(path, policy.plus_is_literal));
        let end = key.len();
        if let Some(kept) = query.and_then(|query| key_query(query, &policy.query, |p| secrets.contain(p))) {
            key.push('?');
            key.push_str(&kept);
        }
        let token = query.and_then(|query| AuthToken::from_query(query, &policy.auth_parameters));
        let loggable = redact(path, query, secrets);
        Self {
            key: CacheKey::new(key),
            origin,
            policy,
            form,
            token,
            loggable,
            path_in_key: (start, end),
            target,
            usual_port,
        }
    }

    /// The key of another path and query of this origin, under the same rule.
    pub fn key_beside(&self, target: String) -> CacheKey {
        Self::new(self.origin.clone(), self.usual_port, target, Arc::clone(&self.policy), self.form).key
    }

    /// The path in the key's spelling, without query. Path patterns are matched against this one, so that two
    /// requests with one key never differ in what their rule says.
    pub fn path(&self) -> &str {
        let (start, end) = self.path_in_key;
        self.key.as_str().get(start..end).unwrap_or("/")
    }

    /// The query as it goes to the origin, secrets included; `Some("")` for a `?` with nothing behind it.
    pub fn query(&self) -> Option<&str> {
        split_target(&self.target).1
    }
}

/// The origin's part of a key: the canonical name, or the host. A port is written when it is not the usual
/// one. A scheme is written only when the client chooses it: otherwise the rule fixes how the content is
/// fetched, and `http` and `https` of a host normally carry the same, so a change of the rule keeps the store.
fn key_origin(origin: &Origin, usual_port: u16, policy: &Policy) -> String {
    let (name, silent_port) = match &policy.canonical {
        Some(canonical) => (canonical, usual_port),
        None => (&origin.host, origin.scheme.default_port()),
    };
    let mut text = match policy.scheme {
        SchemePolicy::Fixed(_) => name.to_string(),
        SchemePolicy::AsAsked => format!("{}://{name}", origin.scheme.as_str()),
    };
    if origin.port != silent_port {
        text.push_str(&format!(":{}", origin.port));
    }
    text
}

impl fmt::Debug for ContentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentRequest")
            .field("key", &self.key)
            .field("origin", &self.origin)
            .field("target", &self.loggable)
            .field("rule", &self.policy.rule)
            .field("form", &self.form)
            .field("token", &self.token)
            .finish()
    }
}
