//! A site in network namespaces, as in a factory: origin, L5, L4, a real squid between OT and IT, L3, devices. Each level
//! has links to its neighbours alone; a packet to anybody else would go into a sink, where packets are counted. It needs root
//! and `ip`, and says so where it cannot run.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

use super::super::rig::device::deliver;
use super::super::rig::{bars, program};
use super::proxies::Squid;
use super::*;

/// From the origin down. Between each two is a link.
const LEVELS: [&str; 6] = ["origin", "l5", "l4", "proxy", "l3", "leaf"];

/// The namespaces of one story; dropping it removes them.
struct Site {
    prefix: String,
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
    /// `None` where there can be none.
    fn new(story: &str) -> Option<Self> {
        program("ip")?;
        let prefix = format!("ws{}{story}", std::process::id());
        let probe = Command::new("ip").args(["netns", "add", &format!("{prefix}-probe")]).output().unwrap();
        if !probe.status.success() {
            println!("NOT TESTED in namespaces: {}", String::from_utf8_lossy(&probe.stderr).trim());
            return None;
        }
        ip(&format!("netns del {prefix}-probe"));
        let site = Self { prefix };
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
        for (link, pair) in LEVELS.windows(2).enumerate() {
            let (above, below) = (site.name(pair[0]), site.name(pair[1]));
            ip(&format!("-n {above} link add name lower type veth peer name upper netns {below}"));
            for (name, device, address) in [(&above, "lower", &ends(link)[0]), (&below, "upper", &ends(link)[1])] {
                ip(&format!("-n {name} addr add {address}/24 dev {device}"));
                ip(&format!("-n {name} link set dev {device} up"));
            }
        }
        Some(site)
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_packet_goes_to_a_neighbour_and_links_that_go_down_cost_next_to_nothing() {
    // Blocking calls and runtimes of other levels are no business of this one.
    tokio::task::spawn_blocking(|| {
        let troubles = [Trouble::None].into_iter().chain((0..LEVELS.len() - 1).map(Trouble::LinkDown));
        for (number, trouble) in troubles.enumerate() {
            let Some(site) = Site::new(&number.to_string()) else { return };
            download_under(&site, trouble);
        }
    })
    .await
    .unwrap();
}

fn download_under(site: &Site, trouble: Trouble) {
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
    let Some(_squid) = above.block_on(Squid::inside(&site.name("proxy"), squid)) else { return };
    let parent = json!({ "url": format!("http://{}:8081", ends(2)[0]), "proxy": format!("http://{squid}") });
    let l3 = site.start("l3", 4, below(&[parent], rule));
    let cache: SocketAddr = format!("{}:8081", ends(4)[0]).parse().unwrap();

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
    println!("{trouble:?}: {} MiB to 20 devices, origin {ratio:.4} x, {requests} requests of devices", size / MIB);
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
}
