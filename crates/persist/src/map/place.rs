//! A name in an open directory: what creating and publishing a file act on.
//!
//! The directory is opened once, so that neither a change of the working directory nor a rename of the
//! directory itself can make two steps of one operation act on different places.

use std::{
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

use super::MapError;

/// A directory and the path it was reached by.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The place that `path` names.
    pub(super) fn of(path: &Path) -> Result<Self, MapError> {
        require_file_path(path)?;
        let Some(name) = path.file_name() else {
            return Err(MapError::NotRegularFile { path: path.to_owned(), kind: "a directory" });
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(parent, flags, Mode::empty())
            .map_err(|errno| MapError::of("open the directory", parent, errno))?;
        Ok(Self { directory, name: name.to_owned(), path: path.to_owned() })
    }

    /// The path as the caller gave it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the file that is to be published here. It is hidden, and there is one per place, so that
    /// whoever creates next finds what an interrupted creation left.
    pub(super) fn temporary_name(&self) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".unpublished");
        name
    }

    /// Whether something has the final name.
    pub(super) fn is_taken(&self) -> Result<bool, MapError> {
        Ok(self.stat(&self.name)?.is_some())
    }

    /// What has the name `name` in the directory, if anything; links are not followed.
    pub(super) fn stat(&self, name: &OsStr) -> Result<Option<Stat>, MapError> {
        match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(MapError::of("look up", &self.path, errno)),
        }
    }

    /// Opens `name` in the directory.
    pub(super) fn open(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        fs::openat(&self.directory, name, flags | always, mode)
    }

    /// Removes `name` from the directory; it is no error if it isn't there.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), MapError> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(MapError::of("remove the temporary file of", &self.path, errno)),
        }
    }

    /// Removes the final name, which has to be that of `file`.
    pub(super) fn remove_file(&self, file: &Stat) -> Result<(), MapError> {
        match self.stat(&self.name)? {
            None => return Err(MapError::NotFound { path: self.path.clone() }),
            Some(named) if !is_same(&named, file) => {
                return Err(MapError::Replaced { path: self.path.clone() });
            }
            Some(_) => {}
        }
        fs::unlinkat(&self.directory, &self.name, AtFlags::empty())
            .map_err(|errno| MapError::of("remove", &self.path, errno))
    }

    /// Gives the file `from` the final name, unless that is taken.
    pub(super) fn rename(&self, from: &OsStr) -> Result<(), MapError> {
        let directory = &self.directory;
        let rename = || {
            faults::at("rename")?;
            fs::renameat_with(directory, from, directory, &self.name, RenameFlags::NOREPLACE)
        };
        match rename() {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(MapError::Exists { path: self.path.clone() }),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_and_remove(from),
            Err(errno) => Err(MapError::of("publish", &self.path, errno)),
        }
    }

    /// Gives the file that has the final name the name `kept` as well, and then the final name to `from`.
    pub(super) fn replace(&self, from: &OsStr, kept: &OsStr) -> Result<(), MapError> {
        let directory = &self.directory;
        match fs::linkat(directory, &self.name, directory, kept, AtFlags::empty()) {
            // CRASH: the old file has both names, and a replacement that starts over finds that.
            Ok(()) => {}
            Err(Errno::EXIST) => self.require_same(kept)?,
            Err(errno) => return Err(MapError::of("keep", &self.path, errno)),
        }
        let rename = || {
            faults::at("rename")?;
            // CRASH: one rename: the final name is that of the old file, or of the new one.
            fs::renameat(directory, from, directory, &self.name)
        };
        rename().map_err(|errno| {
            // The second name of the old file; if it stays, a replacement that starts over finds it.
            let _ = fs::unlinkat(directory, kept, AtFlags::empty());
            MapError::of("publish", &self.path, errno)
        })
    }

    /// Takes the final name back from `file`, which got it by [`rename`](Self::rename) or [`replace`](Self::replace): gives
    /// it to the file `kept` again, or to none.
    ///
    /// # Crash consistency
    ///
    /// None that is new: whether the names were durable is not known.
    pub(super) fn take_back(&self, file: &OwnedFd, kept: Option<&OsStr>) -> Result<(), Errno> {
        let directory = &self.directory;
        faults::at("take back")?;
        let own = fs::fstat(file)?;
        let named = fs::statat(directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        // Another file may have taken the name: that one stays.
        let is_own = named.is_ok_and(|named| is_same(&named, &own));
        match kept {
            None if is_own => fs::unlinkat(directory, &self.name, AtFlags::empty())?,
            None => {}
            Some(kept) if is_own => fs::renameat(directory, kept, directory, &self.name)?,
            Some(_) => return Err(Errno::EXIST),
        }
        // It could not be written a moment ago; what counts is what is seen now.
        let _ = fs::fsync(directory);
        Ok(())
    }

    /// The error if `name` is not another name of the file that has the final one.
    fn require_same(&self, name: &OsStr) -> Result<(), MapError> {
        match (self.stat(name)?, self.stat(&self.name)?) {
            (Some(one), Some(other)) if is_same(&one, &other) => Ok(()),
            _ => Err(MapError::Exists { path: self.path.with_file_name(name) }),
        }
    }

    /// [`rename`](Self::rename) for file systems that only rename over what is there: a hard link never
    /// replaces anything either.
    pub(super) fn link_and_remove(&self, from: &OsStr) -> Result<(), MapError> {
        let directory = &self.directory;
        match fs::linkat(directory, from, directory, &self.name, AtFlags::empty()) {
            // CRASH: between the two steps the file has both names; the temporary one is removed by the
            // next creation, also if that can't be done now.
            Ok(()) => {
                let _ = self.remove(from);
                Ok(())
            }
            Err(Errno::EXIST) => Err(MapError::Exists { path: self.path.clone() }),
            Err(errno) => Err(MapError::of("publish", &self.path, errno)),
        }
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        faults::at("sync")?;
        match fs::fsync(&self.directory) {
            // Some file systems have nothing to write for a directory and say so.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Steps that a test makes fail in this thread.
#[cfg(all(test, not(miri)))]
pub(super) mod faults {
    use std::cell::RefCell;

    use rustix::io::Errno;

    thread_local! {
        static FAILING: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    /// Makes the steps fail from now on.
    pub(crate) fn plant(steps: &[&'static str]) {
        FAILING.with_borrow_mut(|failing| *failing = steps.to_vec());
    }

    /// The error of a step, if it is to fail.
    pub(crate) fn at(step: &str) -> Result<(), Errno> {
        FAILING.with_borrow(|failing| if failing.contains(&step) { Err(Errno::IO) } else { Ok(()) })
    }
}

#[cfg(any(not(test), miri))]
mod faults {
    use rustix::io::Errno;

    #[allow(clippy::unnecessary_wraps, reason = "tests make steps fail")]
    #[inline]
    pub(super) const fn at(_step: &str) -> Result<(), Errno> {
        Ok(())
    }
}

/// The error if `path` can't be that of a file, before anything is looked up.
///
/// The kernel takes a name with a slash behind it for a directory's, and what [`Path`] calls its file name is the name
/// without: a file would be made that is not found by the path again.
pub(super) fn require_file_path(path: &Path) -> Result<(), MapError> {
    let bytes = path.as_os_str().as_bytes();
    let last = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let why = match last {
        _ if bytes.is_empty() => "it is empty; give the path of a file",
        b"" => "it ends with a slash, as that of a directory; give the path of a file",
        b"." | b".." => "it is that of a directory; give the path of a file in it",
        _ => return Ok(()),
    };
    Err(MapError::BadPath { path: path.to_owned(), why })
}

/// The error if `stat` is not that of a regular file.
pub(super) fn require_regular(path: &Path, stat: &Stat) -> Result<(), MapError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => return Err(MapError::Symlink { path: path.to_owned() }),
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    };
    Err(MapError::NotRegularFile { path: path.to_owned(), kind })
}

/// Whether both describe the same file.
pub(super) fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn without_a_rename_that_spares_others_a_link_publishes_just_as_carefully() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = Place::of(&directory.path().join("pool")).expect("a directory");
        let temporary = place.temporary_name();
        let write = |name: &OsStr, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
        };
        write(&temporary, "new");
        place.link_and_remove(&temporary).expect("a free name");
        assert!(place.is_taken().expect("a directory"));
        assert!(place.stat(&temporary).expect("a directory").is_none());

        write(&temporary, "newer");
        let error = place.link_and_remove(&temporary).expect_err("taken");
        assert!(matches!(error, MapError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read(place.path()).expect("a file"), b"new");
    }
}
