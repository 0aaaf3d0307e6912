//! [`Health`]: whether a drive is in service, as a pure core: what its operations and its probes came to, and when it goes
//! out of service and comes back. Who runs operations and probes is not known here.
//!
//! # Rules
//! - An operation that is overdue, a file system that is read-only, gone or another one: out at once.
//! - Errors of the medium (EIO and the like): a bad place of a disk is no bad disk. Out after [`FAILURES`] operations in a
//!   row, none of which succeeded, or after two probes in a row; the first failure has probes made at once.
//! - A full file system is no fault of the drive.
//! - Back after a good probe. What went out for errors of the medium rests before, each time twice as long if it did not
//!   stay well for [`WELL`]: up to [`LONGEST_REST`].

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// So many failed operations in a row, and no success between, are too many.
pub(super) const FAILURES: u32 = 8;

/// So many failed probes in a row are too many.
const BAD_PROBES: u32 = 2;

/// How long a drive that failed rests at first.
const REST: Duration = Duration::from_secs(4);
/// How long at most.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// Who stays in service so long rests shortly again, should it fail.
const WELL: Duration = Duration::from_secs(600);

/// Why a drive is out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It takes no bytes, and gives those that it has.
    ReadOnly,
    /// Its operations fail.
    Failing,
    /// An operation does not end.
    Hung,
    /// Its directory is not there, or is not that of the drive.
    Lost,
    /// Another drive is in its place.
    OtherDrive,
    /// It could not be opened when the cache started.
    Absent,
}

/// What an operation or a probe says against a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Bytes cannot be had or put.
    Medium,
    /// Nothing can be changed.
    ReadOnly,
    /// The file system is not there any more.
    Gone,
    /// Another drive is there.
    Other,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// An operation succeeded.
    Done,
    /// One failed, through the drive's fault.
    Failed(Fault),
    /// One has not ended in time.
    Overdue,
    /// A probe succeeded.
    Good,
    /// A probe failed.
    Bad(Fault),
}

/// Of one drive.
#[derive(Debug, Clone)]
pub(super) struct Health {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Probes in a row that failed.
    bad_probes: u32,
    /// How long it rests when it fails the next time.
    rest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InService { since: Option<Instant> },
    Out { reason: Reason, since: Instant, until: Instant },
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::ReadOnly, Self::Failing, Self::Hung, Self::Lost, Self::OtherDrive, Self::Absent];

    /// Its name in answers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Failing => "failing",
            Self::Hung => "hung",
            Self::Lost => "lost",
            Self::OtherDrive => "other-drive",
            Self::Absent => "absent",
        }
    }

    /// Whether what the drive holds can be read all the same.
    pub(super) fn gives(self) -> bool {
        self == Self::ReadOnly
    }
}

impl Fault {
    /// What an error says against the drive; `None` when it is no fault of the drive: no such name, no room, no
    /// descriptors.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        let errno = Errno::from_io_error(error)?;
        match errno {
            // The last two also come of a foreign file in the place of one of ours: a probe tells.
            Errno::IO | Errno::UCLEAN | Errno::NODEV | Errno::NXIO => Some(Self::Medium),
            Errno::ROFS => Some(Self::ReadOnly),
            Errno::STALE | Errno::NOTCONN | Errno::SHUTDOWN => Some(Self::Gone),
            _ => None,
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Medium => Reason::Failing,
            Self::ReadOnly => Reason::ReadOnly,
            Self::Gone => Reason::Lost,
            Self::Other => Reason::OtherDrive,
        }
    }
}

impl Health {
    /// Of a drive that was just opened.
    pub(super) fn new() -> Self {
        Self { state: State::InService { since: None }, failures: 0, bad_probes: 0, rest: REST }
    }

    /// Why it is out of service, and since when.
    pub(super) fn out(&self) -> Option<(Reason, Instant)> {
        match self.state {
            State::InService { .. } => None,
            State::Out { reason, since, .. } => Some((reason, since)),
        }
    }

