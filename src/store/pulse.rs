//! [`Pulse`]: what a drive's operations are at, and how its [`Health`] stands for everybody else. Each operation of `disk`
//! beats here; who waits for the drive learns at once that it is out of service. Probing it is `watch`'s business.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::drive::DriveId;
use super::health::{Event, Fault, Health, Reason};

/// How an operation may take its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Soon, or something is wrong.
    Plain,
    /// It may have to wait until others are written: it may take long while syncs end.
    Write,
    /// The same, and its end shows that the drive writes.
    Sync,
}

/// The drives whose content counts as missing.
#[derive(Debug, Default)]
pub(super) struct Away {
    any: AtomicBool,
    drives: RwLock<Vec<DriveId>>,
}

/// Of one drive.
#[derive(Debug)]
pub(super) struct Pulse {
    limit: Duration,
    health: Mutex<Health>,
    /// Why it is out of service, and since when: until all is ready for its return.
    out: Mutex<Option<(Reason, Instant)>>,
    operations: Mutex<Operations>,
    /// Whether the drive gives what it has.
    gives: watch::Sender<bool>,
    takes: AtomicBool,
    /// Whether it is known what the drive has: before, it gives and takes nothing, however well it is.
    read_in: AtomicBool,
    away: Arc<Away>,
    drive: OnceLock<DriveId>,
    /// To be woken when something happened.
    watcher: OnceLock<Thread>,
    #[cfg(test)]
    pub(super) injected: injection::Injected,
}

#[derive(Debug, Default)]
struct Operations {
    next: u64,
    running: Vec<(u64, Instant, Kind)>,
    /// When a sync ended last.
    synced: Option<Instant>,
    /// When any operation ended last.
    ended: Option<Instant>,
}

thread_local! {
    /// The drive for which this thread works.
    static OF_THREAD: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

impl Away {
    /// Whether the content of a drive counts as missing.
    pub(super) fn has(&self, drive: DriveId) -> bool {
        self.any.load(Ordering::Acquire) && self.drives.read().contains(&drive)
    }

    fn set(&self, drive: DriveId, is_away: bool) {
        let mut drives = self.drives.write();
        drives.retain(|other| *other != drive);
        if is_away {
            drives.push(drive);
        }
        self.any.store(!drives.is_empty(), Ordering::Release);
    }
}

impl Pulse {
    /// Of a drive whose operations are overdue after `limit`. It gives and takes nothing before [`Pulse::is_read_in`].
    pub(super) fn new(limit: Duration, away: &Arc<Away>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            health: Mutex::new(Health::new()),
            out: Mutex::new(None),
            operations: Mutex::default(),
            gives: watch::channel(false).0,
            takes: AtomicBool::new(false),
            read_in: AtomicBool::new(false),
            away: Arc::clone(away),
            drive: OnceLock::new(),
            watcher: OnceLock::new(),
            #[cfg(test)]
            injected: injection::Injected::default(),
        })
    }

    /// Says whose pulse it is, once that is known.
    pub(super) fn is_of(&self, drive: DriveId) {
        let _ = self.drive.set(drive);
        let health = self.health.lock();
        if !self.read_in.load(Ordering::Acquire) {
            self.away.set(drive, true);
        }
        drop(health);
        #[cfg(test)]
        self.injected.is_of(drive);
    }

    /// Whether it is known what the drive has.
    pub(super) fn is_known(&self) -> bool {
        self.read_in.load(Ordering::Acquire)
    }

    /// What the drive has is known: it gives and takes, if it is in service.
    pub(super) fn is_read_in(&self) {
        let health = self.health.lock();
        self.read_in.store(true, Ordering::Release);
        match health.out() {
            None => self.comes(),
            Some((reason, _)) => self.show(reason.gives()),
        }
    }

    /// Says who is to be woken when something happens.
    pub(super) fn is_watched_by(&self, watcher: Thread) {
        let _ = self.watcher.set(watcher);
    }

    /// This thread works for the drive from now on.
    pub(super) fn adopt_thread(self: &Arc<Self>) {
        OF_THREAD.set(Some(Arc::clone(self)));
    }

    /// Whether new content may be put on the drive.
    pub(super) fn takes(&self) -> bool {
        self.takes.load(Ordering::Acquire)
    }

    /// Whether what the drive has can be had.
    pub(super) fn gives(&self) -> bool {
        *self.gives.borrow()
    }

    /// Why it is out of service, and since when.
    pub(super) fn out(&self) -> Option<(Reason, Instant)> {
        *self.out.lock()
    }

    /// Whether it could be in service.
    pub(super) fn is_well(&self) -> bool {
        self.health.lock().out().is_none()
    }

    /// Whether a probe should be made at once.
    pub(super) fn is_suspect(&self) -> bool {
        self.health.lock().is_suspect()
    }

    /// Resolves when the drive does not give what it has.
    pub(super) async fn gone(&self) {
        let mut gives = self.gives.subscribe();
        // Fails only when the sender is dropped, and that is in `self`.
        let _ = gives.wait_for(|gives| !gives).await;
    }

    /// Takes note of what happened. What comes back is told by [`Pulse::returned`].
    pub(super) fn on(&self, event: Event) {
        let (before, after) = {
            let mut health = self.health.lock();
            let before = health.out();
            health.on(event, Instant::now());
            let after = health.out();
            if let Some((reason, _)) = after {
                *self.out.lock() = after;
                self.takes.store(false, Ordering::Release);
                self.show(reason.gives() && self.read_in.load(Ordering::Acquire));
            }
            (before, after)
        };
        if before.map(|(reason, _)| reason) != after.map(|(reason, _)| reason) || matches!(event, Event::Failed(_)) {
            self.watcher.get().inspect(|watcher| watcher.unpark());
        }
    }

    /// The drive is in service again, if its health says so still. To be called when everything is ready for that.
    pub(super) fn returned(&self) {
        let health = self.health.lock();
        if health.out().is_none() && self.read_in.load(Ordering::Acquire) {
            self.comes();
        }
    }

    fn comes(&self) {
        self.takes.store(true, Ordering::Release);
        self.show(true);
        // Last: who sees it sees the rest.
        *self.out.lock() = None;
    }

    fn show(&self, gives: bool) {
        if let Some(drive) = self.drive.get() {
            self.away.set(*drive, !gives);
        }
        self.gives.send_if_modified(|now| std::mem::replace(now, gives) != gives);
    }

    /// Whether an operation has not ended in time.
    pub(super) fn is_overdue(&self) -> bool {
        let operations = self.operations.lock();
        let now = Instant::now();
        operations.running.iter().any(|(_, begun, kind)| is_overdue(*kind, *begun, operations.synced, now, self.limit))
    }

    /// Whether no operation has run for so long.
    pub(super) fn rests_for(&self, time: Duration) -> bool {
        let operations = self.operations.lock();
        operations.running.is_empty() && operations.ended.is_none_or(|at| at.elapsed() >= time)
    }

    /// Whether a sync has ended since then.
    pub(super) fn has_synced_since(&self, then: Instant) -> bool {
        self.operations.lock().synced.is_some_and(|at| at >= then)
    }

    fn begin(&self, kind: Kind) -> Beat<'_> {
        let mut operations = self.operations.lock();
        let id = operations.next;
        operations.next += 1;
        operations.running.push((id, Instant::now(), kind));
        Beat { pulse: self, id, kind }
    }
}

