//! Media files: created privately and published atomically, or opened with every distrust.

use std::{
    fmt, io,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use rustix::{
    fs::{self, AtFlags, CWD, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    MapError,
    draft::Draft,
    grow,
    place::{Place, require_file_path, require_regular},
};
use crate::{
    Span,
    sync::{Mutex, lock},
};

/// What may be done to a file and its mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Looks at the file while others may write it: takes no lock, changes nothing.
    ReadOnly,
    /// Reads the file and writes a copy that only this mapping sees: keeps writers out. (A tmpfs may
    /// allocate zeroed blocks for holes that are read.)
    PrivateCopy,
    /// Reads and writes the file: keeps everybody out who asks for a lock.
    Shared,
}

impl Access {
    fn lock(self) -> Option<FlockOperation> {
        match self {
            Self::ReadOnly => None,
            Self::PrivateCopy => Some(FlockOperation::NonBlockingLockShared),
            Self::Shared => Some(FlockOperation::NonBlockingLockExclusive),
        }
    }

    fn open_flags(self) -> OFlags {
        let mode = if self == Self::Shared { OFlags::RDWR } else { OFlags::RDONLY };
        mode | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::PrivateCopy => "private-copy",
            Self::Shared => "shared",
        })
    }
}

/// Which files an open accepts by their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    /// Only those of the user that this process acts for.
    #[default]
    Own,
    /// Those of every user: their contents are read with the same distrust, but they are their owner's to
    /// change.
    Any,
}

/// An open regular file that holds media, locked as its [`Access`] asks.
///
/// The lock is that of the open file (`flock`): it goes with the value, or with the process, however that
/// ends. A forked child that outlives a killed parent keeps the lock until it ends or executes another
/// program. Locks of network file systems are not to be relied on.
///
/// # Examples
///
/// ```no_run
/// use pmalloc_persist::{Access, MapOptions, MediaFile};
///
/// let file = MediaFile::open("/mnt/pmem/pool".as_ref(), Access::Shared)?;
/// let mapped = file.map(&MapOptions::new(1 << 30))?;
/// println!("survives {}", mapped.durability().survives());
/// # Ok::<(), pmalloc_persist::MapError>(())
/// ```
#[derive(Debug)]
pub struct MediaFile {
    draft: Mutex<Option<Draft>>,
    pub(super) file: OwnedFd,
    path: PathBuf,
    access: Access,
    /// Volatile: the process that holds the lock. A child that inherits this value must not give it up.
    holder: u32,
}

impl MediaFile {
    /// Creates an empty file with a temporary name in the directory of `path`, readable and writable only
    /// by its owner whatever the umask is.
    ///
    /// # Errors
    ///
    /// [`MapError::Exists`] if `path` exists already, [`MapError::InUse`] if another process is creating
    /// it, [`MapError::NotFound`] if there is no such directory.
    ///
    /// # Crash consistency
    ///
    /// Nothing has the name `path` before [`publish`](Self::publish). What a crash leaves under the
    /// temporary name is removed by the next creation of `path`.
    pub fn create(path: &Path) -> Result<Self, MapError> {
        let (file, draft) = Draft::create(path)?;
        Ok(Self::new(file, path, Access::Shared, Some(draft)))
    }

    /// Creates a copy of the first `len` bytes, with this file's owner, group and mode, and a temporary name. Publishing the
    /// copy gives it this file's path, and this file the name `kept` in the same directory.
    ///
    /// # Errors
    ///
    /// [`MapError::Exists`] if another file is called `kept`, [`MapError::InUse`] if this file is being replaced already,
    /// [`MapError::NoSpace`] if there is no room for the copy.
    ///
    /// # Crash consistency
    ///
    /// Atomic: the path is that of this file or, once it is published, that of the copy.
    pub fn replacement(&self, kept: &Path, len: u64) -> Result<Self, MapError> {
        let original = self.stat()?;
        let (file, draft) = Draft::replacing(&self.path, kept, &original)?;
        draft.adopt(&file, &original)?;
        let copy = Self::new(file, &self.path, Access::Shared, Some(draft));
        self.copy_into(&copy, len, &mut |_| ControlFlow::Continue(()))?;
        Ok(copy)
    }

    /// Opens the file `path`, which this process's user must own.
    ///
    /// # Errors
    ///
    /// [`MapError::InUse`] if others hold it with an access that excludes this one;
    /// [`MapError::NotFound`], [`MapError::Symlink`], [`MapError::NotRegularFile`],
    /// [`MapError::ForeignOwner`] and [`MapError::NotPermitted`] for what their names say.
    pub fn open(path: &Path, access: Access) -> Result<Self, MapError> {
        Self::open_owned_by(path, access, Owner::Own)
    }

