//! Room on the drives: which drive takes a body, and what has to go for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::drive::Drive;
use super::inner::Inner;
use super::pinning;
use super::victim::Name;
use crate::content::{Digest, PartialId};

/// Once something has to go, so much of the quota more goes with it: 1/20, down to 95 %.
const MARGIN: u64 = 20;
/// How often room is made before giving up: what was freed may have been taken by others.
const ROUNDS: usize = 3;

impl Inner {
    /// The drives that could take a body of `length` bytes at all, the one with the most room first.
    pub(super) fn fitting_drives(&self, length: u64) -> Vec<Arc<Drive>> {
        let fits = |drive: &&Arc<Drive>| drive.in_service() && length <= drive.settings.quota;
        let mut drives: Vec<_> = self.drives.iter().filter(fits).cloned().collect();
        drives.sort_by_key(|drive| std::cmp::Reverse(drive.settings.quota.saturating_sub(drive.used())));
        drives
    }

    /// Removes what is asked for least until `needed` bytes fit; `false` when they do not. `refused` says that the
    /// file system did not take them although the numbers say that there is room: out of inodes, or a quota of its
    /// own.
    pub(super) async fn make_room(self: &Arc<Self>, drive: &Arc<Drive>, needed: u64, refused: bool) -> bool {
        for round in 0..ROUNDS {
            let (store, job) = (Arc::clone(self), Arc::clone(drive));
            let least = if refused && round == 0 { needed } else { 0 };
            let evicted = drive.pool.run(move || {
                // One at a time: what others have chosen but not told yet would be chosen for twice.
                let _turn = job.evicting.lock();
                let (excess, leaving) = (job.excess(needed).max(least), job.leaving());
                (excess, leaving, store.evict_above(&job, excess, leaving))
            });
            let Ok((excess, leaving, freed)) = evicted.await else { return false };
            if excess == 0 {
                return true;
            }
            drive.barrier().await;
            if freed.saturating_add(leaving) >= excess {
                // Blocks that readers still hold open stay for a while; that is no reason to refuse.
                return true;
            }
            // The first time, what could go may only have waited for the commit.
            if freed == 0 && round > 0 {
                return false;
            }
        }
        let job = Arc::clone(drive);
        drive.pool.run(move || job.excess(needed)).await.is_ok_and(|excess| excess == 0)
    }

    /// Removes what is above the watermarks, with the next batch.
    pub(super) fn relieve(&self, drive: &Drive) {
        if !drive.in_service() {
            return;
        }
        // Whoever is at it sees to what is too much now.
        let Some(_turn) = drive.evicting.try_lock() else { return };
        self.evict_above(drive, drive.excess(0), drive.leaving());
    }

    fn evict_above(&self, drive: &Drive, excess: u64, leaving: u64) -> u64 {
        match excess.saturating_sub(leaving) {
            0 => 0,
            rest => self.evict(drive, rest.saturating_add(drive.settings.quota / MARGIN)),
        }
    }

    /// Chooses victims of `wanted` bytes and queues their removal. Blobs that are not durable yet, bodies that
    /// somebody writes, and what is pinned stay. Returns the bytes that will be free.
    fn evict(&self, drive: &Drive, wanted: u64) -> u64 {
        let (mut freed, now) = (0_u64, pinning::now());
        if self.pinning.are_unknown() || self.pinning.leave_nothing(drive, drive.sieve.lock().extent()) {
            return 0;
        }
        while freed < wanted {
            // Anew for each victim, so that look-ups need not wait for all of them.
            let mut table = self.entries.lock();
            // Under the lock: who was told that something is pinned finds it so.
            let pins = self.pinning.pins();
            let mut pinned = 0_usize;
            let mut is_pinned = |is_it: bool| {
                pinned = pinned.saturating_add(usize::from(is_it));
                is_it
            };
            let victim = drive.sieve.lock().next_victim(|victim| match victim {
                Name::Blobs(prefix) => {
                    let blobs = self.index.blobs_beginning(drive.id, prefix);
                    let mut stays = |digest: &Digest| {
                        table.blobs.contains_key(digest) || is_pinned(self.is_pinned_blob(&table, &pins, digest, now))
                    };
                    blobs.is_empty() || blobs.iter().any(&mut stays)
                }
                Name::Partial(id) => table.partials.get(&partial_id(*id)).is_none_or(|partial| {
                    partial.has_writer() || is_pinned(Self::is_pinned_partial(partial, &pins, now))
                }),
            });
            self.sweeps.fetch_add(1, Ordering::AcqRel);
            let Some((victim, size)) = victim else {
                if pinned > 0 {
                    self.pinning.refused_room(drive, wanted.saturating_sub(freed));
                }
                // Each was looked at once at least.
                let extent = drive.sieve.lock().extent();
                if pinned >= extent.objects {
                    self.pinning.nothing_is_left(drive, extent);
                }
                break;
            };
            match victim {
                Name::Blobs(prefix) => {
                    for digest in self.index.blobs_beginning(drive.id, &prefix) {
                        self.drop_blob_sized(&mut table, drive, digest, size, None);
                        self.metrics.evictions.inc();
                    }
                }
                Name::Partial(id) => {
                    let partial = table.partials.get(&partial_id(id)).cloned();
                    let entry = partial.as_ref().and_then(|partial| partial.state.lock().entry.upgrade());
                    if let Some((partial, entry)) = partial.zip(entry) {
                        self.drop_partial(&mut table, &entry, &partial, false);
                    }
                }
            }
            freed = freed.saturating_add(size);
        }
        if freed > 0 {
            tracing::info!(drive = %drive.label(), bytes = freed, "evicted");
        }
        freed
    }
}

fn partial_id(bytes: [u8; 8]) -> PartialId {
    PartialId(u64::from_be_bytes(bytes))
}
