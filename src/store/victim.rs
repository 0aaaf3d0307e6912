//! [`Name`]: what the order of eviction knows an object by. A digest's first half: there may be a million of them in memory.

use super::drive::Victim;
use super::evict::Object;

/// What stands for an object in the order of eviction. Blobs whose digests begin with the same 16 bytes (nobody knows two)
/// have one place there and go together, so a blob that has to go is looked up in the index by this before it is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// Complete blobs whose digests begin with this.
    Blobs([u8; 16]),
    /// A partial body, by the bytes of its id.
    Partial([u8; 8]),
}

impl Object for Victim {
    type Name = Name;

    fn name(&self) -> Name {
        match self {
            Self::Blob(digest) => Name::Blobs(digest.prefix()),
            Self::Partial(id) => Name::Partial(*id),
        }
    }
}
