//! Bytes that turned out to be wrong, compared with right ones: clients that were given them may go on up to the first
//! difference. Until then the wrong ones lie in quarantine; when it is known they go.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::blob::Blob;
use super::drive::Drive;
use super::inner::Inner;
use super::pulse::{Kind, Pulse, during};
use super::{layout, quarantine};
use crate::content::{KeyHash, PartialId, Spoiled};

/// Bytes that are compared at a time.
const STEP: usize = 256 * 1024;

impl Inner {
    /// `right` is verified, and the body of `key`. Compares it, on the drives' threads, with what clients of the key were
    /// given and is wrong. Not now if the drive of the right ones is out of service: it may hang.
    pub(super) fn compare_with_wrong(self: &Arc<Self>, key: KeyHash, right: &Arc<Blob>) {
        for birth in self.given.spoiled_of(key) {
            // Each is asked on its own threads, since one may hang.
            let drives = self.drives.iter().filter(|drive| drive.in_service() && right.drive().pulse.gives());
            for drive in drives {
                let (store, right, job) = (Arc::clone(self), Arc::clone(right), Arc::clone(drive));
                drop(drive.pool.run(move || match store.compare_on(&job, key, birth, &right) {
                    Ok(Some(first_difference)) => {
                        tracing::info!(drive = %job.label(), partial = %birth, first_difference, "wrong bytes were compared");
                    }
                    Ok(None) => {}
                    Err(error) => job.failed("compare wrong bytes", &error),
                }));
            }
        }
    }

    /// What has been pushed out of the quarantine can never be gone on with.
    fn compare_on(&self, drive: &Drive, key: KeyHash, birth: PartialId, right: &Blob) -> io::Result<Option<u64>> {
        match drive.dir.stat(&format!("{}/{birth}", layout::QUARANTINE))? {
            Some(_) => self.compare(drive, key, birth, right).map(Some),
            None => Ok(None),
        }
    }

    fn compare(&self, drive: &Drive, key: KeyHash, birth: PartialId, right: &Blob) -> io::Result<u64> {
        let wrong = drive.dir.open_to_read(&format!("{}/{birth}", layout::QUARANTINE))?;
        let pulses = [&drive.pulse, &right.drive().pulse];
        let first_difference = first_difference([&wrong, right.file().file()], pulses)?;
        self.given.spoil(key, birth, Spoiled::From { first_difference, right: right.digest().prefix() });
        self.given.wait_durable();
        quarantine::remove(drive, &birth.to_string())?;
        Ok(first_difference)
    }
}

/// Length of what two files begin with alike, each on the drive of its pulse.
fn first_difference([one, other]: [&File; 2], [pulse, other_pulse]: [&Arc<Pulse>; 2]) -> io::Result<u64> {
    let (mut ones, mut others) = (vec![0; STEP], vec![0; STEP]);
    let mut at = 0;
    loop {
        let read_one = read_up_to(one, pulse, &mut ones, at)?;
        let read_other = read_up_to(other, other_pulse, &mut others, at)?;
        let common = read_one.iter().zip(read_other).take_while(|(one, other)| one == other).count();
        at += common as u64;
        if common < STEP {
            return Ok(at);
        }
    }
}

/// Reads until the buffer is full or the file ends, unless its drive is out of service.
fn read_up_to<'a>(file: &File, pulse: &Arc<Pulse>, buffer: &'a mut [u8], at: u64) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    if !pulse.gives() {
        return Err(io::Error::other("the drive is out of service"));
    }
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match during(Some(pulse), Kind::Plain, || file.read_at(rest, at + filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..filled])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::super::pulse::injection::Inject;
    use super::*;

    fn pulse() -> Arc<Pulse> {
        let pulse = Pulse::new(Duration::ZERO, &Arc::default());
        pulse.is_read_in();
        pulse
    }

    fn first_difference_of(one: &File, other: &File) -> u64 {
        first_difference([one, other], [&pulse(), &pulse()]).unwrap()
    }

    #[test]
    fn a_drive_that_hangs_meanwhile_is_found_out_and_one_that_is_out_is_not_read() {
        let (mine, theirs) = (pulse(), pulse());
        theirs.injected.set(Inject::Hang);
        let (job, its) = (Arc::clone(&mine), Arc::clone(&theirs));
        let read = std::thread::spawn(move || first_difference([&file_of(b"ab"), &file_of(b"ac")], [&job, &its]));
        while !theirs.is_overdue() {
            std::thread::yield_now();
        }
        assert!(!mine.is_overdue(), "it is the other one");
        theirs.injected.set(Inject::Nothing);
        assert_eq!(read.join().unwrap().unwrap(), 1);
        theirs.on(crate::store::health::Event::Overdue);
        assert!(first_difference([&file_of(b"ab"), &file_of(b"ac")], [&mine, &theirs]).is_err());
    }

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let right: Vec<u8> = (0..2 * STEP + 100).map(|at| (at % 251) as u8).collect();
        for at in [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP, right.len() - 1] {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert_eq!(first_difference_of(&file_of(&wrong), &file_of(&right)), at as u64);
            assert_eq!(first_difference_of(&file_of(&right[..at]), &file_of(&right)), at as u64, "too short");
            assert_eq!(first_difference_of(&file_of(&right), &file_of(&right[..at])), at as u64, "too long");
        }
        assert_eq!(first_difference_of(&file_of(&right), &file_of(&right)), right.len() as u64);
    }
}
