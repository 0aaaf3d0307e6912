//! [`Day`]: the bytes that came from upstream on one day, and the file that keeps them over restarts, so that a process
//! that is started anew has no new day.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use jiff::civil::Date;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 256;

/// A day and what came on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    date: Date,
    /// Body bytes.
    pub(super) bytes: u64,
}

impl Day {
    /// A day on which nothing has come.
    pub(super) fn new(date: Date) -> Self {
        Self { date, bytes: 0 }
    }

    /// It is `today` now. A clock that goes back makes no new day: what has come counts on.
    pub(super) fn turn_to(&mut self, today: Date) {
        if today > self.date {
            self.bytes = 0;
        }
        self.date = today;
    }

    /// The day itself.
    #[cfg(feature = "fuzzing")]
    pub(super) fn date(&self) -> Date {
        self.date
    }

    /// Reads what a file says: the date and the bytes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, bytes) = text.trim_end().split_once(' ')?;
        Some(Self { date: date.parse().ok()?, bytes: bytes.parse().ok()? })
    }

    /// What the file at `path` says; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or says something else.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        use std::io::Read as _;

        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(LONGEST).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let fault = || io::Error::new(io::ErrorKind::InvalidData, "it is no date with a number of bytes");
        Self::parse(&text).map(Some).ok_or_else(fault)
    }

    /// Writes the file: the old one stays until the new one is on the disk.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{self}")?;
        file.sync_all()?;
        fs::rename(&new, path)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.date, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_later_day_begins_at_nothing() {
        let mut day = Day::new(date("2026-11-27"));
        day.bytes = 5;
        day.turn_to(date("2026-11-27"));
        day.turn_to(date("1970-01-01"));
        assert_eq!(day.bytes, 5, "a clock that goes back gives nothing");
        day.turn_to(date("1970-01-02"));
        assert_eq!(day.bytes, 0, "and takes nothing for ever");
    }

    #[test]
    fn the_file_says_what_was_written_or_that_it_cannot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("day");
        assert_eq!(Day::load(&path).unwrap(), None);
        let day = Day { date: date("2026-11-27"), bytes: u64::MAX };
        day.save(&path).unwrap();
        assert_eq!(Day::load(&path).unwrap(), Some(day));
        for text in ["", "2026-11-27", "2026-13-27 5", "2026-11-27 -5", "2026-11-27 5 6"] {
            fs::write(&path, text).unwrap();
            assert!(Day::load(&path).is_err(), "{text:?}");
        }
    }
}
