//! The narrow seam to the file system: every operation of the store on a drive, relative to the drive's open
//! directory, so that a lost mount cannot redirect it. Blocking; called on the drive's own threads only. Nothing else in
//! the store changes files (`tests/architecture.rs` looks); what changes them goes [`through`] one place.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
#[cfg(target_os = "linux")]
use rustix::fs::ResolveFlags;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::operation::{self, Operation};
use super::pulse::{Kind, Pulse, during};

/// An open directory. Another one can take its place: a drive whose mount was lost comes back as one.
#[derive(Debug)]
pub(super) struct Dir {
    fd: ArcSwap<OwnedFd>,
    /// How often another one took its place.
    era: AtomicU64,
    pulse: Option<Arc<Pulse>>,
}

/// What binds checked bytes to a file: as long as it stays equal nobody changed the file behind our back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// Size of the buffer that a drive's thread reads through: it stays in the processor's cache.
const SCRATCH_SIZE: usize = 128 * 1024;
/// Slices that one `pwritev` takes (`IOV_MAX` of Linux).
const SLICES: usize = 1024;

impl Dir {
    /// Opens a directory by its path.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = during(None, Kind::Plain, || Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?))?;
        Ok(Self { fd: ArcSwap::from_pointee(fd), era: AtomicU64::new(0), pulse: None })
    }

    /// The same, with every operation in it beating in `pulse`.
    pub(super) fn beating(self, pulse: &Arc<Pulse>) -> Self {
        Self { pulse: Some(Arc::clone(pulse)), ..self }
    }

    /// Takes the place of what was open: files opened from here on are those of `other`.
    pub(super) fn become_other(&self, other: &Self) {
        self.fd.store(other.fd());
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes when another directory took the place of this one: files that were opened before are of the old one.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Whether it is the same directory as `other`, whatever mount leads there.
    pub(super) fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (here, there) = (rustix::fs::fstat(self.fd())?, rustix::fs::fstat(other.fd())?);
        Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
    }

    /// Whether its file system takes no bytes at all.
    pub(super) fn is_read_only(&self) -> io::Result<bool> {
        during(self.pulse.as_ref(), Kind::Plain, || {
            Ok(rustix::fs::fstatvfs(self.fd())?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        })
    }

    fn during<T>(&self, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        during(self.pulse.as_ref(), Kind::Plain, perform)
    }

    /// Opens an existing file for reading and writing.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR)
    }

    /// Opens an existing file for reading, which works on a drive that has become read-only too.
    pub(super) fn open_to_read(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// The same, only if the kernel has the way to it in memory.
    #[cfg(target_os = "linux")]
    pub(super) fn open_now(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat2(self.fd(), name, flags, Mode::empty(), ResolveFlags::CACHED)?;
        Ok(File::from(fd))
    }

    /// Other systems cannot tell.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn open_now(&self, _: &str) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Creates a file that must not exist, for reading and writing.
    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        let create = || self.open_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
        // Opening beats.
        operation::through(Operation::Create { dir: self, name }, create)
    }

    /// Opens or creates a file that only carries a lock.
    pub(super) fn open_lock(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without blocking: a foreign pipe with the name of a file of ours must not hold a thread.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = || Ok(rustix::fs::openat(self.fd(), name, flags, FILE_MODE)?);
        self.during(open).map(File::from)
    }

    /// The whole content of a file.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.open_with(name, OFlags::RDONLY)?;
        let mut content = Vec::new();
        self.during(|| io::Read::read_to_end(&mut &file, &mut content))?;
        Ok(content)
    }

    /// Makes a directory; one that exists is fine. Says whether it is new.
    pub(super) fn make_directory(&self, name: &str) -> io::Result<bool> {
        through(Operation::MakeDirectory { dir: self, name }, || {
            match rustix::fs::mkdirat(self.fd(), name, DIRECTORY_MODE) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Renames within the drive; an existing target is replaced.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        through(Operation::Rename { dir: self, from, to }, || Ok(rustix::fs::renameat(self.fd(), from, self.fd(), to)?))
    }

    /// Removes a file; one that does not exist is fine.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        through(Operation::Unlink { dir: self, name }, || {
            match rustix::fs::unlinkat(self.fd(), name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// What is known of a name; symbolic links are not followed. `None` when there is none.
    pub(super) fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        self.during(|| match rustix::fs::statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// The names in a directory of the drive, in no order. Those that are not UTF-8 are foreign and left out.
    pub(super) fn list(&self, name: &str) -> io::Result<Vec<String>> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        self.during(|| {
            let fd = rustix::fs::openat(self.fd(), name, flags, Mode::empty())?;
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::new(fd)? {
                match entry?.file_name().to_str() {
                    Ok("." | "..") | Err(_) => {}
                    Ok(name) => names.push(name.to_owned()),
                }
            }
            Ok(names)
        })
    }

    /// Makes the names in a directory of the drive durable.
    pub(super) fn sync_directory(&self, name: &str) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = self.during(|| Ok(rustix::fs::openat(self.fd(), name, flags, Mode::empty())?))?;
        through(Operation::SyncDirectory { dir: self, name }, || Ok(rustix::fs::fsync(fd)?))
    }

    /// The directory itself.
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        self.fd.load_full()
    }

    /// Bytes that are free for this user on the drive's file system, and files that may be made; `u64::MAX` where
    /// their number has no bound.
    pub(super) fn free(&self) -> io::Result<(u64, u64)> {
        let stat = self.during(|| Ok(rustix::fs::fstatvfs(self.fd())?))?;
        let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), files))
    }
}

