//! Finds the end of a chunked request body while its bytes pass by (RFC 9112 section 7.1). Stricter than
//! hyper's decoder, which sees the same bytes afterwards, so the two never disagree about the end. Pure.

use super::head_gate::is_token;
use super::refusal::Refusal;

/// Longest chunk-size line with extensions, and all of the trailer section.
const MAX_LINE: u16 = 4096;
/// Bytes of all extensions together. hyper takes no more.
const MAX_EXTENSIONS: u16 = 16 * 1024 - 1;
/// Trailer fields. hyper takes no more.
const MAX_TRAILERS: u8 = 100;

/// How far a piece of input belongs to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of the input that are part of the body.
    pub(super) taken: usize,
    /// Whether the body ends there.
    pub(super) done: bool,
}

/// The state between two pieces of input.
#[derive(Debug, Clone)]
pub(super) struct ChunkScanner {
    state: State,
    size: u64,
    digits: u8,
    line: u16,
    extensions: u16,
    trailers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

impl ChunkScanner {
    pub(super) fn new() -> Self {
        Self { state: State::Size, size: 0, digits: 0, line: 0, extensions: 0, trailers: 0 }
    }

    /// Takes the next piece of input.
    ///
    /// # Errors
    /// [`Refusal::Chunk`] when the framing is broken; the body has no known end then.
    pub(super) fn scan(&mut self, input: &[u8]) -> Result<Progress, Refusal> {
        let mut taken = 0_usize;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Data {
                let step = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest.len());
                self.size = self.size.saturating_sub(step as u64);
                taken = taken.saturating_add(step);
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let Some(&byte) = rest.first() else { break };
            taken = taken.saturating_add(1);
            if self.control(byte)? {
                return Ok(Progress { taken, done: true });
            }
        }
        Ok(Progress { taken, done: false })
    }

    /// Takes one byte outside of chunk data; `true` when it was the body's last.
    fn control(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.line = self.line.saturating_add(1);
        if self.line > MAX_LINE {
            return Err(Refusal::Chunk);
        }
        let visible = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(Refusal::Chunk)?;
                self.size = (self.size << 4) | u64::from(digit);
                self.digits = self.digits.saturating_add(1);
                State::Size
            }
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if visible && self.extensions < MAX_EXTENSIONS => {
                self.extensions = self.extensions.saturating_add(1);
                State::Extension
            }
            (State::SizeLf, b'\n') if self.size == 0 => {
                self.line = 0;
                State::TrailerStart
            }
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                *self = Self { extensions: self.extensions, ..Self::new() };
                State::Size
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) if is_token(byte) && self.trailers < MAX_TRAILERS => {
                self.trailers = self.trailers.saturating_add(1);
                State::TrailerName
            }
            (State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, _) if visible => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => return Ok(true),
            _ => return Err(Refusal::Chunk),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_end_and_leaves_what_follows() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A;x=\"y\"\r\n0123456789\r\n000\r\nTrailer: v\r\nOther: w\r\n\r\n",
            "2\r\n\r\n\r\n0\r\n\r\n",
        ] {
            let input = format!("{body}GET / HTTP/1.1\r\n");
            let progress = ChunkScanner::new().scan(input.as_bytes());
            assert_eq!(progress, Ok(Progress { taken: body.len(), done: true }), "{body:?}");
        }
    }

    #[test]
    fn refuses_broken_framing() {
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\n",
            " 5\r\nhello",
            "5 \r\nhello",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5;a\nb\r\nhello",
            "5;\0\r\n",
            "11111111111111111\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "5\rX",
            "0\r\nA\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(ChunkScanner::new().scan(body.as_bytes()), Err(Refusal::Chunk), "{body:?}");
        }
        let endless = format!("5;{}", "x".repeat(5000));
        assert_eq!(ChunkScanner::new().scan(endless.as_bytes()), Err(Refusal::Chunk));
        for (part, most) in [("1;xxxxxxx\r\nx\r\n", 16_383 / 7), ("1;x\r\nx\r\n", 16_383)] {
            for (count, fits) in [(most, true), (most + 1, false)] {
                let body = part.repeat(count) + "0\r\n\r\n";
                assert_eq!(ChunkScanner::new().scan(body.as_bytes()).is_ok(), fits, "{part:?} {count} times");
            }
        }
        for (count, fits) in [(100, true), (101, false)] {
            let body = format!("0\r\n{}\r\n", "A:\r\n".repeat(count));
            assert_eq!(ChunkScanner::new().scan(body.as_bytes()).is_ok(), fits, "{count} trailers");
        }
    }

    proptest! {
        #[test]
        fn piecewise_equals_at_once(input in proptest::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), Just(b';'), Just(b'x')], 0..64)) {
            let whole = ChunkScanner::new().scan(&input);
            let mut scanner = ChunkScanner::new();
            let mut taken = 0;
            let mut pieces = Ok(Progress { taken: 0, done: false });
            for byte in &input {
                match scanner.scan(std::slice::from_ref(byte)) {
                    Ok(progress) => {
                        taken += progress.taken;
                        pieces = Ok(Progress { taken, done: progress.done });
                        if progress.done { break; }
                    }
                    Err(refusal) => { pieces = Err(refusal); break; }
                }
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
