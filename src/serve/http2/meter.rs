//! [`FrameMeter`]: what a client asks of a connection by frames alone. It reads their heads (RFC 9113 section 4.1) as they
//! come and tells when a client sends more of them than its requests need. What frames mean is the library's part. Pure: no
//! I/O, and the time is told.
//!
//! Frames that bring no request and no content cost points; points come back with time and with what the client is sent.
//! Floods of RST_STREAM, PING, SETTINGS, PRIORITY, CONTINUATION, empty DATA and tiny WINDOW_UPDATE (RFC 9113 section 10.5)
//! are thus all bounded by one rule, whatever becomes of each frame.

use std::time::{Duration, Instant};

/// Length of the connection preface (RFC 9113 section 3.4).
const PREFACE: u8 = 24;
/// Length of a frame's head.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// What a client may spend at once: 200 requests taken back, or 2,000 frames of other kinds.
const MOST: u32 = 2000;
/// A point comes back in this time.
const FOR_POINT: Duration = Duration::from_millis(10);
/// What a request that is taken back costs: it made others work.
const RESET: u32 = 10;
/// So many bytes sent to the client give a point: clients acknowledge content by WINDOW_UPDATE, some of them each 4 KiB twice,
/// for the stream and for the connection.
const BYTES_FOR_POINT: u64 = 1024;
/// What is kept of those: a client may acknowledge at once what it took in a long time.
const MOST_EARNED: u64 = 65_536;

/// The client sends more frames than its requests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood;

/// The frames of one connection.
#[derive(Debug, Clone)]
pub(super) struct FrameMeter {
    /// Bytes of the preface that have not come.
    preface: u8,
    head: [u8; HEAD],
    /// How many bytes of the head have come.
    known: usize,
    /// Bytes of the present payload that have not come.
    payload: u32,
    /// Whether the present payload is content, which has limits of its own.
    is_data: bool,
    /// Whether a field block has begun and not ended.
    in_block: bool,
    /// When what is incomplete began.
    since: Option<Instant>,
    points: u32,
    /// Points for bytes. Requests that are taken back cannot be paid with them.
    earned: u64,
    /// Until when the points of time are counted.
    counted: Instant,
    /// Bytes sent that have given no point yet.
    sent: u64,
}

impl FrameMeter {
    /// A connection that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            preface: PREFACE,
            head: [0; HEAD],
            known: 0,
            payload: 0,
            is_data: false,
            in_block: false,
            since: None,
            points: MOST,
            earned: 0,
            counted: now,
            sent: 0,
        }
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// [`Flood`] when no points are left.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let rest = usize::from(self.preface).min(bytes.len());
        // At most 24.
        self.preface -= rest as u8;
        bytes = bytes.get(rest..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = bytes.len().min(self.payload as usize);
                // At most the payload, which is 32 bits.
                self.payload -= passed as u32;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let taken = bytes.len().min(HEAD - self.known);
            let (part, rest) = bytes.split_at(taken);
            self.head.iter_mut().skip(self.known).zip(part).for_each(|(place, byte)| *place = *byte);
            self.known += taken;
            bytes = rest;
            if self.known == HEAD {
                self.known = 0;
                self.frame(now)?;
            }
        }
        let is_whole = self.preface == 0 && self.known == 0 && (self.payload == 0 || self.is_data) && !self.in_block;
        self.since = if is_whole { None } else { self.since.or(Some(now)) };
        Ok(())
    }

    /// So many bytes were sent to the client.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
        self.earned = self.earned.saturating_add(self.sent / BYTES_FOR_POINT).min(MOST_EARNED);
        self.sent %= BYTES_FOR_POINT;
    }

    /// Since when the client owes the rest of its preface, of a frame or of a field block.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        self.since
    }

    /// The head of a frame is complete.
    fn frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = u32::from_be_bytes([0, a, b, c]);
        self.is_data = kind == DATA;
        match kind {
            HEADERS | CONTINUATION => self.in_block = flags & END_HEADERS == 0,
            _ => {}
        }
        self.spend(cost(kind, flags, self.payload), now)
    }

    fn spend(&mut self, points: u32, now: Instant) -> Result<(), Flood> {
        if points == 0 {
            return Ok(());
        }
        if points < RESET
            && let Some(left) = self.earned.checked_sub(u64::from(points))
        {
            self.earned = left;
            return Ok(());
        }
        let gained = now.saturating_duration_since(self.counted).as_millis() / FOR_POINT.as_millis();
        let gained = u32::try_from(gained).unwrap_or(MOST).min(MOST);
        self.points = self.points.saturating_add(gained).min(MOST);
        // The rest of a point is not lost, but for a client that has all of them.
        self.counted = if self.points == MOST { now } else { self.counted + FOR_POINT * gained };
        self.points = self.points.checked_sub(points).ok_or(Flood)?;
        Ok(())
    }
}

