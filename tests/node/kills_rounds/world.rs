//! One store through many kills, and what is known to be in it.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde_json::json;

use super::load::{Clients, Durable, File, LONGEST, host};
use super::moment::{Moment, start};
use crate::rig::Dice;
use crate::rig::client::{Connection, End, get, once, request};
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::patient::Patient;
use crate::rig::quarry::{Content, Quarry};
use crate::rig::rules::Mode;
use crate::rig::running_node::{RunningNode, Setup, files_below};

/// Body bytes per second of the origin: so that kills meet fills.
const RATE: u64 = 24 << 20;

/// How often is looked whether what is complete is durable, before a round begins.
const LOOKS: usize = 10;

/// What a store is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One drive with room for everything.
    OneDrive,
    /// One drive that is too small for what comes.
    TooSmall,
    ThreeDrives,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::OneDrive, Self::TooSmall, Self::ThreeDrives];

    fn drives(self) -> &'static [&'static str] {
        match self {
            Self::OneDrive | Self::TooSmall => &["drive1"],
            Self::ThreeDrives => &["drive1", "drive2", "drive3"],
        }
    }
}

/// A store, its origin and its clients.
pub(super) struct World {
    origin: FakeOrigin,
    setup: Setup,
    data: SocketAddr,
    node: Option<RunningNode>,
    quarry: Quarry,
    files: Vec<File>,
    clients: Clients,
    kind: Kind,
    sums: Sums,
}

/// What came of kills.
#[derive(Debug, Default)]
pub(super) struct Sums {
    kills: u64,
    sent: u64,
    distinct: u64,
    /// Durable files that were read after kills, and their bytes.
    read: u64,
    read_bytes: u64,
    evicted: u64,
    downloads: u64,
    interrupted: u64,
    /// Longest time until the port accepted.
    pub(super) listens: Duration,
}

impl World {
    pub(super) async fn begin(dice: &mut Dice, kind: Kind) -> Self {
        let origin = FakeOrigin::start().await;
        origin.limit_rate(RATE);
        origin.keep_sockets_short();
        let quota = if kind == Kind::TooSmall { "48 MiB" } else { "10 GB" };
        let setup =
            Mode::BOTH.iter().fold(Setup::new(), |setup, mode| setup.origin(host(*mode), origin.address, mode.rule()));
        let drives =
            kind.drives().iter().map(|drive| json!({ "path": setup.path(drive), "quota": quota, "min_free": 0 }));
        let drives: Vec<_> = drives.collect();
        let setup = setup
            .set("storage.drives", json!(drives))
            .set("storage.scrub_rate", json!("200 MB"))
            .set("storage.scrub_every", json!("100ms"))
            .set("storage.reverify", json!("200ms"))
            .set("drain_grace", json!("150ms"));
        let node = setup.start();
        let (setup, data) = (node.setup_with_these_ports(), node.data);
        let quarry = Quarry::new(dice.below(u64::MAX), LONGEST);
        let (files, clients, sums) = (Vec::new(), Clients::default(), Sums::default());
        Self { origin, setup, data, node: Some(node), quarry, files, clients, kind, sums }
    }

    /// One kill at `moment`, the start after it, and a look at everything.
    pub(super) async fn live_and_die(&mut self, mut dice: Dice, round: u64) {
        let moment = Moment::chosen(&mut dice);
        let dice = &mut dice;
        self.settle().await;
        let node = self.node.take().unwrap();
        if moment.has_load() {
            let new = 1 + dice.below(4) as usize;
            for _ in 0..new {
                self.files.push(File::new(dice, &mut self.quarry, &self.origin, &self.files));
            }
            for file in &mut self.files {
                if file.changes && dice.below(8) == 0 {
                    file.change(dice, &mut self.quarry, &self.origin);
                }
            }
            self.clients.send(dice, self.data, &self.files, new);
        }
        let admin = node.admin;
        let mut noted = HashSet::new();
        {
            let mut strike = std::pin::pin!(moment.strike(node, &self.setup, &self.origin));
            loop {
                tokio::select! {
                    () = &mut strike => break,
                    // What it has found is lost when the strike comes first.
                    durable = durable_among(&self.files, &noted, self.data, admin) => noted.extend(durable),
                }
            }
        }
        self.note(noted);
        self.sums.kills += 1;
        let (node, listens) = start(&self.setup, self.data);
        self.sums.listens = self.sums.listens.max(listens);
        let (read, evicted) = self.read_durable().await;
        println!(
            "round {round}: {moment:?}, listens after {listens:.3?}, {read} of {} files read, {evicted} evicted",
            self.files.len()
        );
        self.node = Some(node);
    }

