//! Origin rules: one element of `origins` to a [`Policy`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use http::Method;

use crate::content::{
    Abandon, AuthParameters, Digest, FillMode, MissingLifetime, Origin, PathPatterns, Policy, QueryPolicy, Scheme,
    SchemePolicy, SetCookie, StaleIfError, refuse_address,
};

use super::budget::rate;
use super::builtin::Rule;
use super::host::{Host, HostPattern, parse_host_port};
use super::reader::{Fault, Parsed, Section, list_of};
use super::tree::Value;
use super::values;

/// Optional files of package repositories: `apt` asks for `InRelease` first and lives without it, and a
/// Delivery Optimization agent that is told 404 leaves the cache alone for the whole host for 15 minutes.
const OPTIONAL_FILES: [&str; 2] = ["InRelease", "Release.gpg"];

/// Methods that are never passed to an origin: a tunnel has settings of its own, and an echo tells what is none of the
/// client's business (RFC 9110 sections 9.3.6 and 9.3.8).
const NEVER_PASSED: [Method; 2] = [Method::CONNECT, Method::TRACE];

const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads one rule. `taken` are the patterns of the rules before it.
pub(super) fn rule(section: &mut Section<'_>, taken: &mut Vec<HostPattern>) -> Option<Rule> {
    let host = section.value("host", |value| HostPattern::parse(values::text(value)?));
    let canonical = section.value_or("canonical", Value::Null, values::optional(canonical));
    let scheme = section.value_or(
        "scheme",
        "http",
        values::word(&[
            ("http", SchemePolicy::Fixed(Scheme::Http)),
            ("https", SchemePolicy::Fixed(Scheme::Https)),
            ("as-asked", SchemePolicy::AsAsked),
        ]),
    );
    let port = section.value_or("port", Value::Null, values::optional(values::whole(1..=65535)));
    let address =
        section.value_or("address", Value::Null, values::optional(|value| parse_host_port(values::text(value)?)));
    let allow_private = section.value_or("allow_private", false, values::boolean);
    let parents = section.value_or("parents", true, values::boolean);
    let budgeted = section.value_or("budget", true, values::boolean);
    let rate = section.value_or("rate", Value::Null, values::optional(rate));
    let fill =
        section.value_or("fill", "whole", values::word(&[("whole", FillMode::Whole), ("ranged", FillMode::Ranged)]));
    let digests = section.value_or("digests", Value::Map(Vec::new()), digests);
    let abandon =
        section.value_or("abandon", "stop", values::word(&[("stop", Abandon::Stop), ("complete", Abandon::Complete)]));
    let query = section.value_or("query", "keep", query);
    let auth_parameters = section.value_or("auth_parameters", "none", auth_parameters);
    let freshness = section.section("freshness", |section| {
        let immutable = section.value_or("immutable", list_of(&[]), patterns);
        let default = section.value_or("default", "heuristic", |value| match value {
            Value::Text(word) if word == "heuristic" => Ok(MissingLifetime::Heuristic),
            value => lifetime(value, "heuristic").map(MissingLifetime::Fixed),
        });
        let negative = section.value_or("negative", "10s", |value| lifetime(value, "0s"));
        let stale_if_error = section.value_or("stale_if_error", "unlimited", |value| match value {
            Value::Text(word) if word == "unlimited" => Ok(StaleIfError::Unlimited),
            value => lifetime(value, "unlimited").map(StaleIfError::Limited),
        });
        Some(crate::content::Freshness {
            immutable: immutable?,
            default: default?,
            negative: negative?,
            stale_if_error: stale_if_error?,
        })
    });
    let methods = section.values("methods", Some(&["GET", "HEAD"]), method);
    let shield_client_errors = section.value_or("shield_client_errors", list_of(&OPTIONAL_FILES), patterns);
    let plus_is_literal = section.value_or("plus_is_literal", false, values::boolean);
    let set_cookie = section.value_or(
        "set_cookie",
        "pass",
        values::word(&[("pass", SetCookie::Pass), ("strip", SetCookie::Strip), ("store", SetCookie::Store)]),
    );
    let identity_only = section.value_or("identity_only", false, values::boolean);

    if methods.as_ref().is_some_and(|methods| !methods.contains(&Method::GET)) {
        section.fault("methods", Fault::new("a cache has nothing to do without GET", "add GET"));
    }
    if let Some(host) = &host {
        if taken.contains(host) {
            section.fault("host", Fault::new("there is a rule for this host already", "leave one of them"));
        }
        taken.push(host.clone());
    }
    if let Some(allowed) = allow_private {
        let remedy = "set `allow_private: true` in this rule if it is an origin of your own";
        let address = address.as_ref().and_then(|address| address.as_ref().and_then(|(host, _)| host.literal));
        for (name, literal) in [("host", host.as_ref().and_then(HostPattern::literal)), ("address", address)] {
            if let Some(fault) = literal.and_then(|literal| guard(literal, allowed, remedy)) {
                section.fault(name, fault);
            }
        }
    }
    if budgeted == Some(false) && matches!(rate, Some(Some(_))) {
        section.fault("rate", Fault::new("a rate is part of the budget", "leave it out, or write budget: true"));
    }
    let host = host?;
    let policy = Policy {
        canonical: canonical?.map(Into::into),
        scheme: scheme?,
        port: port?.and_then(|port| u16::try_from(port).ok()),
        address: address?.map(|(host, port)| format!("{}:{port}", host.text).into()),
        allow_private: allow_private?,
        parents: parents?,
        budgeted: budgeted?,
        rate: rate?,
        fill: fill?,
        digests: digests?.into(),
        abandon: abandon?,
        query: query?,
        auth_parameters: auth_parameters?,
        freshness: freshness?,
        methods: methods?,
        shield_client_errors: shield_client_errors?,
        plus_is_literal: plus_is_literal?,
        set_cookie: set_cookie?,
        identity_only: identity_only?,
        ..Policy::for_host(host.as_str())
    };
    Some((host, policy))
}

