//! A file that is being created: it has a temporary name until it is published.
//!
//! A file under its final name is therefore always complete. The temporary name is locked by its creator;
//! one that nobody locks is what an interrupted creation left, and the next creation removes it.

use std::{ffi::OsString, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, FlockOperation, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
};

use super::{
    MapError,
    place::{Place, is_same, require_regular},
    promise,
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
                        promise::write_in_place(&file);
                        return Ok((file, draft));
                    }
                }
                Err(Errno::EXIST) => remove_left_over(&place, &name)?,
                Err(errno) => return Err(MapError::of("create", place.path(), errno)),
            }
        }
        Err(MapError::InUse { path: place.path().to_owned(), owner: None })
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    ///
    /// [`MapError::Published`] if the file has its name although something failed; after every other error the names are as
    /// they were.
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

    /// Gives the file the owner, the group and the mode of the one that it replaces.
    pub(super) fn adopt(&self, file: &OwnedFd, original: &Stat) -> Result<(), MapError> {
        let error = |op| move |errno| MapError::of(op, self.place.path(), errno);
        let own = fs::fstat(file).map_err(error("look at the copy of"))?;
        if (own.st_uid, own.st_gid) != (original.st_uid, original.st_gid) {
            let owner = (Uid::from_raw(original.st_uid), Gid::from_raw(original.st_gid));
            fs::fchown(file, Some(owner.0), Some(owner.1))
                .map_err(error("keep the owner and group of"))?;
        }
        fs::fchmod(file, Mode::from_raw_mode(original.st_mode)).map_err(error("keep the mode of"))
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
        self.place.sync().map_err(|errno| self.take_back(file, errno))
    }

    /// Gives up the final name, which could not be made durable.
    fn take_back(&self, file: &OwnedFd, errno: Errno) -> MapError {
        let path = self.place.path();
        match self.place.take_back(file, self.kept.as_deref()) {
            Ok(()) => MapError::of("write the directory of", path, errno),
            Err(undo) => MapError::Published {
                path: path.to_owned(),
                name: if self.kept.is_some() {
                    "that it replaced the old file"
                } else {
                    "its name"
                },
                source: errno.into(),
                undo: undo.into(),
            },
        }
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
        Err(Errno::WOULDBLOCK) => {
            return Err(MapError::InUse { path: place.path().to_owned(), owner: None });
        }
        Err(errno) => return Err(MapError::of("lock", &shown, errno)),
    }
    // The name may stand for another file by now; it can't while that file's creator holds this lock.
    let own = fs::fstat(&file).map_err(|errno| MapError::of("look at", &shown, errno))?;
    match place.stat(name)? {
        Some(named) if is_same(&own, &named) => place.remove(name),
        _ => Ok(()),
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::{Access, MediaFile, map::place::faults};

    /// The files of a directory, by name, with what is in them.
    fn files(directory: &Path) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(directory).expect("ours").map(|entry| {
            let path = entry.expect("ours").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("ours"))
        });
        let mut files: Vec<_> = entries.collect();
        files.sort();
        files
    }

    fn names(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn created(path: &Path) -> MediaFile {
        let file = MediaFile::create(path).expect("a free name");
        rustix::io::write(&file.file, b"new").expect("room");
        file
    }

    /// A file, and one that is to replace it.
    fn replacement(path: &Path) -> (MediaFile, MediaFile, PathBuf) {
        std::fs::write(path, "old").expect("written");
        std::fs::set_permissions(path, Permissions::from_mode(0o640)).expect("ours");
        let kept = path.with_extension("damaged");
        let original = MediaFile::open(path, Access::Shared).expect("free");
        let copy = original.replacement(&kept, 3).expect("room");
        rustix::io::pwrite(&copy.file, b"new", 0).expect("room");
        (original, copy, kept)
    }

    /// A directory that could not be written used to be an error after which the file was there all the same.
    #[test]
    fn a_creation_that_reports_an_error_has_not_happened() {
        for step in ["sync", "rename"] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("heap");
            let file = created(&path);
            faults::plant(&[step]);
            let error = file.publish().expect_err("it was made to fail");
            faults::plant(&[]);
            assert!(matches!(error, MapError::Io { .. }), "{error}");
            drop(file);
            assert_eq!(files(directory.path()), [], "{step}");
            created(&path).publish().expect("it may be tried again");
            assert_eq!(files(directory.path()), names(&[("heap", "new")]));
        }
    }

    #[test]
    fn a_removal_spares_what_took_the_name_and_says_if_it_is_not_durable() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, aside) = (directory.path().join("heap"), directory.path().join("aside"));
        created(&path).publish().expect("a free name");
        let file = MediaFile::open(&path, Access::ReadOnly).expect("free");
        let error = file.remove().expect_err("others may have it open");
        assert!(matches!(error, MapError::AccessTooLow { .. }), "{error}");

        let file = MediaFile::open(&path, Access::Shared).expect("free");
        std::fs::rename(&path, &aside).expect("ours");
        assert!(matches!(file.remove(), Err(MapError::NotFound { .. })));
        std::fs::write(&path, "another").expect("ours");
        assert!(matches!(file.remove(), Err(MapError::Replaced { .. })));
        assert_eq!(files(directory.path()), names(&[("aside", "new"), ("heap", "another")]));

        std::fs::rename(&aside, &path).expect("ours");
        faults::plant(&["sync"]);
        let error = file.remove().expect_err("it was made to fail");
        faults::plant(&[]);
        assert!(matches!(error, MapError::Removed { .. }), "{error}");
        assert_eq!(files(directory.path()), []);

        created(&path).publish().expect("a free name");
        MediaFile::open(&path, Access::Shared).expect("free").remove().expect("it is there");
        assert_eq!(files(directory.path()), []);
    }

    #[test]
    fn a_replacement_that_reports_an_error_has_not_happened() {
        for step in ["sync", "rename"] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("heap");
            let (original, copy, _) = replacement(&path);
            faults::plant(&[step]);
            let error = copy.publish().expect_err("it was made to fail");
            faults::plant(&[]);
            assert!(matches!(error, MapError::Io { .. }), "{error}");
            drop((original, copy));
            assert_eq!(files(directory.path()), names(&[("heap", "old")]), "{step}");
        }
    }

    #[test]
    fn what_has_happened_and_can_not_be_undone_is_said() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, other) = (directory.path().join("heap"), directory.path().join("other"));
        let (created, (original, copy, _)) = (created(&other), replacement(&path));
        faults::plant(&["sync", "take back"]);
        for file in [&created, &copy] {
            let error = file.publish().expect_err("it was made to fail");
            assert!(matches!(error, MapError::Published { .. }), "{error}");
        }
        faults::plant(&[]);
        drop((created, original, copy));
        let expected = [("heap", "new"), ("heap.damaged", "old"), ("other", "new")];
        assert_eq!(files(directory.path()), names(&expected));
    }

    #[test]
    fn a_replacement_keeps_the_mode_and_the_group() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("heap");
        std::fs::write(&path, "old").expect("written");
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(&path, None, Some(1)).expect("root may");
        } else {
            println!("skipped a foreign group: that needs root");
        }
        let (original, copy, kept) = replacement(&path);
        copy.publish().expect("a free name");
        let looks = [&path, &kept].map(|path| {
            let stat = fs::stat(path).expect("it is there");
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
        });
        assert_eq!(looks[0], looks[1]);
        assert_eq!(looks[0].0, 0o640);
        assert!(!is_root || looks[0].2 == 1);
        drop((original, copy));
    }
}
