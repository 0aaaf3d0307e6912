//! What HTTP says about storing, reusing and answering (RFC 9110, RFC 9111), as pure functions over a stored
//! [`Record`](crate::content::Record), a request, a policy and a given time.
//!
//! Nothing here does I/O, reads a clock or knows where bytes are.

mod cache_control;
mod conditional;
mod date;
mod decision;
mod dictionary;
mod digest_field;
mod digest_rule;
mod forwards;
mod freshness;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod language;
mod list;
mod own_digest;
mod priority;
mod range_request;
#[cfg(test)]
mod sample;
mod status;
mod storable;
mod update;
mod vary;
mod version;

pub use conditional::{Precondition, preconditions};
pub use decision::{
    BypassReason, Decision, Options, RequestFacts, decide, is_for_anybody, is_refetch, may_serve_stale,
};
pub use digest_field::{
    Algorithm, content_digest, refuses_repr_digest, repr_digest, wanted_content_digests, wants_digest,
};
pub use digest_rule::{UnderRule, under_rule};
pub use forwards::{Forwards, forwards};
pub use freshness::{Freshness, LifetimeSource, age};
pub use own_digest::{own_digest, said_digest, verified_sha_512};
pub use priority::urgency;
pub use range_request::{FirstAsked, RangeOutcome, first_asked, is_asked_for, is_behind, is_for_one_range, ranges};
pub use status::{CacheStatus, FwdReason};
pub use storable::{NotStorable, Storable, may_serve_get, storable};
pub use update::{head_selects, merge_304, not_modified_selects};
pub use vary::{VaryStar, selecting_fields, vary_matches};
pub use version::{Choice, Resume, choose, names_version};
