//! `pmalloc destroy`: deletes a heap, and nothing else. Volatile.

use std::fs;

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
    let failure = Failure::heap(path);
    // Held until the name is gone: nobody opens what is about to be deleted.
    let lock = match MediaFile::open(path, Access::Shared) {
        Ok(lock) => lock,
        Err(error) => return Err(failure(error.into())),
    };
    match pmalloc::info(path) {
        // A damaged heap may go; a file that never was a heap may not.
        Ok(_) | Err(Error::Corrupted { .. }) => {}
        Err(error) => return Err(failure(error)),
    }
    let doing = format!("remove {}", path.display());
    fs::remove_file(path).map_err(Failure::io(doing))?;
    drop(lock);
    let shown = Shown { destroyed: path.display().to_string() };
    print_either(args.output, &shown, |shown| {
        print_text(&format!("destroyed {}\n", shown.destroyed))
    })
}
