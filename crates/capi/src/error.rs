//! What went wrong, as a number and a sentence; and the wall that panics don't pass. Volatile.

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    ffi::{CStr, CString, c_char, c_int},
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use pmalloc::{Error, persist::MapError};
use rustix::io::Errno;

use crate::numbers::*;

/// Result of a call, before it is reported to C.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: c_int,
    text: String,
    /// What the call leaves in `errno`, if anything.
    errno: Option<c_int>,
}

impl Failure {
    /// A failure that `text`, a sentence, explains.
    #[cold]
    pub(crate) fn new(code: c_int, text: impl Into<String>) -> Self {
        // A full heap says what a full memory says.
        let errno = (code == PMA_E_FULL).then_some(Errno::NOMEM.raw_os_error());
        Self { code, text: text.into(), errno }
    }

    /// An argument that no heap accepts.
    #[cold]
    pub(crate) fn invalid(what: &str, why: impl fmt::Display) -> Self {
        Self::new(PMA_E_INVAL, format!("invalid {what}: {why}"))
    }

    /// A slot or cell that is none.
    #[cold]
    pub(crate) fn foreign() -> Self {
        let text = "the slot or cell lies in no live block of this heap: use what lies in roots and in blocks that slots \
                    own, at multiples of 8";
        Self::new(PMA_E_SLOT_FOREIGN, text)
    }

    /// A call in a forked child.
    #[cold]
    pub(crate) fn forked() -> Self {
        Error::Forked.into()
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Self {
        match error {
            // These sentences of the library name its functions.
            Error::SlotForeign => Self::foreign(),
            Error::RootMissing { name } => {
                Self::new(PMA_E_NOT_LIVE, format!("no root is called {name:?}"))
            }
            error @ Error::Map(MapError::NotPowerSafe { .. }) => {
                let text =
                    error.to_string().replace("unsafe_force_durability", "PMA_F_UNSAFE_FORCE");
                Self::new(code_of(&error), text)
            }
            error => {
                let failure = Self::new(code_of(&error), error.to_string());
                Self { errno: errno_of(&error).or(failure.errno), ..failure }
            }
        }
    }
}

/// The number of the system's error behind `error`, if there is one that a program acts on.
fn errno_of(error: &Error) -> Option<c_int> {
    use {Error as E, MapError as M};
    let errno = match error {
        E::Map(M::NotFound { .. }) => Errno::NOENT,
        E::Map(M::NotPermitted { .. } | M::ForeignOwner { .. }) => Errno::ACCESS,
        E::Map(M::NoAddresses { .. }) => Errno::NOMEM,
        E::Map(M::Io { .. }) | E::Io { .. } => return system_error(error),
        E::NoSpace { .. } => {
            return system_error(error).or(Some(Errno::NOSPC.raw_os_error()));
        }
        _ => return None,
    };
    Some(errno.raw_os_error())
}

fn system_error(error: &Error) -> Option<c_int> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

/// The number of an error of the library.
fn code_of(error: &Error) -> c_int {
    use {Error as E, MapError as M};
    match error {
        // A durability that the memory does not have is a wrong option.
        E::Invalid { .. } | E::Map(M::NotPowerSafe { .. } | M::BadPath { .. }) => PMA_E_INVAL,
        E::OutOfMemory { .. } | E::NoSpace { .. } => PMA_E_FULL,
        E::NotLive { .. } | E::RootMissing { .. } => PMA_E_NOT_LIVE,
        E::SlotFull { .. } => PMA_E_SLOT_FULL,
        E::SlotEmpty { .. } => PMA_E_SLOT_EMPTY,
        E::SlotForeign => PMA_E_SLOT_FOREIGN,
        E::ChildrenAlive { .. } => PMA_E_CHILDREN,
        E::Limit { .. } => PMA_E_LIMIT,
        E::RootInUse { .. }
        | E::HandlesRemain
        | E::Owned { .. }
        | E::Pinned
        | E::Map(M::InUse { .. }) => PMA_E_IN_USE,
        E::Map(M::Exists { .. }) => PMA_E_EXISTS,
        E::NotAHeap { .. } | E::Map(M::NotRegularFile { .. } | M::Symlink { .. }) => PMA_E_NOT_HEAP,
        E::Version { .. } => PMA_E_VERSION,
        E::Layout { .. } | E::RootMismatch { .. } => PMA_E_LAYOUT,
        // The length of the file says more than its superblock allows.
        E::Corrupted { .. } | E::Map(M::BadReserve { .. }) => PMA_E_CORRUPT,
        E::PowerLoss => PMA_E_POWER_LOSS,
        E::Forked => PMA_E_FORKED,
        E::Map(_) | E::Io { .. } => PMA_E_IO,
        _ => PMA_E_INTERNAL,
    }
}

thread_local! {
    /// The sentence of this thread's last call, if it failed.
    static LAST: RefCell<Option<CString>> = const { RefCell::new(None) };
    /// Whether there is one; it has no destructor, and is looked at by every call.
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call and returns its number for C.
pub(crate) fn report(call: impl FnOnce() -> Result<()>) -> c_int {
    caught(call).map_or_else(note, |()| {
        forget();
        0
    })
}

/// Runs a call and returns its value for C, or `instead` if it failed.
pub(crate) fn report_or<T>(instead: T, call: impl FnOnce() -> Result<T>) -> T {
    match caught(call) {
        Ok(value) => {
            forget();
            value
        }
        Err(failure) => {
            note(failure);
            instead
        }
    }
}

/// Runs a call; a panic is one of its failures. What the call left half done stays locked, so that later calls fail, too.
fn caught<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Failure::new(PMA_E_INTERNAL, format!("a defect of pmalloc: {text}")))
    })
}

