//! The schedule by example, and against random flights.

use proptest::prelude::*;

use super::*;

const BLOCK: u64 = 64 * 1024;

/// A flight without I/O: what is asked comes when the test says so.
struct Flight {
    pieces: Pieces,
    length: u64,
    present: RangeSet,
    claims: Vec<Claim>,
    clients: Vec<ByteRange>,
    owed: RangeSet,
    rate: Option<u64>,
    ids: u64,
    asked: u64,
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

impl Flight {
    fn new(pieces: Pieces, length: u64) -> Self {
        let (present, owed) = Default::default();
        Self { pieces, length, present, claims: vec![], clients: vec![], owed, rate: None, ids: 0, asked: 0 }
    }

    fn picture(&self) -> Picture<'_> {
        Picture {
            pieces: self.pieces,
            length: self.length,
            block: BLOCK,
            present: &self.present,
            claims: &self.claims,
            waiting: &self.clients,
            owed: &self.owed,
            rate: self.rate,
        }
    }

    /// Takes steps until there are none, and checks each.
    fn plan(&mut self) -> Vec<ByteRange> {
        let mut asked = Vec::new();
        for _ in 0..16 {
            match next(&self.picture()) {
                Next::Ask(range) => {
                    self.check(range);
                    self.ids += 1;
                    self.asked += range.len();
                    self.claims.push(Claim { id: self.ids, at: range.start(), end: range.end() });
                    asked.push(range);
                }
                Next::Shorten { id, end } => {
                    let claim = self.claims.iter_mut().find(|claim| claim.id == id).unwrap();
                    assert!(claim.at < end && end < claim.end && end.is_multiple_of(BLOCK), "{claim:?} to {end}");
                    claim.end = end;
                }
                Next::Wait => return asked,
            }
        }
        panic!("it never waits: {asked:?}");
    }

    fn check(&self, range: ByteRange) {
        assert!(range.end() <= self.length, "{range:?}");
        assert!(self.present.missing(range) == [range], "{range:?} is there in part");
        let free = |claim: &Claim| claim.end <= range.start() || range.end() <= claim.at;
        assert!(self.claims.iter().all(free), "{range:?} is on its way in part");
        let begin = range.start() - range.start() % BLOCK;
        assert_eq!(self.present.available_from(begin), range.start(), "bytes begin where their block's end");
        assert!(range.end().is_multiple_of(BLOCK) || range.end() == self.length, "{range:?} ends in a block");
        assert!(self.claims.len() < 6);
    }

    /// The next `bytes` of one claim come.
    fn land(&mut self, index: usize, bytes: u64) {
        let claim = &mut self.claims[index];
        let end = claim.end.min(claim.at + bytes);
        if let Some(came) = ByteRange::new(claim.at, end) {
            self.present.insert(came);
        }
        claim.at = end;
        self.claims.retain(|claim| claim.at < claim.end);
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.plan();
            if self.claims.is_empty() {
                return;
            }
            self.land(0, 300_000);
        }
        panic!("never done");
    }
}

#[test]
fn a_slow_link_brings_one_range_at_a_time_and_a_fast_one_four() {
    for (rate, count, size) in
        [(None, 1, MIB), (Some(20_000), 1, MIB), (Some(600_000), 2, 1_245_184), (Some(50 * MIB), 4, 8 * MIB)]
    {
        let mut flight = Flight { rate, ..Flight::new(Pieces::Ranged, 100 * MIB) };
        flight.clients.push(range(0, u64::MAX));
        let asked = flight.plan();
        assert_eq!(asked.len(), count, "{rate:?}: {asked:?}");
        assert_eq!((asked[0].start(), asked[0].len()), (0, size), "{rate:?}");
        assert!(asked.windows(2).all(|pair| pair[0].end() == pair[1].start()), "in order: {asked:?}");
    }
}

