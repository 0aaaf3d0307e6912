//! [`SlidingWindow`]: the last bytes of a body that no drive has room for, in memory, and how far who brings them may run
//! ahead of those who read them. Pure: the time is given.
//!
//! As much as fits is kept behind the leader, whether anybody needs it or not: who comes while the window still has its
//! byte joins. When it is full, the leader waits for the slowest. When somebody has read everything and the window stays
//! full for [`LAG`], who is in its slower half is left behind: such a client is cut, and comes back for the rest.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// How long those who read slowly hold back those who read fast.
pub(super) const LAG: Duration = Duration::from_secs(8);

/// What a client was told of and may not have taken yet, in bytes: reserves, ends that wait for a digest, and what lingered in a
/// file when the drive ran full.
const UNTAKEN: u64 = 448 * 1024;

/// The bytes of a body from one position to another.
#[derive(Debug)]
pub(super) struct SlidingWindow {
    /// Where it began.
    start: u64,
    /// First byte that is kept.
    begin: u64,
    /// Behind the last one.
    end: u64,
    pieces: VecDeque<Bytes>,
    /// Since when it has been full, with somebody who waits for more.
    full_since: Option<Instant>,
}

/// What the leader may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Bring more.
    Go,
    /// Wait until somebody has read on, or until then.
    Wait(Option<Instant>),
}

impl SlidingWindow {
    /// Without bytes; the first one that comes is the one at `start`.
    pub(super) fn new(start: u64) -> Self {
        Self { start, begin: start, end: start, pieces: VecDeque::new(), full_since: None }
    }

    /// First byte that is kept.
    pub(super) fn begin(&self) -> u64 {
        self.begin
    }

    /// Position of the next byte that comes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are kept.
    pub(super) fn len(&self) -> u64 {
        self.end - self.begin
    }

    /// Whether the byte at `at` is kept.
    pub(super) fn has(&self, at: u64) -> bool {
        self.begin <= at && at < self.end
    }

