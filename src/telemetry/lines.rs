//! A bounded queue of log lines in front of a writer thread, so that nobody who logs waits for a slow reader
//! of standard output. What the lines say is not known here.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

/// Bytes that may wait for the writer. At 300 bytes a line it holds 14,000 lines: 50 ms at 280,000 requests a
/// second, or a reader that pauses for a second at 14,000.
const CAPACITY: usize = 4 * 1024 * 1024;

/// How long the writer lets lines gather after it wrote some, so that a busy log costs 20 writes a second and
/// not one for each line.
const GATHER: Duration = Duration::from_millis(50);

/// How long [`LineQueue::flush`] waits for a reader that does not read.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Where lines go. Cheap to clone; the writer ends when the last clone is dropped and everything is written.
#[derive(Clone, Debug)]
pub(super) struct LineQueue {
    shared: Arc<Shared>,
    _writer: Arc<CloseOnDrop>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the writer that there are lines, or that nobody will bring more.
    work: Condvar,
    /// Tells the writer not to let lines gather.
    hurry: Condvar,
    /// Tells those who flush that the writer wrote.
    done: Condvar,
    /// Lines that found no room or could not be written.
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its newline.
    pending: Vec<u8>,
    /// Number of lines accepted so far.
    accepted: u64,
    /// Of them, those that the writer is done with.
    finished: u64,
    /// Somebody waits for the writer.
    hurry: bool,
    closed: bool,
}

/// Closes the queue when the last handle goes.
#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl LineQueue {
    /// Starts the thread that writes to `sink`. Lines that are lost are counted in `dropped`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(sink: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            hurry: Condvar::new(),
            done: Condvar::new(),
            dropped,
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(sink))?;
        Ok(Self { _writer: Arc::new(CloseOnDrop(Arc::clone(&shared))), shared })
    }

    /// Accepts `line`, which ends with its only newline. Never waits for the sink; false when there was no room.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut state = self.shared.state.lock();
        if state.pending.len().saturating_add(line.len()) > CAPACITY {
            drop(state);
            self.shared.dropped.inc();
            return false;
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(line);
        state.accepted += 1;
        drop(state);
        if was_empty {
            self.shared.work.notify_one();
        }
        true
    }

    /// Waits until the lines accepted so far are written; false when the sink did not take them in 2 s.
    pub(super) fn flush(&self) -> bool {
        self.shared.flush()
    }
}

impl Shared {
    fn flush(&self) -> bool {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let mut state = self.state.lock();
        let wanted = state.accepted;
        while state.finished < wanted {
            state.hurry = true;
            self.hurry.notify_one();
            self.work.notify_one();
            if self.done.wait_until(&mut state, deadline).timed_out() {
                return state.finished >= wanted;
            }
        }
        true
    }

    /// The writer thread: until the queue is closed and empty.
    fn write_all(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state.lock();
            while state.pending.is_empty() {
                if state.closed {
                    return;
                }
                self.work.wait(&mut state);
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut state.pending);
            let accepted = state.accepted;
            let lines = accepted - state.finished;
            drop(state);

            if sink.write_all(&batch).and_then(|()| sink.flush()).is_err() {
                self.dropped.inc_by(lines);
            }

            let mut state = self.state.lock();
            state.finished = accepted;
            state.hurry = false;
            self.done.notify_all();
            let gathered = Instant::now() + GATHER;
            while !state.hurry && !state.closed && !self.hurry.wait_until(&mut state, gathered).timed_out() {}
        }
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_one();
        self.0.hurry.notify_one();
        self.0.flush();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{self, Receiver, SyncSender};

    use super::*;

    /// A sink that a test reads.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink that takes nothing until it is told.
    struct Held(Receiver<()>, SyncSender<()>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.send(()).unwrap();
            self.0.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "Dropped").unwrap()
    }

    #[test]
    fn lines_of_many_threads_arrive_whole_and_all() {
        let (sink, dropped) = (Captured::default(), counter());
        let queue = LineQueue::start(sink.clone(), dropped.clone()).unwrap();
        thread::scope(|scope| {
            for writer in 0..8 {
                let queue = &queue;
                scope.spawn(move || (0..1000).for_each(|n| assert!(queue.push(format!("{writer} {n}\n").as_bytes()))));
            }
        });
        assert!(queue.flush());
        let text = sink.text();
        for writer in 0..8 {
            let expected: Vec<String> = (0..1000).map(|n| format!("{writer} {n}")).collect();
            let found: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{writer} "))).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn dropping_the_last_handle_writes_what_waits() {
        let sink = Captured::default();
        let queue = LineQueue::start(sink.clone(), counter()).unwrap();
        let other = queue.clone();
        assert!(queue.push(b"one\n"));
        drop(queue);
        assert!(other.push(b"two\n"));
        drop(other);
        assert_eq!(sink.text(), "one\ntwo\n");
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_never_holds_up_who_logs() {
        let (go, wait) = mpsc::channel();
        let (entered, writing) = mpsc::sync_channel(0);
        let dropped = counter();
        let queue = LineQueue::start(Held(wait, entered), dropped.clone()).unwrap();
        assert!(queue.push(b"taken by the writer\n"));
        writing.recv().unwrap();
        let line = [b'x'; 1024];
        let accepted = (0..5000).filter(|_| queue.push(&line)).count();
        assert_eq!(accepted, CAPACITY / line.len());
        assert_eq!(dropped.get(), 5000 - accepted as u64);
        go.send(()).unwrap();
        // The sink now fails: the lines that wait are lost, and counted.
        drop(go);
        writing.recv().unwrap();
        assert!(queue.flush());
        assert_eq!(dropped.get(), 5000);
    }
}
