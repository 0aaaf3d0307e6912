//! A version that upstream has again: when it is still stored whole as an older one, it gets its place back, and nothing
//! is transferred.

use std::sync::Arc;

use super::flight::Head;
use super::lead::Leader;
use crate::content::{BodyRef, PartialId, Record, Version};
use crate::store::Entry;

/// Whether `record`, the head of an answer whose body is about to be stored, is that of an older version which is stored
/// whole. It has its place again then, and everybody who waits is told.
pub(super) async fn is_stored(leader: &Leader<'_>, record: &Record) -> bool {
    let answered = Version::of(record, PartialId(0));
    if answered.validator.is_none() || answered.length.is_none() {
        return false;
    }
    let is_it = |entry: &&Arc<Entry>| {
        let BodyRef::Blob(digest) = entry.record.body else { return false };
        let is_expected = record.expected.is_none_or(|expected| expected.digest() == digest);
        let version = entry.version();
        is_expected && version.length == answered.length && version.validator == answered.validator
    };
    let known = leader.inner.store.known(&record.key).await;
    let mut older = known.older().iter().filter(|entry| entry.record.variant() == record.variant());
    let Some(entry) = older.find(is_it) else { return false };
    let Some(revived) = leader.inner.store.revive(entry, record.clone()) else { return false };
    tracing::info!(key = %record.key, "upstream has an older version again, which is stored");
    leader.permit.publish(Head::Validated(revived));
    true
}
