//! [`Pins`]: what must not be evicted, why and until when, as a value; and the text in which each drive keeps all of
//! them. Every drive has the same pins, and of what two say of one target the later holds, so that a drive that was away
//! brings nothing back. Files are `pinning`'s business, what a veto does `space`'s.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::content::{CacheKey, Digest, KeyHash, UnixMillis};

/// Most pins at a time: all of them are written at each change.
pub const MAX_PINS: usize = 10_000;
/// Longest reason, in characters.
const MAX_REASON: usize = 200;
/// So many pins that ended are remembered, so that a drive that was away does not bring them back.
const MAX_ENDED: usize = MAX_PINS;
/// The first line of the text: what it is, and the format.
const TITLE: &str = "waystation-pins ";
const FORMAT: u32 = 1;
/// Most bytes of targets and reasons together.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Longest text of a drive in bytes that is read: with what ended, and what JSON adds.
pub(super) const LONGEST: u64 = 64 * 1024 * 1024;

/// What a pin keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PinTarget {
    /// The body with this SHA-256.
    #[serde(rename = "sha256", with = "hex")]
    Digest(Digest),
    /// The response of this resource in each of its variants, also one that comes later, and the versions before that
    /// devices may go on with.
    #[serde(rename = "key")]
    Key(CacheKey),
}

/// A body or a resource that stays when room is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What it keeps.
    pub target: PinTarget,
    /// Why, for people.
    pub reason: String,
    /// When it was set.
    pub set: UnixMillis,
    /// When it ends by itself; `None` for when it is taken off.
    pub expires: Option<UnixMillis>,
}

/// A pin was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The reason is empty, too long or has control characters.
    #[error("reason: {0}; write 1 to {MAX_REASON} characters without line breaks")]
    Reason(&'static str),
    /// The pin would have ended already.
    #[error("expires: {0} ms since 1970 has passed by the clock of this machine; write a later time, or none")]
    Expired(u64),
    /// There are too many.
    #[error("targets: with these there would be more than {MAX_PINS} pins; take off some that are not needed any more")]
    TooMany,
    /// They are too long together.
    #[error(
        "targets: with these the targets and reasons of all pins would be longer than {MAX_BYTES} bytes; take off some that are not needed any more"
    )]
    TooLong,
    /// No drive wrote it down.
    #[error(
        "this change of the pins holds until the next start only, since no drive could write it: {0}; mend the drive and try again"
    )]
    NotWritten(String),
}

/// What was said last of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    pin: Pin,
    /// It was taken off; `pin.set` is when.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
}

/// All pins, and those that ended lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pins {
    told: HashMap<PinTarget, Told>,
    /// Hashes of the pinned resources, to be found quickly.
    keys: HashMap<KeyHash, Option<UnixMillis>>,
}

/// What the text of a drive came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) pins: Pins,
    /// Lines that are damaged; what they said is not known.
    pub(super) damaged: usize,
}

/// The text is of a release that knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pins of format {0}; this release knows {FORMAT}")]
pub(super) struct NewerPins(u32);

impl Pins {
    /// Sets pins, in place of those that their targets have. All or none.
    pub(super) fn set(
        &self,
        targets: &[PinTarget],
        reason: &str,
        expires: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<Self, PinError> {
        check_reason(reason)?;
        if let Some(expires) = expires.filter(|expires| *expires <= now) {
            return Err(PinError::Expired(expires.0));
        }
        let mut pins = self.clone();
        for target in targets {
            let pin = Pin { target: target.clone(), reason: reason.to_owned(), set: pins.later(target, now), expires };
            pins.told.insert(target.clone(), Told { pin, ended: false });
        }
        pins.tidy(now);
        if pins.live(now).count() > MAX_PINS {
            return Err(PinError::TooMany);
        }
        let length: usize = pins.live(now).map(Pin::length).sum();
        if length > MAX_BYTES { Err(PinError::TooLong) } else { Ok(pins) }
    }

    /// Takes pins off, and says which of the targets had one.
    pub(super) fn end(&self, targets: &[PinTarget], now: UnixMillis) -> (Self, Vec<PinTarget>) {
        let mut pins = self.clone();
        let mut had: Vec<PinTarget> = Vec::new();
        for target in targets {
            let at = pins.later(target, now);
            let Some(told) = pins.told.get_mut(target).filter(|told| told.holds(now)) else { continue };
            (told.ended, told.pin.set) = (true, at);
            had.push(target.clone());
        }
        pins.tidy(now);
        (pins, had)
    }

    /// With what another drive says; the later holds, and of what was said at once the end.
    pub(super) fn merged(&self, other: &Self, now: UnixMillis) -> Self {
        let mut pins = self.clone();
        for (target, told) in &other.told {
            if pins.told.get(target).is_none_or(|here| here.rank() < told.rank()) {
                pins.told.insert(target.clone(), told.clone());
            }
        }
        pins.tidy(now);
        pins
    }

    /// The pins that hold, those of one reason together.
    pub(super) fn list(&self, now: UnixMillis) -> Vec<Pin> {
        let mut pins: Vec<Pin> = self.live(now).cloned().collect();
        pins.sort_by(|a, b| (&a.reason, a.set, a.target.to_string()).cmp(&(&b.reason, b.set, b.target.to_string())));
        pins
    }

    /// Number of the pins that hold.
    pub(super) fn count(&self, now: UnixMillis) -> usize {
        self.live(now).count()
    }

    /// Whether this body is pinned by its digest.
    pub(super) fn hold_digest(&self, digest: &Digest, now: UnixMillis) -> bool {
        self.told.get(&PinTarget::Digest(*digest)).is_some_and(|told| told.holds(now))
    }

    /// Whether this resource is pinned.
    pub(super) fn hold_key(&self, key: KeyHash, now: UnixMillis) -> bool {
        self.keys.get(&key).is_some_and(|expires| expires.is_none_or(|expires| now < expires))
    }

    /// Hashes of the pinned resources.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = KeyHash> {
        self.keys.keys().copied()
    }

