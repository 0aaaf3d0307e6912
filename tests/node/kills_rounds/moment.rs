//! When a node is killed.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::rig::Dice;
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::running_node::{RunningNode, Setup};

/// A moment of a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Under load, after so many bytes of the origin or so many milliseconds.
    Load { bytes: u64, millis: u64 },
    /// Under load, so many microseconds after a new journal segment was begun on the first drive: the oldest one is compacted
    /// then.
    Compaction { micros: u64 },
    /// So many milliseconds after an orderly stop under load began.
    Stop { after: u64, millis: u64 },
    /// So many microseconds after the process was made, before it listens perhaps.
    Birth { micros: u64 },
    /// So many microseconds after it listens: the store is being read in. Without load.
    Recovery { micros: u64 },
    /// Several times in the first milliseconds.
    Again { times: u64, micros: u64 },
}

impl Moment {
    pub(super) fn chosen(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0..=4 => Self::Load { bytes: dice.below(20 << 20), millis: 200 + dice.below(600) },
            5 => Self::Compaction { micros: dice.below(20_000) },
            6 => Self::Stop { after: 100 + dice.below(300), millis: dice.below(300) },
            7 => Self::Birth { micros: dice.below(40_000) },
            8 => Self::Recovery { micros: dice.below(30_000) },
            _ => Self::Again { times: 2 + dice.below(2), micros: dice.below(40_000) },
        }
    }

    /// Whether clients come meanwhile.
    pub(super) fn has_load(self) -> bool {
        matches!(self, Self::Load { .. } | Self::Compaction { .. } | Self::Stop { .. })
    }

    /// Waits for the moment in the life of `node` and kills it.
    pub(super) async fn strike(self, node: RunningNode, setup: &Setup, origin: &FakeOrigin) {
        match self {
            Self::Load { bytes, millis } => {
                let until = origin.body_bytes() + bytes;
                let _ = tokio::time::timeout(Duration::from_millis(millis), origin.wait_for_bytes(until)).await;
                node.kill().await;
            }
            Self::Compaction { micros } => {
                let journal = setup.path("drive1").join("journal");
                let before = names(&journal);
                let latest = Instant::now() + Duration::from_millis(600);
                while names(&journal) == before && Instant::now() < latest {
                    sleep(Duration::from_millis(1)).await;
                }
                sleep(Duration::from_micros(micros)).await;
                node.kill().await;
            }
            Self::Stop { after, millis } => {
                sleep(Duration::from_millis(after)).await;
                node.signal(Signal::TERM);
                sleep(Duration::from_millis(millis)).await;
                node.kill().await;
            }
            Self::Recovery { micros } => {
                sleep(Duration::from_micros(micros)).await;
                node.kill().await;
            }
            Self::Birth { micros } => {
                node.kill().await;
                newborn(setup, micros).await;
            }
            Self::Again { times, micros } => {
                node.kill().await;
                for time in 1..=times {
                    newborn(setup, micros * time / times).await;
                }
            }
        }
    }
}

/// Starts a process and kills it so many microseconds later.
async fn newborn(setup: &Setup, micros: u64) {
    let mut child = setup.command().spawn().unwrap();
    sleep(Duration::from_micros(micros)).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts a node on ports that are known, and measures after what time the data port accepts.
pub(super) fn start(setup: &Setup, port: SocketAddr) -> (RunningNode, Duration) {
    let begun = Instant::now();
    let knocking = std::thread::spawn(move || {
        while TcpStream::connect(port).is_err() && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    });
    let node = setup.start();
    (node, knocking.join().unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
