//! A site in network namespaces, as in a factory: origin, L5, L4, a real squid between OT and IT, L3, devices. Each level
//! has links to its neighbours alone; a packet to anybody else would go into a sink, where packets are counted. It needs root
//! and `ip`, and says so where it cannot run. How packets are lost and delayed is in `lossy.rs`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

use super::super::rig::device::deliver;
use super::super::rig::{Dice, bars, program};
use super::lossy::{self, Weather, Wires};
use super::proxies::Squid;
use super::*;

/// From the origin down. Between each two is a link.
const LEVELS: [&str; 6] = ["origin", "l5", "l4", "proxy", "l3", "leaf"];

/// Each link with loss and delay of its own, from the origin down, as in a factory: a line of the Internet, one between two
/// sites, two within the house, and radio to the devices. At 0.2 % and 40 ms there and back one connection of TCP Reno gets
/// about 1 MB/s (Mathis et al., 1997: 1.22 segments / (time there and back * square root of the loss)). Worse links show no
/// more, but 512 MiB take longer: over the last one they go 20 times.
const WEATHER: [Weather; 5] = [weather(20, 200), weather(10, 200), weather(5, 100), weather(5, 100), weather(3, 200)];

/// A delay in milliseconds in each direction, and how many of 100,000 packets are lost.
const fn weather(delay: u64, lost: u64) -> Weather {
    Weather { delay: Duration::from_millis(delay), lost }
}

/// The namespaces of one story; dropping it removes them.
struct Site {
    prefix: String,
    /// What carries the packets, where cables do not.
    wires: Option<Wires>,
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The upper and the lower end of the link below the level with this number.
fn ends(link: usize) -> [String; 2] {
    [1, 2].map(|end| format!("10.213.{link}.{end}"))
}

impl Site {
    /// With links that lose and delay packets, or with good ones; `None` where there can be none.
    fn new(story: &str, is_lossy: bool) -> Option<Self> {
        program("ip")?;
        let prefix = format!("ws{}{story}", std::process::id());
        let probe = Command::new("ip").args(["netns", "add", &format!("{prefix}-probe")]).output().unwrap();
        if !probe.status.success() {
            println!("NOT TESTED in namespaces: {}", String::from_utf8_lossy(&probe.stderr).trim());
            return None;
        }
        ip(&format!("netns del {prefix}-probe"));
        let mut site = Self { prefix, wires: None };
        for level in LEVELS {
            let name = site.name(level);
            ip(&format!("netns add {name}"));
            // What IPv6 says by itself would be counted.
            site.inside(level, || {
                for which in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
                }
            });
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link add name sink type veth peer name drain"));
            ip(&format!("-n {name} link set drain up"));
            ip(&format!("-n {name} link set sink up"));
            ip(&format!("-n {name} route add default dev sink"));
            // A link that is down leads nowhere, and not into the sink.
            ip(&format!("-n {name} route add blackhole 10.213.0.0/16"));
        }
        if is_lossy {
            site.add_wires()?;
        } else {
            for pair in LEVELS.windows(2) {
                let (above, below) = (site.name(pair[0]), site.name(pair[1]));
                ip(&format!("-n {above} link add name lower type veth peer name upper netns {below}"));
            }
        }
        for (link, pair) in LEVELS.windows(2).enumerate() {
            for (level, device, address) in [(pair[0], "lower", &ends(link)[0]), (pair[1], "upper", &ends(link)[1])] {
                let name = site.name(level);
                ip(&format!("-n {name} addr add {address}/24 dev {device}"));
                ip(&format!("-n {name} link set dev {device} up"));
            }
        }
        Some(site)
    }

    /// Links that lose and delay; `None` where there is no TUN.
    fn add_wires(&mut self) -> Option<()> {
        let (mut wires, mut dice) = (Wires::new(), Dice::seeded("packets that are lost", 691));
        for level in LEVELS {
            // Every kernel has it, and it is the one that loss costs most.
            let file = "/proc/sys/net/ipv4/tcp_congestion_control";
            self.inside(level, || std::fs::write(file, "reno").unwrap());
        }
        for (link, pair) in LEVELS.windows(2).enumerate() {
            let end = |level, device| {
                let end = self.inside(level, || {
                    let _within = wires.runtime().enter();
                    lossy::end(device)
                });
                end.map_err(|error| println!("NOT TESTED with loss and delay: no TUN device: {error}")).ok()
            };
            let (above, below) = (end(pair[0], "lower")?, end(pair[1], "upper")?);
            let [upper, lower] = ends(link).map(|address| address.parse().unwrap());
            wires.connect([(above, upper), (below, lower)], WEATHER[link], &mut dice);
        }
        self.wires = Some(wires);
        Some(())
    }

    /// Nobody listens there: the refusal has been there and back.
    fn must_be_slow(&self) {
        for (link, weather) in WEATHER.iter().enumerate() {
            let took = self.inside(LEVELS[link + 1], || {
                let since = Instant::now();
                let refused = std::net::TcpStream::connect(format!("{}:9", ends(link)[0])).unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
                since.elapsed()
            });
            assert!(took >= 2 * weather.delay, "link {link}: {took:?}");
        }
    }

    fn name(&self, level: &str) -> String {
        format!("{}-{level}", self.prefix)
    }

