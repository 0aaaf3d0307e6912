//! [`Passage`]: a body on its way from upstream to its clients without a place on a drive. Its leader puts bytes in at one
//! end, the clients of its flight take them out of the window; and [`WindowMemory`] bounds what all windows keep together.
//!
//! How far the leader may go is `sliding`'s business, what it asks upstream `slide`'s.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::sliding::{Pace, SlidingWindow};
use crate::store::Progress;

/// Most bytes that one window keeps.
pub(super) const LONGEST: u64 = 32 * 1024 * 1024;
/// Bytes that a window lets go of at a time.
const PIECE: usize = 64 * 1024;
/// What a window may keep however many there are, in bytes. Half of it is for what comes at once.
const LEAST: u64 = 2 * 1024 * 1024;
/// The part of the memory that is kept for that: one in so many.
const KEPT_FOR_LEAST: u64 = 2;

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it has come, and it is what it should be, as far as anything tells.
    Whole,
    /// Bytes of it are wrong.
    Wrong,
    /// No more comes.
    Cut,
}

/// A body that passes.
pub(super) struct Passage {
    state: Mutex<State>,
    /// Tells readers of bytes and of the end.
    changed: watch::Sender<()>,
    /// Tells the leader that somebody has read on.
    taken: Notify,
}

struct State {
    window: SlidingWindow,
    ended: Option<Ended>,
    share: Share,
}

/// The memory for all windows.
#[derive(Debug)]
pub(super) struct WindowMemory {
    most: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    windows: u64,
    bytes: u64,
}

/// What one window has of it; given back when dropped.
#[derive(Debug)]
struct Share {
    memory: Arc<WindowMemory>,
    bytes: u64,
}

impl WindowMemory {
    /// For at most `most` bytes.
    pub(super) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: Mutex::default() })
    }

    /// A passage whose first byte is the one at `start`; `None` when there are too many.
    pub(super) fn open(self: &Arc<Self>, start: u64) -> Option<Arc<Passage>> {
        {
            let mut used = self.used.lock();
            if used.windows >= self.most / KEPT_FOR_LEAST / LEAST {
                return None;
            }
            used.windows += 1;
        }
        let share = Share { memory: Arc::clone(self), bytes: 0 };
        let state = State { window: SlidingWindow::new(start), ended: None, share };
        let (changed, _) = watch::channel(());
        Some(Arc::new(Passage { state: Mutex::new(state), changed, taken: Notify::new() }))
    }
}

impl Share {
    /// How many bytes the window may keep: an equal part, of what others leave.
    fn size(&self) -> u64 {
        let used = self.memory.used.lock();
        let equal = LONGEST.min(self.memory.most / used.windows.max(1));
        let free = (self.memory.most - self.memory.most / KEPT_FOR_LEAST).saturating_sub(used.bytes);
        equal.min(self.bytes.saturating_add(free)).max(LEAST / 2)
    }

    /// It keeps so many.
    fn note(&mut self, bytes: u64) {
        let mut used = self.memory.used.lock();
        used.bytes = used.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.memory.used.lock();
        used.windows = used.windows.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(self.bytes);
    }
}

impl Passage {
    /// Resolves as soon as the byte at `offset` is there, or is past, or no more comes.
    pub(super) async fn wait(&self, offset: u64) -> Progress {
        let mut changed = self.changed.subscribe();
        loop {
            // Looked at after subscribing: what changes from here on wakes.
            if let Some(progress) = self.progress(offset) {
                return progress;
            }
            if changed.changed().await.is_err() {
                return Progress::Stopped;
            }
        }
    }

    fn progress(&self, offset: u64) -> Option<Progress> {
        let state = self.state.lock();
        if state.window.has(offset) {
            return Some(Progress::Present(state.window.end()));
        }
        match state.ended {
            _ if offset < state.window.begin() => Some(Progress::Stopped),
            Some(Ended::Whole) => Some(Progress::Ended(state.window.end())),
            Some(Ended::Wrong | Ended::Cut) => Some(Progress::Stopped),
            None => None,
        }
    }

