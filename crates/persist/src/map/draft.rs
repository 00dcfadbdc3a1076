//! A file that is being created: it has a temporary name until it is published.
//!
//! A file under its final name is therefore always complete. The temporary name is locked by its creator;
//! one that nobody locks is what an interrupted creation left, and the next creation removes it.

use std::{ffi::OsString, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    MapError,
    place::{Place, is_same, require_regular},
};

/// The place and the temporary name of an unpublished file; removes that name when dropped.
#[derive(Debug)]
pub(super) struct Draft {
    place: Place,
    name: OsString,
    /// Volatile: the process that creates the file. A child that inherits this value must not remove it.
    creator: u32,
    /// Volatile: the name that the file which has the final name gets; `None` if the final name must be free.
    kept: Option<OsString>,
}

/// How often a creation starts over because another one removed its file between creation and locking.
const ATTEMPTS: u32 = 64;

impl Draft {
    /// Creates an empty, locked file that [`publish`](Self::publish) will name `path`.
    pub(super) fn create(path: &Path) -> Result<(OwnedFd, Self), MapError> {
        let place = Place::of(path)?;
        if place.is_taken()? {
            return Err(MapError::Exists { path: path.to_owned() });
        }
        Self::begin(place, None)
    }

    /// Creates an empty, locked file that [`publish`](Self::publish) will name `path`, and the file `original` that has
    /// this name now `kept`.
    pub(super) fn replacing(
        path: &Path,
        kept: &Path,
        original: &Stat,
    ) -> Result<(OwnedFd, Self), MapError> {
        let place = Place::of(path)?;
        let name = kept.file_name().unwrap_or_default();
        // A replacement that was interrupted in its last step has given the second name already.
        if place.stat(name)?.is_some_and(|taken| !is_same(&taken, original)) {
            return Err(MapError::Exists { path: kept.to_owned() });
        }
        Self::begin(place, Some(name.to_owned()))
    }

    fn begin(place: Place, kept: Option<OsString>) -> Result<(OwnedFd, Self), MapError> {
        let name = place.temporary_name();
        for _ in 0..ATTEMPTS {
            match place.open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
                Ok(file) => {
                    if lock_if_named(&place, &name, &file)? {
                        let draft = Self { place, name, creator: std::process::id(), kept };
                        draft.make_private(&file)?;
                        return Ok((file, draft));
                    }
                }
                Err(Errno::EXIST) => remove_left_over(&place, &name)?,
                Err(errno) => return Err(MapError::of("create", place.path(), errno)),
            }
        }
        Err(MapError::InUse { path: place.path().to_owned() })
    }

    /// Gives the file its final name.
    ///
    /// # Crash consistency
    ///
    /// After a crash the final name is free, or it is that of the file with all that was written before.
    pub(super) fn publish(mut self, file: &OwnedFd) -> Result<(), MapError> {
        let result = self.try_publish(file);
        if result.is_ok() {
            self.name.clear();
        }
        result
    }

    fn try_publish(&self, file: &OwnedFd) -> Result<(), MapError> {
        // CRASH: up to the rename only the temporary name exists, and the next creation removes it.
        fs::fsync(file).map_err(|errno| MapError::of("write", self.place.path(), errno))?;
        match &self.kept {
            None => self.place.rename(&self.name)?,
            Some(kept) => self.place.replace(&self.name, kept)?,
        }
        // CRASH: from here on the file is complete under its final name, or still (until the directory is
        // written) under its temporary one.
        self.place.sync()
    }

    /// Sets the mode that the umask may have narrowed; it can't have widened it.
    fn make_private(&self, file: &OwnedFd) -> Result<(), MapError> {
        fs::fchmod(file, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| MapError::of("set the mode of", self.place.path(), errno))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.name.is_empty() && self.creator == std::process::id() {
            // A name that can't be removed now is removed by the next creation.
            let _ = self.place.remove(&self.name);
        }
    }
}

/// Locks `file` and returns whether it still is what `name` stands for.
///
/// Another creation may have taken the file for a left-over between its creation and its locking, and may
/// have removed it.
fn lock_if_named(place: &Place, name: &OsString, file: &OwnedFd) -> Result<bool, MapError> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(MapError::of("lock", place.path(), errno)),
    }
    let own = fs::fstat(file).map_err(|errno| MapError::of("look at", place.path(), errno))?;
    Ok(place.stat(name)?.is_some_and(|named| is_same(&own, &named)))
}

/// Removes the file `name` if no living creation has locked it.
fn remove_left_over(place: &Place, name: &OsString) -> Result<(), MapError> {
    let Some(stat) = place.stat(name)? else { return Ok(()) };
    let mut shown = place.path().to_owned();
    shown.set_file_name(name);
    require_regular(&shown, &stat)?;
    let file = match place.open(name, OFlags::RDWR) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(MapError::of("open the left-over", &shown, errno)),
    };
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(MapError::InUse { path: place.path().to_owned() }),
        Err(errno) => return Err(MapError::of("lock", &shown, errno)),
    }
    // The name may stand for another file by now; it can't while that file's creator holds this lock.
    let own = fs::fstat(&file).map_err(|errno| MapError::of("look at", &shown, errno))?;
    match place.stat(name)? {
        Some(named) if is_same(&own, &named) => place.remove(name),
        _ => Ok(()),
    }
}