    /// Opens the file `path` if `owner` accepts it.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_owned_by(path: &Path, access: Access, owner: Owner) -> Result<Self, MapError> {
        require_file_path(path)?;
        // Merely opening some devices has effects, so the kind is looked at before; it is the look at the
        // open file that counts.
        let before = fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| MapError::of("look up", path, errno))?;
        require_regular(path, &before)?;
        let file = fs::open(path, access.open_flags(), Mode::empty())
            .map_err(|errno| open_error(path, access, errno))?;
        let stat = stat_of(&file, path)?;
        require_regular(path, &stat)?;
        require_owner(path, &stat, owner)?;
        lock_file(&file, path, access)?;
        Ok(Self::new(file, path, access, None))
    }

    fn new(file: OwnedFd, path: &Path, access: Access, draft: Option<Draft>) -> Self {
        let holder = std::process::id();
        Self { draft: Mutex::new(draft), file, path: path.to_owned(), access, holder }
    }

    /// Makes the file durable and gives it its name; does nothing if it has that already.
    ///
    /// # Errors
    ///
    /// [`MapError::Exists`] if something took the name meanwhile. On any error the temporary file is
    /// removed, and the value is of no further use; all names are as they were, but for [`MapError::Published`], which says
    /// that the file has its name.
    ///
    /// # Panics
    ///
    /// If another thread panicked while it published.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash there is no file of this name, or all that was written before is in it.
    pub fn publish(&self) -> Result<(), MapError> {
        match lock(&self.draft).take() {
            Some(draft) => draft.publish(&self.file),
            None => Ok(()),
        }
    }

    /// Removes the file by the name that it was opened with, unless another file has that by now. Who has the file open keeps
    /// it; nobody else opens it meanwhile, as this value holds the lock of a writer.
    ///
    /// # Errors
    ///
    /// [`MapError::AccessTooLow`] if the file was not opened with [`Access::Shared`], [`MapError::Replaced`] or
    /// [`MapError::NotFound`] if another file or none has the name. Nothing is removed then. [`MapError::Removed`] if the file
    /// is removed, but not durably.
    ///
    /// # Crash consistency
    ///
    /// After return it is durable that the name is free; after a crash before that, it is, or is that of the whole file.
    pub fn remove(&self) -> Result<(), MapError> {
        if self.access < Access::Shared {
            let (path, opened, asked) = (self.path.clone(), self.access, Access::Shared);
            return Err(MapError::AccessTooLow { path, opened, asked });
        }
        let place = Place::of(&self.path)?;
        place.remove_file(&self.stat()?)?;
        // CRASH: until the directory is written, the name is free or that of the file, which nothing has changed.
        place
            .sync()
            .map_err(|errno| MapError::Removed { path: self.path.clone(), source: errno.into() })
    }

    /// Fills `buffer` from the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before the buffer is full; else that of the file
    /// system.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let place = offset.checked_add(done as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
            match rustix::io::pread(&self.file, &mut buffer[done..], place) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The parts of the file that hold data, in ascending order. Where the file system can't tell, that is all of it;
    /// it may keep memory for more than it tells.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn data_spans(&self) -> io::Result<Vec<Span>> {
        let mut spans = Vec::new();
        let mut place = 0;
        while let Some(span) = grow::next_data(&self.file, place)? {
            place = span.end();
            spans.push(span);
        }
        Ok(spans)
    }

    /// Whether the page that byte `at` lies in holds data; where the file system can't tell, it does.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn has_data(&self, at: u64) -> io::Result<bool> {
        let page = Span::new(at, 1).to_pages();
        Ok(grow::next_data(&self.file, page.start)?.is_some_and(|data| data.start < page.end()))
    }

    /// Present length in bytes.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn len(&self) -> Result<u64, MapError> {
        Ok(len_of(&self.stat()?))
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn is_empty(&self) -> Result<bool, MapError> {
        Ok(self.len()? == 0)
    }

    /// The access that the file was opened with.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The path that the file was opened with, or will be published under.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of the device and of the inode: equal for two paths of the same file.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn identity(&self) -> Result<(u64, u64), MapError> {
        let stat = self.stat()?;
        Ok((stat.st_dev, stat.st_ino))
    }

    pub(super) fn stat(&self) -> Result<Stat, MapError> {
        stat_of(&self.file, &self.path)
    }
}

impl Drop for MediaFile {
    fn drop(&mut self) {
        // The temporary name goes while the lock is held, or another creation might take its place.
        let draft = self.draft.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(draft.take());
        // Closing alone would leave the lock with a child that some thread is just spawning.
        if self.holder == std::process::id() {
            let _ = fs::flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// Length in bytes; the kernel reports no negative ones.
pub(super) fn len_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn stat_of(file: &OwnedFd, path: &Path) -> Result<Stat, MapError> {
    fs::fstat(file).map_err(|errno| MapError::of("look at", path, errno))
}

fn open_error(path: &Path, access: Access, errno: Errno) -> MapError {
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY => {
            MapError::NotPermitted { path: path.to_owned(), access }
        }
        _ => MapError::of("open", path, errno),
    }
}

fn require_owner(path: &Path, stat: &Stat, owner: Owner) -> Result<(), MapError> {
    let user = rustix::process::geteuid().as_raw();
    if owner == Owner::Any || stat.st_uid == user {
        return Ok(());
    }
    Err(MapError::ForeignOwner { path: path.to_owned(), owner: stat.st_uid, user })
}

fn lock_file(file: &OwnedFd, path: &Path, access: Access) -> Result<(), MapError> {
    let Some(operation) = access.lock() else { return Ok(()) };
    match fs::flock(file, operation) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(MapError::InUse { path: path.to_owned(), owner: None }),
        Err(errno) => Err(MapError::of("lock", path, errno)),
    }
}
