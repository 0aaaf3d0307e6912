//! What can go wrong between a request and the last byte of its answer: whose fault it is, whether it may
//! pass by itself, and how logs call it. Turning a fault into an answer to a client happens elsewhere.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use http::StatusCode;

use super::answer_fault::AnswerFault;

/// Why no answer came. Cheap to clone, so that everybody who waits for one fetch can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No address of the source took a TCP connection.
    #[error("connecting to {to} failed: {reason}")]
    ConnectFailed {
        /// Host and port that were tried.
        to: String,
        /// What the system said of the last address.
        reason: String,
        /// This machine had no descriptor, port or memory for it, which says nothing about the source.
        own: bool,
    },
    /// The host's name has no address, or nobody could be asked.
    #[error("the name {host} cannot be resolved: {reason}")]
    NameUnknown {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The address guard allows no address of the host.
    #[error("the address {address} of {host} is refused: {reason}")]
    AddressRefused {
        /// The host as named by the request or the rule.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// The guard's reason.
        reason: &'static str,
    },
    /// The TLS handshake failed.
    #[error("no TLS connection to {host}: {fault}")]
    TlsFailed {
        /// The host as named by the request.
        host: String,
        /// What was wrong.
        fault: TlsFault,
    },
    /// A time limit was reached before the head of the answer was complete.
    #[error("{host} took too long: {phase}")]
    Timeout {
        /// The host as named by the request.
        host: String,
        /// What was being waited for.
        phase: Phase,
    },
    /// The connection ended before the head of an answer was complete.
    #[error("{host} closed the connection without an answer")]
    Disconnected {
        /// The host as named by the request.
        host: String,
    },
    /// The answer cannot be used.
    #[error("bad answer from {host}: {fault}")]
    BadAnswer {
        /// The host as named by the request.
        host: String,
        /// What is wrong with it.
        fault: AnswerFault,
    },
    /// A parent or a proxy refuses to get it, for a reason of its own: its status is not for the device.
    #[error("{host} refuses to get it: {status}{}", if *has_no_rule { NO_RULE } else { hint(*status) })]
    MiddlemanRefused {
        /// Who.
        host: String,
        /// Its status.
        status: StatusCode,
        /// It says that it has no rule for the host, and so nobody behind it was asked.
        has_no_rule: bool,
    },
    /// A proxy could not open a tunnel.
    #[error("proxy {proxy} does not connect to {host}: {status}{}", hint(*status))]
    ProxyFailed {
        /// The proxy.
        proxy: String,
        /// Who should have been reached.
        host: String,
        /// Its status.
        status: StatusCode,
    },
    /// The source redirects to where it must not.
    #[error("the redirect to {to} is refused: {why}")]
    RedirectRefused {
        /// Origin of the redirect's target, or the start of what was in its place.
        to: String,
        /// Why.
        why: RedirectRefusal,
    },
    /// More redirects in a row than are followed, or a circle of them.
    #[error("{host} redirects too often")]
    TooManyRedirects {
        /// The host that gave the last one.
        host: String,
    },
    /// The source failed so often that it is not asked at present.
    #[error("{host} is known to be down")]
    KnownDown {
        /// The host as named by the request.
        host: String,
        /// When it will be tried again.
        until: Instant,
    },
    /// The budget of upstream bytes is closed at present.
    #[error("the upstream budget is closed")]
    OverBudget {
        /// When it opens, as far as is known.
        until: Instant,
    },
    /// The settings allow no source for this request.
    #[error("no source may be asked for {host}")]
    NoSource {
        /// The host as named by the request.
        host: String,
    },
    /// The request cannot be written as HTTP/1.1: its target or a field is not valid.
    #[error("the request cannot be forwarded: {reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The client's request body broke while it was being forwarded.
    #[error("the request body ended early")]
    RequestBody,
}

/// Whose fault a [`FetchError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The source, or the way to it.
    Source,
    /// Settings and rules: it will not pass until somebody changes them, or the source's addresses.
    Rules,
    /// The request.
    Request,
}