/// Takes back the sentence of the call before: this one succeeded, and who asks now asks about it.
fn forget() {
    if FAILED.get() {
        FAILED.set(false);
        let _ = LAST.try_with(|last| last.replace(None));
    }
}

/// Notes the sentence for the thread and returns the number.
#[cold]
fn note(failure: Failure) -> c_int {
    let Failure { code, mut text, errno } = failure;
    text.retain(|character| character != '\0');
    // A thread that is about to end may have no place for the sentence any more; the number says enough then.
    let _ = LAST.try_with(|last| last.replace(CString::new(text).ok()));
    FAILED.set(true);
    // Last of all: what a call tidies up may write it as well.
    if let Some(errno) = errno {
        errno::set_errno(errno::Errno(errno));
    }
    code
}

/// What went wrong in this thread's last call; empty if nothing did.
#[unsafe(no_mangle)]
pub extern "C" fn pma_last_error() -> *const c_char {
    let sentence = LAST.try_with(|last| last.borrow().as_ref().map(|text| text.as_ptr()));
    sentence.ok().flatten().unwrap_or(c"".as_ptr())
}

/// What an error means, in general.
#[unsafe(no_mangle)]
pub extern "C" fn pma_strerror(error: c_int) -> *const c_char {
    meaning(error).as_ptr()
}

