//! What becomes of the map of a partial body beside the records that are appended to it: it is written anew under another
//! record, and asked again for a block whose last state does not hold.

use std::io;
use std::sync::Arc;

use super::block_map::{BlockState, MapRecord};
use super::partial::{Partial, Phase};
use super::{disk, layout, map_file};
use crate::content::Record;

impl Partial {
    /// Writes the map anew under another record; the old one counts until the new one is durable.
    pub(super) fn rewrite_map(&self, record: &Record) -> io::Result<()> {
        let mut core = self.core.lock();
        let (dir, map) = (&self.drive.dir, layout::partial_map(self.id()));
        // All states of each block: the last ones may be ahead of the bytes on the medium.
        let old = dir.read(&map).unwrap_or_default();
        let bytes = {
            let state = self.state.lock();
            if matches!(state.phase, Phase::Ended(_) | Phase::Failed) {
                return Ok(());
            }
            let mut bytes = map_file::encode_begin(record, state.map.block_size());
            match map_file::records_until(&old, core.map_end) {
                Some(records) => bytes.extend_from_slice(records),
                None => state.map.records().for_each(|known| bytes.extend_from_slice(&known.encode())),
            }
            let boundary = core.boundary.filter(|_| state.rehash.is_none());
            let midstate = boundary.and_then(|boundary| map_file::encode_midstate(&boundary, &state.map));
            bytes.extend(midstate.into_iter().flatten());
            bytes.extend(map_file::encode_superseded(state.superseded));
            bytes
        };
        let new = layout::partial_map_new(self.id());
        dir.unlink(&new)?;
        let file = dir.create_file(&new)?;
        disk::write_at(&file, &bytes, 0)?;
        disk::sync_data(&file)?;
        dir.rename(&new, &map)?;
        dir.sync_directory(layout::PARTIAL)?;
        core.map_end = bytes.len() as u64;
        core.saved = core.boundary.map_or(0, |boundary| boundary.position);
        if core.map.is_some() {
            core.map = Some(Arc::new(file));
        }
        Ok(())
    }

    /// Has the map written anew, of which one header is left that says what the body belongs to: the next flipped bit may
    /// hit that.
    pub(super) fn mend_header(self: &Arc<Self>, record: Record) {
        tracing::info!(drive = %self.drive.label(), partial = %self.id(), "a block map has one intact header and gets a second one");
        let job = Arc::clone(self);
        drop(self.drive.syncs.run(move || {
            if let Err(error) = job.rewrite_map(&record) {
                job.drive.failed("write a block map anew", &error);
            }
        }));
    }

    /// The longest earlier state of a block that its bytes hold to, with them: after a cut the map may be ahead of the
    /// data, and what was durable before the block went on is there still.
    pub(super) fn earlier_state(&self, block: u64, begin: u64) -> Option<(MapRecord, Vec<u8>)> {
        let map = self.drive.dir.read(&layout::partial_map(self.id())).ok()?;
        let file = self.file().ok()?;
        let mut states = map_file::states_of(&map, block);
        states.retain(|state| state.valid_len > 0);
        states.sort_by_key(|state| std::cmp::Reverse(state.valid_len));
        states.dedup();
        states.into_iter().find_map(|state| {
            let content = disk::read_exact_at(file.file(), begin, state.valid_len as usize).ok()?;
            let holds = BlockState { valid_len: state.valid_len, crc: state.crc }.verify(&content);
            holds.then_some((state, content))
        })
    }
}