    /// Looks for a while what of the complete files is durable.
    async fn settle(&mut self) {
        let Some(admin) = self.node.as_ref().map(|node| node.admin) else { return };
        for _ in 0..LOOKS {
            if self.files.iter().all(|file| file.durable.is_some() || !*file.seen.lock()) {
                return;
            }
            let durable = durable_among(&self.files, &HashSet::new(), self.data, admin).await;
            self.note(durable);
        }
    }

    fn note(&mut self, durable: impl IntoIterator<Item = usize>) {
        for index in durable {
            let file = &mut self.files[index];
            let content = file.current();
            let sent = self.origin.ledger().of_version(&file.path, &content.tag);
            file.durable = Some(Durable { sent, blob: identity(&self.setup, self.kind, &content) });
        }
    }

    /// Reads every durable file, byte for byte. The origin must not have been asked for bytes of them.
    async fn read_durable(&mut self) -> (u64, u64) {
        let (mut read, mut evicted) = (0, 0);
        let mut connection = Connection::open(self.data).await;
        for file in &mut self.files {
            let content = file.current();
            let Some(Durable { sent, blob }) = file.durable else {
                if self.kind == Kind::TooSmall
                    && *file.seen.lock()
                    && identity(&self.setup, self.kind, &content).is_none()
                {
                    *file.seen.lock() = false;
                    self.sums.distinct += self.origin.ledger().forget(&file.path);
                }
                continue;
            };
            let is_there = |kind| blob.is_some() && identity(&self.setup, kind, &content) == blob;
            let before = is_there(self.kind);
            let is_small = self.kind == Kind::TooSmall;
            assert!(is_small || before, "the blob of {} is not there any more", file.path);
            connection.send(&get(&file.target(), &[])).await;
            let answer = connection.answer(false).await;
            let now = self.origin.ledger().of_version(&file.path, &content.tag);
            // A small drive may have given it up, also while it was read.
            if is_small && (!before || (now != sent && !is_there(self.kind))) {
                evicted += 1;
                (file.durable, *file.seen.lock()) = (None, false);
                self.sums.distinct += self.origin.ledger().forget(&file.path);
                connection = Connection::open(self.data).await;
                continue;
            }
            let head = &answer.head;
            assert_eq!((head.status, answer.end), (200, End::Complete), "{}: {}", file.path, head.raw);
            assert!(answer.body == content.bytes, "{}: wrong bytes: {}", file.path, head.raw);
            assert_eq!(now, sent, "{} of {} bytes was fetched again: {}", file.path, content.len(), head.raw);
            read += 1;
            self.sums.read_bytes += content.len();
        }
        self.sums.read += read;
        self.sums.evicted += evicted;
        (read, evicted)
    }

    /// All downloads end well, all is a hit with the origin off, and nothing on the drives is left over or wrong.
    pub(super) async fn end(mut self, dice: &mut Dice) -> Sums {
        if self.kind != Kind::TooSmall {
            self.clients.send(dice, self.data, &self.files, self.files.len());
        }
        self.clients.finish().await;
        if self.kind != Kind::TooSmall {
            for file in &self.files {
                let client = Patient { to: self.data, device: u16::MAX, says_which: true };
                client.download(&file.target(), &file.versions).await;
            }
        }
        let node = self.node.take().unwrap();
        node.wait_until_idle().await;
        node.wait_for_commits().await;
        let mut sums = std::mem::take(&mut self.sums);
        sums.sent = self.origin.body_bytes();
        sums.distinct += self.origin.ledger().distinct();
        (sums.downloads, sums.interrupted) = (self.clients.downloads, self.clients.interrupted);
        if self.kind != Kind::TooSmall {
            self.origin.switch_off();
            // The others must not be given out without asking the origin.
            for file in self.files.iter().filter(|file| !file.changes) {
                let answer = once(self.data, &get(&file.target(), &[])).await;
                let content = file.current();
                assert!(
                    answer.head.status == 200 && answer.body == content.bytes,
                    "{}: {}",
                    file.path,
                    answer.head.raw
                );
            }
        }
        let setup = node.stop().await;
        let below = |name: &str| {
            let drives = self.kind.drives().iter();
            drives.flat_map(|drive| files_below(&setup.path(drive).join(name))).collect::<Vec<_>>()
        };
        assert!(below("quarantine").is_empty(), "{:?}", below("quarantine"));
        let mut blobs: Vec<_> = below("blobs").iter().map(|blob| blob.file_name().unwrap().to_owned()).collect();
        let all = blobs.len();
        blobs.sort();
        blobs.dedup();
        println!("{:?}: {all} blobs, {} journal segments", self.kind, below("journal").len());
        assert_eq!(blobs.len(), all, "one copy, many URLs");
        self.verify(&setup);
        sums
    }

