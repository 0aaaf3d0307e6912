//! Snapshots that are read again, and those that must not be used.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::super::super::pulse::Pulse;
use super::super::super::pulse::injection::Inject;
use super::*;

fn sample() -> Objects {
    let mut objects = Objects::new();
    let at = |offset| At { segment: 2, offset };
    for number in 0..200_u32 {
        let digest = Digest::of(&number.to_le_bytes());
        objects.put_blob(digest, at(number * 10), u64::from(number) * 4096);
        for url in 0..number % 3 {
            let key = KeyHash::from_bytes([number as u8; 16]);
            let older = (url == 1).then_some(UnixMillis(77));
            objects.put_row(key, u64::from(url), at(number * 10 + url), digest, older);
        }
    }
    // Only named.
    objects.put_row(KeyHash::from_bytes([222; 16]), 5, at(9), Digest::of(b"named"), None);
    objects
}

fn write_to_file(objects: &Objects, mark: Watermark) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    let mut output = Output { file: &file, offset: 0, check: 0, piece: Vec::new() };
    encode(objects, DriveId(9), mark, &mut output).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn plain(objects: &Objects) -> Vec<String> {
    let mut told = Vec::new();
    let tell = |blob: &super::super::objects::BlobSlot, rows: &[super::super::Found]| {
        let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        told.push(format!("{:?} {:?} {} {rows:?}", blob.digest, blob.at, blob.units));
        Ok::<_, ()>(())
    };
    objects.each_slot(tell).unwrap();
    told.sort();
    told
}

#[test]
fn what_was_written_is_read_again() {
    let mark = Watermark { segment: 5, offset: 1234 };
    let objects = sample();
    let bytes = write_to_file(&objects, mark);
    let (read, at) = decode(&bytes[..], bytes.len() as u64, DriveId(9)).unwrap();
    assert_eq!((plain(&read), at), (plain(&objects), mark));
    let rows = |objects: &Objects, number| {
        let mut rows: Vec<_> =
            objects.of_key(KeyHash::from_bytes([number; 16])).iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        rows
    };
    assert!((0..=222).all(|number| rows(&read, number) == rows(&objects, number)));
    assert!(!rows(&read, 222).is_empty());
    let error = decode(&bytes[..], bytes.len() as u64, DriveId(8)).unwrap_err();
    assert_eq!(error.to_string(), "it is of another drive");
}

#[test]
fn no_snapshot_that_changed_or_was_cut_is_used() {
    let bytes = write_to_file(&sample(), Watermark { segment: 5, offset: 1234 });
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(decode(&changed[..], bytes.len() as u64, DriveId(9)).is_err(), "changed at {at}");
    }
    for end in (0..bytes.len()).step_by(7) {
        assert!(decode(&bytes[..end], end as u64, DriveId(9)).is_err(), "cut at {end}");
    }
}

#[test]
fn each_piece_that_is_read_is_an_operation_of_its_drive() {
    let objects = sample();
    let bytes = write_to_file(&objects, Watermark { segment: 5, offset: 1234 });
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let load = || decode(Beating { file: &file, at: 0 }, bytes.len() as u64, DriveId(9));
    assert_eq!(plain(&load().unwrap().0), plain(&objects));
    // The thread works for a drive, which a tool's does not.
    let pulse = Pulse::new(Duration::from_secs(60), &Arc::default());
    pulse.adopt_thread();
    pulse.injected.set(Inject::FailOnce(Errno::IO));
    assert_eq!(load().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert_eq!(plain(&load().unwrap().0), plain(&objects));
}
