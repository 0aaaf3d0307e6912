//! The index of a drive against plain maps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Change {
    Blob(u8, u32, u16),
    Row(u8, u8, u32, u8, Option<u64>),
    RowGone(u8, u8),
    BlobGone(u8),
}

/// The same in maps, one row after the other.
#[derive(Default)]
struct Model {
    blobs: BTreeMap<u8, (At, u64)>,
    rows: BTreeMap<(u8, u8), (At, u8, Option<u64>)>,
}

fn key(number: u8) -> KeyHash {
    KeyHash::from_bytes([number; 16])
}

/// Two of them begin alike.
fn digest(number: u8) -> Digest {
    let mut bytes = [number; 32];
    bytes[..16].fill(number / 2);
    Digest::from_bytes(bytes)
}

fn at(offset: u32) -> At {
    At { segment: 7, offset }
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..6_u8, any::<u32>(), any::<u16>()).prop_map(|(blob, at, units)| Change::Blob(blob, at, units)),
        (0..5_u8, 0..3_u8, any::<u32>(), 0..6_u8, prop::option::of(any::<u64>()))
            .prop_map(|(key, place, at, blob, since)| Change::Row(key, place, at, blob, since)),
        (0..5_u8, 0..3_u8).prop_map(|(key, place)| Change::RowGone(key, place)),
        (0..6_u8).prop_map(Change::BlobGone),
    ]
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Blob(blob, offset, units) => drop(self.blobs.insert(blob, (at(offset), u64::from(units) * UNIT))),
            Change::Row(key, place, offset, blob, since) => {
                self.rows.insert((key, place), (at(offset), blob, since));
            }
            Change::RowGone(key, place) => drop(self.rows.remove(&(key, place))),
            Change::BlobGone(blob) => {
                self.blobs.remove(&blob);
                self.rows.retain(|_, (_, body, _)| *body != blob);
            }
        }
    }

    fn found(&self, (number, place): (u8, u8)) -> Option<Found> {
        let (at, blob, since) = *self.rows.get(&(number, place))?;
        Some(Found {
            key: key(number),
            place: u64::from(place) << 33,
            at,
            superseded: since.map(UnixMillis),
            digest: digest(blob),
            has_blob: self.blobs.contains_key(&blob),
        })
    }
}

fn apply(objects: &mut Objects, change: &Change) {
    match *change {
        Change::Blob(blob, offset, units) => objects.put_blob(digest(blob), at(offset), u64::from(units) * UNIT),
        Change::Row(number, place, offset, blob, since) => {
            objects.put_row(key(number), u64::from(place) << 33, at(offset), digest(blob), since.map(UnixMillis));
        }
        Change::RowGone(number, place) => objects.remove_row(key(number), u64::from(place) << 33),
        Change::BlobGone(blob) => objects.blob_gone(&digest(blob)),
    }
}

fn sorted(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|found| (found.key, found.place));
    found
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_it_says_what_plain_maps_say(changes in prop::collection::vec(any_change(), 0..80)) {
        let (mut objects, mut model) = (Objects::new(), Model::default());
        for change in &changes {
            apply(&mut objects, change);
            model.apply(change);
        }
        for number in 0..6 {
            prop_assert_eq!(objects.blob(&digest(number)), model.blobs.get(&number).copied());
            let rows = model.rows.iter().filter(|(_, (_, blob, _))| *blob == number);
            let rows: Vec<Found> = rows.filter_map(|(name, _)| model.found(*name)).collect();
            prop_assert_eq!(sorted(objects.of_blob(&digest(number))), rows);
            let alike: Vec<Digest> = model.blobs.keys().filter(|blob| *blob / 2 == number / 2).map(|blob| digest(*blob)).collect();
            let mut found = objects.blobs_beginning(&[number / 2; 16]);
            found.sort();
            prop_assert_eq!(found, alike);
        }
        for number in 0..5 {
            let rows: Vec<Found> = (0..3).filter_map(|place| model.found((number, place))).collect();
            prop_assert_eq!(sorted(objects.of_key(key(number))), rows);
            for place in 0..3 {
                prop_assert_eq!(objects.row(key(number), u64::from(place) << 33), model.found((number, place)));
            }
        }
        let digests: Vec<Digest> = model.blobs.keys().map(|blob| digest(*blob)).collect();
        prop_assert_eq!(objects.blobs_after(None, 9), digests.clone());
        prop_assert_eq!(objects.blobs_after(Some(digest(2)), 2), digests.into_iter().filter(|d| *d > digest(2)).take(2).collect::<Vec<_>>());
        let named: std::collections::BTreeSet<u8> = model.rows.values().map(|(_, blob, _)| *blob).chain(model.blobs.keys().copied()).collect();
        prop_assert_eq!(objects.len(), (model.rows.len(), named.len()), "nothing is left behind");
    }
}

#[test]
fn places_beyond_what_is_kept_are_nowhere() {
    assert_eq!(At::of(Watermark { segment: 3, offset: 40 }), At { segment: 3, offset: 40 });
    assert_eq!(At::of(Watermark { segment: 1 << 32, offset: 40 }), At::NOWHERE);
    assert_eq!(At::of(Watermark { segment: 1, offset: 1 << 32 }), At::NOWHERE);
}

#[test]
fn an_object_is_small() {
    assert_eq!((size_of::<RowSlot>(), size_of::<BlobSlot>()), (44, 48));
}
