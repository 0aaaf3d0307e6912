//! The real apt against the node: as forward proxy, by Host and by the path form, with pipelining.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::rig::fake_origin::FakeOrigin;
use super::rig::program;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "repo.example";
const PACKAGES: u32 = 30;
const TOOLS: [&str; 3] = ["apt-get", "dpkg-deb", "apt-ftparchive"];

fn tools_are_missing() -> bool {
    TOOLS.iter().any(|tool| program(tool).is_none())
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    output.stdout
}

/// A repository with [`PACKAGES`] packages, one with `+` in its name.
fn repository() -> TempDir {
    let root = tempfile::Builder::new().prefix("waystation-apt-").tempdir().unwrap();
    let pool = root.path().join("pool/main");
    std::fs::create_dir_all(&pool).unwrap();
    for number in 0..PACKAGES {
        let name = if number == 7 { "cache-test-c++".to_owned() } else { format!("cache-test-{number}") };
        let build = root.path().join("build");
        std::fs::create_dir_all(build.join("DEBIAN")).unwrap();
        std::fs::create_dir_all(build.join("usr/share/cache-test")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: 1.0+b{number}\nArchitecture: all\nMaintainer: A <a@repo.example>\nDescription: test\n"
        );
        std::fs::write(build.join("DEBIAN/control"), control).unwrap();
        let pattern = super::rig::pattern::Pattern::new(u64::from(number), 1000 + 9000 * u64::from(number));
        std::fs::write(build.join("usr/share/cache-test/data"), pattern.bytes()).unwrap();
        let file = pool.join(format!("{name}_1.0+b{number}_all.deb"));
        run(Command::new("dpkg-deb").args(["--build", "--root-owner-group", "-Znone"]).arg(&build).arg(file));
        std::fs::remove_dir_all(build).unwrap();
    }
    let dists = root.path().join("dists/stable");
    let index = dists.join("main/binary-all");
    std::fs::create_dir_all(&index).unwrap();
    let archive = |arguments: &[&str]| run(Command::new("apt-ftparchive").args(arguments).current_dir(root.path()));
    let packages = archive(&["packages", "pool"]);
    std::fs::write(index.join("Packages"), packages).unwrap();
    let options = ["Architectures=all", "Components=main", "Suite=stable", "Codename=stable"];
    let mut arguments: Vec<_> =
        options.iter().flat_map(|option| ["-o".to_owned(), format!("APT::FTPArchive::Release::{option}")]).collect();
    arguments.extend(["release".to_owned(), "dists/stable".to_owned()]);
    let release = archive(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::write(dists.join("Release"), release).unwrap();
    root
}

/// The same packages in a repository without suites and components, as `dpkg-scanpackages` makes it.
fn flat_repository() -> TempDir {
    let root = repository();
    std::fs::remove_dir_all(root.path().join("dists")).unwrap();
    let packages = run(Command::new("apt-ftparchive").args(["packages", "./pool"]).current_dir(root.path()));
    std::fs::write(root.path().join("Packages"), packages).unwrap();
    root
}

/// One machine's apt: its own lists, its own empty cache, its own sources.
struct Apt {
    root: TempDir,
    options: Vec<String>,
}

impl Apt {
    fn new(base: &str, proxy: Option<String>) -> Self {
        Self::of_source(&format!("{base} stable main"), proxy)
    }

    /// `source` is what stands in `sources.list`.
    fn of_source(source: &str, proxy: Option<String>) -> Self {
        let root = tempfile::Builder::new().prefix("waystation-apt-").tempdir().unwrap();
        for directory in ["etc/preferences.d", "state/lists/partial", "cache/archives/partial", "downloads"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("etc/sources.list"), format!("deb [trusted=yes] {source}\n")).unwrap();
        std::fs::write(path("status"), "").unwrap();
        let mut options = vec![
            format!("Dir::Etc={}", path("etc")),
            format!("Dir::Etc::SourceList={}", path("etc/sources.list")),
            "Dir::Etc::SourceParts=-".to_owned(),
            "Dir::Etc::Parts=-".to_owned(),
            format!("Dir::State={}", path("state")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures::=all".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=0".to_owned(),
            "Acquire::http::Pipeline-Depth=10".to_owned(),
        ];
        options.push(format!("Acquire::http::Proxy={}", proxy.unwrap_or_else(|| "DIRECT".to_owned())));
        Self { root, options }
    }

    fn get(&self, words: &[&str]) {
        let mut command = Command::new("apt-get");
        command
            .arg("-q")
            .env("APT_CONFIG", "/dev/null")
            .env("LC_ALL", "C")
            .current_dir(self.root.path().join("downloads"));
        for variable in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(variable);
        }
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        run(command.args(words));
    }

    /// `apt-get update`, then every package of the repository, which must arrive as it is there.
    fn fetch_all(&self, repository: &Path) {
        self.get(&["update"]);
        let pool: Vec<PathBuf> = super::rig::running_node::files_below(&repository.join("pool"));
        let names: Vec<_> =
            pool.iter().map(|file| file.file_name().unwrap().to_str().unwrap().split('_').next().unwrap()).collect();
        self.get(&[&["download"], names.as_slice()].concat());
        let got = super::rig::running_node::files_below(&self.root.path().join("downloads"));
        assert_eq!(got.len(), pool.len(), "{got:?}");
        for file in pool {
            let name = file.file_name().unwrap().to_str().unwrap();
            let here = self.root.path().join("downloads").join(name);
            assert!(std::fs::read(&here).unwrap() == std::fs::read(&file).unwrap(), "{name} differs");
        }
    }
}

async fn node_for(repository: &Path) -> (RunningNode, FakeOrigin) {
    let origin = FakeOrigin::start().await;
    origin.serve_directory(repository);
    let rule: Value = json!({ "plus_is_literal": true, "freshness": { "immutable": ["*.deb", "*/by-hash/*"] } });
    let setup = Setup::new().origin(HOST, origin.address, rule);
    (setup.set("reverse.default_origin", json!(format!("http://{HOST}"))).start(), origin)
}

/// Two machines after each other, in the way that `apt` makes for a node.
async fn two_machines(repository: fn() -> TempDir, apt: fn(&RunningNode) -> Apt) {
    if tools_are_missing() {
        return;
    }
    let repository = Arc::new(repository());
    let (node, origin) = node_for(repository.path()).await;
    for machine in 1..=2 {
        let (apt, pool) = (apt(&node), repository.clone());
        let before = (origin.requests(), origin.body_bytes());
        tokio::task::spawn_blocking(move || apt.fetch_all(pool.path())).await.unwrap();
        let asked: Vec<_> = origin.received().split_off(before.0);
        let pool_bytes = asked.iter().filter(|request| request.path().contains("/pool/")).count();
        println!("apt machine {machine}: {} requests, {} bytes upstream", asked.len(), origin.body_bytes() - before.1);
        if machine == 1 {
            assert_eq!(pool_bytes, PACKAGES as usize, "each package is fetched once");
        } else {
            assert_eq!(pool_bytes, 0, "the second machine's packages came from upstream: {asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apt_uses_the_node_as_forward_proxy() {
    two_machines(repository, |node| Apt::new(&format!("http://{HOST}"), Some(format!("http://{}", node.data)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apt_uses_the_node_as_reverse_proxy() {
    two_machines(repository, |node| Apt::new(&format!("http://{}", node.data), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apt_uses_the_node_by_the_path_form() {
    two_machines(repository, |node| Apt::new(&format!("http://{}/-/{HOST}", node.data), None)).await;
}

/// Such a source is `./`, and apt puts it into each path as it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apt_uses_a_repository_without_suites() {
    two_machines(flat_repository, |node| Apt::of_source(&format!("http://{}/-/{HOST} ./", node.data), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apt_works_with_the_origin_off_after_one_machine_has_been_there() {
    if tools_are_missing() {
        return;
    }
    let repository = Arc::new(repository());
    let (node, origin) = node_for(repository.path()).await;
    for _ in 0..2 {
        let (apt, pool) = (Apt::new(&format!("http://{}/-/{HOST}", node.data), None), repository.clone());
        tokio::task::spawn_blocking(move || apt.fetch_all(pool.path())).await.unwrap();
        origin.switch_off();
    }
}