/// What was being waited for when a time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The addresses of a name.
    Resolve,
    /// A TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The head of the answer.
    FirstByte,
}

/// What is wrong with a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not begun: mostly a clock that is wrong on this machine.
    NotYetValid,
    /// The certificate is for another name.
    WrongName,
    /// No known root vouches for the certificate.
    UnknownIssuer,
    /// The certificate was revoked.
    Revoked,
    /// The certificate is unfit in another way.
    Certificate(String),
    /// The host is no name that TLS can ask for.
    InvalidName,
    /// It asks who we are and was shown no certificate.
    Unknown,
    /// It does not take the certificate that it was shown, for this reason.
    Refused(String),
    /// The connection ended in the handshake.
    Disconnected,
    /// Any other fault of the protocol.
    Protocol(String),
}

impl TlsFault {
    /// Whether it is the peer's word on the certificate of this cache. It comes after the handshake (RFC 8446 section 4.4.4).
    pub(super) fn is_of_our_certificate(&self) -> bool {
        matches!(self, Self::Unknown | Self::Refused(_))
    }
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectRefusal {
    /// No origin rule allows the target.
    NotAllowed,
    /// It leads from https to http.
    Downgrade,
    /// It is not an http or https URL that can be asked.
    Malformed,
}

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the body did.
    #[error("cut after {received} bytes")]
    Cut {
        /// Body bytes that came before.
        received: u64,
    },
    /// No byte came for the time limit.
    #[error("stalled after {received} bytes")]
    Stalled {
        /// Body bytes that came before.
        received: u64,
    },
    /// The budget of upstream bytes has closed.
    #[error("over the upstream budget after {received} bytes")]
    OverBudget {
        /// Body bytes that came before.
        received: u64,
    },
    /// The chunked coding is broken.
    #[error("malformed after {received} bytes")]
    Malformed {
        /// Body bytes that came before.
        received: u64,
    },
}

/// Why the TLS side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Config(#[from] rustls::Error),
    /// A file cannot be used.
    #[error("{}: {reason}; check upstream.tls", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// None of the given root certificates is one.
    #[error("no usable root certificate")]
    NoRoots,
}

impl FetchError {
    /// Whether the same request may succeed later without anybody changing settings: the fault of a network
    /// or a source that is out of order. Such a fault must never become a 4xx towards a client.
    pub fn is_passing_fault(&self) -> bool {
        self.blame() == Blame::Source
    }