/// Reads `http://host` or `https://host:port`, with nothing behind it.
pub(super) fn origin(value: &Value) -> Parsed<Origin> {
    let fault = || {
        Fault::new("this is not an origin", "write for example http://packages.example.com or https://10.1.2.3:8443")
    };
    let text = values::text(value)?;
    let (scheme, rest) = scheme_of(text).ok_or_else(fault)?;
    if rest.contains('@') {
        return Err(Fault::new("user and password are not allowed in an origin", "write the host alone"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = !rest.ends_with(']') && rest.contains(':');
    let (host, port) = if has_port { parse_host_port(rest)? } else { (Host::parse(rest)?, scheme.default_port()) };
    Ok(Origin { scheme, host: host.text.into(), port })
}

/// The scheme of an http or https URL, and what follows its `://`.
pub(super) fn scheme_of(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let known = [Scheme::Http, Scheme::Https].into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_str()))?;
    Some((known, rest))
}

/// What the address guard will have against a literal address; `allowed` is the rule's `allow_private`.
pub(super) fn guard(literal: IpAddr, allowed: bool, remedy: &str) -> Option<Fault> {
    let refusal = refuse_address(literal)?;
    match (refusal.lifted_by_allow_private(), allowed) {
        (true, true) => None,
        (true, false) => Some(Fault::new(format!("the address guard refuses this address ({refusal})"), remedy)),
        (false, _) => Some(Fault::new(
            format!("no origin may have this address ({refusal})"),
            "write the address of the origin itself",
        )),
    }
}

fn canonical(value: &Value) -> Parsed<String> {
    let text = values::text(value)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if text.len() <= 253 && text.bytes().all(allowed) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fault::new("this name takes a host's place", "write letters, digits, - . and _ only"))
    }
}

