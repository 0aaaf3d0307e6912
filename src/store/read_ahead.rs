//! Reads a journal's segments one after the other, each on another thread while the one before is applied: to read and
//! decode them takes as long as to take in what they say, and look-ups wait for both.

use std::io;
use std::sync::mpsc;
use std::thread;

use super::drive::Drive;
use super::journal_format::{Frame, Frames};
use super::layout;

/// A segment of a journal.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) content: io::Result<Content>,
}

/// What is in it.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// From the place on that was asked for.
    pub(super) frames: Vec<Frame>,
    /// Where the last intact one ends.
    pub(super) intact_end: usize,
}

/// Calls `each` with these segments in order, each read from an offset on, until it returns `false`. At most two are in
/// memory.
pub(super) fn each_segment(drive: &Drive, segments: &[(u64, usize)], mut each: impl FnMut(Segment) -> bool) {
    // Not worth a thread.
    let few = segments.len() < 2;
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        let ahead = move || {
            drive.pulse.adopt_thread();
            // It fails once nobody wants more.
            let _ = segments.iter().try_for_each(|segment| sender.send(read(drive, *segment)));
        };
        let started = if few {
            None
        } else {
            thread::Builder::new().name("read-ahead".to_owned()).spawn_scoped(scope, ahead).ok()
        };
        if started.is_some() {
            let _ = receiver.into_iter().all(each);
        } else {
            let _ = segments.iter().all(|segment| each(read(drive, *segment)));
        }
    });
}

fn read(drive: &Drive, (number, from): (u64, usize)) -> Segment {
    let content = drive.dir.read(&layout::segment(number)).map(|bytes| {
        let mut frames = Frames::new(&bytes, from);
        let all = frames.by_ref().collect();
        let intact_end = frames.intact_end();
        Content { frames: all, intact_end, bytes }
    });
    Segment { number, content }
}
