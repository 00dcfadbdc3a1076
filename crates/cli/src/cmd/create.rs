//! `pmalloc create`: makes an empty heap and says what it is. Volatile.

use std::path::Path;

use pmalloc::{
    Heap, HeapOptions,
    persist::{Access, MapError, MediaFile},
};

use super::{
    destroy::{self, Which},
    info,
};
use crate::{args::CreateArgs, exit::Failure, output};

/// Creates the heap that `args` describe.
pub(super) fn run(args: &CreateArgs) -> Result<(), Failure> {
    let mut options = args.heap.options();
    if let Some(bytes) = args.capacity {
        options = options.capacity_bytes(bytes);
    }
    if let Some(name) = &args.layout {
        options = options.layout(name);
    }
    let heap = options.create(&args.path).map_err(Failure::heap(&args.path))?;
    output::warn_if_forced(&heap.media());
    close(heap, &args.path)?;
    // What fails from here on leaves the heap there.
    describe(args)
        .map_err(Failure::after(format!("{} was created all the same", args.path.display())))
}

/// Closes a new heap. One that can't be closed may not open again, and goes.
fn close(heap: Heap, path: &Path) -> Result<(), Failure> {
    let file = file_of(&heap, path);
    let Err(error) = heap.close() else { return Ok(()) };
    let failure = Failure::heap(path)(error);
    match file.and_then(|file| destroy::remove(path, &Which::In(file))) {
        Ok(()) => Err(failure),
        Err(undo) => Err(Failure::after(format!(
            "{} was created all the same, which could not be undone: {undo}",
            path.display()
        ))(failure)),
    }
}

/// The file of `heap`. As long as it is open, no other file has its numbers.
fn file_of(heap: &Heap, path: &Path) -> Result<MediaFile, Failure> {
    let map_error = |error: MapError| Failure::heap(path)(error.into());
    let file = MediaFile::open(path, Access::ReadOnly).map_err(map_error)?;
    // The path may be that of another heap by now.
    if heap.media().identity != Some(file.identity().map_err(map_error)?) {
        return Err(map_error(MapError::Replaced { path: path.to_owned() }));
    }
    Ok(file)
}

/// Says what a new heap is.
fn describe(args: &CreateArgs) -> Result<(), Failure> {
    if args.capacity.is_none() {
        note_if_narrow(&args.path)?;
    }
    info::warn(&args.path);
    info::show(&args.path, args.output)
}

/// Says that a heap got less than the default capacity, if it did.
fn note_if_narrow(path: &Path) -> Result<(), Failure> {
    let capacity = pmalloc::info(path).map_err(Failure::heap(path))?.capacity_bytes;
    if capacity < HeapOptions::CAPACITY_DEFAULT_BYTES {
        eprintln!(
            "pmalloc: note: the capacity is {}, not {}: this process has no addresses for more (see ulimit -v); \
             --capacity chooses another",
            output::bytes(capacity),
            output::bytes(HeapOptions::CAPACITY_DEFAULT_BYTES)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is removed used to be found by the identity of the heap that has the name afterwards.
    #[test]
    fn what_took_the_name_of_a_new_heap_is_not_taken_for_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [path, aside, copy] = ["heap", "aside", "copy"].map(|name| directory.path().join(name));
        let create = |path: &Path| Heap::options().capacity_bytes(4 << 20).create(path);
        let heap = create(&path).expect("room");
        let file = file_of(&heap, &path).expect("it has the name");
        heap.close().expect("closed");
        // The same heap a second time, in another file.
        let copied = pmalloc::copy_file(&path, &copy).expect("closed");
        assert_eq!(copied.check.problems, []);
        fs::rename(&path, &aside).expect("ours");
        fs::rename(&copy, &path).expect("ours");
        let spared = destroy::remove(&path, &Which::In(file)).expect_err("another file");
        assert!(spared.to_string().contains("another file"), "{spared}");

        fs::rename(&path, &copy).expect("ours");
        let heap = create(&path).expect("room");
        fs::rename(&aside, &path).expect("ours");
        let other = file_of(&heap, &path).expect_err("the heap of before");
        assert!(other.to_string().contains("another file"), "{other}");
        drop(heap);

        let heap = Heap::open(&path).expect("nobody has it open");
        let file = file_of(&heap, &path).expect("it has the name");
        heap.close().expect("closed");
        destroy::remove(&path, &Which::In(file)).expect("it is that one");
        assert!(!path.exists() && copy.exists());
    }
}