fn query(value: &Value) -> Parsed<QueryPolicy> {
    let fault = || Fault::new("this is not a query policy", "write keep, drop, { keep: [names] } or { drop: [names] }");
    match value {
        Value::Text(word) if word == "keep" => Ok(QueryPolicy::Keep),
        Value::Text(word) if word == "drop" => Ok(QueryPolicy::Drop),
        Value::Map(entries) => match entries.as_slice() {
            [(word, node)] if word == "keep" => names(&node.value).map(QueryPolicy::KeepNamed).ok_or_else(fault),
            [(word, node)] if word == "drop" => names(&node.value).map(QueryPolicy::DropNamed).ok_or_else(fault),
            _ => Err(fault()),
        },
        _ => Err(fault()),
    }
}

fn auth_parameters(value: &Value) -> Parsed<AuthParameters> {
    match value {
        Value::Text(word) if word == "none" => Some(AuthParameters::None),
        Value::Text(word) if word == "azure-sas" => Some(AuthParameters::AzureSas),
        value @ Value::List(_) => names(value).map(AuthParameters::Named),
        _ => None,
    }
    .ok_or_else(|| {
        Fault::new("these are not names of query parameters", "write none, azure-sas or a list like [token, expires]")
    })
}

/// A list of names of query parameters, at least one.
fn names(value: &Value) -> Option<Vec<String>> {
    let Value::List(elements) = value else { return None };
    let name = |value: &Value| match value {
        Value::Text(text) if !text.is_empty() && !text.contains(['&', '=', '#']) => Some(text.clone()),
        Value::Number(text) => Some(text.clone()),
        _ => None,
    };
    let names: Vec<String> = elements.iter().map(|element| name(&element.value)).collect::<Option<_>>()?;
    (!names.is_empty()).then_some(names)
}

/// Paths with the SHA-256 that the content of each must have, in hexadecimal digits or base64.
fn digests(value: &Value) -> Parsed<BTreeMap<String, Digest>> {
    let remedy =
        "write { /path: digest }, with the 64 hexadecimal digits of sha256sum or the base64 of an update manifest";
    let Value::Map(entries) = value else { return Err(Fault::new("these are not digests of paths", remedy)) };
    let digest = |path: &String, value: &Value| {
        let text = values::text(value)?;
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(Fault::new(format!("{path} is not a path"), "write it from its / on, without a query"));
        }
        let digest = Digest::from_hex(text).or_else(|_| Digest::from_base64(text));
        digest.map_err(|_| Fault::new(format!("the digest of {path} is not a SHA-256"), remedy))
    };
    entries.iter().map(|(path, node)| Ok((path.clone(), digest(path, &node.value)?))).collect()
}

fn patterns(value: &Value) -> Parsed<PathPatterns> {
    let remedy = "write a list of globs over paths, like [\"*.deb\", \"*/by-hash/*\"], or [] for none";
    let texts: Option<Vec<&str>> = match value {
        Value::List(elements) => elements
            .iter()
            .map(|element| match &element.value {
                Value::Text(text) if !text.is_empty() => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        Value::Text(text) if !text.is_empty() => Some(vec![text.as_str()]),
        _ => None,
    };
    let texts = texts.ok_or_else(|| Fault::new("these are not patterns", remedy))?;
    PathPatterns::new(&texts).map_err(|error| Fault::new(format!("this is not a pattern: {error}"), remedy))
}

fn lifetime(value: &Value, word: &str) -> Parsed<Duration> {
    values::duration(Duration::ZERO..=LONGEST, "up to 100 years")(value)
        .map_err(|fault| Fault::new(fault.problem, format!("{}, or {word}", fault.remedy)))
}

/// Any method but those that are never passed on. They are compared letter by letter (RFC 9110 section 9.1), so one in small
/// letters is a slip.
fn method(value: &Value) -> Parsed<Method> {
    let text = values::text(value)?;
    let is_upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let method = Method::from_bytes(text.as_bytes()).ok();
    method.filter(|method| is_upper && !NEVER_PASSED.contains(method)).ok_or_else(|| {
        let remedy = "write methods in capital letters, like GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE; CONNECT and TRACE are not passed on";
        Fault::new("this method is not allowed", remedy)
    })
}
