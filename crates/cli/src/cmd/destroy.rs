//! `pmalloc destroy`: deletes a heap, and nothing else. Volatile.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use pmalloc::{
    Error,
    persist::{Access, MediaFile},
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
    remove(path, None)?;
    let shown = Shown { destroyed: path.display().to_string() };
    print_either(args.output, &shown, |shown| {
        print_text(&format!("destroyed {}\n", shown.destroyed))
    })
    .map_err(Failure::after(format!("{} was destroyed all the same", path.display())))
}

/// Removes the heap in the file `path`, if it is the one with this `uuid`; any, if that is `None`.
pub(super) fn remove(path: &Path, uuid: Option<u128>) -> Result<(), Failure> {
    let failure = Failure::heap(path);
    // Held until the name is gone: nobody opens what is about to be deleted.
    let lock = match MediaFile::open(path, Access::Shared) {
        Ok(lock) => lock,
        Err(error) => return Err(failure(error.into())),
    };
    match pmalloc::info(path) {
        Ok(info) if uuid.is_some_and(|uuid| uuid != info.uuid) => {
            return Err(Failure::Usage(format!("{} is another heap by now", path.display())));
        }
        // A damaged heap may go; a file that never was a heap may not.
        Ok(_) => {}
        Err(Error::Corrupted { .. }) if uuid.is_none() => {}
        Err(error) => return Err(failure(error)),
    }
    // The name may have gone to another file since it was opened.
    let named =
        fs::symlink_metadata(path).map_err(Failure::io(format!("look at {}", path.display())))?;
    if lock.identity().map_err(|error| failure(error.into()))? != (named.dev(), named.ino()) {
        return Err(Failure::Usage(format!("{} is another file by now", path.display())));
    }
    fs::remove_file(path).map_err(Failure::io(format!("remove {}", path.display())))?;
    drop(lock);
    Ok(())
}