#[test]
fn what_comes_matters_most_to_who_stands_before_it() {
    let claim = Claim { id: 1, at: 10 * MIB, end: 18 * MIB };
    let present: RangeSet = [range(0, 10 * MIB)].into_iter().collect();
    for (clients, expected) in [
        (&[][..], Urgency::Background),
        (&[range(10 * MIB, 20 * MIB)], Urgency::Awaited),
        (&[range(10 * MIB - 5, 20 * MIB)], Urgency::Awaited),
        (&[range(0, 20 * MIB)], Urgency::Ahead),
        (&[range(0, 5 * MIB)], Urgency::Ahead),
        (&[range(19 * MIB, 20 * MIB)], Urgency::Ahead),
        (&[range(0, 20 * MIB), range(10 * MIB, 20 * MIB)], Urgency::Awaited),
    ] {
        let as_urgent_as = |most| clients.iter().map(|range| (*range, most)).collect::<Vec<_>>();
        assert_eq!(urgency(&claim, &as_urgent_as(Urgency::Awaited), &present), expected, "{clients:?}");
        // Nobody makes it more urgent than it is.
        for most in [Urgency::Ahead, Urgency::Background] {
            let expected = expected.max(most);
            assert_eq!(urgency(&claim, &as_urgent_as(most), &present), expected, "{clients:?} {most:?}");
        }
    }
}

#[test]
fn the_most_urgent_client_counts() {
    let (claim, present) = (Claim { id: 1, at: 0, end: MIB }, RangeSet::new());
    let standing = |most| (range(0, 20 * MIB), most);
    let ahead = (range(10 * MIB, 20 * MIB), Urgency::Awaited);
    assert_eq!(
        urgency(&claim, &[standing(Urgency::Background), standing(Urgency::Awaited)], &present),
        Urgency::Awaited
    );
    assert_eq!(urgency(&claim, &[standing(Urgency::Background), ahead], &present), Urgency::Ahead);
}

#[test]
fn a_request_behind_one_that_is_nearly_done_is_told_to_be_awaited() {
    let claim = Claim { id: 2, at: MIB, end: 2 * MIB };
    let told = |at: u64, rate: u64| {
        let clients = [(range(at, 20 * MIB), Urgency::Awaited)];
        let present = std::iter::once(range(0, at)).collect();
        urgency_to_tell(&claim, &[Claim { id: 1, at, end: MIB }], &clients, &present, Some(rate))
    };
    assert_eq!(told(MIB - 40_000, 100_000), Urgency::Awaited);
    assert_eq!(told(MIB - 60_000, 100_000), Urgency::Ahead);
}

#[test]
fn a_bounded_range_costs_its_blocks_and_no_more() {
    let mut flight = Flight { rate: Some(100 * MIB), ..Flight::new(Pieces::Ranged, 4096 * MIB) };
    let wanted = range(1_000_000_007, 1_000_000_007 + MIB);
    flight.clients.push(wanted);
    flight.finish();
    assert!(flight.present.covers(wanted));
    assert!(flight.asked <= MIB + 2 * BLOCK, "{}", flight.asked);
    let begin = first(wanted.start(), Some(wanted.end()), MIB).unwrap();
    assert!(begin.covers(wanted) && begin.len() <= 2 * MIB);
}

#[test]
fn who_stands_before_an_absent_byte_comes_first() {
    let mut flight = Flight { rate: Some(10 * MIB), ..Flight::new(Pieces::Ranged, 100 * MIB) };
    flight.present.insert(range(0, 10 * MIB));
    flight.clients.push(range(MIB, u64::MAX));
    flight.clients.push(range(60 * MIB, u64::MAX));
    let asked = flight.plan();
    assert_eq!(asked[0].start(), 60 * MIB);
    assert!(asked[1..].iter().any(|range| range.start() == 68 * MIB), "then what lies nearest before a client");
}

