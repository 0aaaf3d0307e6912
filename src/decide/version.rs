//! Which stored version answers a range that comes without `If-Range`, from a client that may have bytes before it
//! already. Delivery Optimization agents resume so and append whatever comes: bytes of another version would end in their
//! file, and nobody would notice.
//!
//! The rule, in this order:
//! 1. A client address that was given one version gets that one.
//! 2. One that was given several, or more than are known, counts as one without a memory, but for this: what any of them
//!    may continue must be the same stored body.
//! 3. Without a memory it is the version whose length is the range's last byte + 1, if just one has it.
//! 4. When only one version is known at all, and nothing speaks against it, it is an ordinary range.
//! 5. Else nothing can be said, and the answer is not to be a part of anything.
//!
//! Of a version whose bytes turned out to be wrong a client may go on up to the first wrong byte, with the right ones.
//!
//! Pure: who was given what is the store's memory, what to answer is `serve`'s business.

use http::HeaderMap;
use http::header::IF_RANGE;

use super::conditional::if_range_holds;
use super::range_request::{Spec, requested};
use crate::content::{Held, Record, Spoiled, Version};

/// A range, or several, of which one begins after byte 0 and no version is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The highest offset at which a range begins; `u64::MAX` when that depends on the length.
    pub first: u64,
    /// The last byte asked for, if the request names it.
    pub last: Option<u64>,
    /// Whether this client always asks up to the end of what it has a part of, as Delivery Optimization's light agents do.
    pub to_the_end: bool,
}

/// What a resume is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// What is current: nothing speaks against it.
    Any,
    /// The stored version at this place.
    Stored(usize),
    /// A version that is not stored.
    Absent,
    /// It cannot be told which version the client has.
    Ambiguous,
}

/// What a version that a client was given can be continued with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Stored(usize),
    Absent,
}

impl Resume {
    /// Reads the request; `None` when it asks for no range, only for ones from byte 0, or names a version by `If-Range`.
    /// More than `limit` ranges are not honoured.
    pub fn of(request: &HeaderMap, limit: usize, to_the_end: bool) -> Option<Self> {
        if request.contains_key(IF_RANGE) {
            return None;
        }
        let specs = requested(request).filter(|specs| specs.len() <= limit)?;
        let first = specs.iter().map(|spec| match spec {
            Spec::From { first, .. } => *first,
            Spec::Suffix(_) => u64::MAX,
        });
        let first = first.max().filter(|first| *first > 0)?;
        let lasts = specs.iter().map(|spec| match spec {
            Spec::From { last, .. } => *last,
            Spec::Suffix(_) => None,
        });
        let last = lasts.collect::<Option<Vec<_>>>().and_then(|lasts| lasts.into_iter().max());
        Some(Self { first, last, to_the_end })
    }

    /// The length of the version that the client has a part of, as far as its range tells: of agents that ask up to the
    /// end, and of others when a version is known that ends there.
    fn length(&self, known: impl Iterator<Item = Option<u64>>) -> Option<u64> {
        let end = self.last?.saturating_add(1);
        let mut known = known.flatten();
        (self.to_the_end || known.any(|length| length == end)).then_some(end)
    }
}

/// Chooses among `stored`, the current version first. `held` is what the client was given before, `more` says that there
/// was more than that.
pub fn choose(resume: &Resume, held: &[Held], more: bool, stored: &[Version]) -> Choice {
    if more {
        return Choice::Ambiguous;
    }
    let known = stored.iter().chain(held.iter().map(|held| &held.version));
    let length = resume.length(known.map(|version| version.length));
    let fits = |version: &Version| length.zip(version.length).is_none_or(|(wanted, has)| wanted == has);
    let mut targets = held.iter().filter(|held| fits(&held.version)).map(|held| target(resume, held, stored, fits));
    if let Some(first) = targets.next() {
        return match first {
            _ if targets.any(|other| other != first) => Choice::Ambiguous,
            Target::Stored(place) => Choice::Stored(place),
            Target::Absent => Choice::Absent,
        };
    }
    let mut fitting = stored.iter().enumerate().filter(|(_, version)| fits(version));
    match (fitting.next(), length) {
        (None, _) if stored.is_empty() => Choice::Any,
        (None, _) => Choice::Absent,
        (Some((_, first)), _) if fitting.any(|(_, other)| !other.is_same(first)) => Choice::Ambiguous,
        (Some(_), None) => Choice::Any,
        (Some((place, _)), Some(_)) => Choice::Stored(place),
    }
}

/// What a client that holds a part of `held` can go on with.
fn target(resume: &Resume, held: &Held, stored: &[Version], fits: impl Fn(&Version) -> bool) -> Target {
    let continues = |version: &&Version| match held.spoiled {
        None => version.is_same(&held.version),
        Some(Spoiled::Throughout) => false,
        Some(Spoiled::From { first_difference, right }) => {
            resume.first <= first_difference && version.digest == Some(right)
        }
    };
    let place = stored.iter().position(|version| continues(&version) && fits(version));
    place.map_or(Target::Absent, Target::Stored)
}

/// Whether the request names a version by `If-Range`, and that is `record` (RFC 9110 section 13.1.5).
pub fn names_version(request: &HeaderMap, record: &Record) -> bool {
    request.contains_key(IF_RANGE) && if_range_holds(request, record)
}

#[cfg(test)]
#[path = "version_tests.rs"]
mod tests;