    /// `store verify` finds nothing.
    fn verify(&self, setup: &Setup) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
        command.args(["store", "verify"]).env_clear();
        for drive in self.kind.drives() {
            command.args(["--drive", &format!("{}=10GB", setup.path(drive).display())]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

/// Which file a blob is, wherever it is.
fn identity(setup: &Setup, kind: Kind, content: &Content) -> Option<(u64, i64)> {
    let mut blobs = kind.drives().iter().map(|drive| setup.path(drive).join(content.blob()));
    let facts = blobs.find_map(|blob| std::fs::metadata(blob).ok())?;
    Some((facts.ino(), facts.mtime_nsec()))
}

/// Files that a client has whole, that the cache says are complete, and then that nothing waits to be committed.
async fn durable_among(files: &[File], noted: &HashSet<usize>, data: SocketAddr, admin: SocketAddr) -> Vec<usize> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut complete = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if file.durable.is_none() && !noted.contains(&index) && *file.seen.lock() {
            let Content { tag, .. } = file.current();
            let head = answer(data, &request("HEAD", &file.target(), &[])).await;
            let is_complete = |head: &crate::rig::client::Head| {
                head.field("Repr-Digest").is_some() && head.field("ETag") == Some(&tag)
            };
            if head.is_some_and(|head| is_complete(&head)) {
                complete.push(index);
            }
        }
    }
    if complete.is_empty() || uncommitted(admin).await != Some(0.0) {
        return Vec::new();
    }
    complete
}

async fn answer(to: SocketAddr, text: &str) -> Option<crate::rig::client::Head> {
    let mut connection = Connection::over(tokio::net::TcpStream::connect(to).await.ok()?);
    connection.try_send(text.as_bytes()).await.ok()?;
    connection.try_head().await.ok()
}

async fn uncommitted(admin: SocketAddr) -> Option<f64> {
    let mut connection = Connection::over(tokio::net::TcpStream::connect(admin).await.ok()?);
    connection.try_send(get("/metrics", &[]).as_bytes()).await.ok()?;
    let head = connection.try_head().await.ok()?;
    let (mut framing, mut text) = (head.framing(false), Vec::new());
    while let Some(piece) = connection.piece(&mut framing, 1 << 20).await.ok()? {
        text.extend(piece);
    }
    let text = String::from_utf8(text).ok()?;
    let drives = text.lines().filter(|line| line.starts_with("waystation_store_uncommitted"));
    drives.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

impl Sums {
    /// What the origin sent, in parts of what it had to send.
    pub(super) fn ratio(&self) -> f64 {
        if self.distinct == 0 { 1.0 } else { self.sent as f64 / self.distinct as f64 }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.sent += other.sent;
        self.distinct += other.distinct;
        self.read += other.read;
        self.read_bytes += other.read_bytes;
        self.evicted += other.evicted;
        self.downloads += other.downloads;
        self.interrupted += other.interrupted;
        self.listens = self.listens.max(other.listens);
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills: origin {:.4} x ({:.1} of {:.1} MiB), {} durable files ({:.1} MiB) read, {} evicted, \
             {} downloads of which {} were interrupted, port after {:.3?} at most",
            self.kills,
            self.ratio(),
            self.sent as f64 / 1048576.0,
            self.distinct as f64 / 1048576.0,
            self.read,
            self.read_bytes as f64 / 1048576.0,
            self.evicted,
            self.downloads,
            self.interrupted,
            self.listens
        )
    }
}
