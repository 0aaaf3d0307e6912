//! Where bytes come from: the plan of sources, their health, and one fetch attempt over HTTP.
//!
//! [`Upstream::fetch`] asks the sources for one answer and gives it as it arrives. It stores nothing, and knows
//! neither freshness nor ranges beyond reading the fields; resuming a broken body is the caller's business.

mod answer_fault;
mod body;
mod budget;
mod bursts;
mod by_digest;
mod circle;
mod client;
mod comeback;
mod connect;
mod error;
mod fetch;
mod form;
mod framing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod headers;
mod health;
mod identity;
mod interims;
mod lookout;
mod loops;
mod middleman;
mod names;
mod plan;
mod pool;
mod probe;
mod proxy;
mod redirect;
mod refusals;
mod said;
mod settings;
mod socket;
mod sources;
mod tls;
mod tunnel;
mod wrong_bytes;

#[cfg(test)]
mod tests;

pub use answer_fault::AnswerFault;
pub use body::UpstreamBody;
pub use budget::{BudgetSettings, Calendar, Limit, Standing, Toll, Urgency, Window};
pub use by_digest::share_of_time;
pub use client::{FetchRequest, Upstream};
pub use connect::{Resolver, SystemResolver};
pub use error::{Blame, BodyError, FetchError, Phase, RedirectRefusal, TlsFault, TlsSetupError};
pub use fetch::{FetchResponse, RequestBody};
pub use form::time_left;
pub use framing::{ContentRange, Framing};
pub use headers::{Forwarding, is_for_all, request_fields};
pub use health::{Condition, Health, Outcome, ProbeId, Verdict};
pub use identity::TlsFiles;
pub use interims::Interims;
pub use lookout::ParentState;
pub use loops::{has_passed_a_cache, request_loops};
pub use plan::{Parent, ParentKind, Source, plan};
pub use proxy::{Credentials, Exception, Proxies, Proxy};
pub use redirect::{Redirects, named_by};
pub use settings::{Settings, Timeouts};
pub use sources::DownSource;
pub use tls::Roots;
pub use wrong_bytes::Subject;
