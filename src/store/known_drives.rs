//! Which paths are known as drives: a path that is, and has no identity, has lost its mount. It must not become a new
//! drive on the file system below. Lost with the state directory; then any empty directory is a new drive. When the file is
//! there and cannot be read, nobody can tell which paths were drives, and none becomes a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32c::crc32c;

use super::disk::{self, Dir};
use super::drive::{Drive, DriveId};

const NAME: &str = "drives.json";
const NEW: &str = "drives.json.new";
/// Stands among the paths, which are absolute. The first releases wrote none, and take one for a path: it stays as it is when
/// they add drives, and so says which paths it covers.
const CHECK: &str = "check";

/// Paths of drives and their ids.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct KnownDrives {
    drives: BTreeMap<String, String>,
    /// The file has a check of all of them.
    is_checked: bool,
    /// The file is there and cannot be read.
    doubt: Option<Arc<Doubt>>,
}

/// What a path was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// No drive: an empty directory becomes a new one.
    Nothing,
    /// This one.
    Drive(DriveId),
    /// It cannot be told: whatever drive is there is used, and no new one is made.
    Unsure(Arc<Doubt>),
}

/// A file that cannot be read, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

impl Before {
    /// The drive that the path is known as.
    pub(super) fn drive(&self) -> Option<DriveId> {
        if let Self::Drive(id) = self { Some(*id) } else { None }
    }
}

impl From<Option<DriveId>> for Before {
    fn from(known: Option<DriveId>) -> Self {
        known.map_or(Self::Nothing, Self::Drive)
    }
}

impl KnownDrives {
    /// Reads what the state directory at `path` says, and tells when it cannot be read.
    pub(super) fn read(state: &Dir, path: &Path) -> Self {
        let known = Self::read_again(state, path);
        known.tell_doubt();
        known
    }

    /// The same for who reads it time and again: tells nothing.
    pub(super) fn read_again(state: &Dir, path: &Path) -> Self {
        let unreadable =
            |reason| Self { doubt: Some(Arc::new(Doubt { file: path.join(NAME), reason })), ..Self::default() };
        match state.read(NAME) {
            Ok(text) => {
                decode(&text).map_or_else(unreadable, |(drives, is_checked)| Self { drives, is_checked, doubt: None })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => unreadable(error.to_string()),
        }
    }

    /// Tells that the file cannot be read, if so.
    pub(super) fn tell_doubt(&self) {
        if let Some(doubt) = &self.doubt {
            tracing::error!(
                file = %doubt.file.display(), reason = doubt.reason,
                "it cannot be told which paths were drives; no directory becomes a new drive before all drives are here"
            );
        }
    }

    /// What `path` was before. An id that is none is the id of no drive.
    pub(super) fn of(&self, path: &Path) -> Before {
        match (&self.doubt, self.drives.get(&name(path))) {
            (Some(doubt), _) => Before::Unsure(Arc::clone(doubt)),
            (None, Some(id)) => Before::Drive(DriveId(u128::from_str_radix(id, 16).unwrap_or(0))),
            (None, None) => Before::Nothing,
        }
    }

    /// Whether a path is known as this drive.
    pub(super) fn has(&self, drive: DriveId) -> bool {
        let id = drive.to_string();
        self.drives.values().any(|known| *known == id)
    }

    /// All drives that are configured are here: what they are is known now, whatever the file said.
    pub(super) fn all_are_here(&mut self) {
        self.doubt = None;
    }

    /// Adds those that were opened; what was known and is not configured any more is forgotten only with the file.
    pub(super) fn note<'a>(&mut self, state: &Dir, drives: impl Iterator<Item = &'a Drive>) -> io::Result<()> {
        self.note_as(state, drives.map(|drive| (drive.settings.path.as_path(), drive.id)))
    }

