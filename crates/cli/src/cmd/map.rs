//! `pmalloc map`: shows what each part of a heap is. Volatile.

use std::fs;

use crate::{
    args::MapArgs,
    exit::Failure,
    map::{self, Summary},
    output::{print_either, print_text},
};

/// Maps the heap that `args` name: into a picture, or onto standard output.
pub(super) fn run(args: &MapArgs) -> Result<(), Failure> {
    let found = pmalloc::map_file(&args.path).map_err(Failure::heap(&args.path))?;
    let summary = Summary::of(&found);
    if let Some(path) = &args.svg {
        let picture = map::svg(&found, &summary, &args.path.display().to_string());
        fs::write(path, picture).map_err(Failure::io(format!("write {}", path.display())))?;
        eprintln!("pmalloc: the picture is in {}", path.display());
        if !args.output.json {
            return Ok(());
        }
    }
    print_either(args.output, &summary, |summary| print_text(&map::text(&found, summary)))
}