    /// Does something on a thread of this level.
    fn inside<T: Send>(&self, level: &str, what: impl FnOnce() -> T + Send) -> T {
        let name = self.name(level);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&name);
                what()
            });
            thread.join().unwrap()
        })
    }

    /// A runtime whose sockets are those of this level.
    fn runtime(&self, level: &str) -> Runtime {
        let name = self.name(level);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().on_thread_start(move || enter(&name)).build().unwrap()
    }

    /// Packets that this level sent to somebody who is no neighbour.
    fn strayed(&self, level: &str) -> u64 {
        let devices = self.inside(level, || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("sink:")).unwrap();
        line.split_whitespace().nth(9).unwrap().parse().unwrap()
    }

    /// Takes the link below a level down, or up again.
    fn link(&self, number: usize, state: &str) {
        ip(&format!("-n {} link set dev lower {state}", self.name(LEVELS[number])));
    }

    /// The node of a level.
    fn start(&self, level: &str, link: usize, setup: Setup) -> RunningNode {
        let address = format!("{}:8081", ends(link)[0]);
        setup.set("listen.data", json!([address])).inside(&self.name(level)).start()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for level in LEVELS {
            let _ = Command::new("ip").args(["netns", "del", &self.name(level)]).output();
        }
    }
}

fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// What happens while the devices download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The link below the level with this number is down for a while.
    LinkDown(usize),
    /// Each link loses and delays packets, all the time.
    Lossy,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_packet_goes_to_a_neighbour_and_links_that_go_down_cost_next_to_nothing() {
    // Blocking calls and runtimes of other levels are no business of this one.
    tokio::task::spawn_blocking(|| {
        let troubles = [Trouble::None].into_iter().chain((0..LEVELS.len() - 1).map(Trouble::LinkDown));
        for (number, trouble) in troubles.enumerate() {
            let Some(site) = Site::new(&number.to_string(), false) else { return };
            download_under(&site, trouble);
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_delay_on_every_link_cost_time_and_next_to_no_bytes() {
    tokio::task::spawn_blocking(|| {
        let Some(site) = Site::new("lossy", true) else { return };
        site.must_be_slow();
        if !download_under(&site, Trouble::Lossy) {
            return;
        }
        site.wires.as_ref().unwrap().must_have_been_bad();
    })
    .await
    .unwrap();
}

/// `false` where there is no squid, as it says.
fn download_under(site: &Site, trouble: Trouble) -> bool {
    let (size, rate, outage) = if bars() {
        (512 * MIB, 24 * MIB, Duration::from_secs(15))
    } else {
        (12 * MIB, 4 * MIB, Duration::from_secs(1))
    };
    let pattern = Pattern::new(690, size);
    let (above, devices) = (site.runtime("origin"), site.runtime("leaf"));
    let origin = above.block_on(async { tokio::spawn(FakeOrigin::at(ends(0)[0].parse().unwrap())).await.unwrap() });
    origin.serve(PATH, Reply::file(pattern));
    origin.limit_rate(rate);
    origin.keep_sockets_short();
    let origin = Arc::new(origin);
    let rule = Mode::Ranged.rule();
    let l5 = site.start("l5", 1, top(&origin, rule.clone()));
    let l4 = site.start("l4", 2, below(&[json!({ "url": format!("http://{}:8081", ends(1)[0]) })], rule.clone()));
    let squid = ([10, 213, 3, 1], 3128).into();
    let Some(_squid) = above.block_on(Squid::inside(&site.name("proxy"), squid)) else { return false };
    let parent = json!({ "url": format!("http://{}:8081", ends(2)[0]), "proxy": format!("http://{squid}") });
    let l3 = site.start("l3", 4, below(&[parent], rule));
    let cache: SocketAddr = format!("{}:8081", ends(4)[0]).parse().unwrap();

    let start = Instant::now();
    let running: Vec<_> = (0..20)
        .map(|_| {
            devices.spawn(async move {
                // A link of their own that is down is a pause that no cache can do anything about.
                let agent = DoAgent::new(cache).with_patience(if trouble == Trouble::LinkDown(4) { 3.0 } else { 1.0 });
                (deliver(&agent, HOST, PATH, &[pattern], &[]).await, agent.has_bans())
            })
        })
        .collect();
    if let Trouble::LinkDown(link) = trouble {
        above.block_on(origin.wait_for_bytes(size / 3));
        site.link(link, "down");
        std::thread::sleep(outage);
        site.link(link, "up");
    }
    let mut requests = 0;
    for device in running {
        let (delivery, banned) = devices.block_on(device).unwrap();
        assert!(!banned, "{trouble:?}: {delivery:?}");
        delivery.last.must_be(pattern, pattern.sha256());
        requests += delivery.requests;
    }
    let ratio = origin.body_bytes() as f64 / size as f64;
    println!(
        "{trouble:?}: {} MiB to 20 devices in {:.0?}, origin {ratio:.4} x, {requests} requests of devices",
        size / MIB,
        start.elapsed()
    );
    // Next to a small file what was on its way when the link went down is much.
    let allowed = if bars() { 1.01 } else { 1.01 + 4.0 * MIB as f64 / size as f64 };
    assert!(ratio <= allowed, "{trouble:?}: {ratio}");
    // What squid looks up is its own business.
    for level in LEVELS.into_iter().filter(|level| *level != "proxy") {
        assert_eq!(site.strayed(level), 0, "{trouble:?}: packets of {level} to somebody else");
    }
    drop((l3, l4, l5));
    let _above = above.enter();
    drop(origin);
    true
}
