//! The breaker under single outcomes, long outages and random stories.

use proptest::prelude::*;

use super::*;

fn probe(health: &mut Health, now: Instant) -> ProbeId {
    match health.verdict(now) {
        Verdict::Probe(probe) => probe,
        other => panic!("{other:?} instead of a probe"),
    }
}

fn opened_by(outcome: Outcome) -> usize {
    let now = Instant::now();
    let mut health = Health::default();
    for count in 1..100 {
        assert_eq!(health.verdict(now), Verdict::Allowed);
        health.record(now, outcome, None, 0.5);
        if health.down_until(now).is_some() {
            return count;
        }
    }
    0
}

#[test]
fn faults_in_a_row_open_by_their_weight() {
    for (outcome, count) in [
        (Outcome::Success, 0),
        (Outcome::ConnectFailure, 2),
        (Outcome::Timeout, 3),
        (Outcome::Stall, 3),
        (Outcome::Cut, 5),
        (Outcome::ServerError, 10),
    ] {
        assert_eq!(opened_by(outcome), count, "{outcome:?}");
    }
}

#[test]
fn a_success_or_a_quiet_minute_wipes_the_slate() {
    let now = Instant::now();
    let mut health = Health::default();
    health.record(now, Outcome::ConnectFailure, None, 0.5);
    health.record(now, Outcome::Success, None, 0.5);
    health.record(now, Outcome::ConnectFailure, None, 0.5);
    assert_eq!(health.verdict(now), Verdict::Allowed);
    let later = now + FORGET_AFTER + Duration::from_millis(1);
    health.record(later, Outcome::ConnectFailure, None, 0.5);
    assert_eq!(health.verdict(later), Verdict::Allowed);
    health.record(later, Outcome::ConnectFailure, None, 0.5);
    assert!(matches!(health.verdict(later), Verdict::Down { .. }));
}

#[test]
fn pauses_are_a_quarter_of_the_time_down_up_to_the_longest_of_their_cause() {
    for (outcome, longest) in [(Outcome::ConnectFailure, 60_000), (Outcome::Timeout, 60_000), (Outcome::Cut, 5000)] {
        let start = Instant::now();
        let mut now = start;
        let mut health = Health::default();
        for _ in 0..10 {
            health.record(now, outcome, None, 0.5);
        }
        for _ in 0..40 {
            let down = now - start;
            let expected = (down / 4).clamp(Duration::from_millis(500), Duration::from_millis(longest));
            assert_eq!(health.verdict(now), Verdict::Down { until: now + expected });
            now += expected;
            let probe = probe(&mut health, now);
            assert!(matches!(health.verdict(now), Verdict::Down { .. }));
            health.record(now, outcome, Some(probe), 0.5);
        }
        assert!(now - start > Duration::from_millis(longest), "it came to the longest");
    }
}

#[test]
fn a_source_that_answers_is_never_left_alone_for_long_and_everybody_may_ask_after_that() {
    let outcome = Outcome::ServerError;
    let mut now = Instant::now();
    let mut health = Health::default();
    for _ in 0..20 {
        while health.down_until(now).is_none() {
            assert_eq!(health.verdict(now), Verdict::Allowed);
            health.record(now, outcome, None, 0.5);
        }
        now += FIRST_PAUSE;
        assert_eq!(health.verdict(now), Verdict::Allowed);
        assert_eq!(health.verdict(now), Verdict::Allowed, "not one alone");
    }
    health.record(now, Outcome::Success, None, 0.5);
    health.record(now, outcome, None, 0.5);
    assert_eq!(health.verdict(now), Verdict::Allowed, "a good answer wipes the slate");
}

#[test]
fn an_answer_without_sense_says_nothing_of_other_resources() {
    let now = Instant::now();
    assert_eq!(opened_by(Outcome::Malformed), 0);
    let mut health = Health::default();
    health.record(now, Outcome::ConnectFailure, None, 0.5);
    health.record(now, Outcome::ConnectFailure, None, 0.5);
    health.record(now, Outcome::Malformed, None, 0.5);
    assert!(health.down_until(now).is_some(), "it was asked before");
    let later = now + FIRST_PAUSE;
    let probe = probe(&mut health, later);
    health.record(later, Outcome::Malformed, Some(probe), 0.5);
    assert_eq!(health.verdict(later), Verdict::Allowed, "it is there");
}