    /// Whether a client that begins at `offset` gets all it needs.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        let state = self.state.lock();
        let ahead = state.window.end().saturating_add(LONGEST);
        matches!(state.ended, None | Some(Ended::Whole)) && state.window.begin() <= offset && offset <= ahead
    }

    /// At least one and at most `most` bytes from `at` on, if they are there.
    pub(super) fn read(&self, at: u64, most: u64) -> Option<Bytes> {
        self.state.lock().window.read(at, most)
    }

    /// End of the bytes that are there from `offset` on.
    pub(super) fn present_until(&self, offset: u64) -> u64 {
        let state = self.state.lock();
        if state.window.has(offset) { state.window.end() } else { offset }
    }

    /// A client has read on.
    pub(super) fn taken(&self) {
        self.taken.notify_one();
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.state.lock().ended
    }

    /// Position of the next byte that comes.
    pub(super) fn end(&self) -> u64 {
        self.state.lock().window.end()
    }

    /// How many bytes are kept at present, at most.
    pub(super) fn size(&self) -> u64 {
        self.state.lock().share.size()
    }

    /// What the leader may do while its clients are at these positions.
    pub(super) fn pace(&self, now: Instant, clients: &[u64]) -> Pace {
        let mut state = self.state.lock();
        let (size, begin) = (state.share.size(), state.window.begin());
        let pace = state.window.pace(now, clients, size);
        let (len, has_moved) = (state.window.len(), state.window.begin() != begin);
        state.share.note(len);
        drop(state);
        if has_moved {
            // Who was left behind is told.
            self.changed.send_replace(());
        }
        pace
    }

    /// The next bytes have come.
    pub(super) fn push(&self, bytes: &[Bytes]) {
        let mut state = self.state.lock();
        // In memory of their own: what came may be a small part of a large buffer. In small pieces, since the window lets
        // go of whole ones, and a client may hold one for long.
        for piece in bytes.concat().chunks(PIECE) {
            state.window.push(Bytes::copy_from_slice(piece));
        }
        let len = state.window.len();
        state.share.note(len);
        drop(state);
        self.changed.send_replace(());
    }

    /// No more comes. Only the first time counts.
    pub(super) fn close(&self, ended: Ended) {
        self.state.lock().ended.get_or_insert(ended);
        self.changed.send_replace(());
    }

    /// Resolves when a client has read on since the last call.
    pub(super) async fn is_taken(&self) {
        self.taken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn windows_share_their_memory_and_never_keep_more() {
        let memory = WindowMemory::new(128 * MIB);
        let now = Instant::now();
        let mut passages = Vec::new();
        let full = Bytes::from(vec![0; MIB as usize]);
        while let Some(passage) = memory.open(0) {
            // Nobody reads anything.
            while passage.pace(now, &[0]) == Pace::Go {
                passage.push(std::slice::from_ref(&full));
            }
            passages.push(passage);
        }
        let kept = |passage: &Arc<Passage>| passage.state.lock().window.len();
        assert_eq!(passages.len(), 32);
        assert_eq!(kept(&passages[0]), LONGEST);
        assert!(passages.iter().all(|passage| kept(passage) >= MIB));
        assert!(passages.iter().map(kept).sum::<u64>() <= 128 * MIB);
        drop(passages);
        let used = memory.used.lock();
        assert_eq!((used.windows, used.bytes), (0, 0));
    }

    #[tokio::test]
    async fn readers_are_told_of_bytes_and_of_the_end() {
        let passage = WindowMemory::new(128 * MIB).open(10).unwrap();
        let waiting = tokio::spawn({
            let passage = Arc::clone(&passage);
            async move { (passage.wait(10).await, passage.wait(13).await, passage.wait(u64::MAX).await) }
        });
        passage.push(&[Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!(passage.read(11, 100).unwrap(), "bc");
        assert_eq!(passage.wait(9).await, Progress::Stopped, "it began behind that");
        passage.close(Ended::Whole);
        passage.close(Ended::Cut);
        assert_eq!(waiting.await.unwrap(), (Progress::Present(13), Progress::Ended(13), Progress::Ended(13)));
    }
}