/// An operation that goes on. It ends with a panic too.
struct Beat<'a> {
    pulse: &'a Pulse,
    id: u64,
    kind: Kind,
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        let mut operations = self.pulse.operations.lock();
        operations.running.retain(|(other, ..)| *other != self.id);
        operations.ended = Some(Instant::now());
        if self.kind == Kind::Sync && !std::thread::panicking() {
            operations.synced = Some(Instant::now());
        }
    }
}

/// What writes is excused as long as syncs end: a slow disk is at what many wait for.
fn is_overdue(kind: Kind, begun: Instant, synced: Option<Instant>, now: Instant, limit: Duration) -> bool {
    let since = match kind {
        Kind::Plain => begun,
        Kind::Write | Kind::Sync => synced.map_or(begun, |synced| synced.max(begun)),
    };
    now.saturating_duration_since(since) >= limit
}

/// Performs an operation on a drive: that of `pulse`, or else the one for which the thread works.
pub(super) fn during<T>(
    pulse: Option<&Arc<Pulse>>,
    kind: Kind,
    perform: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(pulse) = pulse.cloned().or_else(|| OF_THREAD.with_borrow(Clone::clone)) else { return perform() };
    let beat = pulse.begin(kind);
    #[cfg(test)]
    let outcome = pulse.injected.meet().and_then(|()| perform());
    #[cfg(not(test))]
    let outcome = perform();
    drop(beat);
    match &outcome {
        Ok(_) if pulse.is_suspect() => pulse.on(Event::Done),
        Ok(_) => {}
        Err(error) => Fault::of(error).into_iter().for_each(|fault| pulse.on(Event::Failed(fault))),
    }
    outcome
}

#[cfg(test)]
pub(super) mod injection {
    //! Faults that tests have a drive show.

    use std::io;
    use std::time::Duration;

    use parking_lot::{Condvar, Mutex};
    use rustix::io::Errno;

    use super::DriveId;

    /// What drives will meet when they are opened.
    static TO_MEET: Mutex<Vec<(DriveId, Inject)>> = Mutex::new(Vec::new());

    /// The drive hangs when it is opened the next time: at its `number`-th operation after it is known which one it is.
    pub(in crate::store) fn hang_next(drive: DriveId, number: u32) {
        meet_next(drive, Inject::HangAfter(number - 1));
    }