#[test]
fn single_resources_that_fail_do_not_close_a_source_that_gave_a_good_answer_lately() {
    for (outcome, is_spared) in [
        (Outcome::Cut, true),
        (Outcome::ServerError, true),
        (Outcome::Timeout, false),
        (Outcome::Stall, false),
        (Outcome::ConnectFailure, false),
    ] {
        let now = Instant::now();
        let mut health = Health::default();
        health.record(now, Outcome::Success, None, 0.5);
        let lately = now + GOOD_FOR;
        for _ in 0..20 {
            health.record(lately, outcome, None, 0.5);
        }
        assert_eq!(health.down_until(lately).is_none(), is_spared, "{outcome:?}");
        let later = lately + Duration::from_millis(1);
        health.record(later, outcome, None, 0.5);
        assert!(health.down_until(later).is_some(), "{outcome:?}: nothing good has come for too long");
    }
}

#[test]
fn only_the_probe_decides_and_an_abandoned_one_is_followed_by_another() {
    let now = Instant::now();
    let mut health = Health::default();
    health.record(now, Outcome::ConnectFailure, None, 0.0);
    health.record(now, Outcome::ConnectFailure, None, 0.0);
    let later = now + Duration::from_millis(750);
    let first = probe(&mut health, later);
    health.record(later, Outcome::Timeout, None, 0.0);
    assert!(matches!(health.verdict(later), Verdict::Down { .. }));
    health.abandon_probe(later, first);
    let second = probe(&mut health, later);
    health.record(later, Outcome::Timeout, Some(first), 0.0);
    health.abandon_probe(later, first);
    assert!(matches!(health.verdict(later), Verdict::Down { .. }), "the first probe decides nothing any more");
    health.record(later, Outcome::Success, Some(second), 0.0);
    assert_eq!(health.verdict(later), Verdict::Allowed);
    health.abandon_probe(later, second);
    assert_eq!(health.verdict(later), Verdict::Allowed);
}

#[test]
fn a_source_that_can_be_reached_again_need_not_be_waited_for() {
    for (outcome, is_unreachable) in [(Outcome::ConnectFailure, true), (Outcome::Timeout, false)] {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..3 {
            health.record(now, outcome, None, 0.5);
        }
        assert_eq!(health.is_unreachable(), is_unreachable);
        assert_eq!(health.reached(now), is_unreachable);
        assert_eq!(health.down_until(now).is_none(), is_unreachable, "{outcome:?}");
        assert_eq!(health.verdict(now) == Verdict::Allowed, is_unreachable, "{outcome:?}");
        health.record(now, Outcome::Cut, None, 0.5);
        assert!(health.down_until(now).is_some(), "{outcome:?}: one fault more");
    }
}

#[test]
fn a_source_that_is_back_and_refuses_is_asked_by_one_alone() {
    let now = Instant::now();
    let mut health = Health::default();
    for _ in 0..2 {
        health.record(now, Outcome::ConnectFailure, None, 0.5);
    }
    assert!(health.refuses(now) && !health.refuses(now));
    assert!(!health.is_unreachable() && health.is_refused());
    let probe = probe(&mut health, now);
    assert!(matches!(health.verdict(now), Verdict::Down { .. }));
    health.record(now, Outcome::Refused, Some(probe), 0.5);
    assert!(matches!(health.verdict(now), Verdict::Down { .. }));
}

