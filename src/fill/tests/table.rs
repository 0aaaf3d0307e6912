//! The table of flights against a plain model: never two leaders, every client is counted, nobody follows what was
//! given up.

use proptest::prelude::*;

use super::*;
use crate::fill::flight::Permit;

#[derive(Debug, Clone)]
enum Move {
    Join(u8),
    Leave(prop::sample::Index),
    Publish(u8, bool),
    CloseIfUnused(u8),
    End(u8),
}

/// One key as the model sees it.
#[derive(Default)]
struct Key {
    led: Option<Permit>,
    /// Requests may join: the head is pending and nothing was closed.
    open: bool,
    /// The head is one that no request can join.
    settled: bool,
    clients: usize,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let key = 0..3_u8;
    let one = prop_oneof![
        4 => key.clone().prop_map(Move::Join),
        3 => any::<prop::sample::Index>().prop_map(Move::Leave),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, shared)| Move::Publish(key, shared)),
        2 => key.clone().prop_map(Move::CloseIfUnused),
        1 => key.prop_map(Move::End),
    ];
    prop::collection::vec(one, 1..80)
}

fn any_want(key: u8) -> Want {
    Want {
        key: CacheKey::new(format!("127.0.0.1/{key}")),
        origin: Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port: 80 },
        target: "/".to_owned(),
        path: "/".to_owned(),
        policy: Arc::new(policy(Abandon::Stop)),
        headers: Arc::default(),
        token: None,
        carries_token: false,
        proven: false,
        stored: None,
        conditions: None,
        stands_in: false,
        interims: None,
        deadline: Instant::now(),
    }
}

proptest! {
    #[test]
    fn flights_behave_like_the_model(moves in moves()) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let table = FlightTable::new(Arc::clone(&metrics));
        let mut keys: [Key; 3] = Default::default();
        let mut guards: Vec<(u8, FlightGuard)> = Vec::new();
        for step in moves {
            match step {
                Move::Join(number) => {
                    let key = &mut keys[usize::from(number)];
                    match table.join(&any_want(number)) {
                        Role::Lead(permit, guard) => {
                            prop_assert!(key.led.is_none() || key.settled, "two leaders");
                            // The settled flight ends on its own; its clients are not of the new one.
                            guards.retain(|(of, _)| *of != number);
                            *key = Key { led: Some(permit), open: true, settled: false, clients: 1 };
                            guards.push((number, guard));
                        }
                        Role::Follow(guard) => {
                            prop_assert!(key.led.is_some() && key.open && !key.settled);
                            key.clients += 1;
                            guards.push((number, guard));
                        }
                        Role::Await(_) => prop_assert!(key.led.is_some() && !key.open && !key.settled),
                        Role::NeedsProof => prop_assert!(false, "no token is about"),
                    }
                }
                Move::Leave(which) if !guards.is_empty() => {
                    let (number, guard) = guards.swap_remove(which.index(guards.len()));
                    drop(guard);
                    keys[usize::from(number)].clients -= 1;
                }
                Move::Publish(number, shared) => {
                    let key = &mut keys[usize::from(number)];
                    if let Some(permit) = &key.led {
                        permit.publish(if shared { Head::Changed } else { Head::NotShared });
                        key.settled = true;
                    }
                }
                Move::CloseIfUnused(number) => {
                    let key = &mut keys[usize::from(number)];
                    if let Some(permit) = &key.led {
                        let closed = permit.close_if_unused();
                        prop_assert_eq!(closed, key.clients == 0);
                        key.open &= !closed;
                    }
                }
                Move::End(number) => {
                    let key = &mut keys[usize::from(number)];
                    if let Some(permit) = key.led.take() {
                        drop(permit);
                        guards.retain(|(of, _)| *of != number);
                        key.clients = 0;
                    }
                }
                Move::Leave(_) => {}
            }
        }
        let led = keys.iter().filter(|key| key.led.is_some()).count();
        prop_assert_eq!(metrics.fills_active.get(), led as i64);
        drop(keys);
        prop_assert_eq!(metrics.fills_active.get(), 0);
        drop(guards);
        for key in 0..3 {
            prop_assert_eq!(table.clients(&any_want(key).key), None, "an empty table holds no key");
        }
    }
}

#[tokio::test]
async fn followers_learn_of_every_end() {
    let table = FlightTable::new(Arc::new(Metrics::new().unwrap()));
    let Role::Lead(permit, leader) = table.join(&any_want(0)) else { panic!("nobody led before") };
    let Role::Follow(follower) = table.join(&any_want(0)) else { panic!("there is a leader") };
    let flight = follower.flight();
    let learns = tokio::spawn(async move { matches!(flight.head().await, Head::Failed(FillError::Abandoned)) });
    drop(permit);
    assert!(learns.await.unwrap());
    leader.flight().over().await;
    assert!(matches!(table.join(&any_want(0)), Role::Lead(..)));
}

#[tokio::test]
async fn who_comes_to_a_flight_that_was_given_up_waits_for_its_end() {
    let table = FlightTable::new(Arc::new(Metrics::new().unwrap()));
    let Role::Lead(permit, leader) = table.join(&any_want(0)) else { panic!("nobody led before") };
    assert!(!permit.close_if_unused(), "the leader's client is there");
    drop(leader);
    permit.clients_left().await;
    assert!(permit.close_if_unused());
    let Role::Await(flight) = table.join(&any_want(0)) else { panic!("joined what was given up") };
    let waits = tokio::spawn(async move { flight.over().await });
    drop(permit);
    waits.await.unwrap();
    assert!(matches!(table.join(&any_want(0)), Role::Lead(..)));
}