/// Performs what changes a drive.
fn through<T>(operation: Operation<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (pulse, kind) = match &operation {
        Operation::Create { dir, .. }
        | Operation::MakeDirectory { dir, .. }
        | Operation::Rename { dir, .. }
        | Operation::Unlink { dir, .. } => (dir.pulse.clone(), Kind::Write),
        Operation::SyncDirectory { dir, .. } => (dir.pulse.clone(), Kind::Sync),
        Operation::SyncData { .. } => (None, Kind::Sync),
        Operation::Write { .. } | Operation::SetLength { .. } | Operation::Reserve { .. } => (None, Kind::Write),
    };
    during(pulse.as_ref(), kind, || operation::through(operation, perform))
}

/// Makes a directory with those above it that are missing, each name durable in the one above.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(path)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Dir::open(parent)?.sync_directory(".")?;
    }
    Ok(())
}

/// Removes whatever has this path; nothing is fine.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the lock of a file; `false` when somebody else holds it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock of a file back.
pub(super) fn unlock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::Unlock)?)
}

/// Makes a file's bytes durable.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    through(Operation::SyncData { file }, || Ok(rustix::fs::fdatasync(file)?))
}

/// Real bytes that a file takes, holes excluded and preallocation included.
pub(super) fn allocated(file: &File) -> io::Result<u64> {
    Ok(stat_allocated(&rustix::fs::fstat(file)?))
}

/// Real bytes behind a name.
#[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
pub(super) fn stat_allocated(stat: &Stat) -> u64 {
    (stat.st_blocks as u64).saturating_mul(512)
}

/// The file's identity for the verified bitmap.
#[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
pub(super) fn identity(file: &File) -> io::Result<FileIdentity> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileIdentity {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size: stat.st_size as u64,
        changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    })
}

impl FileIdentity {
    /// Size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether `stat` is of this file.
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
    pub(super) fn is(&self, stat: &Stat) -> bool {
        (self.device, self.inode) == (stat.st_dev as u64, stat.st_ino as u64)
    }

    /// Whether it is the same file, whatever happened to it.
    pub(super) fn same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether it is the same file with the same size, whatever happened to its name.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size) == (other.device, other.inode, other.size)
    }
}

