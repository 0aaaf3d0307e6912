//! Other caches as parents: a real nginx that answers the form of Connected Cache.

use std::process::{Child, Command, Stdio};

use super::super::rig::{own_address, program};
use super::*;

/// An nginx of our own that fetches from whom `cacheHostOrigin` names; dropping it ends it.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// `None` where there is no nginx.
    async fn start() -> Option<Self> {
        let program = program("nginx")?;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let address = own_address(8080);
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; proxy_cache_path {root}/cache keys_zone=z:1m; proxy_temp_path {root}/tmp; client_body_temp_path {root}/body;\n\
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
             server {{ listen {address}; location / {{ proxy_cache z; proxy_cache_key $arg_cacheHostOrigin$uri; slice 1m;\n\
             proxy_cache_key $arg_cacheHostOrigin$uri$slice_range; proxy_set_header Range $slice_range; proxy_http_version 1.1;\n\
             proxy_cache_valid 200 206 1h; proxy_pass http://$arg_cacheHostOrigin$uri; }} }}\n}}\n"
        );
        let config = config.replace("proxy_cache_key $arg_cacheHostOrigin$uri; slice", "slice");
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let nginx = Self { child, address, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_nginx_as_parent_gives_whole_files_and_ranges() {
    let Some(nginx) = Nginx::start().await else { return };
    let pattern = Pattern::new(670, 5 * MIB + 77);
    let origin = FakeOrigin::with("/x", Reply::file(pattern)).await;
    // This nginx asks whom the name says, port and all.
    let host = origin.address.to_string();
    for mode in Mode::BOTH {
        let mut rule = mode.rule();
        (rule["host"], rule["port"]) = (json!("127.0.0.1"), json!(origin.address.port()));
        rule["allow_private"] = json!(true);
        let node =
            Setup::new().set("origins", json!([rule])).set("upstream.parents", json!([url(nginx.address)])).start();
        let target = format!("/x?cacheHostOrigin={host}");
        let part = node.get(&target, &["Range: bytes=2000000-2999999"]).await;
        assert_eq!(part.head.status, 206, "{mode:?}: {}", part.head.raw);
        assert!(part.body == pattern.slice(2_000_000, 3_000_000), "{mode:?}");
        must_be(&node.get(&target, &[]).await, pattern);
        nothing_again(&node, &target, &origin, pattern).await;
    }
}

/// What was fetched is there without anybody.
async fn nothing_again(node: &RunningNode, target: &str, origin: &FakeOrigin, pattern: Pattern) {
    node.wait_for_fills(1).await;
    let before = origin.requests();
    must_be(&node.get(target, &[]).await, pattern);
    assert_eq!(origin.requests(), before);
}
