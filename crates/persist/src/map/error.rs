//! What can go wrong between a path and a mapping, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::{Access, Durability};

/// An error of creating, opening, mapping or publishing a media file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Another process (or another mapping of this one) has the file open for writing or is creating it.
    #[error(
        "{} is in use{}: close the program that has it open, or wait until it ends",
        path.display(), opened_by(*owner)
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that has it open, if what lies in the file says so: a heap does.
        owner: Option<u64>,
    },
    /// A file of the name to create is already there.
    #[error("{} already exists: open it, remove it, or choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The path can't be that of a file: it is empty, or says itself that it is a directory's.
    #[error("{path:?} can't be the path of a file: {why}")]
    BadPath {
        /// The path.
        path: PathBuf,
        /// Why not, and what to give.
        why: &'static str,
    },
    /// There is no such file, or no such directory on the way to it.
    #[error("{} does not exist: check the path, or create it first", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The name is that of a directory, a FIFO, a socket or a device.
    #[error("{} is {kind}, not a regular file: give the path of a file", path.display())]
    NotRegularFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// The name is that of a symbolic link, which is never followed.
    #[error("{} is a symbolic link, which is not followed: give the path it points to", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error(
        "{} belongs to user {owner}, not to user {user}: run as its owner, or give it to this user (chown)",
        path.display()
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The user that it belongs to.
        owner: u32,
        /// The user that this process acts for.
        user: u32,
    },
    /// Permissions, or a read-only file system, forbid the access asked for.
    #[error(
        "{} does not permit {access} access: change its permissions (chmod), and see that its file system is writable",
        path.display()
    )]
    NotPermitted {
        /// The file.
        path: PathBuf,
        /// The access asked for.
        access: Access,
    },
    /// The file was opened with less access than the mapping asks for.
    #[error(
        "{} was opened with {opened} access and can't be mapped with {asked} access: open it with that",
        path.display()
    )]
    AccessTooLow {
        /// The file.
        path: PathBuf,
        /// The access it was opened with.
        opened: Access,
        /// The access asked for.
        asked: Access,
    },
    /// Power safety was asked for on memory that doesn't have it.
    #[error(
        "{} is not {asked}-safe memory (it offers {offered}): put it on a DAX file system, choose the \
         durability auto or process, or force it with unsafe_force_durability, knowing that a loss of \
         power then destroys it", path.display()
    )]
    NotPowerSafe {
        /// The file.
        path: PathBuf,
        /// The durability asked for.
        asked: Durability,
        /// The durability that the mapping has.
        offered: Durability,
    },
    /// The address range to reserve is empty, smaller than the file, or larger than a file may be.
    #[error(
        "{} bytes can't be reserved for {}, which has {} bytes: reserve at least its length and at most \
         {} bytes", reserve_len, path.display(), file_len, MAX_RESERVE_BYTES
    )]
    BadReserve {
        /// The file.
        path: PathBuf,
        /// Bytes that should have been reserved.
        reserve_len: u64,
        /// Present length of the file in bytes.
        file_len: u64,
    },
    /// This process can't have the addresses that the file may grow over: a limit on address space, or a tool that leaves
    /// little of it.
    #[error(
        "there are no addresses for the {reserve_len} bytes that {} may grow to ({source}): raise the limit on address \
         space (ulimit -v), leave the tool that narrows it (valgrind has less than 128 GiB), or give a new file a smaller \
         capacity (an existing one keeps its own)", path.display()
    )]
    NoAddresses {
        /// The file.
        path: PathBuf,
        /// Bytes that should have been reserved.
        reserve_len: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The file system has no room: it is full, a quota is used up, or the file would be larger than it may be.
    #[error("can't {op} {}: {source}; {}", path.display(), advice(source))]
    NoSpace {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file got its name, whole, but that can't be made durable, and the name could not be taken back either.
    #[error(
        "{} is there, and whole, but {name} can't be made durable ({source}) nor undone ({undo}), and a loss of power may \
         take it back; check the device, and after such a loss what has this name", path.display()
    )]
    Published {
        /// The file.
        path: PathBuf,
        /// What happened to names.
        name: &'static str,
        /// Why the directory can't be written.
        source: io::Error,
        /// Why the name was not taken back.
        undo: io::Error,
    },
    /// What has the name is another file than the one that is open: that one was moved or removed, and the name taken.
    #[error("{} is another file by now than the one that was opened: check what has this name", path.display())]
    Replaced {
        /// The name.
        path: PathBuf,
    },
    /// The file was removed, but that can't be made durable.
    #[error(
        "{} is removed, but its directory can't be written ({source}), and a loss of power may bring it back; check the \
         device, and after such a loss what has this name", path.display()
    )]
    Removed {
        /// The file.
        path: PathBuf,
        /// Why the directory can't be written.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("can't {op} {}: {source}; {}", path.display(), advice(source))]
    Io {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// The longest range that may be reserved: half of what user space has on 4-level page tables.
pub(super) const MAX_RESERVE_BYTES: u64 = 1 << 46;

impl MapError {
    /// The error `errno` of doing `op` to `path`.
    pub(super) fn of(op: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound { path },
            Errno::LOOP => Self::Symlink { path },
            _ => Self::of_system(op, path, errno.into()),
        }
    }

    /// The error of reserving `reserve_len` addresses for `path`. Where a process locks all its memory, the limit on that
    /// is met first.
    pub(super) fn of_reserving(path: &Path, reserve_len: u64, errno: Errno) -> Self {
        match errno {
            Errno::NOMEM => {
                Self::NoAddresses { path: path.to_owned(), reserve_len, source: errno.into() }
            }
            _ => Self::of("map", path, errno),
        }
    }

    /// The error `source` of doing `op` to `path`, if it has no variant of its own but want of room.
    pub(super) fn of_system(op: &'static str, path: PathBuf, source: io::Error) -> Self {
        if is_out_of_space(&source) {
            Self::NoSpace { op, path, source }
        } else {
            Self::Io { op, path, source }
        }
    }
}

/// Whether `error` says that the file system has no room for more: it is full, a quota is used up, or a file would
/// outgrow what its file system or the process's limit allows. Room that is given back cures all of these.
///
/// # Examples
///
/// ```
/// use std::io::{Error, ErrorKind};
///
/// assert!(pmalloc_persist::is_out_of_space(&ErrorKind::StorageFull.into()));
/// assert!(!pmalloc_persist::is_out_of_space(&ErrorKind::PermissionDenied.into()));
/// ```
#[must_use]
pub fn is_out_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn opened_by(owner: Option<u64>) -> String {
    owner.map(|pid| format!(" (process {pid} opened it)")).unwrap_or_default()
}

/// What to do about an error that has no variant of its own.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => "free space on its file system, or raise the quota",
        Some(Errno::FBIG) => {
            "raise the limit on file sizes (ulimit -f), or choose a smaller capacity"
        }
        Some(Errno::NOMEM) => {
            "raise the limit on address space (ulimit -v), or choose a smaller capacity"
        }
        // The whole capacity counts as locked.
        Some(Errno::AGAIN) => {
            "this process keeps its memory locked (mlockall): raise the limit on locked memory (ulimit -l), lock less, \
             or choose a smaller capacity"
        }
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit on open files (ulimit -n)",
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            "check the permissions of the file, its directory and its file system"
        }
        Some(Errno::NAMETOOLONG) => "choose a shorter name",
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {
            "put it on a local file system that supports locks and mappings"
        }
        Some(Errno::IO) => "check the device: what was written last may be lost",
        _ => "check the file and its file system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_file_and_says_what_to_do() {
        let path = || PathBuf::from("/pool/a");
        let errors = [
            MapError::InUse { path: path(), owner: None },
            MapError::InUse { path: path(), owner: Some(7) },
            MapError::Exists { path: path() },
            MapError::of("open", &path(), Errno::NOENT),
            MapError::NotRegularFile { path: path(), kind: "a directory" },
            MapError::of("open", &path(), Errno::LOOP),
            MapError::BadPath {
                path: path(),
                why: "it ends with a slash; give the path of a file",
            },
            MapError::ForeignOwner { path: path(), owner: 1, user: 2 },
            MapError::NotPermitted { path: path(), access: Access::Shared },
            MapError::AccessTooLow {
                path: path(),
                opened: Access::ReadOnly,
                asked: Access::Shared,
            },
            MapError::NotPowerSafe {
                path: path(),
                asked: Durability::PowerFail,
                offered: Durability::ProcessCrash,
            },
            MapError::BadReserve { path: path(), reserve_len: 0, file_len: 1 },
            MapError::NoAddresses {
                path: path(),
                reserve_len: 1 << 38,
                source: Errno::NOMEM.into(),
            },
            MapError::Published {
                path: path(),
                name: "its name",
                source: Errno::IO.into(),
                undo: Errno::IO.into(),
            },
            MapError::Replaced { path: path() },
            MapError::Removed { path: path(), source: Errno::IO.into() },
            MapError::of("map", &path(), Errno::NOMEM),
            MapError::of("create", &path(), Errno::NOSPC),
            MapError::of("copy", &path(), Errno::FBIG),
            MapError::of("map", &path(), Errno::AGAIN),
            MapError::of("map", &path(), Errno::INVAL),
        ];
        let actions = [
            "open", "close", "check", "give", "run as", "change", "put", "reserve", "raise", "free",
        ];
        for error in errors {
            let message = error.to_string();
            assert!(message.contains("/pool/a"), "{message}");
            let (_, advice) = message.rsplit_once([':', ';']).expect("a part that advises");
            assert!(actions.iter().any(|action| advice.contains(action)), "{message}");
        }
    }

    #[test]
    fn a_limit_on_locked_memory_is_not_taken_for_one_on_addresses() {
        let of = |errno| MapError::of_reserving("/pool/a".as_ref(), 1 << 30, errno).to_string();
        assert!(of(Errno::NOMEM).contains("ulimit -v"), "{}", of(Errno::NOMEM));
        assert!(of(Errno::AGAIN).contains("ulimit -l"), "{}", of(Errno::AGAIN));
    }

    #[test]
    fn want_of_room_is_told_apart_from_a_broken_disk() {
        let of = |errno| MapError::of("write", "/pool/a".as_ref(), errno);
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            let error = of(errno);
            let MapError::NoSpace { source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(source.raw_os_error(), Some(errno.raw_os_error()), "kept");
        }
        for errno in [Errno::IO, Errno::NOMEM, Errno::ACCESS, Errno::MFILE] {
            assert!(matches!(of(errno), MapError::Io { .. }), "{errno:?}");
        }
    }
}