    /// The drive meets this when it is opened the next time, once it is known which one it is.
    pub(in crate::store) fn meet_next(drive: DriveId, what: Inject) {
        TO_MEET.lock().push((drive, what));
    }

    /// What operations on a drive meet.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(in crate::store) enum Inject {
        #[default]
        Nothing,
        /// They do not end before this changes.
        Hang,
        /// So many succeed, the others do not end before this changes.
        HangAfter(u32),
        /// They fail.
        Fail(Errno),
        /// The next one fails.
        FailOnce(Errno),
        /// So many succeed, the next one fails.
        FailOnceAfter(u32, Errno),
        /// So many succeed, the others fail.
        FailAfter(u32, Errno),
        /// Each takes so long.
        Slow(Duration),
    }

    #[derive(Debug, Default)]
    pub(in crate::store) struct Injected {
        what: Mutex<Inject>,
        changed: Condvar,
    }

    impl Injected {
        pub(in crate::store) fn set(&self, what: Inject) {
            *self.what.lock() = what;
            self.changed.notify_all();
        }

        /// Whether operations fail.
        pub(in crate::store) fn is_failing(&self) -> bool {
            matches!(*self.what.lock(), Inject::Fail(_))
        }

        /// Whether operations do not end.
        pub(in crate::store) fn is_hanging(&self) -> bool {
            *self.what.lock() == Inject::Hang
        }

        pub(super) fn is_of(&self, drive: DriveId) {
            let mut to_meet = TO_MEET.lock();
            if let Some(at) = to_meet.iter().position(|(other, _)| *other == drive) {
                self.set(to_meet.swap_remove(at).1);
            }
        }

        pub(super) fn meet(&self) -> io::Result<()> {
            let mut what = self.what.lock();
            *what = match *what {
                Inject::HangAfter(rest) => rest.checked_sub(1).map_or(Inject::Hang, Inject::HangAfter),
                Inject::FailOnceAfter(0, errno) => Inject::FailOnce(errno),
                Inject::FailOnceAfter(rest, errno) => Inject::FailOnceAfter(rest - 1, errno),
                Inject::FailAfter(0, errno) => Inject::Fail(errno),
                Inject::FailAfter(rest, errno) => Inject::FailAfter(rest - 1, errno),
                other => other,
            };
            while *what == Inject::Hang {
                self.changed.wait(&mut what);
            }
            match *what {
                Inject::Fail(errno) => Err(errno.into()),
                Inject::FailOnce(errno) => {
                    *what = Inject::Nothing;
                    Err(errno.into())
                }
                Inject::Slow(time) => {
                    drop(what);
                    std::thread::sleep(time);
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_overdue_and_a_sync_while_none_ends() {
        let limit = Duration::from_secs(8);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!is_overdue(Kind::Plain, begun, None, at(7), limit));
        assert!(is_overdue(Kind::Plain, begun, Some(at(7)), at(8), limit));
        assert!(is_overdue(Kind::Sync, begun, None, at(8), limit));
        assert!(!is_overdue(Kind::Sync, begun, Some(at(3)), at(8), limit));
        assert!(is_overdue(Kind::Sync, at(1), Some(begun), at(9), limit));
        assert!(is_overdue(Kind::Write, begun, None, at(8), limit));
        assert!(!is_overdue(Kind::Write, begun, Some(at(7)), at(14), limit));
    }

    #[test]
    fn an_operation_that_panics_has_ended() {
        let pulse = Pulse::new(Duration::ZERO, &Arc::default());
        let panics = || during(Some(&pulse), Kind::Sync, || -> io::Result<()> { panic!("as ordered") });
        let before = Instant::now();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(!pulse.is_overdue() && !pulse.has_synced_since(before));
    }

    #[test]
    fn what_fails_tells_everybody() {
        let away = Arc::new(Away::default());
        let pulse = Pulse::new(Duration::from_secs(8), &away);
        let id = DriveId(7);
        pulse.is_of(id);
        assert!(!pulse.takes() && !pulse.gives() && away.has(id), "nothing is known of it");
        pulse.returned();
        assert!(!pulse.takes() && !pulse.gives() && away.has(id), "nothing is known of it");
        pulse.is_read_in();
        let fail = |errno: rustix::io::Errno| drop(during(Some(&pulse), Kind::Plain, || Err::<(), _>(errno.into())));
        fail(rustix::io::Errno::NOSPC);
        assert!(pulse.takes() && pulse.gives() && !away.has(id));
        fail(rustix::io::Errno::ROFS);
        assert!(!pulse.takes() && pulse.gives() && !away.has(id), "what is there is given");
        fail(rustix::io::Errno::STALE);
        assert!(!pulse.gives() && away.has(id));
        pulse.on(Event::Good);
        assert!(!pulse.gives() && away.has(id), "not before all is ready");
        pulse.returned();
        assert!(pulse.takes() && pulse.gives() && !away.has(id) && !away.has(DriveId(8)));
    }
}
