//! Which rivals there are, and loading them. Volatile.

use std::{
    error::Error,
    ffi::{CStr, c_void},
    fmt, mem,
    ptr::NonNull,
};

/// C's `malloc`.
type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
/// C's `free`.
type Free = unsafe extern "C" fn(*mut c_void);

/// An allocator to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// mimalloc, version 2 or 3.
    Mimalloc,
    /// The C library's own.
    Glibc,
}

/// How a rival is found, and what it calls its functions.
struct Description {
    name: &'static str,
    /// File names to try, the preferred one first.
    files: &'static [&'static str],
    malloc: &'static CStr,
    free: &'static CStr,
    remedy: &'static str,
}

impl Peer {
    /// All rivals.
    pub const ALL: [Self; 2] = [Self::Mimalloc, Self::Glibc];

    /// The name, as the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.description().name
    }

    /// The rival of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// Loads the library, for the rest of the process's life.
    ///
    /// # Errors
    ///
    /// [`Missing`] if it is not installed, or not what its name says.
    pub fn load(self) -> Result<Library, Missing> {
        load(&self.description())
    }

    fn description(self) -> Description {
        match self {
            Self::Mimalloc => Description {
                name: "mimalloc",
                files: &["libmimalloc.so.2", "libmimalloc.so.3", "libmimalloc.so"],
                malloc: c"mi_malloc",
                free: c"mi_free",
                remedy: "install Debian's package libmimalloc2.0, or put libmimalloc.so where the loader finds it",
            },
            Self::Glibc => Description {
                name: "glibc",
                files: &["libc.so.6"],
                malloc: c"malloc",
                free: c"free",
                remedy: "it is part of every system whose C library is glibc, and of no other",
            },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a rival can't be measured.
#[derive(Debug, thiserror::Error)]
#[error("{name} is left out: {why}; {remedy}")]
pub struct Missing {
    /// The rival's name.
    name: &'static str,
    /// What would help.
    remedy: &'static str,
    /// What the loader said of the file that was tried last.
    why: String,
}

/// A rival's functions. The library stays loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Library {
    malloc: Malloc,
    free: Free,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

impl Library {
    /// A block of at least `size_bytes`, or `None` if there is no memory.
    #[inline]
    pub(crate) fn allocate(&self, size_bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: C's `malloc` takes any size, from any thread.
        let place = unsafe { (self.malloc)(size_bytes) };
        NonNull::new(place.cast())
    }

    /// Frees `block`.
    ///
    /// # Safety
    ///
    /// 1. `block` came from [`allocate`](Self::allocate) of the same library;
    /// 2. it was not freed since, and nobody uses it from now on.
    #[inline]
    pub(crate) unsafe fn free(&self, block: NonNull<u8>) {
        // SAFETY: what C's `free` asks for is the contract of this function.
        unsafe { (self.free)(block.as_ptr().cast()) }
    }
}

fn load(description: &Description) -> Result<Library, Missing> {
    let &Description { name, remedy, .. } = description;
    try_files(description).map_err(|error| Missing { name, remedy, why: reason(&error) })
}

/// The loader's own words: they name the file or the function, and the error's text does not repeat them.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The library in the first file that can be loaded, or what the last one lacks.
fn try_files(description: &Description) -> Result<Library, libloading::Error> {
    let (last, preferred) = description.files.split_last().expect("a rival has a file");
    preferred
        .iter()
        .find_map(|file| try_file(file, description).ok())
        .map_or_else(|| try_file(last, description), Ok)
}

fn try_file(file: &str, description: &Description) -> Result<Library, libloading::Error> {
    // SAFETY: the files are those of allocators, whose initialisers ask for nothing.
    let loaded = unsafe { libloading::Library::new(file) }?;
    // SAFETY: `Malloc` is the type that the library's header declares for its `malloc`.
    let malloc = unsafe { loaded.get::<Malloc>(description.malloc) }.map(|symbol| *symbol)?;
    // SAFETY: `Free` is the type that the library's header declares for its `free`.
    let free = unsafe { loaded.get::<Free>(description.free) }.map(|symbol| *symbol)?;
    // An allocator has a destructor in every thread that used it, so it can't be unloaded.
    mem::forget(loaded);
    Ok(Library { malloc, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rival_is_found_by_its_name() {
        for peer in Peer::ALL {
            assert_eq!(Peer::from_name(peer.name()), Some(peer));
        }
        assert_eq!(Peer::from_name("pmdk"), None);
    }

    #[test]
    fn a_rival_that_is_not_installed_says_what_to_install() {
        let description =
            Description { files: &["libno-such-allocator.so"], ..Peer::Mimalloc.description() };
        let missing = load(&description).expect_err("nobody has it").to_string();
        assert!(missing.starts_with("mimalloc is left out: "), "{missing}");
        assert!(missing.contains("libno-such-allocator.so"), "{missing}");
        assert!(missing.contains("libmimalloc2.0"), "{missing}");
    }

    #[test]
    fn a_library_without_the_functions_is_not_taken_for_the_rival() {
        let description = Description { malloc: c"mi_malloc", ..Peer::Glibc.description() };
        let missing = load(&description).expect_err("glibc is not mimalloc").to_string();
        assert!(missing.contains("mi_malloc"), "{missing}");
    }

    #[test]
    fn the_files_are_tried_in_turn() {
        let files = &["libno-such-allocator.so", "libc.so.6"];
        load(&Description { files, ..Peer::Glibc.description() }).expect("the second one");
    }
}