    /// The next bytes have come.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.end = self.end.saturating_add(bytes.len() as u64);
            self.pieces.push_back(bytes);
        }
    }

    /// At least one and at most `most` bytes from `at` on; `None` when the byte there is not kept.
    pub(super) fn read(&self, at: u64, most: u64) -> Option<Bytes> {
        if !self.has(at) {
            return None;
        }
        let mut begin = self.begin;
        let piece = self.pieces.iter().find(|piece| {
            let is_here = at < begin + piece.len() as u64;
            begin += if is_here { 0 } else { piece.len() as u64 };
            is_here
        })?;
        let from = usize::try_from(at - begin).ok()?;
        let length = usize::try_from(most.max(1)).unwrap_or(usize::MAX).min(piece.len() - from);
        Some(piece.slice(from..from + length))
    }

    /// What the leader may do while at most `size` bytes are to be kept and the clients are at these positions. Lets go
    /// of what is too much.
    pub(super) fn pace(&mut self, now: Instant, clients: &[u64], size: u64) -> Pace {
        let begin = self.begin;
        // Who has been left behind counts no more; who is before the begin and was not, is still on its way to it.
        let counts = |at: u64| if at >= begin || begin == self.start { Some(at.clamp(begin, self.end)) } else { None };
        let places: Vec<u64> = clients.iter().filter_map(|at| counts(*at)).collect();
        let needed =
            |places: &mut dyn Iterator<Item = u64>| places.min().unwrap_or(self.end).saturating_sub(UNTAKEN).max(begin);
        let floor = needed(&mut places.iter().copied());
        let half = self.end.saturating_sub(size / 2);
        let fast_floor = needed(&mut places.iter().copied().filter(|at| *at >= half));
        let is_ahead = places.iter().any(|at| *at > half);
        let is_waiting = places.iter().any(|at| at.saturating_add(UNTAKEN) >= self.end);
        self.release(floor, size);
        if self.len() <= size / 4 * 3 || !is_ahead {
            self.full_since = None;
        }
        if self.len() < size {
            return Pace::Go;
        }
        if !is_ahead || !(is_waiting || self.full_since.is_some()) {
            return Pace::Wait(None);
        }
        let until = *self.full_since.get_or_insert(now) + LAG;
        if now < until || !is_waiting {
            return Pace::Wait(Some(until).filter(|until| now < *until));
        }
        self.release(fast_floor, size / 2);
        self.full_since = None;
        if self.len() < size { Pace::Go } else { Pace::Wait(None) }
    }

    /// Lets go of pieces before `until`, until there are fewer bytes than `size`.
    fn release(&mut self, until: u64, size: u64) {
        while self.len() >= size
            && let Some(first) = self.pieces.front().filter(|first| self.begin + first.len() as u64 <= until)
        {
            self.begin += first.len() as u64;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn window(pieces: u64) -> SlidingWindow {
        let mut window = SlidingWindow::new(0);
        (0..pieces).for_each(|number| window.push(vec![number as u8; MIB as usize].into()));
        window
    }

    #[test]
    fn what_fits_is_kept_for_who_comes_later() {
        let now = Instant::now();
        let mut window = window(7);
        assert_eq!(window.pace(now, &[7 * MIB], 8 * MIB), Pace::Go);
        assert_eq!((window.begin(), window.end()), (0, 7 * MIB));
        assert_eq!(window.read(5 * MIB - 1, 10).unwrap(), vec![4_u8]);
        assert_eq!(window.read(5 * MIB, 3).unwrap(), vec![5_u8; 3]);
        assert!(window.read(7 * MIB, 1).is_none());
        window.push(vec![7; 2 * MIB as usize].into());
        assert_eq!(window.pace(now, &[9 * MIB], 8 * MIB), Pace::Go);
        assert_eq!((window.begin(), window.end()), (2 * MIB, 9 * MIB), "no more goes than must");
        assert!(window.read(0, 1).is_none(), "gone");
        assert_eq!(window.pace(now, &[], 3 * MIB), Pace::Go);
        assert_eq!(window.begin(), 7 * MIB, "pieces go as a whole");
    }

    #[test]
    fn the_slow_hold_back_the_fast_for_a_while_and_not_longer() {
        let start = Instant::now();
        let mut window = window(8);
        let (slow, middle, fast) = (MIB, 6 * MIB, 8 * MIB);
        let clients = [slow, middle, fast];
        assert_eq!(window.pace(start, &clients, 8 * MIB), Pace::Wait(Some(start + LAG)));
        // A little is read, and comes: that is no new wait.
        let soon = start + LAG / 2;
        assert_eq!(window.pace(soon, &[slow + 5, middle, fast], 8 * MIB), Pace::Wait(Some(start + LAG)));
        assert_eq!(window.pace(start + LAG, &[slow + 5, middle, fast], 8 * MIB), Pace::Go);
        assert!(window.begin() > slow + 5 && window.begin() <= middle, "{}", window.begin());
        assert!(window.has(middle) && !window.has(slow + 5));
        window.push(vec![9; 5 * MIB as usize].into());
        let late = start + LAG * 2;
        assert_eq!(window.pace(late, &[slow + 5, 13 * MIB], 8 * MIB), Pace::Go, "who was left behind counts no more");
    }

    #[test]
    fn who_is_alone_is_never_left_behind() {
        let start = Instant::now();
        let mut window = window(8);
        for seconds in 0..100 {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(window.pace(now, &[MIB, MIB + 5], 8 * MIB), Pace::Wait(None));
            assert!(window.has(MIB));
        }
    }

    #[derive(Debug, Clone)]
    enum Move {
        Come(usize),
        Read(prop::sample::Index, u64),
        Join,
        Leave(prop::sample::Index),
        Time(u64),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            4 => (1_usize..400_000).prop_map(Move::Come),
            4 => (any::<prop::sample::Index>(), 1_u64..600_000).prop_map(|(client, bytes)| Move::Read(client, bytes)),
            1 => Just(Move::Join),
            1 => any::<prop::sample::Index>().prop_map(Move::Leave),
            2 => (1_u64..6_000).prop_map(Move::Time),
        ];
        prop::collection::vec(one, 1..200)
    }

    /// The bytes from a position on: they come again, at a distance that no window has.
    fn bytes(at: u64, length: usize) -> Bytes {
        static SAMPLE: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
        let byte = |at: u32| (at.wrapping_mul(0x9e37_79b9) >> 11) as u8;
        let sample = SAMPLE.get_or_init(|| (0..PERIOD as u32).chain(0..700_000).map(byte).collect());
        let from = (at % PERIOD) as usize;
        sample.slice(from..from + length)
    }

    const PERIOD: u64 = 1_999_993;

    proptest! {
        #[test]
        fn it_gives_right_bytes_keeps_its_size_and_leaves_nobody_behind_too_soon(moves in moves()) {
            let size = MIB;
            let mut window = SlidingWindow::new(1000);
            let mut clients: Vec<u64> = vec![1000];
            let mut now = Instant::now();
            let mut waiting_since = now;
            for step in moves {
                match step {
                    Move::Come(length) => {
                        if window.pace(now, &clients, size) == Pace::Go {
                            let end = window.end();
                            window.push(bytes(end, length));
                            prop_assert!(window.len() < size + length as u64);
                        }
                    }
                    Move::Read(client, most) if !clients.is_empty() => {
                        let client = client.index(clients.len());
                        let at = &mut clients[client];
                        if let Some(read) = window.read(*at, most) {
                            prop_assert!(!read.is_empty() && read.len() as u64 <= most);
                            prop_assert!(read == bytes(*at, read.len()));
                            *at += read.len() as u64;
                        }
                    }
                    Move::Join if window.begin() == 1000 => clients.push(1000),
                    Move::Leave(client) if !clients.is_empty() => {
                        clients.swap_remove(client.index(clients.len()));
                    }
                    Move::Time(millis) => now += Duration::from_millis(millis),
                    Move::Read(..) | Move::Join | Move::Leave(_) => {}
                }
                let before: Vec<u64> = clients.iter().copied().filter(|at| *at >= window.begin()).collect();
                window.pace(now, &clients, size);
                let left = before.iter().any(|at| *at < window.begin());
                if left {
                    prop_assert!(now.duration_since(waiting_since) >= LAG, "left behind too soon");
                    prop_assert!(before.iter().any(|at| *at >= window.begin()), "for somebody else");
                }
                let waits = before.iter().any(|at| at + UNTAKEN >= window.end());
                if left || !waits && window.len() < size / 4 * 3 {
                    waiting_since = now;
                }
                clients.retain(|at| *at >= window.begin());
            }
        }
    }
}