#[test]
fn a_client_far_ahead_of_the_only_stream_gets_its_own() {
    let mut flight = Flight { rate: Some(MIB), ..Flight::new(Pieces::Rest, 100 * MIB) };
    flight.clients.push(range(0, u64::MAX));
    assert_eq!(flight.plan(), [range(0, 100 * MIB)]);
    flight.clients.push(range(MIB + 5, u64::MAX));
    assert_eq!(flight.plan(), [], "that is there in a second");
    flight.clients.push(range(50 * MIB + 5, u64::MAX));
    assert_eq!(flight.plan(), [range(50 * MIB, 100 * MIB)]);
    assert_eq!(flight.claims[0].end, 50 * MIB);
    let mut quick = Flight { rate: Some(50 * MIB), ..Flight::new(Pieces::Rest, 100 * MIB) };
    quick.clients.push(range(0, u64::MAX));
    quick.plan();
    quick.clients.push(range(90 * MIB, u64::MAX));
    assert_eq!(quick.plan(), [], "a fast stream is not cut for a moment's sake");
}

#[test]
fn what_nobody_waits_for_comes_last_and_only_if_it_is_owed() {
    let mut flight = Flight { rate: Some(100 * MIB), ..Flight::new(Pieces::Ranged, 20 * MIB) };
    flight.owed.insert(range(0, u64::MAX));
    flight.clients.push(range(18 * MIB, 19 * MIB));
    assert_eq!(flight.plan()[0], range(18 * MIB, 19 * MIB));
    flight.clients.clear();
    flight.finish();
    assert!(flight.present.covers(range(0, 20 * MIB)));
    assert_eq!(flight.asked, 20 * MIB);
}

#[test]
fn what_lies_ahead_waits_for_the_begin_that_the_digest_needs() {
    let mut flight = Flight { rate: Some(50 * MIB), ..Flight::new(Pieces::Ranged, 1000 * MIB) };
    flight.owed.insert(range(0, u64::MAX));
    // The first request stalls, and the others do not.
    while !flight.plan().is_empty() {
        while flight.claims.len() > 1 {
            flight.land(1, LONGEST);
        }
    }
    assert_eq!((flight.claims.len(), flight.claims[0].at), (1, 0));
    assert!((UNHASHED / 2..=UNHASHED).contains(&flight.present.total()), "{:?}", flight.present);
    // A client that is there is not held up for that, however much it reads.
    let wanted = range(500 * MIB, 700 * MIB);
    flight.clients.push(wanted);
    while !flight.present.covers(wanted) {
        assert!(!flight.plan().is_empty(), "{:?}", flight.present);
        while flight.claims.len() > 1 {
            flight.land(1, LONGEST);
        }
        let at = flight.present.available_from(flight.clients[0].start());
        flight.clients.extend(ByteRange::new(at, wanted.end()));
        flight.clients.swap_remove(0);
    }
    // And what is missed comes first when it has failed.
    (flight.claims, flight.clients) = (vec![], vec![]);
    assert_eq!(flight.plan()[0].start(), 0);
    flight.finish();
    assert!(flight.present.covers(range(0, flight.length)));
}

#[test]
fn what_nobody_wants_holds_nothing_up() {
    let mut flight = Flight { rate: Some(50 * MIB), ..Flight::new(Pieces::Ranged, 1000 * MIB) };
    let wanted = range(500 * MIB, 800 * MIB);
    flight.owed.insert(wanted);
    assert_eq!(flight.plan().len(), 4);
    flight.finish();
    assert_eq!((flight.present.covers(wanted), flight.asked), (true, wanted.len()));
}

