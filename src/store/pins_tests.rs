//! Tests of `pins`.

use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn key(name: &str) -> PinTarget {
    PinTarget::Key(CacheKey::new(format!("dl.example.com/{name}")))
}

fn body(content: &str) -> PinTarget {
    PinTarget::Digest(Digest::of(content.as_bytes()))
}

fn later(millis: u64) -> UnixMillis {
    UnixMillis(NOW.0 + millis)
}

fn pinned(targets: &[PinTarget]) -> Pins {
    Pins::default().set(targets, "line 4", Some(later(1000)), NOW).unwrap()
}

#[test]
fn a_pin_holds_until_its_end_or_until_it_is_taken_off() {
    let pins = pinned(&[key("a"), body("b")]);
    let (PinTarget::Key(a), PinTarget::Digest(b)) = (key("a"), body("b")) else { unreachable!() };
    for (at, holds) in [(NOW, true), (later(999), true), (later(1000), false)] {
        assert_eq!((pins.hold_key(a.hash(), at), pins.hold_digest(&b, at)), (holds, holds), "{at:?}");
        assert_eq!(pins.count(at), if holds { 2 } else { 0 });
    }
    let (pins, had) = pins.end(&[key("a"), key("never")], later(1));
    assert_eq!(had, [key("a")]);
    assert!(!pins.hold_key(a.hash(), later(1)) && pins.hold_digest(&b, later(1)));
    assert_eq!(pins.end(&[key("a")], later(2)).1, [], "once is enough");
    assert_eq!(pins.end(&[body("b")], later(2)).0.count(later(2)), 0);
}

#[test]
fn what_is_wrong_is_named() {
    let none = Pins::default();
    for reason in ["", "  ", "a\nb", &"x".repeat(MAX_REASON + 1)] {
        let error = none.set(&[key("a")], reason, None, NOW).unwrap_err();
        assert!(error.to_string().starts_with("reason: "), "{error}");
    }
    assert_eq!(none.set(&[key("a")], "r", Some(NOW), NOW), Err(PinError::Expired(NOW.0)));
    let many: Vec<PinTarget> = (0..=MAX_PINS).map(|n| key(&n.to_string())).collect();
    assert_eq!(none.set(&many, "r", None, NOW), Err(PinError::TooMany));
    let full = none.set(&many[1..], "r", None, NOW).unwrap();
    assert_eq!(full.count(NOW), MAX_PINS);
    assert_eq!(full.set(&many[..1], "r", None, NOW), Err(PinError::TooMany));
    assert!(full.set(&many[1..2], "another reason", None, NOW).is_ok(), "no new one");
}

#[test]
fn a_drive_that_was_away_brings_back_nothing_that_ended() {
    let before = pinned(&[key("a"), key("b")]);
    let (after, _) = before.end(&[key("a")], later(5));
    for merged in [before.merged(&after, later(9)), after.merged(&before, later(9))] {
        assert_eq!(merged.list(later(9)).iter().map(|pin| pin.target.clone()).collect::<Vec<_>>(), [key("b")]);
    }
    // With a clock that went back, what is said last is later all the same.
    let (ended, had) = before.end(&[key("a")], UnixMillis(5));
    assert_eq!((had.len(), before.merged(&ended, NOW).count(NOW)), (1, 1));
    let again = ended.set(&[key("a")], "again", None, UnixMillis(5)).unwrap();
    assert_eq!(ended.merged(&again, NOW).count(NOW), 2);
}

#[test]
fn what_ended_is_forgotten_when_it_is_much() {
    let mut pins = Pins::default();
    for round in 0..3 {
        let many: Vec<PinTarget> = (0..MAX_ENDED / 2).map(|number| key(&format!("{round}-{number}"))).collect();
        pins = pins.set(&many, "r", None, later(round)).unwrap();
        pins = pins.end(&many, later(round)).0;
    }
    assert_eq!(pins.told.len(), MAX_ENDED);
    assert!(!pins.told.contains_key(&key("0-0")) && pins.told.contains_key(&key("1-0")));
}