/// What a frame costs. Requests and content cost nothing here: they have limits of their own.
fn cost(kind: u8, flags: u8, length: u32) -> u32 {
    match kind {
        DATA if flags & END_STREAM != 0 || (length > 0 && flags & PADDED == 0) => 0,
        HEADERS => 0,
        RST_STREAM => RESET,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + length, 0);
        bytes
    }

    fn begun(now: Instant) -> FrameMeter {
        let mut meter = FrameMeter::new(now);
        meter.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        meter
    }

    /// How many of these frames are let through in one moment.
    fn most(kind: u8, flags: u8, length: usize) -> usize {
        let now = Instant::now();
        let mut meter = begun(now);
        let bytes = frame(kind, flags, length);
        (0..10_000).take_while(|_| meter.read(&bytes, now).is_ok()).count()
    }

    #[test]
    fn frames_without_a_request_or_content_are_bounded_and_others_are_not() {
        for (kind, flags, length, expected) in [
            (RST_STREAM, 0, 4, 200),
            (PING, 0, 8, 2000),
            (SETTINGS, 0, 0, 2000),
            (WINDOW_UPDATE, 0, 4, 2000),
            (CONTINUATION, 0, 0, 2000),
            (DATA, 0, 0, 2000),
            (DATA, PADDED, 10, 2000),
            (0xfe, 0, 3, 2000),
            (DATA, 0, 1, 10_000),
            (DATA, END_STREAM, 0, 10_000),
            (HEADERS, END_HEADERS, 30, 10_000),
        ] {
            assert_eq!(most(kind, flags, length), expected, "{kind} {flags} {length}");
        }
    }

    #[test]
    fn points_come_back_with_time_and_with_bytes() {
        let now = Instant::now();
        let mut meter = begun(now);
        let ping = frame(PING, 0, 8);
        while meter.read(&ping, now).is_ok() {}
        let later = now + Duration::from_millis(250);
        let count = |meter: &mut FrameMeter, at| (0..10_000).take_while(|_| meter.read(&ping, at).is_ok()).count();
        assert_eq!(count(&mut begun(now), now), 2000);
        let mut other = meter.clone();
        (other.known, other.payload) = (0, 0);
        assert_eq!(count(&mut other, later), 25);
        (meter.known, meter.payload) = (0, 0);
        (0..100).for_each(|_| meter.wrote(1000));
        assert_eq!(count(&mut meter, now), 97, "100,000 bytes");
    }

    #[test]
    fn who_takes_content_may_acknowledge_it_in_small_steps_and_late() {
        let now = Instant::now();
        let update = frame(WINDOW_UPDATE, 0, 4);
        let mut steady = begun(now);
        for _ in 0..25_600 {
            steady.wrote(4096);
            for _ in 0..2 {
                steady.read(&update, now).unwrap();
            }
        }
        let mut late = begun(now);
        late.wrote(16 * 1024 * 1024);
        (0..8192).for_each(|_| late.read(&update, now).unwrap());
        // Requests that are taken back are not paid with what was taken.
        let reset = frame(RST_STREAM, 0, 4);
        assert_eq!((0..10_000).take_while(|_| late.read(&reset, now).is_ok()).count(), 200);
    }

    #[test]
    fn what_is_incomplete_is_known_with_its_begin() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut meter = FrameMeter::new(now);
        assert_eq!(meter.unfinished_since(), None, "nothing was begun");
        meter.read(b"PRI * HTTP/2.0\r\n\r\n", at(1)).unwrap();
        assert_eq!(meter.unfinished_since(), Some(at(1)));
        meter.read(b"SM\r\n\r\n", at(2)).unwrap();
        assert_eq!(meter.unfinished_since(), None);
        meter.read(&frame(HEADERS, 0, 5), at(3)).unwrap();
        meter.read(&frame(CONTINUATION, 0, 5), at(4)).unwrap();
        assert_eq!(meter.unfinished_since(), Some(at(3)), "the block is open");
        meter.read(&frame(CONTINUATION, END_HEADERS, 5), at(5)).unwrap();
        assert_eq!(meter.unfinished_since(), None);
        meter.read(&frame(PING, 0, 8)[..12], at(6)).unwrap();
        assert_eq!(meter.unfinished_since(), Some(at(6)));
        meter.read(&frame(PING, 0, 8)[12..], at(7)).unwrap();
        // Content comes as slowly as it comes.
        meter.read(&frame(DATA, 0, 1000)[..20], at(8)).unwrap();
        assert_eq!(meter.unfinished_since(), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(0_usize..400, 0..8)) {
            let now = Instant::now();
            let (mut whole, mut pieces) = (FrameMeter::new(now), FrameMeter::new(now));
            let of_whole = whole.read(&bytes, now);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let of_pieces = cuts.windows(2).try_for_each(|cut| pieces.read(&bytes[cut[0]..cut[1]], now));
            prop_assert_eq!(of_whole, of_pieces);
            prop_assert_eq!(whole.points, pieces.points);
            prop_assert_eq!(whole.unfinished_since(), pieces.unfinished_since());
        }
    }
}
