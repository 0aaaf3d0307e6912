//! Links that lose and delay packets, as netem would, which not every kernel has: a TUN device at each end, and between the
//! two somebody who hands each IP packet on after its time, or never. TCP sees true loss and true delay, and repeats.
//!
//! Not here: links that delay bytes of TCP connections (`rig/relay.rs`).

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_tun::Tun;

use super::super::rig::Dice;

/// Longest packet, as of Ethernet.
const MTU: usize = 1500;

/// Packets that wait in one direction, at most: the usual queue of a router.
const QUEUE: usize = 1000;

/// What a link does to packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// How long each takes, in each direction.
    pub(super) delay: Duration,
    /// How many of 100,000 are lost.
    pub(super) lost: u64,
}

/// What one direction of a link has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    /// Packets that were handed on.
    pub(super) carried: u64,
    /// Packets that were lost, as the dice said.
    pub(super) lost: u64,
    /// Packets for which there was no room.
    pub(super) crowded: u64,
    /// Packets that are not between the two ends. They go nowhere.
    pub(super) strayed: u64,
    /// The shortest time that a packet took.
    pub(super) fastest: Option<Duration>,
}

/// One direction, without its devices: packets in the order in which they came, each with the time at which it came.
struct Way {
    weather: Weather,
    dice: Dice,
    from: Ipv4Addr,
    to: Ipv4Addr,
    waiting: VecDeque<(Instant, Box<[u8]>)>,
    count: Arc<Mutex<Count>>,
}

impl Way {
    fn admit(&mut self, packet: &[u8], now: Instant) {
        let mut count = self.count.lock();
        if !is_between(packet, self.from, self.to) {
            count.strayed += 1;
        } else if self.dice.below(100_000) < self.weather.lost {
            count.lost += 1;
        } else if self.waiting.len() >= QUEUE {
            count.crowded += 1;
        } else {
            self.waiting.push_back((now, packet.into()));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(came, _)| *came + self.weather.delay)
    }

    /// The next packet that has waited long enough.
    fn release(&mut self, now: Instant) -> Option<Box<[u8]>> {
        self.due().filter(|due| *due <= now)?;
        let (came, packet) = self.waiting.pop_front()?;
        let mut count = self.count.lock();
        count.carried += 1;
        let took = now - came;
        count.fastest = Some(count.fastest.map_or(took, |fastest| fastest.min(took)));
        Some(packet)
    }
}

/// Whether an IPv4 packet goes from one to the other (RFC 791, section 3.1).
fn is_between(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> bool {
    packet.len() >= 20 && packet[0] >> 4 == 4 && packet[12..16] == from.octets() && packet[16..20] == to.octets()
}

async fn carry(from: Arc<Tun>, to: Arc<Tun>, mut way: Way) -> io::Result<()> {
    let mut buffer = [0; MTU];
    loop {
        while let Some(packet) = way.release(Instant::now()) {
            to.send(&packet).await?;
        }
        let next = way.due();
        tokio::select! {
            biased;
            length = from.recv(&mut buffer) => way.admit(&buffer[..length?], Instant::now()),
            // A timer is up to a millisecond late: that is the jitter.
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {}
        }
        // Devices that are always ready must not keep others waiting.
        tokio::task::coop::consume_budget().await;
    }
}

/// The end of a link in a namespace. To be called on a thread of it, within the runtime that carries.
pub(super) fn end(name: &str) -> Result<Tun, String> {
    let built = Tun::builder().name(name).mtu(MTU as i32).build();
    built.map_err(|error| error.to_string())?.pop().ok_or_else(|| "no device".to_owned())
}

/// Links on which packets are lost and late; dropping it ends them.
pub(super) struct Wires {
    runtime: Runtime,
    links: Vec<Link>,
}

struct Link {
    weather: Weather,
    counts: [Arc<Mutex<Count>>; 2],
    carrying: [JoinHandle<io::Result<()>>; 2],
}

impl Wires {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, links: Vec::new() }
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Carries packets between two devices, each with its address.
    pub(super) fn connect(&mut self, ends: [(Tun, Ipv4Addr); 2], weather: Weather, dice: &mut Dice) {
        let [(upper, above), (lower, below)] = ends;
        let (upper, lower) = (Arc::new(upper), Arc::new(lower));
        let counts = [(); 2].map(|()| Arc::new(Mutex::default()));
        let mut way = |from, to, count: &Arc<Mutex<Count>>| {
            let (dice, count) = (dice.split(), Arc::clone(count));
            Way { weather, dice, from, to, waiting: VecDeque::new(), count }
        };
        let (down, up) = (way(above, below, &counts[0]), way(below, above, &counts[1]));
        let carrying = [
            self.runtime.spawn(carry(Arc::clone(&upper), Arc::clone(&lower), down)),
            self.runtime.spawn(carry(lower, upper, up)),
        ];
        self.links.push(Link { weather, counts, carrying });
    }

    /// Prints what each link has done. All must have carried all the time, and been as bad as they should.
    pub(super) fn must_have_been_bad(&self) {
        for (number, link) in self.links.iter().enumerate() {
            let counts = link.counts.each_ref().map(|count| *count.lock());
            println!("link {number}: {:?}, down {:?}, up {:?}", link.weather, counts[0], counts[1]);
            assert!(!link.carrying.iter().any(JoinHandle::is_finished), "link {number} has carried to its end");
            assert!(counts.iter().map(|count| count.lost).sum::<u64>() > 0, "link {number} has lost nothing");
            for count in counts {
                assert!(count.fastest.is_some_and(|fastest| fastest >= link.weather.delay), "link {number}: {count:?}");
                assert_eq!(count.strayed, 0, "link {number}: packets to somebody else");
            }
        }
    }
}
