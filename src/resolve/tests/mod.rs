//! Resolution as a whole, over tables of requests and over arbitrary ones.

mod forms;
mod hostile;
mod keys;
mod laws;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::*;
use crate::content::{AuthParameters, QueryPolicy};

/// One request and what it meets, with a builder's ease.
#[derive(Clone)]
struct Case {
    method: Method,
    target: String,
    hosts: Vec<Vec<u8>>,
    version: Version,
    scheme: Scheme,
}

fn get(target: &str) -> Case {
    Case {
        method: Method::GET,
        target: target.to_owned(),
        hosts: vec![b"cache.example:8081".to_vec()],
        version: Version::HTTP_11,
        scheme: Scheme::Http,
    }
}

impl Case {
    fn host(self, host: &str) -> Self {
        self.hosts(&[host])
    }

    fn hosts(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|host| host.as_bytes().to_vec()).collect();
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    fn over_tls(mut self) -> Self {
        self.scheme = Scheme::Https;
        self
    }

    /// `None` when HTTP itself cannot carry the request to us.
    fn try_resolve(&self, settings: &Settings) -> Option<Result<ContentRequest, Refusal>> {
        let uri = Uri::try_from(self.target.as_str()).ok()?;
        let mut headers = HeaderMap::new();
        for host in &self.hosts {
            headers.append(HOST, HeaderValue::from_bytes(host).ok()?);
        }
        let (method, version, scheme) = (&self.method, self.version, self.scheme);
        Some(resolve(&Inbound { method, uri: &uri, version, headers: &headers, scheme }, settings))
    }

    fn resolve(&self, settings: &Settings) -> ContentRequest {
        self.try_resolve(settings).unwrap().unwrap_or_else(|refusal| panic!("{}: {refusal}", self.target))
    }

    fn refusal(&self, settings: &Settings) -> Refusal {
        match self.try_resolve(settings).unwrap() {
            Ok(request) => panic!("{} resolved to {request:?}", self.target),
            Err(refusal) => refusal,
        }
    }

    /// Origin, forwarded target and form.
    fn outcome(&self, settings: &Settings) -> (String, String, &'static str) {
        let request = self.resolve(settings);
        (request.origin.to_string(), request.target, request.form.as_str())
    }

    /// Status and reason.
    fn refused(&self, settings: &Settings) -> (u16, &'static str) {
        let refusal = self.refusal(settings);
        (refusal.status().as_u16(), refusal.as_str())
    }
}

/// `dl.example.com` and everything below `example.net` over http, `secure.example` over https,
/// `either.example` as asked, `ported.example` on 8080, `sas.example` with tokens, and two addresses.
fn settings() -> Settings {
    let mut settings = Settings::default();
    let mut add = |host: &str, change: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::for_host(host);
        change(&mut policy);
        settings.rules.insert(policy).unwrap();
    };
    add("dl.example.com", &|_| {});
    add("*.example.net", &|_| {});
    add("secure.example", &|policy| policy.scheme = SchemePolicy::Fixed(Scheme::Https));
    add("either.example", &|policy| policy.scheme = SchemePolicy::AsAsked);
    add("ported.example", &|policy| policy.port = Some(8080));
    add("sas.example", &|policy| policy.auth_parameters = AuthParameters::AzureSas);
    add("10.1.2.3", &|_| {});
    add("[fd00::1]", &|_| {});
    add("xn--bcher-kva.example", &|_| {});
    settings
}

fn with_default_origin(host: &str, port: u16) -> Settings {
    let default_origin = Some(Origin { scheme: Scheme::Http, host: host.into(), port });
    Settings { default_origin, ..settings() }
}

/// Settings with one rule, for `dl.example.com`.
fn one_rule(change: impl FnOnce(&mut Policy)) -> Settings {
    let mut policy = Policy::for_host("dl.example.com");
    change(&mut policy);
    let mut settings = Settings::default();
    settings.rules.insert(policy).unwrap();
    settings
}
