//! A version that upstream has again: when it is still stored as an older one, it gets its place back, and nothing of it is
//! transferred twice. Of one that is stored whole the head of an answer is enough; of one that is stored in part what is
//! missing is asked for, with its version as the condition.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::answer;
use super::copy::Ways;
use super::judge::Asked;
use super::lead::Leader;
use crate::content::{BodyRef, ExpectedDigest, PartialId, Record, Version};
use crate::decide::{self, Storable};
use crate::store::{Body, Entry, PartialWriter};
use crate::upstream::FetchResponse;

/// An older version that is stored in part.
pub(super) struct PartlyStored {
    pub(super) entry: Arc<Entry>,
    pub(super) ways: Ways,
    /// What is missing of it, for this client.
    pub(super) asked: Asked,
}

/// The newest of the older versions that the request selects, if it is stored in part and can be gone on with.
pub(super) async fn partly_stored(leader: &Leader<'_>) -> Option<PartlyStored> {
    let Leader { inner, want, .. } = leader;
    let known = inner.store.known(&want.key).await;
    let entry = known.older().iter().find(|entry| want.selects(&entry.record))?;
    let Some(Body::Partial(partial)) = inner.store.body_hot(entry) else { return None };
    let length = entry.record.length?;
    if partial.has_writer() || partial.present_total() == 0 || partial.present_total() >= length {
        return None;
    }
    let ways = Ways::of(inner, want, &entry.record);
    let asked = leader.missing_first(&entry.record, &partial, ways);
    matches!(asked, Asked::Range(_)).then(|| PartlyStored { entry: Arc::clone(entry), ways, asked })
}

/// Gives the version of `entry` its place back, for an answer that brings more of it. `None` when the answer may not be
/// stored, or what was there went meanwhile.
pub(super) async fn take_up(
    leader: &Leader<'_>,
    entry: &Arc<Entry>,
    response: &FetchResponse,
) -> Option<PartialWriter> {
    let Leader { inner, want, .. } = leader;
    let (ok, length) = (StatusCode::OK, entry.record.length);
    let storable = decide::storable(&Method::GET, &want.headers, ok, &response.headers, &want.policy, &want.path);
    if !matches!(storable, Storable::Yes) {
        return None;
    }
    let mut record = answer::record_of(want, response, length, ok)?;
    record.expected = still_expected(entry.record.expected, record.expected);
    let revived = inner.store.revive(entry, record)?;
    if leader.permit.is_parted() {
        inner.store.invalidate(&revived);
        return None;
    }
    tracing::info!(key = %want.key, "upstream has an older version again, of which a part is stored");
    inner.store.resume_part(&revived, leader.room(length)).await
}

/// What a body has to become of which the begin was to become `before`, by an answer with the rest that says `now`, or by
/// the rule that holds now. That a part does not say it of the whole takes nothing back.
fn still_expected(before: Option<ExpectedDigest>, now: Option<ExpectedDigest>) -> Option<ExpectedDigest> {
    match before {
        Some(ExpectedDigest::Manifest(_)) => before,
        Some(ExpectedDigest::Upstream(_)) => now.or(before),
        Some(ExpectedDigest::Rule(_)) | None => now,
    }
}

/// Whether `record`, the head of an answer whose body is about to be stored, is that of an older version which is stored
/// whole. It has its place again then, and everybody who waits is told.
pub(super) async fn is_stored(leader: &Leader<'_>, record: &Record) -> bool {
    let answered = Version::of(record, PartialId(0));
    if answered.validator.is_none() || answered.length.is_none() {
        return false;
    }
    let is_it = |entry: &&Arc<Entry>| {
        let BodyRef::Blob(digest) = entry.record.body else { return false };
        let is_expected = record.expected.is_none_or(|expected| match expected.digest().sha_256() {
            Some(expected) => expected == digest,
            // What the blob has in another algorithm is known if it was verified by that.
            None => entry.record.expected == record.expected,
        });
        let version = entry.version();
        is_expected && version.length == answered.length && version.validator == answered.validator
    };
    let known = leader.inner.store.known(&record.key).await;
    let mut older = known.older().iter().filter(|entry| entry.record.variant() == record.variant());
    let Some(entry) = older.find(is_it) else { return false };
    let Some(revived) = leader.inner.store.revive(entry, record.clone()) else { return false };
    tracing::info!(key = %record.key, "upstream has an older version again, which is stored");
    leader.permit.publish_stored(&leader.inner.store, revived);
    true
}
