//! The simulated disk itself: what it must keep, and all that it may do with the rest.

use std::collections::BTreeSet;

use tempfile::TempDir;

use super::Random;
use super::disk::{Content, Cut, Disk, Node, Remains};
use super::recording::{Recording, Step};
use crate::store::disk;

fn create(name: &str, file: usize) -> Step {
    Step::Create { name: name.to_owned(), file }
}

fn write(file: usize, offset: u64, bytes: &[u8]) -> Step {
    Step::Write { file, offset, bytes: bytes.to_vec() }
}

fn rename(from: &str, to: &str) -> Step {
    Step::Rename { from: from.to_owned(), to: to.to_owned() }
}

fn sync(directory: &str) -> Step {
    Step::SyncDirectory { name: directory.to_owned() }
}

fn disk_after(steps: &[Step]) -> Disk {
    let mut disk = Disk::new(&["a", "b"]);
    steps.iter().for_each(|step| disk.apply(step));
    disk
}

/// Everything that may be left, by many cuts.
fn outcomes<T: Ord>(steps: &[Step], see: impl Fn(&Remains) -> T) -> BTreeSet<T> {
    let (disk, mut random) = (disk_after(steps), Random::new(7));
    (0..2000).map(|_| see(&disk.cut(Cut::any(&mut random), &mut random))).collect()
}

fn names(remains: &Remains) -> Vec<String> {
    let files = remains.names.iter().filter(|(_, node)| **node != Node::Directory);
    files.map(|(name, _)| name.clone()).collect()
}

fn sets(all: &[&[&str]]) -> BTreeSet<Vec<String>> {
    all.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect()
}

#[test]
fn what_was_synced_is_there() {
    let steps = [create("a/x", 0), write(0, 0, b"one"), Step::SyncData { file: 0 }, sync("a"), write(0, 3, b"two")];
    let left = outcomes(&steps, |remains| remains.files[&0].bytes.clone());
    let expected = [&b"one"[..], b"one\0\0\0", b"onetwo"];
    assert_eq!(left, expected.map(<[u8]>::to_vec).into());
    let cut = outcomes(&[create("a/x", 0), Step::SyncData { file: 0 }], names);
    assert_eq!(cut, sets(&[&[], &["a/x"]]), "data alone has no name");
}

#[test]
fn a_write_is_torn_at_sectors_only() {
    let steps = [create("a/x", 0), sync("a"), write(0, 500, &[1; 1100])];
    for bytes in outcomes(&steps, |remains| remains.files[&0].bytes.clone()) {
        let written = bytes.iter().filter(|byte| **byte == 1).count();
        assert!([0, 12, 524, 1036, 1100].contains(&written), "{written}");
        assert!(bytes.len() == 1600 || bytes.len() == 500 + written || bytes.is_empty(), "{}", bytes.len());
    }
}

#[test]
fn names_are_kept_each_by_itself() {
    let both = [create("a/x", 0), create("a/y", 1)];
    assert_eq!(outcomes(&both, names), sets(&[&[], &["a/x"], &["a/y"], &["a/x", "a/y"]]));
    let gone = [create("a/x", 0), sync("a"), Step::Unlink { name: "a/x".to_owned() }];
    assert_eq!(outcomes(&gone, names), sets(&[&[], &["a/x"]]));
    let below = [Step::MakeDirectory { name: "a/d".to_owned() }, create("a/d/x", 0), sync("a/d")];
    assert_eq!(outcomes(&below, names), sets(&[&[], &["a/d/x"]]));
}

#[test]
fn a_rename_loses_nothing_and_lasts_with_either_directory() {
    let begun = [create("a/x", 0), sync("a"), rename("a/x", "b/x")];
    let with = |more: &[Step]| outcomes(&[&begun[..], more].concat(), names);
    assert_eq!(with(&[]), sets(&[&["a/x"], &["b/x"], &["a/x", "b/x"]]));
    assert_eq!(with(&[sync("b")]), sets(&[&["b/x"], &["a/x", "b/x"]]));
    assert_eq!(with(&[sync("a")]), sets(&[&["b/x"]]));
    let replaced = [create("b/x", 0), sync("b"), create("a/x", 1), sync("a"), rename("a/x", "b/x")];
    let whose = outcomes(&replaced, |remains| match remains.names["b/x"] {
        Node::File(file) => (file, remains.names.contains_key("a/x")),
        Node::Directory => panic!("a file has become a directory"),
    });
    assert_eq!(whose, [(0, true), (1, false), (1, true)].into());
}

#[test]
fn what_a_store_does_is_noted_and_can_be_made_again() {
    let root = TempDir::new().unwrap();
    let recording = Recording::start(root.path(), &["drive"], 1);
    let dir = disk::Dir::open(&root.path().join("drive")).unwrap();
    dir.make_directory("d").unwrap();
    let file = dir.create_file("x").unwrap();
    disk::write_at(&file, b"hello world", 0).unwrap();
    disk::set_length(&file, 5).unwrap();
    disk::sync_data(&file).unwrap();
    dir.rename("x", "d/y").unwrap();
    dir.sync_directory("d").unwrap();
    dir.create_file("gone").unwrap();
    dir.unlink("gone").unwrap();
    assert!(recording.damage("drive/d/y", 1));
    let elsewhere = TempDir::new().unwrap();
    disk::Dir::open(elsewhere.path()).unwrap().create_file("foreign").unwrap();
    let mut disk = Disk::new(&["drive"]);
    recording.steps().iter().for_each(|step| disk.apply(step));
    let now = disk.now();
    assert_eq!(names(&now), ["drive/d/y"]);
    assert_eq!(now.files[&0], Content { bytes: b"hdllo".to_vec(), reserved: 0 });
    let again = TempDir::new().unwrap();
    now.write_to(again.path());
    assert_eq!(std::fs::read(again.path().join("drive/d/y")).unwrap(), b"hdllo");
}