    /// Whether operations have failed since the last one that succeeded: a probe should tell.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures > 0
    }

    /// Takes note of what happened.
    pub(super) fn on(&mut self, event: Event, now: Instant) {
        match event {
            Event::Done => self.failures = 0,
            Event::Failed(Fault::Medium) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES {
                    self.leave(Reason::Failing, now);
                }
            }
            Event::Bad(Fault::Medium) => {
                self.failures = self.failures.max(1);
                self.bad_probes = self.bad_probes.saturating_add(1);
                if self.bad_probes >= BAD_PROBES {
                    self.leave(Reason::Failing, now);
                }
            }
            Event::Failed(fault) | Event::Bad(fault) => self.leave(fault.reason(), now),
            Event::Overdue => self.leave(Reason::Hung, now),
            Event::Good => {
                (self.failures, self.bad_probes) = (0, 0);
                if matches!(self.state, State::Out { until, .. } if now >= until) {
                    self.state = State::InService { since: Some(now) };
                }
            }
        }
    }

    fn leave(&mut self, reason: Reason, now: Instant) {
        let until = match (reason, self.state) {
            (Reason::Failing, State::Out { until, .. }) => until,
            (Reason::Failing, State::InService { since }) => {
                let was_well = since.is_none_or(|since| now.saturating_duration_since(since) >= WELL);
                let rest = if was_well { REST } else { self.rest };
                self.rest = (rest * 2).min(LONGEST_REST);
                now + rest
            }
            _ => now,
        };
        let since = self.out().map_or(now, |(_, since)| since);
        self.state = State::Out { reason, since, until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After these events, each a second after the one before: the reason for being out.
    fn after(events: &[Event]) -> Option<Reason> {
        let (mut health, mut now) = (Health::new(), Instant::now());
        for event in events {
            health.on(*event, now);
            now += Duration::from_secs(1);
        }
        health.out().map(|(reason, _)| reason)
    }

    #[test]
    fn a_drive_goes_out_and_comes_back() {
        use Event::{Bad, Done, Failed, Good, Overdue};
        let (medium, bad) = (Failed(Fault::Medium), Bad(Fault::Medium));
        let rows: [(&[Event], Option<Reason>); 17] = [
            (&[], None),
            (&[medium], None),
            (&[medium; 7], None),
            (&[medium; 8], Some(Reason::Failing)),
            (&[medium, medium, medium, medium, Done, medium, medium, medium, medium, medium], None),
            (&[medium, medium, medium, Good, medium, medium, medium, medium, medium, medium], None),
            (&[medium, Bad(Fault::Medium)], None),
            (&[medium, Bad(Fault::Medium), Done, Bad(Fault::Medium)], Some(Reason::Failing)),
            (&[Bad(Fault::Medium), Good, Bad(Fault::Medium)], None),
            (&[Failed(Fault::ReadOnly)], Some(Reason::ReadOnly)),
            (&[Failed(Fault::ReadOnly), Done], Some(Reason::ReadOnly)),
            (&[Failed(Fault::ReadOnly), Good], None),
            (&[Failed(Fault::Gone), Bad(Fault::Other)], Some(Reason::OtherDrive)),
            (&[Bad(Fault::Gone), Good], None),
            (&[Overdue, Overdue, Done], Some(Reason::Hung)),
            (&[Overdue, Good], None),
            (&[bad, bad, Good, Good, Good], Some(Reason::Failing)),
        ];
        for (events, reason) in rows {
            assert_eq!(after(events), reason, "{events:?}");
        }
        assert_eq!(after(&[bad, bad, Good, Good, Good, Good]), None, "it has rested");
    }

    #[test]
    fn who_fails_again_and_again_rests_longer() {
        let (mut health, mut now) = (Health::new(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..9 {
            (0..2).for_each(|_| health.on(Event::Bad(Fault::Medium), now));
            let begun = now;
            while health.out().is_some() {
                now += Duration::from_secs(1);
                health.on(Event::Good, now);
            }
            rests.push((now - begun).as_secs());
            now += Duration::from_secs(30);
        }
        assert_eq!(rests, [4, 8, 16, 32, 64, 128, 256, 300, 300]);
        now += WELL;
        (0..2).for_each(|_| health.on(Event::Bad(Fault::Medium), now));
        health.on(Event::Good, now + REST);
        assert!(health.out().is_none(), "it was well for long");
    }

    #[test]
    fn what_is_no_fault_of_the_drive_says_nothing() {
        for errno in [Errno::NOENT, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::INTR, Errno::EXIST, Errno::ACCESS]
        {
            assert_eq!(Fault::of(&errno.into()), None, "{errno:?}");
        }
        assert_eq!(Fault::of(&Errno::IO.into()), Some(Fault::Medium));
        assert_eq!(Fault::of(&Errno::ROFS.into()), Some(Fault::ReadOnly));
        assert_eq!(Fault::of(&Errno::STALE.into()), Some(Fault::Gone));
        assert_eq!(Fault::of(&io::ErrorKind::UnexpectedEof.into()), None, "a file cut short");
    }
}
