//! The shared vocabulary: digests, keys, ranges, validators, policies and records.
//!
//! Pure values that every other module may use. Nothing here does I/O, reads a clock, spawns a task
//! or imports another module of the crate.

mod access_list;
mod address;
mod any_digest;
mod digest;
mod fields;
mod key;
mod origin;
mod policy;
mod range;
mod range_set;
mod record;
mod time;
mod validator;
mod version;

pub use access_list::AccessList;
pub use address::{AddressRefusal, refuse_address};
pub use any_digest::{AnyDigest, Verifier};
pub use digest::{Digest, Digester, ParseDigestError};
pub use fields::{FieldValues, in_own_memory};
pub use key::{CacheKey, KeyHash};
pub use origin::{Origin, Scheme};
pub use policy::{
    Abandon, AuthParameters, FillMode, Freshness, MissingLifetime, PathPatterns, Policy, QueryPolicy, SchemePolicy,
    SetCookie, StaleIfError,
};
pub use range::ByteRange;
pub use range_set::RangeSet;
pub use record::{BodyRef, ExpectedDigest, PartialId, Record, VaryField};
pub use time::UnixMillis;
pub use validator::{EntityTag, Validator};
pub use version::{DigestPrefix, Held, Spoiled, Version};
