//! Files that come into being and change at the origin, and the clients that want them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::rig::Dice;
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::origin_reply::Reply;
use crate::rig::patient::{Patient, Versions};
use crate::rig::quarry::{Content, Quarry, some_length};
use crate::rig::rules::Mode;

/// Longest file.
pub(super) const LONGEST: u64 = 16 << 20;
/// Most clients at a time.
const CLIENTS: usize = 40;

/// Where files of a mode of fill are.
pub(super) fn host(mode: Mode) -> &'static str {
    match mode {
        Mode::Ranged => "ranged.example.com",
        Mode::Whole => "whole.example.com",
    }
}

/// A URL and what it means.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) mode: Mode,
    /// Whether its content may change: then the cache has to ask each time.
    pub(super) changes: bool,
    pub(super) path: String,
    pub(super) versions: Versions,
    /// Set once a client has it whole.
    pub(super) seen: Arc<Mutex<bool>>,
    /// Set while its present version is known to be complete and durable.
    pub(super) durable: Option<Durable>,
}

/// What was known when a file was durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Durable {
    /// Bytes that the origin had sent of this version.
    pub(super) sent: u64,
    /// Which file its blob was: inode and time.
    pub(super) blob: Option<(u64, i64)>,
}

impl File {
    pub(super) fn target(&self) -> String {
        format!("/-/{}{}", host(self.mode), self.path)
    }

    /// What it is at the origin.
    pub(super) fn current(&self) -> Content {
        self.versions.lock().last().cloned().unwrap()
    }

    /// A new file at the origin; some have the content of another one.
    pub(super) fn new(dice: &mut Dice, quarry: &mut Quarry, origin: &FakeOrigin, others: &[Self]) -> Self {
        let mode = Mode::BOTH[dice.below(2) as usize];
        let twin = others.get(dice.below(4 * others.len() as u64 + 1) as usize).map(Self::current);
        let content = match twin {
            Some(content) => content,
            None => quarry.cut(some_length(dice, LONGEST)),
        };
        let file = Self {
            mode,
            changes: dice.below(5) == 0,
            path: format!("/{}", others.len()),
            versions: Arc::new(Mutex::new(vec![content])),
            seen: Arc::default(),
            durable: None,
        };
        file.publish(origin);
        file
    }

    /// Another content under the same URL. No two versions have the same length, which is all that an agent which resumes
    /// tells of its version.
    pub(super) fn change(&mut self, dice: &mut Dice, quarry: &mut Quarry, origin: &FakeOrigin) {
        let lengths: Vec<u64> = self.versions.lock().iter().map(Content::len).collect();
        let mut length = some_length(dice, LONGEST);
        while lengths.contains(&length) {
            length -= 1;
        }
        self.versions.lock().push(quarry.cut(length));
        self.durable = None;
        *self.seen.lock() = false;
        self.publish(origin);
    }

    fn publish(&self, origin: &FakeOrigin) {
        let reply = Reply::content(&self.current());
        let reply = if self.changes { reply.with("Cache-Control", "no-cache") } else { reply };
        origin.serve(&self.path, reply);
    }
}

/// Clients that are under way.
#[derive(Debug, Default)]
pub(super) struct Clients {
    tasks: JoinSet<u64>,
    next: u16,
    /// Downloads that were cut or refused and went on, over all.
    pub(super) interrupted: u64,
    pub(super) downloads: u64,
}

impl Clients {
    /// Sends clients to some new files, some unfinished and some complete ones.
    pub(super) fn send(&mut self, dice: &mut Dice, to: std::net::SocketAddr, files: &[File], new: usize) {
        self.gather();
        let fresh = files.len() - new;
        for (index, file) in files.iter().enumerate() {
            // How many are thrown depends on what is there by now.
            let dice = &mut dice.split();
            let wanted = if index >= fresh {
                1 + dice.below(3)
            } else if *file.seen.lock() {
                u64::from(dice.below(4) == 0)
            } else {
                dice.below(2)
            };
            for _ in 0..wanted {
                let patient = self.patient(dice, to);
                if self.tasks.len() < CLIENTS {
                    self.download(patient, file);
                }
            }
            if dice.below(4) == 0 {
                let (patient, len) = (self.patient(dice, to), file.current().len());
                let from = dice.below(len);
                let range = (from, from + 1 + dice.below((len - from).min(3 << 20)));
                let (target, versions) = (file.target(), file.versions.clone());
                self.tasks.spawn(async move {
                    patient.try_range(&target, &versions, range.0, range.1).await;
                    0
                });
            }
        }
    }

    fn patient(&mut self, dice: &mut Dice, to: std::net::SocketAddr) -> Patient {
        self.next = self.next % 60_000 + 1;
        Patient { to, device: self.next, says_which: dice.below(2) == 0 }
    }

    fn download(&mut self, patient: Patient, file: &File) {
        let (target, versions, seen, path) =
            (file.target(), file.versions.clone(), file.seen.clone(), file.path.clone());
        self.downloads += 1;
        self.tasks.spawn(async move {
            let got = patient.download(&target, &versions).await;
            if versions.lock().last().is_some_and(|content| content.tag == got.tag) {
                *seen.lock() = true;
            }
            if got.restarts > 0 {
                println!("  {path} was begun anew by a client: {got:?}");
            }
            u64::from(got.cuts + got.refused > 0)
        });
    }

    /// Those that are done; the first that met a wrong byte fails the story.
    fn gather(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            self.interrupted += done.unwrap();
        }
    }

    /// Waits for all.
    pub(super) async fn finish(&mut self) {
        while let Some(done) = self.tasks.join_next().await {
            self.interrupted += done.unwrap();
        }
    }
}