    /// The pins that hold of these targets.
    pub(super) fn of(&self, targets: &[PinTarget], now: UnixMillis) -> Vec<Pin> {
        let told = targets.iter().filter_map(|target| self.told.get(target));
        told.filter(|told| told.holds(now)).map(|told| told.pin.clone()).collect()
    }

    /// The text of all that is known.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut lines: Vec<String> = self.told.values().filter_map(|told| serde_json::to_string(told).ok()).collect();
        lines.sort_unstable();
        let title = format!("{TITLE}{FORMAT}");
        let lines = std::iter::once(&title).chain(&lines);
        lines.map(|line| format!("{} {line}\n", check_of(line))).collect::<String>().into_bytes()
    }

    /// Reads the text of a drive. Lines that do not hold are left out and counted.
    pub(super) fn decode(text: &[u8]) -> Result<Decoded, NewerPins> {
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        let title = lines.next().and_then(checked).and_then(|title| title.strip_prefix(TITLE));
        let format = title.and_then(|format| format.parse::<u32>().ok());
        if let Some(newer) = format.filter(|format| *format > FORMAT) {
            return Err(NewerPins(newer));
        }
        // Without a title that holds, the lines tell by themselves what they are.
        let (mut pins, mut damaged) = (Self::default(), usize::from(format != Some(FORMAT)));
        for line in lines {
            match decode_line(line) {
                Some(told) => drop(pins.told.insert(told.pin.target.clone(), told)),
                None => damaged = damaged.saturating_add(1),
            }
        }
        pins.index();
        Ok(Decoded { pins, damaged })
    }

    fn live(&self, now: UnixMillis) -> impl Iterator<Item = &Pin> {
        self.told.values().filter(move |told| told.holds(now)).map(|told| &told.pin)
    }

    /// `now`, or just after what was said of the target before: the clock may have gone back.
    fn later(&self, target: &PinTarget, now: UnixMillis) -> UnixMillis {
        self.told.get(target).map_or(now, |told| now.max(UnixMillis(told.pin.set.0.saturating_add(1))))
    }

    /// Forgets what ended longest ago, when that is much.
    fn tidy(&mut self, now: UnixMillis) {
        let mut over: Vec<(UnixMillis, PinTarget)> = self
            .told
            .iter()
            .filter(|(_, told)| !told.holds(now))
            .map(|(target, told)| (told.pin.set, target.clone()))
            .collect();
        if over.len() > MAX_ENDED {
            over.sort_by_key(|(set, _)| *set);
            let many = over.len() - MAX_ENDED;
            over.iter().take(many).for_each(|(_, target)| drop(self.told.remove(target)));
        }
        self.index();
    }

    fn index(&mut self) {
        let key = |told: &Told| match &told.pin.target {
            PinTarget::Key(key) if !told.ended => Some((key.hash(), told.pin.expires)),
            _ => None,
        };
        self.keys = self.told.values().filter_map(key).collect();
    }
}

impl Pin {
    /// Bytes that it takes, about.
    fn length(&self) -> usize {
        let target = match &self.target {
            PinTarget::Digest(_) => 64,
            PinTarget::Key(key) => key.as_str().len(),
        };
        target.saturating_add(self.reason.len())
    }
}

impl Told {
    /// Of two the greater holds.
    fn rank(&self) -> (UnixMillis, bool, UnixMillis, &str) {
        let Pin { set, expires, reason, .. } = &self.pin;
        (*set, self.ended, expires.unwrap_or(UnixMillis(u64::MAX)), reason)
    }

    fn holds(&self, now: UnixMillis) -> bool {
        !self.ended && self.pin.expires.is_none_or(|expires| now < expires)
    }
}

impl std::fmt::Display for PinTarget {
    /// `sha256:<hex>`, or the key, which is a URL without scheme.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
            Self::Key(key) => write!(f, "{key}"),
        }
    }
}

fn check_reason(reason: &str) -> Result<(), PinError> {
    match reason {
        reason if reason.trim().is_empty() => Err(PinError::Reason("there is none")),
        reason if reason.chars().count() > MAX_REASON => Err(PinError::Reason("it is too long")),
        reason if reason.chars().any(char::is_control) => Err(PinError::Reason("it has control characters")),
        _ => Ok(()),
    }
}

fn check_of(line: &str) -> String {
    format!("{:08x}", crc32c::crc32c(line.as_bytes()))
}

/// What a line says, if its check holds.
fn checked(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (check, said) = line.split_at_checked(8)?;
    let said = said.strip_prefix(' ')?;
    (check == check_of(said)).then_some(said)
}

fn decode_line(line: &[u8]) -> Option<Told> {
    serde_json::from_str(checked(line)?).ok()
}

/// Digests as 64 hexadecimal digits.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::content::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        Digest::from_hex(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "pins_tests.rs"]
mod tests;
