//! The real binary as a process: configured, started, watched, ended, started again on the same directories.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Answer, get, once};

/// How long a start or an exit may take before the story fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The configuration of a node and the directory that it lives in.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    directory: Arc<TempDir>,
    config: Value,
    /// The network namespace that it runs in.
    namespace: Option<String>,
    variables: Vec<(String, String)>,
}

/// A node that runs. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct RunningNode {
    child: Child,
    output: Output,
    pub(crate) data: SocketAddr,
    /// The TLS listener, if there is one.
    pub(crate) tls: Option<SocketAddr>,
    /// The one that offers HTTP/2.
    pub(crate) http2: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    setup: Setup,
}

/// Where a node listens.
struct Listeners {
    data: SocketAddr,
    tls: Option<SocketAddr>,
    http2: Option<SocketAddr>,
    admin: SocketAddr,
}

/// Lines of standard output and error, as they came.
#[derive(Debug, Clone, Default)]
struct Output {
    lines: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<String>,
    /// Pipes that have ended; with both the process has, too.
    ended: u32,
}

impl Setup {
    /// A node on loopback with one drive, no built-in origins and no rule.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("waystation-").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let config = json!({
            "listen": { "data": ["127.0.0.1:0"], "admin": "127.0.0.1:0" },
            "storage": { "state": path("state"), "drives": [{ "path": path("drive1"), "quota": "10 GB", "min_free": 0 }] },
            "builtin_origins": [],
            "origins": [],
            "log": { "format": "json", "level": "info", "access": true },
        });
        Self { directory: Arc::new(directory), config, namespace: None, variables: Vec::new() }
    }

    /// A rule that sends `host` to `address` on loopback; `more` are further fields of the rule.
    pub(crate) fn origin(self, host: &str, address: SocketAddr, more: Value) -> Self {
        let mut rule = json!({ "host": host, "address": address.to_string(), "allow_private": true });
        if let (Some(rule), Value::Object(more)) = (rule.as_object_mut(), more) {
            rule.extend(more);
        }
        self.rule(rule)
    }

    /// A rule as it stands.
    pub(crate) fn rule(mut self, rule: Value) -> Self {
        self.config["origins"].as_array_mut().unwrap().push(rule);
        self
    }

    /// A rule that leaves the address of `host` to the system, and private ones refused.
    pub(crate) fn guarded_origin(mut self, host: &str, more: Value) -> Self {
        let mut rule = json!({ "host": host });
        if let (Some(rule), Value::Object(more)) = (rule.as_object_mut(), more) {
            rule.extend(more);
        }
        self.config["origins"].as_array_mut().unwrap().push(rule);
        self
    }

    /// Sets what stands at a dotted path, for example `limits.header_time`.
    pub(crate) fn set(mut self, path: &str, value: Value) -> Self {
        let place = path.split('.').fold(&mut self.config, |place, name| &mut place[name]);
        *place = value;
        self
    }

    /// Sets a variable of the process.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// This setup with a state directory of its own but the same drive.
    pub(crate) fn with_other_state(&self) -> Self {
        let state = self.directory.path().join("state2").to_str().unwrap().to_owned();
        self.clone().set("storage.state", json!(state))
    }

    /// Runs it in a network namespace, which needs root.
    pub(crate) fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command that runs the node. The file is JSON, which is YAML too.
    pub(crate) fn command(&self) -> Command {
        let file = self.path("node.yaml");
        std::fs::write(&file, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        let node = env!("CARGO_BIN_EXE_waystation");
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new(super::program("ip").unwrap());
                command.args(["netns", "exec", namespace, node]);
                command
            }
            None => Command::new(node),
        };
        command.arg("run").arg("--config").arg(file).current_dir(self.directory.path());
        // Variables are settings too, and those of the person who runs the tests are not meant.
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self) -> RunningNode {
        let mut child = self.command().spawn().unwrap();
        let output = Output::default();
        output.follow(child.stdout.take().unwrap());
        output.follow(child.stderr.take().unwrap());
        let Some(Listeners { data, tls, http2, admin }) = output.wait_for(PATIENCE, listening) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the node does not listen; it said:\n{}", output.text());
        };
        RunningNode { child, output, data, tls, http2, admin, setup: self.clone() }
    }
}

