//! The order of eviction against the paper.

use proptest::prelude::*;

use super::*;
use crate::content::Digest;
use crate::store::drive::Victim;
use crate::store::victim::Name;

/// SIEVE as the paper writes it, on a list from new to old.
#[derive(Default)]
struct Model {
    queue: Vec<(u8, u64, bool)>,
    hand: Option<u8>,
}

impl Model {
    fn place(&self, key: u8) -> Option<usize> {
        self.queue.iter().position(|(k, ..)| *k == key)
    }

    fn remove(&mut self, key: u8) -> Option<u64> {
        let place = self.place(key)?;
        if self.hand == Some(key) {
            self.hand = place.checked_sub(1).map(|newer| self.queue[newer].0);
        }
        Some(self.queue.remove(place).1)
    }

    fn next_victim(&mut self, vetoed: &[u8]) -> Option<(u8, u64)> {
        for _ in 0..2 * self.queue.len() {
            let place = self.hand.and_then(|hand| self.place(hand)).unwrap_or(self.queue.len() - 1);
            let (key, _, visited) = self.queue[place];
            self.queue[place].2 = false;
            self.hand = place.checked_sub(1).map(|newer| self.queue[newer].0);
            if !visited && !vetoed.contains(&key) {
                return self.remove(key).map(|size| (key, size));
            }
        }
        None
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, u64),
    Touch(u8),
    Resize(u8, u64),
    Remove(u8),
    Evict(Vec<u8>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0u8..20;
    let op = prop_oneof![
        4 => (key(), 0u64..100).prop_map(|(key, size)| Op::Insert(key, size)),
        3 => key().prop_map(Op::Touch),
        1 => (key(), 0u64..100).prop_map(|(key, size)| Op::Resize(key, size)),
        1 => key().prop_map(Op::Remove),
        3 => prop::collection::vec(key(), 0..20).prop_map(Op::Evict),
    ];
    prop::collection::vec(op, 0..120)
}

proptest! {
    #[test]
    fn it_chooses_what_the_paper_chooses(ops in ops()) {
        let mut sieve = Sieve::new();
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Insert(key, size) => {
                    sieve.insert(key, size);
                    match model.place(key) {
                        Some(place) => model.queue[place] = (key, size, true),
                        None => model.queue.insert(0, (key, size, false)),
                    }
                }
                Op::Touch(key) => {
                    sieve.touch(&key);
                    model.place(key).into_iter().for_each(|place| model.queue[place].2 = true);
                }
                Op::Resize(key, size) => {
                    prop_assert_eq!(sieve.resize(&key, size), model.place(key).is_some());
                    model.place(key).into_iter().for_each(|place| model.queue[place].1 = size);
                }
                Op::Remove(key) => prop_assert_eq!(sieve.remove(&key), model.remove(key)),
                Op::Evict(vetoed) => {
                    let mut asked = 0;
                    let victim = sieve.next_victim(|key| {
                        asked += 1;
                        vetoed.contains(key)
                    });
                    prop_assert!(asked <= 2 * model.queue.len());
                    prop_assert_eq!(victim, model.next_victim(&vetoed));
                    let held = model.queue.iter().all(|(key, ..)| vetoed.contains(key));
                    prop_assert!(victim.is_some() || held, "only vetoes keep it from choosing");
                }
            }
            let bytes = model.queue.iter().map(|(_, size, _)| size).sum();
            prop_assert_eq!(sieve.extent(), Extent { objects: model.queue.len(), bytes });
            prop_assert!((0u8..20).all(|key| sieve.contains(&key) == model.place(key).is_some()));
        }
        prop_assert!(sieve.nodes.len() <= 20, "places are used again");
    }
}

impl Object for u8 {
    type Name = Self;

    fn name(&self) -> Self {
        *self
    }
}

#[test]
fn an_object_takes_no_more_than_36_bytes() {
    assert!(size_of::<Node<<Victim as Object>::Name>>() <= 36);
}

#[test]
fn blobs_and_partial_bodies_do_not_take_one_anothers_places() {
    let mut sieve = Sieve::new();
    let digest = |first: u8, last: u8| {
        let mut bytes = [first; 32];
        bytes[31] = last;
        Digest::from_bytes(bytes)
    };
    sieve.insert(Victim::Blob(digest(1, 1)), 1 << 40);
    sieve.insert(Victim::Partial([1; 8]), 2);
    sieve.insert(Victim::Blob(digest(2, 1)), 3);
    assert!(!sieve.contains(&Victim::Partial([2; 8])));
    assert_eq!(sieve.extent(), Extent { objects: 3, bytes: (1 << 40) + 5 });
    // As nobody knows them: they have one place.
    assert!(sieve.contains(&Victim::Blob(digest(1, 2))));
    assert_eq!(sieve.next_victim(|_| false), Some((Name::Blobs([1; 16]), 1 << 40)));
    assert_eq!(sieve.next_victim(|_| false), Some((Name::Partial([1; 8]), 2)));
}