#[derive(Debug, Clone)]
enum Event {
    Come(u64, u64),
    Leave(prop::sample::Index),
    Advance(prop::sample::Index, u64),
    Land(prop::sample::Index, u64),
    Cut(prop::sample::Index),
    Damage(u64),
    Rate(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let index = any::<prop::sample::Index>;
    let one = prop_oneof![
        3 => (0..20 * MIB, 1..20 * MIB).prop_map(|(start, len)| Event::Come(start, start + len)),
        1 => index().prop_map(Event::Leave),
        2 => (index(), 0..4 * MIB).prop_map(|(which, by)| Event::Advance(which, by)),
        6 => (index(), 1..3 * MIB).prop_map(|(which, bytes)| Event::Land(which, bytes)),
        2 => index().prop_map(Event::Cut),
        1 => (0..300_u64).prop_map(Event::Damage),
        1 => (0..40_000_000_u64).prop_map(Event::Rate),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn any_flight_asks_for_nothing_twice_and_ends_with_everything(
        ranged: bool, length in 1..20 * MIB, owed: bool, events in events(),
    ) {
        let pieces = if ranged { Pieces::Ranged } else { Pieces::Rest };
        let mut flight = Flight::new(pieces, length);
        if owed {
            flight.owed.insert(range(0, u64::MAX));
        }
        for event in events {
            match event {
                Event::Come(start, end) => flight.clients.extend(ByteRange::new(start.min(length - 1), end)),
                Event::Leave(which) if !flight.clients.is_empty() => {
                    flight.clients.swap_remove(which.index(flight.clients.len()));
                }
                Event::Advance(which, by) if !flight.clients.is_empty() => {
                    let which = which.index(flight.clients.len());
                    let client = flight.clients[which];
                    // A client cannot go further than what is present.
                    let to = (client.start() + by).min(flight.present.available_from(client.start()));
                    match ByteRange::new(to, client.end()) {
                        Some(rest) => flight.clients[which] = rest,
                        None => drop(flight.clients.swap_remove(which)),
                    }
                }
                Event::Land(which, bytes) if !flight.claims.is_empty() => {
                    flight.land(which.index(flight.claims.len()), bytes);
                }
                Event::Cut(which) if !flight.claims.is_empty() => {
                    flight.claims.swap_remove(which.index(flight.claims.len()));
                }
                // A block that nobody is writing turns out to be wrong.
                Event::Damage(block) => {
                    let damaged = range(block * BLOCK, (block + 1) * BLOCK);
                    let in_use = |claim: &Claim| claim.at / BLOCK == block || (damaged.start() < claim.end && claim.at < damaged.end());
                    if !flight.claims.iter().any(in_use) {
                        flight.present.remove(damaged);
                    }
                }
                Event::Rate(rate) => flight.rate = Some(rate),
                _ => {}
            }
            flight.plan();
        }
        flight.finish();
        for client in &flight.clients {
            let end = client.end().min(length);
            prop_assert!(ByteRange::new(client.start(), end).is_none_or(|range| flight.present.covers(range)));
        }
        prop_assert!(!owed || flight.present.covers(range(0, length)));
    }

    #[test]
    fn little_is_read_ahead_of_the_digest(
        length in MIB..300 * MIB, rate in prop::option::of(0..80 * MIB), follows: bool, events in events(),
    ) {
        let mut flight = Flight { rate, ..Flight::new(Pieces::Ranged, length) };
        flight.owed.insert(range(0, u64::MAX));
        for event in events.iter().cycle().take(400) {
            flight.plan();
            let absent = flight.present.available_from(0);
            prop_assert!(flight.present.total() - absent <= UNHASHED, "{:?}", flight.present);
            match event {
                Event::Land(which, bytes) if !flight.claims.is_empty() => {
                    flight.land(which.index(flight.claims.len()), bytes * 4);
                }
                Event::Cut(which) if !flight.claims.is_empty() => {
                    flight.claims.swap_remove(which.index(flight.claims.len()));
                }
                _ if follows => flight.clients = Vec::from_iter(ByteRange::new(flight.present.available_from(0), length)),
                _ => {}
            }
        }
        flight.finish();
        prop_assert!(flight.present.covers(range(0, length)));
    }
}
