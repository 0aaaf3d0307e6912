//! Byte stuffing: the same bytes without a zero among them, so that a zero can mark where something begins.

/// Consistent overhead byte stuffing (Cheshire and Baker, 1999): each run of up to 254 non-zero bytes gets its
/// length + 1 in front, which also stands for the zero that ended it, unless the run was a full one.
pub(super) fn stuff(plain: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(plain.len() + plain.len() / 254 + 1);
    for run in plain.split(|byte| *byte == 0) {
        let mut pieces = run.chunks(254).peekable();
        if pieces.peek().is_none() {
            stuffed.push(1);
        }
        let mut full = false;
        for piece in pieces {
            stuffed.push(piece.len() as u8 + 1);
            stuffed.extend_from_slice(piece);
            full = piece.len() == 254;
        }
        // A full run stands for no zero, so the one that ended it is an empty run of its own.
        if full {
            stuffed.push(1);
        }
    }
    stuffed
}

/// Undoes [`stuff`]; `None` for bytes that it cannot have made.
pub(super) fn unstuff(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(stuffed.len());
    let mut rest = stuffed;
    while let Some((&code, later)) = rest.split_first() {
        let (run, later) = later.split_at_checked(usize::from(code.checked_sub(1)?))?;
        plain.extend_from_slice(run);
        if code != u8::MAX && !later.is_empty() {
            plain.push(0);
        }
        rest = later;
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_are_stuffed_as_the_paper_does() {
        for (plain, stuffed) in [
            (&[][..], &[1][..]),
            (&[0], &[1, 1]),
            (&[0, 0], &[1, 1, 1]),
            (&[7, 0, 8], &[2, 7, 2, 8]),
            (&[7, 8, 0], &[3, 7, 8, 1]),
        ] {
            assert_eq!(stuff(plain), stuffed);
        }
    }

    #[test]
    fn what_cannot_be_stuffed_bytes_is_refused() {
        for stuffed in [&[0][..], &[2], &[1, 0], &[3, 7], &[255, 1]] {
            assert_eq!(unstuff(stuffed), None, "{stuffed:?}");
        }
    }

    proptest! {
        #[test]
        fn stuffed_bytes_have_no_zero_and_come_back(runs in prop::collection::vec((any::<bool>(), prop_oneof![0usize..4, 250usize..260, 500usize..520]), 0..6)) {
            let plain: Vec<u8> = runs.iter().flat_map(|(zero, len)| vec![u8::from(!zero); *len]).collect();
            let stuffed = stuff(&plain);
            prop_assert!(!stuffed.contains(&0));
            prop_assert_eq!(unstuff(&stuffed), Some(plain));
        }
    }
}
