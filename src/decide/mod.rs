//! HTTP caching as pure functions: RFC 9111, with conditional requests, ranges and validators of RFC 9110.
//!
//! Everything is computed from a [`crate::content::Record`], a request, the rule and `now`. Nothing here does I/O,
//! reads a clock or knows where bytes are.

mod cache_control;
mod conditional;
mod dates;
mod decision;
mod digest_field;
mod freshness;
mod range_request;
mod status;
mod storable;
mod update;
mod vary;

#[cfg(test)]
mod tests;

pub use cache_control::{RequestDirectives, ResponseDirectives, request_directives, response_directives};
pub use conditional::{Precondition, preconditions};
pub use dates::parse_date;
pub use decision::{Decision, Options, RequestFacts, decide, may_serve_stale};
pub use digest_field::repr_digest;
pub use freshness::{Freshness, LifetimeSource, age, freshness};
pub use range_request::{RangeOutcome, ranges};
pub use status::{CacheStatus, FwdReason};
pub use storable::{NotStorable, Storable, storable};
pub use update::{merge_304, not_modified_selects};
pub use vary::{VaryStar, selecting_fields, vary_matches};