    /// The status with which somebody in between has refused.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::MiddlemanRefused { status, .. } | Self::ProxyFailed { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether somebody in between has said no: asking again at once would be told the same.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::MiddlemanRefused { .. } => true,
            Self::ProxyFailed { status, .. } => status.is_client_error() || *status == StatusCode::LOOP_DETECTED,
            _ => false,
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::ConnectFailed { .. }
            | Self::NameUnknown { .. }
            | Self::TlsFailed { .. }
            | Self::Timeout { .. }
            | Self::Disconnected { .. }
            | Self::BadAnswer { .. }
            | Self::TooManyRedirects { .. }
            | Self::MiddlemanRefused { .. }
            | Self::ProxyFailed { .. }
            | Self::KnownDown { .. }
            | Self::OverBudget { .. } => Blame::Source,
            Self::AddressRefused { .. } | Self::RedirectRefused { .. } | Self::NoSource { .. } => Blame::Rules,
            Self::InvalidRequest { .. } | Self::RequestBody => Blame::Request,
        }
    }

    /// Whether no byte of the request can have reached anybody who acts on it.
    pub(super) fn is_before_request(&self) -> bool {
        matches!(
            self,
            Self::ConnectFailed { .. }
                | Self::NameUnknown { .. }
                | Self::Timeout { phase: Phase::Resolve | Phase::Connect | Phase::Tls, .. }
                | Self::TlsFailed { .. }
                | Self::ProxyFailed { .. }
                | Self::KnownDown { .. }
                | Self::OverBudget { .. }
        )
    }

    /// When it is of use to ask again, if nobody was asked.
    pub fn ask_again_at(&self) -> Option<Instant> {
        match self {
            Self::KnownDown { until, .. } | Self::OverBudget { until } => Some(*until),
            _ => None,
        }
    }

    /// One word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ConnectFailed { .. } => "connect-failed",
            Self::NameUnknown { .. } => "name-unknown",
            Self::AddressRefused { .. } => "address-refused",
            Self::TlsFailed { .. } => "tls-failed",
            Self::Timeout { .. } => "timeout",
            Self::Disconnected { .. } => "disconnected",
            Self::BadAnswer { .. } => "bad-answer",
            Self::MiddlemanRefused { .. } => "middleman-refused",
            Self::ProxyFailed { .. } => "proxy-failed",
            Self::RedirectRefused { .. } => "redirect-refused",
            Self::TooManyRedirects { .. } => "too-many-redirects",
            Self::KnownDown { .. } => "known-down",
            Self::OverBudget { .. } => "over-budget",
            Self::NoSource { .. } => "no-source",
            Self::InvalidRequest { .. } => "invalid-request",
            Self::RequestBody => "request-body",
        }
    }

    /// The `outcome` of `waystation_upstream_requests_total`, or `None` when no source was asked.
    pub(super) fn outcome(&self) -> Option<&'static str> {
        match self {
            Self::ConnectFailed { .. }
            | Self::NameUnknown { .. }
            | Self::TlsFailed { .. }
            | Self::ProxyFailed { .. } => Some("connect"),
            Self::Timeout { .. } => Some("timeout"),
            Self::Disconnected { .. } | Self::BadAnswer { .. } | Self::RequestBody => Some("cut"),
            Self::AddressRefused { .. } => Some("refused"),
            Self::MiddlemanRefused { .. } => Some("middleman"),
            Self::RedirectRefused { .. }
            | Self::TooManyRedirects { .. }
            | Self::KnownDown { .. }
            | Self::OverBudget { .. }
            | Self::NoSource { .. }
            | Self::InvalidRequest { .. } => None,
        }
    }
}

/// What to do about a status.
/// What a Waystation means by its 403.
const NO_RULE: &str = "; it has no rule for this host";

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        407 => "; check the user and password for it",
        403 => "; check whom it allows",
        508 => "; the parents or proxies form a loop",
        _ => "",
    }
}

impl BodyError {
    /// Body bytes that came before the fault.
    pub fn received(&self) -> u64 {
        match *self {
            Self::Cut { received }
            | Self::Stalled { received }
            | Self::OverBudget { received }
            | Self::Malformed { received } => received,
        }
    }

    /// One word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::Stalled { .. } => "stalled",
            Self::OverBudget { .. } => "over-budget",
            Self::Malformed { .. } => "malformed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "no address for its name",
            Self::Connect => "no connection",
            Self::Tls => "no end of the TLS handshake",
            Self::FirstByte => "no answer",
        })
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("its certificate has expired, or this machine's clock is ahead"),
            Self::NotYetValid => f.write_str("its certificate is not yet valid; is this machine's clock right?"),
            Self::WrongName => f.write_str(
                "its certificate is for another name; what a parent is called there can be said as its tls_name",
            ),
            Self::UnknownIssuer => {
                f.write_str("its certificate's issuer is not trusted; a CA of the site is named in upstream.tls.ca")
            }
            Self::Revoked => f.write_str("its certificate is revoked"),
            Self::Certificate(reason) => write!(f, "its certificate is unfit: {reason}"),
            Self::InvalidName => f.write_str("its name cannot be asked for"),
            Self::Unknown => f.write_str("it asks for a certificate of this cache; set upstream.tls.certificate"),
            Self::Refused(reason) => {
                write!(f, "it refuses the certificate of this cache ({reason}); check upstream.tls")
            }
            Self::Disconnected => f.write_str("it closed the connection in the handshake"),
            Self::Protocol(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for RedirectRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "no rule allows that origin",
            Self::Downgrade => "it leads from https to http",
            Self::Malformed => "it is no http or https URL",
        })
    }
}
