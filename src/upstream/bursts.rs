//! [`Bursts`]: when a socket that was read empty is left alone for a moment, so that what comes fast is taken in few large
//! pieces. Each piece of a body costs a write, a look of everybody who follows and a send to each of them, whatever its size.
//! The begin of an answer is never left alone. No clock and no socket here: reading is `socket`'s business.

use std::time::Duration;

use tokio::time::Instant;

/// What is to gather, if it comes within [`LONGEST`]: as much as is read at once.
const PIECE: u64 = 256 * 1024;

/// No pause is longer. Nobody notices it behind a stream that is fast, and nothing is lost while the socket's buffer has room.
const LONGEST: Duration = Duration::from_millis(4);

/// A piece that comes within this time is not worth a timer.
const SHORTEST: Duration = Duration::from_micros(250);

/// The rate is taken over this time at least.
const WINDOW: Duration = Duration::from_millis(8);

/// Bytes in a window from which on a stream is fast: 4 MB/s.
const FAST: u64 = 32 * 1024;

/// What has come over one socket lately.
#[derive(Debug)]
pub(super) struct Bursts {
    /// Begin of the window that is measured, and what has come in it.
    window: (Instant, u64),
    /// How long a piece took in the window before it, if that was fast.
    piece: Option<Duration>,
    /// Whether the last read took all there was, and no pause has been made since.
    drained: bool,
    /// What has come since something was asked last.
    since_asked: u64,
}

impl Bursts {
    pub(super) fn new(now: Instant) -> Self {
        Self { window: (now, 0), piece: None, drained: false, since_asked: 0 }
    }

    /// `bytes` were read; `drained`: no more was there.
    pub(super) fn note(&mut self, now: Instant, bytes: u64, drained: bool) {
        self.since_asked = self.since_asked.saturating_add(bytes);
        let (begin, so_far) = self.window;
        let (passed, bytes) = (now.saturating_duration_since(begin), so_far.saturating_add(bytes));
        self.window.1 = bytes;
        if passed >= WINDOW {
            // A long silence is no window of a fast stream, however much came behind it at once.
            let fast = passed < WINDOW * 4 && bytes >= FAST;
            self.piece = fast.then(|| passed.mul_f64(PIECE as f64 / bytes as f64));
            self.window = (now, 0);
        }
        self.drained = drained;
    }

    /// Something is asked over the socket: the begin of its answer is waited for, however fast the stream was before.
    pub(super) fn asked(&mut self) {
        self.since_asked = 0;
    }

    /// Until when the socket is to be left alone before the next read; asked once for each pause.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Instant> {
        let is_current = now.saturating_duration_since(self.window.0) < WINDOW * 4;
        let is_begun = self.since_asked >= PIECE;
        let piece = self.piece.filter(|_| std::mem::take(&mut self.drained) && is_current && is_begun);
        piece.filter(|piece| *piece >= SHORTEST).map(|piece| now + piece.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds bursts of `bytes` each `micros`, and returns how many of the last 100 reads were preceded by a pause.
    fn pauses(bytes: u64, micros: u64, drained: bool) -> usize {
        let (mut now, mut paused) = (Instant::now(), 0);
        let mut bursts = Bursts::new(now);
        for burst in 0..1000 {
            now += Duration::from_micros(micros);
            let pause = bursts.pause(now);
            paused += usize::from(burst >= 900 && pause.is_some());
            bursts.note(now, bytes, drained);
        }
        paused
    }

    #[test]
    fn only_a_fast_stream_that_was_read_empty_gathers() {
        assert_eq!(pauses(16 * 1024, 80, true), 100, "200 MB/s in small pieces");
        assert_eq!(pauses(8 * 1024, 1000, true), 100, "8 MB/s");
        assert_eq!(pauses(1024, 1000, true), 0, "1 MB/s");
        assert_eq!(pauses(256 * 1024, 80, true), 0, "3 GB/s");
        assert_eq!(pauses(256 * 1024, 1000, false), 0, "more is there than was read");
        assert_eq!(pauses(1024 * 1024, 500_000, true), 0, "a burst now and then");
    }

    #[test]
    fn the_begin_of_an_answer_is_read_at_once() {
        let mut now = Instant::now();
        let mut bursts = Bursts::new(now);
        let mut came = |bursts: &mut Bursts| {
            now += Duration::from_micros(500);
            bursts.note(now, 64 * 1024, true);
            bursts.pause(now).is_some()
        };
        assert!((0..100).filter(|_| came(&mut bursts)).count() > 75, "all but while the rate was not known");
        bursts.asked();
        assert_eq!(Vec::from_iter((0..5).map(|_| came(&mut bursts))), [false, false, false, true, true]);
    }

    #[test]
    fn a_pause_is_made_once_and_not_after_a_silence() {
        let mut now = Instant::now();
        let mut bursts = Bursts::new(now);
        for _ in 0..100 {
            now += Duration::from_micros(500);
            bursts.note(now, 64 * 1024, true);
        }
        let pause = bursts.pause(now).map(|until| until - now);
        assert!(pause.is_some_and(|pause| (SHORTEST..=LONGEST).contains(&pause)), "{pause:?}");
        assert_eq!(bursts.pause(now), None, "the read that follows is made at once");
        bursts.note(now, 1, true);
        assert_eq!(bursts.pause(now + WINDOW * 5), None);
        bursts.note(now + WINDOW * 100, 1024 * 1024, true);
        assert_eq!(bursts.pause(now + WINDOW * 100), None);
    }
}
