//! [`AtRest`]: whether the file of a partial body is there and still as this process has left it; and the check of its
//! blocks. Only its writer changes it: when something else did, or a set time is over, no block counts before it is checked
//! anew. Of complete bodies that is `checked`'s and `blob`'s business.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{self, FileIdentity};
use super::drive::DataFile;
use super::error::ReadError;
use super::partial::{Partial, Phase, State};

/// How long a file is believed not to have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a file was when it was looked at last.
#[derive(Debug)]
pub(super) struct AtRest {
    /// `None` since the writer has changed it.
    identity: Option<FileIdentity>,
    /// When it has to be looked at again.
    due: Instant,
    /// Since when nothing was forgotten.
    since: Instant,
}

/// Present bytes of a block that hold.
struct Checked {
    content: Bytes,
    /// They are all that the map says of the block.
    is_all: bool,
}

impl AtRest {
    /// Of a file of which no block is checked, or that is being written.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { identity: None, due: now, since: now }
    }

    /// The writer changes the file.
    pub(super) fn is_written(&mut self) {
        self.identity = None;
    }

    /// Looks at the file when that was not done for a second. Says whether nothing counts any more that was checked.
    fn has_changed(
        &mut self,
        file: &File,
        is_idle: bool,
        now: Instant,
        reverify: impl FnOnce() -> Duration,
    ) -> io::Result<bool> {
        let is_bound = self.identity.is_some();
        if now < self.due && (is_bound || !is_idle) {
            return Ok(false);
        }
        let identity = disk::identity(file)?;
        let changed = self.identity.is_some_and(|known| known != identity);
        let overdue = now.saturating_duration_since(self.since) >= reverify();
        self.identity = Some(identity).filter(|_| is_bound || is_idle);
        self.due = now + LOOK_AGAIN;
        if overdue {
            self.since = now;
        }
        Ok(changed || overdue)
    }
}

impl State {
    /// All blocks count only when their CRC holds, as those of an earlier process do.
    pub(super) fn distrust(&mut self) {
        self.unchecked = self.map.records().map(|record| u64::from(record.block)).collect();
        self.at_rest = AtRest::new();
    }
}

impl Partial {
    /// Looks at the open file at most each second, before what was checked of it is believed.
    pub(super) fn look_at(&self, file: &DataFile, state: &mut State) -> io::Result<()> {
        let reverify = || self.store.upgrade().map_or(Duration::MAX, |store| store.settings.reverify);
        let is_idle = matches!(state.phase, Phase::Idle);
        if state.at_rest.has_changed(file.file(), is_idle, Instant::now(), reverify)? {
            state.unchecked = state.map.records().map(|record| u64::from(record.block)).collect();
        }
        Ok(())
    }

    /// Reads the present part of a block and compares it with its CRC. A block that fails becomes absent; so do those
    /// behind it that fail as well, since what is written over or cut off seldom ends with a block: who reads on is not cut
    /// at each of them.
    pub(super) fn check(&self, block: u64) -> Result<Bytes, ReadError> {
        let checked = self.check_alone(block);
        let has_failed = |checked: &Result<Checked, ReadError>| {
            matches!(checked, Ok(Checked { is_all: false, .. }) | Err(ReadError::Damaged { .. }))
        };
        if has_failed(&checked) {
            let is_unchecked = |block: &u64| self.state.lock().unchecked.contains(block);
            let behind = (block.saturating_add(1)..).take_while(is_unchecked);
            behind.take_while(|block| has_failed(&self.check_alone(*block))).for_each(|_| {});
        }
        checked.map(|checked| checked.content)
    }

    /// The same of one block. What somebody else found out meanwhile counts.
    fn check_alone(&self, block: u64) -> Result<Checked, ReadError> {
        let (known, begin) = {
            let state = self.state.lock();
            (state.map.block(block), state.map.block_size().begin_of(block))
        };
        let Some(known) = known else { return Err(ReadError::Absent { offset: begin }) };
        let file = self.file().map_err(|error| self.unreadable(block, error))?;
        let content = match disk::read_exact_at(file.file(), begin, known.valid_len as usize) {
            Err(error) if !disk::is_unreadable(&error) => return Err(self.unreadable(block, error)),
            read => read.ok().filter(|content| known.verify(content)),
        };
        if let Some(content) = content {
            // What was appended since was appended by this process.
            self.state.lock().unchecked.remove(&block);
            return Ok(Checked { content: content.into(), is_all: true });
        }
        let is_as_it_was = |state: &State| state.unchecked.contains(&block) && state.map.block(block) == Some(known);
        if let Some((earlier, content)) = self.earlier_state(block, begin) {
            let mut state = self.state.lock();
            if is_as_it_was(&state) {
                state.map.apply(earlier);
                state.unchecked.remove(&block);
                state.rehash = Some(state.rehash.map_or(begin, |other| other.min(begin)));
                drop(state);
                self.wake();
                return Ok(Checked { content: content.into(), is_all: false });
            }
        }
        let now = Some(self.state.lock()).filter(|state| !is_as_it_was(state)).and_then(|state| state.map.block(block));
        if let Some(now) = now.filter(|now| *now != known) {
            // Another reader has found the state before, or other bytes came.
            let content = disk::read_exact_at(file.file(), begin, now.valid_len as usize).ok();
            if let Some(content) = content.filter(|content| now.verify(content)) {
                return Ok(Checked { content: content.into(), is_all: false });
            }
        }
        self.drop_block(block, true, "its CRC does not hold");
        Err(ReadError::Damaged { block })
    }

    /// The file is not there any more: neither is the body, so that whoever asks for it has it fetched.
    pub(super) fn is_missing(&self) {
        let Some((store, entry)) = self.store.upgrade().zip(self.state.lock().entry.upgrade()) else { return };
        let mut table = store.entries.lock();
        if let Some(partial) = entry.partial().filter(|partial| !partial.is_failed()) {
            tracing::warn!(drive = %self.drive.label(), partial = %self.id(), "the file of a partial body is missing");
            store.drop_partial(&mut table, &entry, partial, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_change_is_seen_after_a_second_and_the_writers_own_is_none() {
        let file = tempfile::tempfile().unwrap();
        let mut rest = AtRest::new();
        let begun = Instant::now();
        let look = |rest: &mut AtRest, millis, is_idle| {
            rest.has_changed(&file, is_idle, begun + Duration::from_millis(millis), || HOUR).unwrap()
        };
        assert!(!look(&mut rest, 0, true), "bound");
        file.write_all_at(b"x", 0).unwrap();
        assert!(!look(&mut rest, 900, true), "not yet");
        assert!(look(&mut rest, 1100, true));
        assert!(!look(&mut rest, 2200, true), "it stays as it is");
        rest.is_written();
        file.write_all_at(b"xy", 0).unwrap();
        assert!(!look(&mut rest, 3300, false));
        assert!(!look(&mut rest, 3400, true), "bound anew at once");
        file.write_all_at(b"xyz", 0).unwrap();
        assert!(look(&mut rest, 4500, true));
    }

    #[test]
    fn what_was_checked_counts_for_a_set_time() {
        let file = tempfile::tempfile().unwrap();
        for is_idle in [true, false] {
            let mut rest = AtRest::new();
            let begun = rest.since;
            let mut look = |seconds| rest.has_changed(&file, is_idle, begun + Duration::from_secs(seconds), || HOUR);
            assert!(!look(0).unwrap() && !look(3599).unwrap());
            assert!(look(3601).unwrap());
            assert!(!look(3700).unwrap());
        }
    }
}
