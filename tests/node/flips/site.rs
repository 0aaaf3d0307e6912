//! A node with bodies of all kinds, and their readers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::BLOCK;
use super::damage::Damage;
use crate::rig::Dice;
use crate::rig::fake_origin::FakeOrigin;
use crate::rig::origin_reply::Reply;
use crate::rig::patient::{Got, Patient, Versions};
use crate::rig::quarry::{Content, Quarry};
use crate::rig::rules::{Mode, ranged_for_clients};
use crate::rig::running_node::{RunningNode, Setup};

const KIB: u64 = 1 << 10;
/// After that a file that changed is noticed, even if nobody reads it.
const LOOKED_AT_AGAIN: Duration = Duration::from_millis(1100);

pub(super) struct Site {
    pub(super) origin: FakeOrigin,
    pub(super) setup: Setup,
    data: SocketAddr,
    pub(super) node: Option<RunningNode>,
    pub(super) bodies: Vec<Body>,
}

/// A content with its URLs.
pub(super) struct Body {
    pub(super) content: Content,
    versions: Versions,
    pub(super) targets: Vec<String>,
    /// How much of it is stored, from its begin on; `None` for all.
    pub(super) part: Option<u64>,
}

/// What came of reading everything.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Bytes of upstream.
    pub(super) fetched: u64,
    /// Requests to it.
    pub(super) requests: usize,
    pub(super) cuts: u32,
    pub(super) refused: u32,
    /// Most cuts and refusals of one client.
    pub(super) most_troubles: u32,
}

impl Site {
    /// Small bodies, some of a few blocks, two of `many` and of half as many, and parts of bodies.
    pub(super) async fn filled(dice: &mut Dice, many: u64) -> Self {
        let origin = FakeOrigin::start().await;
        let setup = Setup::new()
            .origin("ranged.example.com", origin.address, Mode::Ranged.rule())
            .origin("whole.example.com", origin.address, Mode::Whole.rule())
            .origin("part.example.com", origin.address, ranged_for_clients())
            .set("storage.reverify", json!("500ms"))
            .set("storage.scrub_rate", json!("100 MB"))
            .set("storage.scrub_every", json!("1s"))
            .set("drain_grace", json!("1s"));
        let node = setup.start();
        let (setup, data) = (node.setup_with_these_ports(), node.data);
        let mut quarry = Quarry::new(dice.below(u64::MAX), many * BLOCK + BLOCK);
        let wholes = [1, 700, 5 * KIB, 16 * KIB, 20 * KIB, 63 * KIB, 300 * KIB, BLOCK, BLOCK + 1, 3 * BLOCK + 17];
        let wholes = wholes.into_iter().chain([5 * BLOCK, many / 2 * BLOCK + 99, many * BLOCK]);
        let parts = [(3 * BLOCK, 2 * BLOCK), (6 * BLOCK + 5, 4 * BLOCK + BLOCK / 2), (many * BLOCK, many / 2 * BLOCK)];
        let all = wholes.map(|len| (len, None)).chain(parts.map(|(len, part)| (len, Some(part))));
        let bodies = all.enumerate().map(|(number, (len, part))| {
            let content = quarry.cut(len);
            let hosts: &[&str] = match (part, number % 3) {
                (Some(_), _) => &["part.example.com"],
                (None, 0) => &["ranged.example.com", "whole.example.com"],
                (None, 1) => &["ranged.example.com"],
                (None, _) => &["whole.example.com"],
            };
            let reply = Reply::content(&content);
            let targets = hosts.iter().map(|host| {
                let path = format!("/{number}/{host}");
                origin.serve(&path, reply.clone());
                format!("/-/{host}{path}")
            });
            let targets = targets.collect();
            let versions = Arc::new(Mutex::new(vec![content.clone()]));
            Body { content, versions, targets, part }
        });
        let bodies = bodies.collect();
        let site = Self { origin, setup, data, node: Some(node), bodies };
        for body in &site.bodies {
            for target in &body.targets {
                body.read(site.client(), target, None).await;
            }
        }
        site.settle().await;
        site
    }

    fn client(&self) -> Patient {
        Patient { to: self.data, device: 7, says_which: true }
    }

