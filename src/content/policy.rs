//! [`Policy`]: what an origin rule says about the content of a host. Made once by `config`, matched by
//! `resolve`, read by everybody who handles the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;

use super::{Digest, Scheme};

/// The rule that applies to one request.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The host pattern as configured, for logs and metrics: `packages.example.com` or `*.example.com`.
    pub rule: Arc<str>,
    /// One name for several hosts; it takes the host's place in the cache key.
    pub canonical: Option<Arc<str>>,
    /// How the origin is spoken to.
    pub scheme: SchemePolicy,
    /// The only port that may be asked besides the scheme's default; it is used when the request names none.
    pub port: Option<u16>,
    /// Connect here (`host:port`) instead of resolving the origin's name.
    pub address: Option<Arc<str>>,
    /// Whether the origin may have a private or loopback address (see [`super::refuse_address`]).
    pub allow_private: bool,
    /// Whether parents are asked before the origin. An origin of the own level is behind none.
    pub parents: bool,
    /// Whether its bytes count for the budget of upstream bytes. Those of an origin on the own network may not.
    pub budgeted: bool,
    /// Most bytes per second that come from the origins of this rule when they are asked themselves.
    pub rate: Option<u64>,
    /// Whether the origin is asked for ranges or for the whole.
    pub fill: FillMode,
    /// SHA-256 that the content of a path (with its leading `/`, without query) must have: other bytes are refused.
    pub digests: Arc<BTreeMap<String, Digest>>,
    /// What becomes of a fill when all clients have left.
    pub abandon: Abandon,
    /// Which query parameters are part of the key.
    pub query: QueryPolicy,
    /// Which query parameters are secrets: out of the key and out of logs, kept on the wire.
    pub auth_parameters: AuthParameters,
    /// Freshness beyond what the origin says.
    pub freshness: Freshness,
    /// Methods that are passed to this origin; GET and HEAD are answered from the cache.
    pub methods: Vec<http::Method>,
    /// Paths for which a 404 or 410 becomes a 503 towards Delivery Optimization agents, since one 4xx bans
    /// the cache for the whole host for 15 minutes.
    pub shield_client_errors: PathPatterns,
    /// Whether `+` and `%2B` in a path are one key (apt and the Delivery Optimization plug-in spell them
    /// differently).
    pub plus_is_literal: bool,
    /// What becomes of answers that set cookies.
    pub set_cookie: SetCookie,
    /// Ask for `Accept-Encoding: identity` and ignore `Vary: Accept-Encoding`, so that ranges and digests
    /// of all clients refer to the same bytes.
    pub identity_only: bool,
}

/// `scheme` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemePolicy {
    /// Always this one.
    Fixed(Scheme),
    /// The scheme the client used towards the cache, or wrote in an absolute-form target.
    AsAsked,
}

/// `fill` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillMode {
    /// One plain GET.
    Whole,
    /// Ranged requests in order of need.
    Ranged,
}

/// What a fill does when its last client has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandon {
    /// Goes on to the end.
    Complete,
    /// Stops, unless most of the body is there already.
    Stop,
}

/// `set_cookie` of a rule (RFC 9111 section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// Such an answer is most likely meant for one client, and is passed on to it without being stored.
    Pass,
    /// The cookies are dropped, and the answer is stored.
    Strip,
    /// The answer is stored with its cookies, and everybody gets them.
    Store,
}

/// `query` of a rule. Only the key is concerned; the query is forwarded as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPolicy {
    /// All parameters are part of the key.
    Keep,
    /// None is.
    Drop,
    /// All but these.
    DropNamed(Vec<String>),
    /// Only these.
    KeepNamed(Vec<String>),
}

/// `auth_parameters` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthParameters {
    /// None.
    None,
    /// Those of an Azure shared access signature.
    AzureSas,
    /// These, by name, case-sensitive.
    Named(Vec<String>),
}

/// `freshness` of a rule.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// Paths whose content never changes: once stored they need no revalidation.
    pub immutable: PathPatterns,
    /// Lifetime of answers that carry none of their own.
    pub default: MissingLifetime,
    /// Lifetime of 404 and 410 without one of their own.
    pub negative: Duration,
    /// How long past its lifetime stored content is served when the source fails (RFC 5861 section 4).
    pub stale_if_error: StaleIfError,
}

/// `freshness.default` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingLifetime {
    /// 10 % of the time since the last modification (RFC 9111 section 4.2.2).
    Heuristic,
    /// A fixed time.
    Fixed(Duration),
}

/// `freshness.stale_if_error` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleIfError {
    /// As long as it is stored.
    Unlimited,
    /// For this long.
    Limited(Duration),
}

/// A list of globs over paths, for example `*.deb` or `*/by-hash/*`. `*` matches `/` too; a pattern without
/// a leading `/` matches at any depth. The query is not looked at.
#[derive(Debug, Clone, Default)]
pub struct PathPatterns {
    set: GlobSet,
    patterns: Vec<String>,
}

impl PathPatterns {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// Names the first pattern that is not a glob.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, globset::Error> {
        let mut set = GlobSet::builder();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let anchored = if pattern.starts_with(['/', '*']) { pattern.to_owned() } else { format!("*/{pattern}") };
            set.add(globset::GlobBuilder::new(&anchored).literal_separator(false).build()?);
        }
        Ok(Self { set: set.build()?, patterns: patterns.iter().map(|p| p.as_ref().to_owned()).collect() })
    }

    /// Whether `path` (with its leading `/`, without query) matches any pattern.
    pub fn matches(&self, path: &str) -> bool {
        !self.set.is_empty() && self.set.is_match(path)
    }

    /// The patterns as configured.
    pub fn as_slice(&self) -> &[String] {
        &self.patterns
    }
}

impl PartialEq for PathPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            immutable: PathPatterns::default(),
            default: MissingLifetime::Heuristic,
            negative: Duration::from_secs(10),
            stale_if_error: StaleIfError::Unlimited,
        }
    }
}

impl Policy {
    /// The digest that the content of `path` must have.
    pub fn digest_of(&self, path: &str) -> Option<Digest> {
        self.digests.get(path).copied()
    }

    /// A rule for `host` with every other field at its default.
    pub fn for_host(host: &str) -> Self {
        Self {
            rule: host.into(),
            canonical: None,
            scheme: SchemePolicy::Fixed(Scheme::Http),
            port: None,
            address: None,
            allow_private: false,
            parents: true,
            budgeted: true,
            rate: None,
            fill: FillMode::Whole,
            digests: Arc::default(),
            abandon: Abandon::Stop,
            query: QueryPolicy::Keep,
            auth_parameters: AuthParameters::None,
            freshness: Freshness::default(),
            methods: vec![http::Method::GET, http::Method::HEAD],
            shield_client_errors: PathPatterns::default(),
            plus_is_literal: false,
            set_cookie: SetCookie::Pass,
            identity_only: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_paths_at_any_depth() {
        let patterns = PathPatterns::new(&["*.deb", "*/by-hash/*", "InRelease", "/top/x"]).unwrap();
        for path in
            ["/pool/a/b_1.deb", "/dists/stable/by-hash/SHA256/00", "/dists/stable/InRelease", "/InRelease", "/top/x"]
        {
            assert!(patterns.matches(path), "{path}");
        }
        for path in ["/pool/a.deb.txt", "/dists/InRelease.gpg", "/a/top/x", "/"] {
            assert!(!patterns.matches(path), "{path}");
        }
        assert!(!PathPatterns::default().matches("/"));
    }
}
