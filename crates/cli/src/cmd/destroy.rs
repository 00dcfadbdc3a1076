//! `pmalloc destroy`: deletes a heap, and nothing else. Volatile.

use std::path::Path;

use pmalloc::{
    Error,
    persist::{Access, MapError, MediaFile},
};
use serde::Serialize;

use crate::{
    args::HeapArgs,
    exit::Failure,
    output::{print_either, print_text},
};

#[derive(Debug, Serialize)]
struct Shown {
    destroyed: String,
}

/// Deletes the heap that `args` name.
pub(super) fn run(args: &HeapArgs) -> Result<(), Failure> {
    let path = &args.path;
    remove(path, &Which::Any)?;
    let shown = Shown { destroyed: path.display().to_string() };
    print_either(args.output, &shown, |shown| {
        print_text(&format!("destroyed {}\n", shown.destroyed))
    })
    .map_err(Failure::after(format!("{} was destroyed all the same", path.display())))
}

/// Which heap may be removed from a path.
pub(super) enum Which {
    /// Whichever is there, damaged or not.
    Any,
    /// The one in this file, which is open so that no other file gets its numbers.
    In(MediaFile),
}

/// Removes the heap in the file `path`, if it is the one that is meant. It is durable that it is gone.
pub(super) fn remove(path: &Path, which: &Which) -> Result<(), Failure> {
    let map_error = |error: MapError| Failure::heap(path)(error.into());
    // Held until the name is gone: nobody opens what is about to be deleted.
    let file = MediaFile::open(path, Access::Shared).map_err(map_error)?;
    match which {
        Which::In(meant) => {
            if file.identity().map_err(map_error)? != meant.identity().map_err(map_error)? {
                return Err(map_error(MapError::Replaced { path: path.to_owned() }));
            }
        }
        Which::Any => match pmalloc::info(path) {
            // A damaged heap may go; a file that never was a heap may not.
            Ok(_) | Err(Error::Corrupted { .. }) => {}
            Err(error) => return Err(Failure::heap(path)(error)),
        },
    }
    file.remove().map_err(map_error)
}