    /// From now on these paths are these drives. A file that cannot be read is left as it is: what it said of others would
    /// be lost.
    pub(super) fn note_as<'a>(
        &mut self,
        state: &Dir,
        drives: impl Iterator<Item = (&'a Path, DriveId)>,
    ) -> io::Result<()> {
        let before = self.drives.clone();
        self.drives.extend(drives.map(|(path, id)| (name(path), id.to_string())));
        let is_as_before = self.drives == before;
        if self.doubt.is_some() || is_as_before && (self.is_checked || before.is_empty()) {
            return Ok(());
        }
        match self.write(state) {
            Err(error) if is_as_before => {
                tracing::warn!(%error, "{NAME} has no check of all drives, and none could be added");
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn write(&mut self, state: &Dir) -> io::Result<()> {
        let text = encode(&self.drives).map_err(io::Error::other)?;
        state.unlink(NEW)?;
        let file = state.create_file(NEW)?;
        disk::write_at(&file, &text, 0)?;
        disk::sync_data(&file)?;
        state.rename(NEW, NAME)?;
        state.sync_directory(".")?;
        self.is_checked = true;
        Ok(())
    }
}

fn name(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The CRC-32C of paths and ids.
fn check_of(drives: &BTreeMap<String, String>) -> String {
    let text: String = drives.iter().flat_map(|(path, id)| [path, "\n", id, "\n"]).collect();
    format!("{:08x}", crc32c(text.as_bytes()))
}

fn encode(drives: &BTreeMap<String, String>) -> serde_json::Result<Vec<u8>> {
    let covered: Vec<&String> = drives.keys().collect();
    let mut all = drives.clone();
    all.insert(CHECK.to_owned(), format!("{} {}", check_of(drives), serde_json::to_string(&covered)?));
    serde_json::to_vec_pretty(&all)
}

/// Reads drives, and whether all of them are covered by a check.
fn decode(text: &[u8]) -> Result<(BTreeMap<String, String>, bool), String> {
    let mut drives: BTreeMap<String, String> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let Some(check) = drives.remove(CHECK) else { return Ok((drives, false)) };
    let wrong = || "its check does not hold".to_owned();
    // One without paths covers all.
    let (sum, paths) = match check.split_once(' ') {
        Some((sum, paths)) => (sum, serde_json::from_str(paths).map_err(|_| wrong())?),
        None => (check.as_str(), drives.keys().cloned().collect::<BTreeSet<String>>()),
    };
    let mut covered = drives.clone();
    covered.retain(|path, _| paths.contains(path));
    if covered.len() != paths.len() || sum != check_of(&covered) {
        return Err(wrong());
    }
    let has_all = sum.len() < check.len() && covered.len() == drives.len();
    Ok((drives, has_all))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_changed_bit_is_seen() {
        let drives: BTreeMap<_, _> =
            [("/mnt/a", "0a"), ("/mnt/b", "0b")].map(|(path, id)| (path.to_owned(), id.to_owned())).into();
        let text = encode(&drives).unwrap();
        assert_eq!(decode(&text), Ok((drives.clone(), true)));
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Between words any kind of space is as good as another; a check of another name is no check, and no path.
            let read = decode(&changed).map(|(mut read, _)| {
                read.retain(|path, _| path.starts_with('/'));
                read
            });
            assert!(read.is_err() || read.as_ref() == Ok(&drives), "{}", String::from_utf8_lossy(&changed));
        }
        let plain = br#"{ "/mnt/a": "0a", "/mnt/b": "0b" }"#;
        assert_eq!(decode(plain), Ok((drives, false)), "the first releases wrote no check");
    }

    #[test]
    fn drives_that_an_older_release_added_are_known_and_the_others_stay_checked() {
        let known: BTreeMap<_, _> = [("/mnt/a".to_owned(), "0a".to_owned())].into();
        // To an older release the check is one more path.
        let mut added: BTreeMap<String, String> = serde_json::from_slice(&encode(&known).unwrap()).unwrap();
        added.insert("/mnt/b".to_owned(), "0b".to_owned());
        let (read, is_checked) = decode(&serde_json::to_vec_pretty(&added).unwrap()).unwrap();
        assert_eq!((read.len(), read.get("/mnt/b").map(String::as_str), is_checked), (2, Some("0b"), false));
        added.insert("/mnt/a".to_owned(), "0c".to_owned());
        assert!(decode(&serde_json::to_vec_pretty(&added).unwrap()).is_err());
    }

    #[test]
    fn a_file_without_a_check_gets_one_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        let file = root.path().join(NAME);
        std::fs::write(&file, r#"{ "/mnt/a": "0a" }"#).unwrap();
        let mut known = KnownDrives::read(&state, root.path());
        let a = || [(Path::new("/mnt/a"), DriveId(10))].into_iter();
        known.note_as(&state, a()).unwrap();
        assert_ne!(std::fs::read(&file).unwrap(), br#"{ "/mnt/a": "0a" }"#);
        let known = KnownDrives::read(&state, root.path());
        assert!(known.is_checked);
        assert_eq!(known.of(Path::new("/mnt/a")), Before::Drive(DriveId(10)));
    }

    #[test]
    fn who_reads_it_time_and_again_does_not_fill_the_log() {
        struct Count(Arc<AtomicUsize>);
        impl<S: tracing::Subscriber> Layer<S> for Count {
            fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        std::fs::write(root.path().join(NAME), "{").unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Count(Arc::clone(&count))), || {
            drop(KnownDrives::read(&state, root.path()));
            for _ in 0..5 {
                let again = KnownDrives::read_again(&state, root.path());
                assert!(matches!(again.of(Path::new("/mnt/a")), Before::Unsure(_)));
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
