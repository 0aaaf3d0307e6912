//! Proxies on the way: in the form that each scheme needs, with credentials and without, and what their refusals become.
//! The real one is squid, with basic authentication.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpListener;

use super::super::rig::client::once;
use super::super::rig::{own_address, program};
use super::*;

const USER: &str = "http://line7:open%20sesame@";

/// A squid of our own; dropping it ends it.
pub(super) struct Squid {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Squid {
    /// One that lets through who knows the password; `None` where there is no squid.
    async fn start() -> Option<Self> {
        let directory = open_directory();
        let script = directory.path().join("check");
        std::fs::write(&script, CHECK).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let access = format!(
            "auth_param basic program {}\nauth_param basic children 1\nacl known proxy_auth REQUIRED\n\
             http_access allow known\nhttp_access deny all\n",
            script.display()
        );
        let squid = Self::run(&[], directory, own_address(3128), &access)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(squid.address).await.is_err() {
            assert!(Instant::now() < deadline, "squid does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(squid)
    }

    /// One in a network namespace that lets everybody through. Who asks it too early asks again.
    pub(super) async fn inside(namespace: &str, address: SocketAddr) -> Option<Self> {
        Self::run(&["ip", "netns", "exec", namespace], open_directory(), address, "http_access allow all\n")
    }

    fn run(before: &[&str], directory: tempfile::TempDir, address: SocketAddr, access: &str) -> Option<Self> {
        let squid = program("squid")?;
        let place = directory.path().display();
        let config = format!(
            "http_port {address}\n{access}cache deny all\naccess_log none\ncache_log {place}/cache.log\npid_filename none\n\
             coredump_dir {place}\nshutdown_lifetime 0 seconds\npinger_enable off\nvisible_hostname squid.test\n",
        );
        let file = directory.path().join("squid.conf");
        std::fs::write(&file, config).unwrap();
        let words: Vec<&OsStr> = before.iter().map(OsStr::new).chain([squid.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("-N").arg("-f").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(Self { child: command.spawn().unwrap(), address, _directory: directory })
    }
}

/// Asks for the one user and password that there are.
const CHECK: &str =
    "#!/bin/sh\nwhile read -r line; do\n  [ \"$line\" = 'line7 open%20sesame' ] && echo OK || echo ERR\ndone\n";

/// A directory for a server that may run as another user.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A level below a proxy that asks the origin itself: its name is looked up by the proxy.
fn through(proxy: &str, origin: &FakeOrigin) -> Setup {
    let rule = json!({ "host": "localhost", "port": origin.address.port(), "allow_private": true });
    Setup::new().set("origins", json!([rule])).set("upstream.http_proxy", json!(proxy))
}

fn target(origin: &FakeOrigin) -> String {
    format!("http://localhost:{}/x", origin.address.port())
}

async fn ask(node: &RunningNode, origin: &FakeOrigin) -> Answer {
    once(node.data, &format!("GET {} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", target(origin), origin.address.port()))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_squid_with_a_password_leads_to_the_origin_and_to_the_parent() {
    let Some(squid) = Squid::start().await else { return };
    let pattern = Pattern::new(660, 3 * MIB);
    let origin = FakeOrigin::with("/x", Reply::file(pattern)).await;
    let node = through(&format!("{USER}{}", squid.address), &origin).start();
    must_be(&ask(&node, &origin).await, pattern);
    must_be(&ask(&node, &origin).await, pattern);
    assert_eq!(origin.requests(), 1, "the second one is a hit");
    assert!(origin.received()[0].field("Via").unwrap().contains("squid"), "{:?}", origin.received());
    assert_eq!(origin.received()[0].field("Proxy-Authorization"), None);
    assert!(!node.said().contains("sesame"));

    origin.serve(PATH, Reply::file(pattern));
    let l5 = top(&origin, json!({})).start();
    let parent = json!({ "url": format!("http://{}", l5.data), "proxy": format!("{USER}{}", squid.address) });
    let l4 = below(&[parent], json!({})).start();
    must_be(&l4.get(&asked(), &[]).await, pattern);

    // Without the password nobody gets through, and no device is told 407.
    for proxy in [format!("http://{}", squid.address), format!("http://line7:wrong@{}", squid.address)] {
        let node = through(&proxy, &origin).start();
        let answer = ask(&node, &origin).await;
        assert_eq!(answer.head.status, 503, "{}", answer.head.raw);
        assert!(node.says("check the user and password"), "{}", node.said());
        // It is not asked with it again and again: that would lock the account.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ask(&node, &origin).await.head.raw.contains("detail=known-down") {
            assert!(Instant::now() < deadline, "each request shows it");
        }
        let told = state(&node).await;
        assert_eq!(told["state"], "degraded");
        let reasons = told["reasons"].to_string();
        assert!(reasons.contains("cannot be used: ") && reasons.contains("407"), "{reasons}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_goes_through_a_tunnel_of_the_proxy() {
    // The other end of the tunnel speaks no TLS, which shows in the fault of the handshake.
    let Some(squid) = Squid::start().await else { return };
    let origin = FakeOrigin::with("/x", Reply::file(Pattern::new(661, 10))).await;
    let https = |proxy: String| {
        let rule =
            json!({ "host": "localhost", "scheme": "https", "port": origin.address.port(), "allow_private": true });
        let setup = Setup::new().set("origins", json!([rule])).set("upstream.https_proxy", json!(proxy));
        setup.set("upstream.timeouts.connect", json!("300ms")).start()
    };
    let node = https(format!("{USER}{}", squid.address));
    assert_eq!(ask(&node, &origin).await.head.status, 503);
    assert!(node.says("no end of the TLS handshake"), "{}", node.said());
    let node = https(format!("http://{}", squid.address));
    assert_eq!(ask(&node, &origin).await.head.status, 503);
    assert!(node.says("check the user and password"), "{}", node.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_asked_for_whole_urls_and_not_for_exceptions() {
    let (origin, proxy) = (FakeOrigin::with("/x", Reply::file(Pattern::new(662, 10))).await, FakeOrigin::start().await);
    proxy.serve(&target(&origin), Reply::file(Pattern::new(663, 10)));
    let setup = through(&format!("{USER}{}", proxy.address), &origin);
    let node = setup.clone().start();
    must_be(&ask(&node, &origin).await, Pattern::new(663, 10));
    let received = proxy.received();
    assert_eq!(received[0].field("Proxy-Authorization"), Some("Basic bGluZTc6b3BlbiBzZXNhbWU="));
    assert_eq!(received[0].field("Waystation-Time-Left"), None, "a proxy is no parent");
    let node = setup.with_other_state().set("upstream.no_proxy", json!(["localhost"]));
    let node =
        node.set("storage.drives", json!([{ "path": setup.path("drive2"), "quota": "1 GB", "min_free": 0 }])).start();
    must_be(&ask(&node, &origin).await, Pattern::new(662, 10));
    assert_eq!(proxy.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_of_devices_go_through_the_proxy_too() {
    let Some(squid) = Squid::start().await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let node = Setup::new()
        .set("connect.allow_private", json!([authority]))
        .set("upstream.https_proxy", json!(format!("{USER}{}", squid.address)))
        .start();
    let mut device = Connection::open(node.data).await;
    device.send(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    let (head, accepted) = tokio::join!(device.head(), listener.accept());
    assert_eq!(head.status, 200, "{}", head.raw);
    let (stream, _) = accepted.unwrap();
    let mut host = Connection::over(stream);
    device.send("hello").await;
    assert_eq!(host.read_more(5).await.unwrap(), 5);
}
