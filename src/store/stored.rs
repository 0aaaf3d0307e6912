//! What becomes of a finished body whose content is stored already, perhaps on another drive: that one is asked on its own
//! threads, and nobody else waits for it should it hang. How a body becomes a blob is in `publish`.

use std::sync::Arc;

use super::blob::{Blob, Facts, Life};
use super::drive::{DataFile, Drive};
use super::entries::Entry;
use super::error::{CompleteError, ReadError};
use super::fill_file::Finished;
use super::inner::Inner;
use super::mend::{Patch, patches};
use super::partial::{Partial, Phase};
use super::writer::Completed;
use super::{disk, layout};
use crate::content::Digest;

/// Where content is, as far as memory knows. What is on a drive out of service counts as missing, and what is on one that
/// takes nothing is stored anew.
pub(super) enum Whereabouts {
    Nowhere,
    /// It is visible and not durable yet.
    Visible(Arc<Blob>),
    OnDrive {
        drive: Arc<Drive>,
        life: Arc<Life>,
        open: Option<Arc<Blob>>,
    },
}

/// A body on its way to be a blob. Dropped before it is one, it is partial as before: nothing was lost, and it can be
/// resumed.
pub(super) struct Finishing {
    pub(super) partial: Arc<Partial>,
    /// Its entry when its writer began.
    pub(super) begun: Arc<Entry>,
    writer: u64,
}

/// What a drive said of content.
pub(super) struct Told {
    /// How many blobs had gone when it was asked.
    pub(super) gone: u64,
    pub(super) stored: Option<Arc<Blob>>,
}

/// What came of an attempt to make a body a blob.
pub(super) enum Attempt {
    Done(Completed),
    /// Another drive has to be asked first.
    Elsewhere(Box<Elsewhere>),
}

/// A body whose content another drive seems to have.
pub(super) struct Elsewhere {
    pub(super) finishing: Finishing,
    pub(super) finished: Finished,
    pub(super) drive: Arc<Drive>,
    pub(super) place: Whereabouts,
    /// Right bytes for blocks that do not hold there.
    pub(super) patches: Vec<Patch>,
    pub(super) gone: u64,
}

impl Whereabouts {
    /// The drive that has to be asked, unless nothing has to be read or written there.
    pub(super) fn to_ask(&self) -> Option<&Arc<Drive>> {
        match self {
            Self::Nowhere => None,
            Self::Visible(blob) => Some(blob.drive()).filter(|_| !blob.facts().broken().is_empty()),
            Self::OnDrive { drive, .. } => Some(drive),
        }
    }

    /// Bytes of a copy for blocks that do not hold, no more than fit into memory well.
    pub(super) fn patches(&self, copy: &DataFile) -> Vec<Patch> {
        let of = |facts: &Facts| patches(facts, copy.file());
        match self {
            Self::Nowhere => Vec::new(),
            Self::Visible(blob) => of(blob.facts()),
            Self::OnDrive { life, .. } => life.facts().map(|facts| of(facts)).unwrap_or_default(),
        }
    }
}

impl Finishing {
    /// Hashes the rest of a body that its `writer`-th writer has brought to its end at `length`.
    pub(super) fn finish(
        partial: &Arc<Partial>,
        begun: Arc<Entry>,
        writer: u64,
        length: u64,
    ) -> Result<(Self, Finished), CompleteError> {
        let finishing = Self { partial: Arc::clone(partial), begun, writer };
        let newest = partial.state.lock().entry.upgrade();
        let expected = newest.as_ref().unwrap_or(&finishing.begun).record.expected;
        let finished = partial.finish(writer, length, expected.map(|expected| expected.digest()))?;
        Ok((finishing, finished))
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        {
            let mut state = self.partial.state.lock();
            if !matches!(state.phase, Phase::Completing | Phase::Writing) || state.writer != self.writer {
                return;
            }
            state.phase = Phase::Writing;
        }
        Inner::writer_gone(&self.partial, self.writer);
    }
}

impl Elsewhere {
    /// Asks the other drive, and goes on.
    pub(super) async fn go_on(self, store: &Arc<Inner>) -> std::io::Result<Result<Attempt, CompleteError>> {
        let Self { finishing, finished, drive, place, patches, gone } = self;
        let job = Arc::clone(store);
        let stored = drive.pool.run(move || {
            let stored = job.look(place);
            stored.iter().for_each(|stored| patches.iter().for_each(|patch| Inner::mend_with(stored, patch)));
            stored
        });
        // Out of service meanwhile, it counts as missing.
        let told = Told { gone, stored: stored.await.ok().flatten() };
        let (home, job) = (Arc::clone(&finishing.partial.drive), Arc::clone(store));
        home.pool.run(move || job.publish_blob(finishing, finished, Some(told))).await
    }
}

impl Inner {
    /// Where content is. Reads no file.
    pub(super) fn whereabouts(&self, digest: Digest) -> Whereabouts {
        let life = {
            let mut table = self.entries.lock();
            match table.blobs.get(&digest).map(|pending| pending.blob.clone()) {
                Some(Some(blob)) if blob.drive().in_service() => return Whereabouts::Visible(blob),
                Some(Some(_)) => return Whereabouts::Nowhere,
                Some(None) | None => table.life(digest),
            }
        };
        let Some(life) = life else { return Whereabouts::Nowhere };
        let open = life.open_blob().filter(|_| !life.is_gone());
        let drive = match open.as_ref().map_or_else(|| self.home(&digest), |open| Ok(Arc::clone(open.drive()))) {
            Ok(drive) if drive.in_service() => drive,
            Err(ReadError::Gone) => {
                self.blob_missing(&life);
                return Whereabouts::Nowhere;
            }
            Ok(_) | Err(_) => return Whereabouts::Nowhere,
        };
        Whereabouts::OnDrive { drive, life, open }
    }

    /// The blob, if its content is stored already. One whose file is gone or not as long as it should be is given up:
    /// what takes its place would count beside it. Runs on the calling thread.
    pub(super) fn look(self: &Arc<Self>, place: Whereabouts) -> Option<Arc<Blob>> {
        let (drive, life, open) = match place {
            Whereabouts::Nowhere => return None,
            Whereabouts::Visible(blob) => return Some(blob).filter(|blob| blob.drive().in_service()),
            Whereabouts::OnDrive { drive, life, open } => (drive, life, open),
        };
        let blob = match open.map_or_else(|| self.open_on(&drive, &life), Ok) {
            Ok(blob) => blob,
            Err(ReadError::Gone) => {
                self.blob_missing(&life);
                return None;
            }
            Err(_) => return None,
        };
        if !blob.drive().in_service() {
            return None;
        }
        let identity = disk::identity(blob.file().file()).ok()?;
        let named = blob.drive().dir.stat(&layout::blob(&life.digest)).ok()?;
        if identity.size() == blob.length() && named.is_some_and(|named| identity.is(&named)) {
            return Some(blob);
        }
        self.blob_missing(&life);
        None
    }
}
