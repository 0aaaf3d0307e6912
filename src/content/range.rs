//! [`ByteRange`]: a non-empty half-open range of byte positions. What a client wrote in a `Range` field is
//! `decide`'s business; here is only what it means for a known length.

/// Positions `start..end` with `start < end`, in bytes from the begin of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The range `start..end`, or `None` when it would be empty.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start < end { Some(Self { start, end }) } else { None }
    }

    /// The whole of a representation of `length` bytes, or `None` when that is empty.
    pub fn whole(length: u64) -> Option<Self> {
        Self::new(0, length)
    }

    /// First position.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position after the last.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Last position, as `Content-Range` writes it (RFC 9110 section 14.4).
    pub fn last(&self) -> u64 {
        self.end - 1
    }

    /// Number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether every position of `other` is in `self`.
    pub fn covers(&self, other: ByteRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The positions in both, or `None`.
    pub fn intersect(&self, other: ByteRange) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}
