//! `pmalloc map`: shows what each part of a heap is. Volatile.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::notes::note_if_not_closed;
use crate::{
    args::MapArgs,
    exit::Failure,
    map::{self, Summary},
    output::{print_either, print_text},
};

/// The name that stands for standard output.
const STDOUT: &str = "-";

/// Maps the heap that `args` name: into a picture, or onto standard output.
pub(super) fn run(args: &MapArgs) -> Result<(), Failure> {
    let to_stdout = args.svg.as_deref() == Some(Path::new(STDOUT));
    if to_stdout && args.output.json {
        let why = "--svg - and --json both print on standard output: give the picture a file";
        return Err(Failure::Usage(why.to_owned()));
    }
    if args.svg.as_deref().is_some_and(|picture| is_same_file(picture, &args.path)) {
        return Err(Failure::Usage("the picture would overwrite the heap".to_owned()));
    }
    let found = pmalloc::map_file(&args.path).map_err(Failure::heap(&args.path))?;
    note_if_not_closed(&args.path);
    let summary = Summary::of(&found);
    if let Some(path) = &args.svg {
        let picture = map::svg(&found, &summary, &args.path.display().to_string());
        if to_stdout {
            return print_text(&picture);
        }
        fs::write(path, picture).map_err(Failure::io(format!("write {}", path.display())))?;
        eprintln!("pmalloc: the picture is in {}", path.display());
        if !args.output.json {
            return Ok(());
        }
    }
    print_either(args.output, &summary, |summary| print_text(&map::text(&found, summary)))
}

/// Whether both names are those of one file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}