/// Reserves blocks without changing the file's size; a file system that cannot do that is fine.
pub(super) fn preallocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    through(Operation::Reserve { file, offset, length }, || {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

/// Gives a file this length; blocks that were reserved behind it are free again.
pub(super) fn set_length(file: &File, length: u64) -> io::Result<()> {
    through(Operation::SetLength { file, length }, || file.set_len(length))
}

/// Writes `bytes` at `offset`.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    through(Operation::Write { file, offset, length: bytes.len() as u64 }, || file.write_all_at(bytes, offset))
}

/// Writes all of `data` at `offset`.
pub(super) fn write_all_at(file: &File, data: &[Bytes], offset: u64) -> io::Result<()> {
    let length = data.iter().map(|bytes| bytes.len() as u64).sum();
    through(Operation::Write { file, offset, length }, || write_slices(file, data, offset))
}

fn write_slices(file: &File, data: &[Bytes], offset: u64) -> io::Result<()> {
    let mut offset = offset;
    for part in data.chunks(SLICES) {
        let slices: Vec<IoSlice<'_>> = part.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let length: usize = part.iter().map(Bytes::len).sum();
        let written = match rustix::io::pwritev(file, &slices, offset) {
            Ok(written) => written,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if written < length {
            // Rare: finish slice by slice behind what went out.
            let mut skip = written;
            let mut at = offset.saturating_add(written as u64);
            for bytes in part {
                let rest = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
                skip = skip.saturating_sub(bytes.len());
                file.write_all_at(rest, at)?;
                at = at.saturating_add(rest.len() as u64);
            }
        }
        offset = offset.saturating_add(length as u64);
    }
    Ok(())
}

/// Reads exactly `length` bytes at `offset`; a shorter file is an error of kind `UnexpectedEof`.
pub(super) fn read_exact_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    read_into(file, offset, &mut buffer)?;
    Ok(buffer)
}

/// Reads `length` bytes at `offset`, or what there is of them before the end of the file.
pub(super) fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match during(None, Kind::Plain, || file.read_at(rest, offset.saturating_add(filled as u64))) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Fills `buffer` with the bytes at `offset`; a shorter file is an error of kind `UnexpectedEof`.
pub(super) fn read_into(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    during(None, Kind::Plain, || file.read_exact_at(buffer, offset))
}

/// Reads what of `buffer` at `offset` is in the page cache, without waiting for the disk: at least one byte, 0 at the
/// end of the file. An error of kind `WouldBlock` says that the disk would have to be asked; others, that the file
/// system cannot tell.
#[cfg(target_os = "linux")]
pub(super) fn read_now(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut slices = [io::IoSliceMut::new(buffer)];
    Ok(rustix::io::preadv2(file, &mut slices, offset, rustix::io::ReadWriteFlags::NOWAIT)?)
}

/// Elsewhere a read cannot be told not to wait.
#[cfg(not(target_os = "linux"))]
pub(super) fn read_now(_: &File, _: u64, _: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// Reads `length` bytes at `offset` through a buffer of this thread, and gives each piece to `each`. A shorter file is
/// an error of kind `UnexpectedEof`.
pub(super) fn pass_through(file: &File, offset: u64, length: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_SIZE, 0);
        let (mut at, end) = (offset, offset.saturating_add(length));
        while at < end {
            let wanted = SCRATCH_SIZE.min(usize::try_from(end - at).unwrap_or(SCRATCH_SIZE));
            let piece = scratch.get_mut(..wanted).unwrap_or_default();
            read_into(file, at, piece)?;
            each(piece);
            at += wanted as u64;
        }
        Ok(())
    })
}

/// Tells the kernel that these bytes need not stay in its memory.
#[cfg(target_os = "linux")]
pub(super) fn let_go(file: &File, offset: u64, length: u64) {
    // Only advice.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
}

/// Elsewhere it finds out by itself.
#[cfg(not(target_os = "linux"))]
pub(super) fn let_go(_: &File, _: u64, _: u64) {}

/// Whether the error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the error says that the bytes on the medium cannot be had: a bad sector, or a file cut short.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