#[test]
fn a_damaged_line_costs_itself_alone() {
    let text = pinned(&[key("a"), key("b"), body("c")]).encode();
    let whole = Pins::decode(&text).unwrap();
    assert_eq!(whole, Decoded { pins: pinned(&[key("a"), key("b"), body("c")]), damaged: 0 });
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[place] ^= 1 << bit;
            let read = Pins::decode(&flipped).unwrap();
            // A line end that is lost or made costs the lines beside it.
            assert!(read.damaged > 0 && !read.pins.told.is_empty(), "{place} {bit}: {read:?}");
            assert!(read.pins.told.iter().all(|(target, told)| whole.pins.told.get(target) == Some(told)));
        }
    }
    assert_eq!(Pins::decode(b"").unwrap(), Decoded { pins: Pins::default(), damaged: 1 });
    let newer = format!("{} waystation-pins 2\nanything", check_of("waystation-pins 2"));
    assert_eq!(Pins::decode(newer.as_bytes()), Err(NewerPins(2)));
}

/// What the release with format 1 wrote. It is read for ever.
const FORMAT_1: &str = r#"68beaebd waystation-pins 1
907378a2 {"target":{"key":"dl.example.com/line4/image.swu"},"reason":"deployment 7","set":1795737600000,"expires":null}
9aa0e40c {"target":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"reason":"line 4","set":1795737600001,"expires":1798329600000}
e5816fb9 {"target":{"key":"dl.example.com/old"},"reason":"deployment 6","set":1795737600002,"expires":null,"ended":true}
"#;

#[test]
fn pins_of_the_first_format_are_read() {
    let Decoded { pins, damaged } = Pins::decode(FORMAT_1.as_bytes()).unwrap();
    let at = UnixMillis(1_795_737_600_010);
    let told: Vec<_> = pins.list(at).into_iter().map(|pin| (pin.target, pin.reason, pin.set.0, pin.expires)).collect();
    let ends = Some(UnixMillis(1_798_329_600_000));
    let image = (key("line4/image.swu"), "deployment 7".to_owned(), 1_795_737_600_000, None);
    assert_eq!((told, damaged), (vec![image, (body(""), "line 4".to_owned(), 1_795_737_600_001, ends)], 0));
    assert_eq!(pins.end(&[key("old")], at).1, [], "it has ended");
    assert_eq!(pins.told.len(), 3);
}

fn any_target() -> impl Strategy<Value = PinTarget> {
    prop_oneof!["[a-d]".prop_map(|name| key(&name)), "[a-d]".prop_map(|name| body(&name))]
}

fn any_pins() -> impl Strategy<Value = Pins> {
    let step = (any_target(), any::<bool>(), 0_u64..50, prop::option::of(1_u64..100));
    prop::collection::vec(step, 0..20).prop_map(|steps| {
        steps.into_iter().fold(Pins::default(), |pins, (target, sets, at, ends)| {
            let (targets, now) = ([target], later(at));
            let expires = ends.map(|ends| later(at + ends));
            if sets { pins.set(&targets, "why", expires, now).unwrap() } else { pins.end(&targets, now).0 }
        })
    })
}

proptest! {
    #[test]
    fn drives_agree_in_whatever_order_they_are_read(a in any_pins(), b in any_pins(), c in any_pins()) {
        let ab = a.merged(&b, NOW).merged(&c, NOW);
        prop_assert_eq!(&ab.encode(), &c.merged(&b, NOW).merged(&a, NOW).encode());
        prop_assert_eq!(&ab.merged(&ab, NOW), &ab);
        prop_assert_eq!(Pins::decode(&ab.encode()).unwrap(), Decoded { pins: ab, damaged: 0 });
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pins::decode(&bytes);
        let _ = Pins::decode(&[&Pins::default().encode(), &bytes[..]].concat());
    }
}