fn meaning(error: c_int) -> &'static CStr {
    match error {
        0 => c"no error",
        PMA_E_INVAL => c"an argument that no heap accepts",
        PMA_E_FULL => c"no room left in the heap or its file system",
        PMA_E_NOT_LIVE => c"not a live or reserved block, or no root of this name",
        PMA_E_SLOT_FULL => c"the slot owns a block already",
        PMA_E_SLOT_EMPTY => c"the slot owns no block",
        PMA_E_SLOT_FOREIGN => c"the slot or cell lies in no live block of this heap",
        PMA_E_CHILDREN => c"what is freed holds a slot that owns a block",
        PMA_E_LIMIT => c"a fixed limit is reached",
        PMA_E_MODEL => c"not of this consistency model",
        PMA_E_IN_USE => c"the heap, the root or the block is in use",
        PMA_E_EXISTS => c"a file of this name exists",
        PMA_E_NOT_HEAP => c"the file is not a heap",
        PMA_E_VERSION => c"the heap has a format that this library does not know",
        PMA_E_LAYOUT => c"the heap or the root holds something else than asked for",
        PMA_E_CORRUPT => c"the heap contradicts itself",
        PMA_E_POWER_LOSS => c"the machine went down while the heap was open and not synchronized",
        PMA_E_IO => c"the operating system refused",
        PMA_E_FORKED => c"the heap was opened by the parent of this process",
        PMA_E_INTERNAL => c"a defect of pmalloc",
        _ => c"not an error of pmalloc",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::PathBuf};

    use super::*;

    fn last() -> String {
        // SAFETY: a string that lives until this thread's next call.
        let text = unsafe { CStr::from_ptr(pma_last_error()) };
        text.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_panic_is_an_error_and_goes_no_further() {
        assert_eq!(report(|| panic!("the {} is gone", "lane")), PMA_E_INTERNAL);
        assert_eq!(last(), "a defect of pmalloc: the lane is gone");
        assert_eq!(report_or(7, || panic!("once more")), 7);
        assert_eq!(last(), "a defect of pmalloc: once more");
    }

    #[test]
    fn a_sentence_belongs_to_the_thread_that_failed() {
        assert_eq!(report(|| Err(Failure::invalid("name", "with a \0 in it"))), PMA_E_INVAL);
        assert_eq!(last(), "invalid name: with a  in it");
        let other = std::thread::spawn(last).join().expect("no panic");
        assert_eq!(other, "");
    }

    #[test]
    fn a_call_that_succeeds_takes_the_sentence_back() {
        assert_eq!(report(|| Err(Failure::invalid("name", "bad"))), PMA_E_INVAL);
        assert_eq!(report(|| Ok(())), 0);
        assert_eq!(last(), "");
        assert_eq!(report_or(7, || Err(Failure::invalid("name", "bad"))), 7);
        assert_eq!((report_or(7, || Ok(8)), last()), (8, String::new()));
    }

    #[test]
    fn each_error_of_the_library_has_its_number() {
        use pmalloc::persist::Durability;
        use {Error as E, MapError as M};
        let path = || PathBuf::from("heap");
        let (asked, offered) = (Durability::PowerFail, Durability::ProcessCrash);
        let name = String::new;
        let io = || io::Error::from_raw_os_error(Errno::IO.raw_os_error());
        for (error, code) in [
            (E::Invalid { what: "size", why: name() }, PMA_E_INVAL),
            (E::Map(M::NotPowerSafe { path: path(), asked, offered }), PMA_E_INVAL),
            (E::OutOfMemory { requested_bytes: 2, capacity_bytes: 1 }, PMA_E_FULL),
            (E::NoSpace { doing: "growing".into(), source: io() }, PMA_E_FULL),
            (E::NotLive { offset: 1 }, PMA_E_NOT_LIVE),
            (E::RootMissing { name: name() }, PMA_E_NOT_LIVE),
            (E::SlotFull { slot: 1 }, PMA_E_SLOT_FULL),
            (E::SlotEmpty { slot: 1 }, PMA_E_SLOT_EMPTY),
            (E::SlotForeign, PMA_E_SLOT_FOREIGN),
            (E::ChildrenAlive { slot: 1 }, PMA_E_CHILDREN),
            (E::Limit { what: "roots", limit: 1 }, PMA_E_LIMIT),
            (E::RootInUse { name: name() }, PMA_E_IN_USE),
            (E::Owned { offset: 16, slot: 8, how: "owns it" }, PMA_E_IN_USE),
            (E::Pinned, PMA_E_IN_USE),
            (E::Map(M::InUse { path: path(), owner: None }), PMA_E_IN_USE),
            (E::Map(M::Exists { path: path() }), PMA_E_EXISTS),
            (E::NotAHeap { why: "it is empty" }, PMA_E_NOT_HEAP),
            (E::Map(M::Symlink { path: path() }), PMA_E_NOT_HEAP),
            (E::Version { what: "format version", found: 2, supported: 1 }, PMA_E_VERSION),
            (E::Layout { expected: name(), found: name() }, PMA_E_LAYOUT),
            (E::RootMismatch { name: name(), expected: name(), found: name() }, PMA_E_LAYOUT),
            (E::Corrupted { offset: 1, what: "a bit".into() }, PMA_E_CORRUPT),
            (E::PowerLoss, PMA_E_POWER_LOSS),
            (E::Map(M::NotFound { path: path() }), PMA_E_IO),
            (E::Io { doing: "growing", source: io() }, PMA_E_IO),
            (E::Forked, PMA_E_FORKED),
        ] {
            let expected = format!("{error:?}");
            assert_eq!(Failure::from(error).code, code, "{expected}");
        }
    }

    #[test]
    fn the_reason_of_the_system_is_kept() {
        let path = || PathBuf::from("heap");
        let of = |errno: Errno| io::Error::from(errno);
        let no_space = |source| Error::NoSpace { doing: "growing".into(), source };
        for (error, errno) in [
            (no_space(of(Errno::DQUOT)), Errno::DQUOT),
            (no_space(io::ErrorKind::StorageFull.into()), Errno::NOSPC),
            (Error::OutOfMemory { requested_bytes: 2, capacity_bytes: 1 }, Errno::NOMEM),
            (Error::Io { doing: "growing", source: of(Errno::IO) }, Errno::IO),
            (
                MapError::Io { op: "map", path: path(), source: of(Errno::MFILE) }.into(),
                Errno::MFILE,
            ),
            (MapError::NotFound { path: path() }.into(), Errno::NOENT),
        ] {
            let said = format!("{error:?}");
            assert_ne!(report(|| Err(error.into())), 0);
            assert_eq!(errno::errno().0, errno.raw_os_error(), "{said}");
        }
        assert_eq!(report(|| Err(Error::SlotForeign.into())), PMA_E_SLOT_FOREIGN);
        assert_eq!(errno::errno().0, Errno::NOENT.raw_os_error(), "left alone");
    }

    #[test]
    fn each_number_has_a_meaning_of_its_own() {
        let known: HashSet<_> = (0..=PMA_E_INTERNAL).map(meaning).collect();
        assert_eq!(known.len(), 20);
        assert_eq!(meaning(-1), meaning(PMA_E_INTERNAL + 1));
        assert!(!known.contains(meaning(-1)));
    }
}