/// The addresses of the line that says that it listens: `data` may be several, joined by commas.
fn listening(line: &str) -> Option<Listeners> {
    let line: Value = serde_json::from_str(line).ok()?;
    let first = |name: &str| line[name].as_str()?.split(',').next()?.parse().ok();
    let listeners =
        || Some(Listeners { data: first("data")?, tls: first("tls"), http2: first("http2"), admin: first("admin")? });
    (line["message"] == "listening").then(listeners)?
}

impl RunningNode {
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The setup with the ports of this run, for clients that come back after a restart.
    pub(crate) fn setup_with_these_ports(&self) -> Setup {
        let ports = self.setup.clone().set("listen.data", json!([self.data.to_string()]));
        ports.set("listen.admin", json!(self.admin.to_string()))
    }

    /// One request on a connection of its own.
    pub(crate) async fn get(&self, target: &str, fields: &[&str]) -> Answer {
        once(self.data, &get(target, fields)).await
    }

    /// Sends a request as it stands.
    pub(crate) async fn ask(&self, text: &str) -> Answer {
        once(self.data, text).await
    }

    pub(crate) async fn summary(&self) -> Value {
        let answer = once(self.admin, &get("/summary", &[])).await;
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("/summary is no JSON: {answer:?}"))
    }

    /// The sum of all series of `name` on /metrics whose line contains `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = once(self.admin, &get("/metrics", &[])).await;
        assert_eq!(answer.head.status, 200, "{answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `count` bodies are complete on disk: a digest is known a moment after the last byte.
    pub(crate) async fn wait_for_fills(&self, count: u32) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("waystation_fills_total", "outcome=\"complete\"").await < f64::from(count) {
            assert!(Instant::now() < deadline, "{count} fills do not complete");
        }
    }

    /// Waits until no fill is under way: the end of a block may still be coming when its client has what it wanted.
    pub(crate) async fn wait_until_idle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("waystation_fills_active", "").await > 0.0 {
            assert!(Instant::now() < deadline, "fills do not end");
        }
    }

    /// Waits until everything that is stored would survive a loss of power.
    pub(crate) async fn wait_for_commits(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("waystation_store_uncommitted", "").await > 0.0 {
            assert!(Instant::now() < deadline, "the store does not commit");
        }
    }

    /// Waits until what the journals say has its second copy.
    pub(crate) async fn wait_for_mirror(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("waystation_store_mirror_behind", "").await > 0.0 {
            assert!(Instant::now() < deadline, "the journals are not copied");
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Everything the process wrote so far.
    pub(crate) fn said(&self) -> String {
        self.output.text()
    }

    /// Waits until a line contains `text`; false when none does in time.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.output.wait_for(PATIENCE, |line| line.contains(text).then_some(())).is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the exit without blocking the runtime.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not exit; it said:\n{}", self.output.text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM, and the exit code must be 0.
    pub(crate) async fn stop(mut self) -> Setup {
        self.signal(Signal::TERM);
        let status = self.exit().await;
        assert_eq!(status.code(), Some(0), "after SIGTERM; it said:\n{}", self.output.text());
        self.setup.clone()
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) -> Setup {
        self.signal(Signal::KILL);
        self.exit().await;
        self.setup.clone()
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = self.output.text();
            let from = text.char_indices().rev().nth(12_000).map_or(0, |(at, _)| at);
            println!("--- the node said (last 12,000 characters):\n{}\n---", &text[from..]);
        }
    }
}

impl Output {
    /// Collects the lines of `pipe` on a thread that ends with it.
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                output.lines.0.lock().text.push(text);
                output.lines.1.notify_all();
                line.clear();
            }
            output.lines.0.lock().ended += 1;
            output.lines.1.notify_all();
        });
    }

    fn wait_for<T>(&self, patience: Duration, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lines.0.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = lines.text[seen..].iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            seen = lines.text.len();
            if lines.ended == 2 || self.lines.1.wait_until(&mut lines, deadline).timed_out() {
                return None;
            }
        }
    }

    fn text(&self) -> String {
        self.lines.0.lock().text.join("\n")
    }
}

/// All files below `directory`, by path.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