#[test]
fn a_probe_that_is_still_under_way_delays_nobody_once_the_source_is_reached() {
    let now = Instant::now();
    let mut health = Health::default();
    for _ in 0..2 {
        health.record(now, Outcome::ConnectFailure, None, 0.5);
    }
    let later = now + Duration::from_secs(1);
    let before = probe(&mut health, later);
    assert!(matches!(health.verdict(later), Verdict::Down { .. }));
    assert!(health.is_unreachable() && health.reached(later));
    health.record(later, Outcome::ConnectFailure, Some(before), 0.5);
    assert_eq!(health.verdict(later), Verdict::Allowed, "its packets went before the link was back");
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Finish(Outcome, f64),
    Leave,
    Wait(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Success,
        Outcome::ConnectFailure,
        Outcome::Timeout,
        Outcome::ServerError,
        Outcome::Stall,
        Outcome::Cut,
        Outcome::Malformed,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Ask),
        4 => (outcome(), any::<f64>()).prop_map(|(o, j)| Step::Finish(o, j)),
        1 => Just(Step::Leave),
        2 => (0_u64..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn never_two_probes_and_always_a_way_back(steps in prop::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut health = Health::default();
        let mut attempts: Vec<Option<ProbeId>> = Vec::new();
        // The probe that nobody has decided yet; a success of any attempt ends its meaning.
        let mut live: Option<ProbeId> = None;
        for step in steps {
            match step {
                Step::Ask => match health.verdict(now) {
                    Verdict::Allowed => attempts.push(None),
                    Verdict::Probe(probe) => {
                        prop_assert_eq!(live, None);
                        live = Some(probe);
                        attempts.push(Some(probe));
                    }
                    Verdict::Down { until } => {
                        prop_assert!(until > now);
                        prop_assert!(until <= now + LONGEST_PAUSE.mul_f64(1.25));
                    }
                },
                Step::Finish(outcome, jitter) => {
                    if let Some(probe) = attempts.pop() {
                        health.record(now, outcome, probe, jitter);
                        if outcome == Outcome::Success || (probe.is_some() && probe == live) {
                            live = None;
                        }
                        if outcome == Outcome::Success {
                            prop_assert_eq!(health.verdict(now), Verdict::Allowed);
                        }
                    }
                }
                Step::Leave => {
                    if let Some(Some(probe)) = attempts.pop() {
                        health.abandon_probe(now, probe);
                        if live == Some(probe) {
                            live = None;
                        }
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
        }
        // When everybody has left, the longest pause is enough for one more try.
        for probe in attempts.into_iter().flatten() {
            health.abandon_probe(now, probe);
        }
        now += LONGEST_PAUSE.mul_f64(1.25);
        let probe = match health.verdict(now) {
            Verdict::Probe(probe) => Some(probe),
            Verdict::Allowed => None,
            Verdict::Down { .. } => return Err(TestCaseError::fail("down for ever")),
        };
        health.record(now, Outcome::Success, probe, 0.5);
        prop_assert_eq!(health.verdict(now), Verdict::Allowed);
    }
}

#[test]
fn who_is_found_to_refuse_is_down_at_once_and_up_when_it_does_not() {
    let now = Instant::now();
    let mut health = Health::default();
    assert!(health.note_refused(now) && !health.note_refused(now));
    assert!(health.is_refused() && !health.is_away() && health.down_until(now).is_some());
    assert!(health.note_accepted(now) && !health.note_accepted(now));
    assert_eq!(health.verdict(now), Verdict::Allowed);
    health.record(now, Outcome::Refused, None, 0.5);
    assert!(health.is_refused(), "the next one is enough");
}

#[test]
fn who_is_silent_while_another_answers_is_down_unless_bytes_came_of_it_lately() {
    let now = Instant::now();
    let mut health = Health::default();
    health.note_bytes(now);
    assert!(!health.note_outdone(now + GOOD_FOR), "it may lie in what was asked for");
    let later = now + GOOD_FOR * 2;
    assert!(health.note_outdone(later) && !health.note_outdone(later));
    assert!(health.is_away() && !health.is_unreachable() && !health.may_be_asked(later));
    assert!(health.may_be_asked(later + FIRST_PAUSE), "soon one request finds out");
    assert!(!health.note_gone(later) && health.is_unreachable() && !health.may_be_asked(later + FIRST_PAUSE));
}
