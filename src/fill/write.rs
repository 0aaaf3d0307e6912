//! Puts what came into a partial: only what is absent of it, and compared with what is present where nothing else
//! tells whether it is the same version.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::ByteRange;
use crate::store::{Body, Partial, PartialWriter, ReadError, StoreError};

/// Most bytes that are read at once to be compared.
const COMPARED: u64 = 256 * 1024;

/// Writes what is absent of `range`; `bytes` begin at its start. Returns how many bytes were.
pub(super) async fn absent(writer: &mut PartialWriter, range: ByteRange, bytes: &[Bytes]) -> Result<u64, StoreError> {
    let mut written = 0;
    for part in writer.partial().missing(range) {
        writer.write(part.start(), slices(bytes, range.start(), part)).await?;
        written += part.len();
    }
    Ok(written)
}

/// Whether a byte of `range` that is present differs from what came; `bytes` begin at its start. What turns out not to be
/// there is absent for our purpose.
///
/// # Errors
/// [`ReadError::Io`] when the drive fails: nothing can be said then.
pub(super) async fn differs(partial: &Arc<Partial>, range: ByteRange, bytes: &[Bytes]) -> Result<bool, ReadError> {
    let absent = partial.missing(range);
    let mut at = range.start();
    let ends = absent.iter().map(|gap| (gap.start(), gap.end())).chain([(range.end(), range.end())]);
    for (present_end, next) in ends {
        let body = Body::Partial(Arc::clone(partial));
        while at < present_end {
            let most = usize::try_from((present_end - at).min(COMPARED)).unwrap_or(usize::MAX);
            let stored = match body.read(at, most).await {
                Ok(stored) => stored,
                Err(error @ ReadError::Io(_)) => return Err(error),
                Err(ReadError::Gone | ReadError::Damaged { .. } | ReadError::Absent { .. }) => break,
            };
            let Some(read) = ByteRange::new(at, at + stored.len() as u64) else { break };
            let mut rest = &stored[..];
            for slice in slices(bytes, range.start(), read) {
                let (head, tail) = rest.split_at(slice.len().min(rest.len()));
                if head != &slice[..] {
                    return Ok(true);
                }
                rest = tail;
            }
            at = read.end();
        }
        at = next;
    }
    Ok(false)
}

/// The bytes of `part` out of `bytes`, whose first one is the one at `at`.
pub(super) fn slices(bytes: &[Bytes], at: u64, part: ByteRange) -> Vec<Bytes> {
    let mut begin = at;
    let mut slices = Vec::with_capacity(bytes.len());
    for piece in bytes {
        let here = ByteRange::new(begin, begin.saturating_add(piece.len() as u64));
        if let Some(common) = here.and_then(|here| here.intersect(part)) {
            // Both ends are within `piece`, whose length is a usize.
            slices.push(piece.slice((common.start() - begin) as usize..(common.end() - begin) as usize));
        }
        begin = begin.saturating_add(piece.len() as u64);
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_out_of_what_came() {
        let bytes = [Bytes::from_static(b"abc"), Bytes::from_static(b"defg"), Bytes::from_static(b"h")];
        let of = |start, end| slices(&bytes, 10, ByteRange::new(start, end).unwrap()).concat();
        assert_eq!(of(10, 18), b"abcdefgh");
        assert_eq!(of(12, 14), b"cd");
        assert_eq!(of(17, 30), b"h");
        assert_eq!(of(0, 10), b"");
    }
}
