//! A real HAProxy in front of the cache, which sends the header that its authors describe.

use std::process::{Child, Command, Stdio};

use super::super::rig::{own_address, program};
use super::*;

/// A HAProxy of our own that passes connections on byte by byte; dropping it ends it.
struct Haproxy {
    child: Child,
    /// Leads to the plain port with a header.
    plain: SocketAddr,
    /// Leads to the TLS port with a header.
    secured: SocketAddr,
    /// Leads to the plain port, and says nothing of its own.
    mute: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Haproxy {
    /// `None` where there is no HAProxy.
    async fn start(node: &RunningNode) -> Option<Self> {
        let program = program("haproxy")?;
        let directory = tempfile::tempdir().unwrap();
        let [plain, secured, mute] = [own_address(8081), own_address(8443), own_address(8082)];
        let (data, tls) = (node.data, node.tls.unwrap());
        // Checked as it is used: a check is a connection of its own.
        let config = format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             listen plain\n bind {plain}\n server cache {data} send-proxy-v2 check inter 50ms\n\
             listen secured\n bind {secured}\n server cache {tls} send-proxy-v2 proxy-v2-options crc32c\n\
             listen mute\n bind {mute}\n server cache {data}\n"
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let haproxy = Self { child: command.spawn().unwrap(), plain, secured, mute, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        for address in [plain, secured, mute] {
            while TcpStream::connect(address).await.is_err() {
                assert!(Instant::now() < deadline, "haproxy does not listen");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Some(haproxy)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_haproxy_names_its_clients_on_both_ports() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(960, 3 << 20));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let setup = setup(&authority, &origin).set("listen.clients", json!(["127.77.0.0/28"]));
    let node = setup.set("limits.connections_per_client", json!(1)).start();
    let Some(haproxy) = Haproxy::start(&node).await else { return };
    let text = get(TARGET, &[]);
    // Two at once, each with a connection that goes on.
    let mut clients = Vec::new();
    for device in [1, 2] {
        let mut connection = Connection::open_as(device, haproxy.plain).await;
        for _ in 0..3 {
            connection.send(&text).await;
            let answer = connection.answer(false).await;
            assert!(answer.head.status == 200 && answer.body == pattern.bytes(), "{}", answer.head.raw);
        }
        logged(&node, 3, &[&format!("\"client\":\"127.77.0.{device}\""), "\"status\":200"]).await;
        clients.push(connection);
    }
    let caller = Caller::new(&authority);
    let stream = connect_as(3, haproxy.secured).await.unwrap();
    let mut secured = caller.shakes_hands(&caller.connector(), stream).await.unwrap();
    for _ in 0..2 {
        secured.send(&text).await;
        let answer = secured.answer(false).await;
        assert!(answer.head.status == 200 && answer.body == pattern.bytes(), "{}", answer.head.raw);
    }
    logged(&node, 2, &["\"client\":\"127.77.0.3\"", "\"status\":200"]).await;
    // The clients are judged by their own addresses, and the proxy's is no client's.
    let mut second = Connection::open_as(1, haproxy.plain).await;
    second.send(&text).await;
    assert_eq!(second.answer(false).await.head.status, 503);
    let mut stranger = Connection::open_as(200, haproxy.plain).await;
    stranger.send(&text).await;
    assert_eq!(stranger.answer(false).await.head.status, 403);
    logged(&node, 1, &["\"client\":\"127.77.0.200\"", "\"status\":403"]).await;
    assert_eq!(node.metric(BAD, "").await, 0.0, "neither header nor check is a fault");
    // A proxy without the setting is told what is missing.
    let mut unnamed = Connection::open_as(4, haproxy.mute).await;
    unnamed.send(&text).await;
    assert_eq!(unnamed.answer(false).await.head.status, 400);
    counted(&node, BAD, "proxy-header-missing", 1).await;
    assert_eq!(origin.requests(), 1);
}