    async fn settle(&self) {
        if let Some(node) = &self.node {
            node.wait_until_idle().await;
            node.wait_for_commits().await;
            // A bit that flips before that may be the only one that knew of something.
            node.wait_for_mirror().await;
        }
    }

    /// Stops the node in one way or another, changes something, and starts it.
    pub(super) async fn damage_stopped(&mut self, dice: &mut Dice) -> Damage {
        if let Some(node) = self.node.take() {
            if dice.below(2) == 0 {
                node.kill().await;
            } else {
                node.stop().await;
            }
        }
        let damage = Damage::strike(&self.setup, dice, false);
        self.node = Some(self.setup.start());
        damage
    }

    async fn start_again(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
        self.node = Some(self.setup.start());
    }

    /// Changes something under a node that runs, and waits until that must be noticed.
    pub(super) async fn damage_live(&mut self, dice: &mut Dice) -> Damage {
        let damage = Damage::strike(&self.setup, dice, true);
        tokio::time::sleep(LOOKED_AT_AGAIN).await;
        damage
    }

    /// Reads everything that is stored by each of its URLs.
    pub(super) async fn read_all(&self, dice: &mut Dice) -> Reading {
        let (before, requests) = (self.origin.body_bytes(), self.origin.requests());
        let mut reading = Reading::default();
        for body in &self.bodies {
            for target in &body.targets {
                for got in body.read(self.client(), target, Some(dice)).await {
                    reading.cuts += got.cuts;
                    reading.refused += got.refused;
                    reading.most_troubles = reading.most_troubles.max(got.cuts + got.refused);
                }
            }
        }
        self.settle().await;
        reading.fetched = self.origin.body_bytes() - before;
        reading.requests = self.origin.requests() - requests;
        reading
    }

    /// Bytes of blobs that are not right on the drive, in whole blocks: what it may cost to have them right.
    pub(super) fn debt(&self) -> u64 {
        self.bodies.iter().filter(|body| body.part.is_none()).map(|body| body.debt(&self.setup)).sum()
    }

    pub(super) fn longest_partial(&self) -> u64 {
        self.bodies.iter().filter_map(|body| body.part).max().unwrap_or(0)
    }

    /// With the origin off all complete bodies are hits still.
    pub(super) async fn end(mut self, dice: &mut Dice) {
        // What was in memory hid what is wrong on the drive.
        self.start_again().await;
        self.read_all(dice).await;
        self.origin.switch_off();
        self.start_again().await;
        for body in self.bodies.iter().filter(|body| body.part.is_none()) {
            for target in &body.targets {
                body.read(self.client(), target, None).await;
            }
        }
    }
}

impl Body {
    /// Reads what is stored of it: in one piece, or in several from the end to the begin.
    pub(super) async fn read(&self, client: Patient, target: &str, dice: Option<&mut Dice>) -> Vec<Got> {
        let end = self.part.unwrap_or(self.content.len());
        let cut = dice.and_then(|dice| (dice.below(3) == 0).then(|| dice.below(end))).filter(|cut| *cut > 0);
        match (cut, self.part) {
            (Some(cut), _) => {
                let second = client.range(target, &self.versions, cut, end).await;
                vec![second, client.range(target, &self.versions, 0, cut).await]
            }
            (None, Some(part)) => vec![client.range(target, &self.versions, 0, part).await],
            (None, None) => {
                // As update agents do: they resume without a word of which version they have a part.
                let agent = Patient { says_which: false, ..client };
                vec![agent.download(target, &self.versions).await]
            }
        }
    }

    fn debt(&self, setup: &Setup) -> u64 {
        let all = self.content.len() * self.targets.len() as u64;
        let Ok(bytes) = std::fs::read(setup.path("drive1").join(self.content.blob())) else { return all };
        if bytes.len() as u64 != self.content.len() {
            return all;
        }
        let (right, block) = (self.content.bytes.chunks(BLOCK as usize), BLOCK as usize);
        right.zip(bytes.chunks(block)).filter(|(a, b)| a != b).map(|(a, _)| a.len() as u64).sum()
    }
}
