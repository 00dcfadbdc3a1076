//! Giving a file blocks and taking them back, whatever its file system can do.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{self, FallocateFlags, SeekFrom},
    io::Errno,
    process::{Resource, getrlimit},
};

use crate::Span;

/// Whether the file system can allocate blocks on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocated {
    /// Every byte of the span has a block now.
    Yes,
    /// It can't; nothing was changed.
    Unsupported,
}

/// Allocates the blocks of `span` and makes the file reach to its end.
pub(super) fn allocate(file: &OwnedFd, span: Span) -> io::Result<Allocated> {
    check_limit(span)?;
    match retry(|| fs::fallocate(file, FallocateFlags::empty(), span.start, span.len)) {
        Ok(()) => Ok(Allocated::Yes),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Allocated::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses what the process's limit on file sizes forbids, before the kernel answers with a signal that
/// kills the process.
fn check_limit(span: Span) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if span.end() > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Makes the file `len` bytes long: what is added is a hole.
pub(super) fn set_len(file: &OwnedFd, len: u64) -> io::Result<()> {
    check_limit(Span::new(0, len))?;
    Ok(retry(|| fs::ftruncate(file, len))?)
}

/// Writes zeros into the holes of `span` and behind the end of the file: [`allocate`] for file systems that
/// can't. Data is never written over.
///
/// Nobody may write into a hole of `span` meanwhile; the caller serialises its own calls.
pub(super) fn fill_holes(file: &OwnedFd, span: Span) -> io::Result<()> {
    check_limit(span)?;
    let mut place = span.start;
    while let Some(hole) = next_hole(file, place)?.filter(|&hole| hole < span.end()) {
        let end = hole_end(file, hole)?.min(span.end());
        write_zeros(file, Span::new(hole, end - hole))?;
        place = end;
    }
    Ok(())
}

/// The first byte from `place` on that has no block; the end of the file is a hole.
pub(super) fn next_hole(file: &OwnedFd, place: u64) -> io::Result<Option<u64>> {
    match retry(|| fs::seek(file, SeekFrom::Hole(place))) {
        Ok(hole) => Ok(Some(hole)),
        Err(Errno::NXIO) => Ok(Some(place)),
        Err(errno) => Err(errno.into()),
    }
}

/// The first byte behind `hole` that has a block, or the end of all offsets.
pub(super) fn hole_end(file: &OwnedFd, hole: u64) -> io::Result<u64> {
    match retry(|| fs::seek(file, SeekFrom::Data(hole))) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(u64::MAX),
        Err(errno) => Err(errno.into()),
    }
}

/// The first run of bytes from `place` on that have blocks, if there is one.
pub(super) fn next_data(file: &OwnedFd, place: u64) -> io::Result<Option<Span>> {
    let data = hole_end(file, place)?;
    if data == u64::MAX {
        return Ok(None);
    }
    let end = next_hole(file, data)?.filter(|end| *end > data);
    Ok(end.map(|end| Span::new(data, end - data)))
}

/// Bytes that are written into a media file by one call.
///
/// The kernel keeps what one call writes together, in one piece of its cache, and asks the file system for room for all of
/// a piece when one page of it is stored to: also for neighbours that have been punched since. On a full disk that store is
/// a bus error. Pieces of one page have no neighbours.
const PIECE_BYTES: usize = 4096;

fn write_zeros(file: &OwnedFd, span: Span) -> io::Result<()> {
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    let mut place = span.start;
    while place < span.end() {
        let piece = PIECE_BYTES as u64 - place % PIECE_BYTES as u64;
        let count = usize::try_from(piece.min(span.end() - place)).expect("a page at most");
        place += retry(|| rustix::io::pwrite(file, &ZEROS[..count], place))? as u64;
    }
    Ok(())
}

/// Copies the bytes of `span`, which begins with a page, to the same place in another file, by way of `buffer`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, span: Span, buffer: &mut [u8]) -> io::Result<()> {
    check_limit(span)?;
    let mut place = span.start;
    while place < span.end() {
        let count = usize::try_from(span.end() - place).unwrap_or(usize::MAX).min(buffer.len());
        let read = retry(|| rustix::io::pread(from, &mut buffer[..count], place))?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut written = 0;
        while written < read {
            let rest = &buffer[written..read.min(written + PIECE_BYTES - written % PIECE_BYTES)];
            written += retry(|| rustix::io::pwrite(to, rest, place + written as u64))?;
        }
        place += read as u64;
    }
    Ok(())
}

/// Gives the file blocks of its own for all of `span`, those that it shares with another file included.
pub(super) fn unshare(file: &OwnedFd, span: Span) -> io::Result<Allocated> {
    check_limit(span)?;
    match retry(|| fs::fallocate(file, FallocateFlags::UNSHARE_RANGE, span.start, span.len)) {
        Ok(()) => Ok(Allocated::Yes),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(Allocated::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the blocks of `span`, whole pages, back to the file system, if it can do that.
pub(super) fn punch(file: &OwnedFd, span: Span) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match retry(|| fs::fallocate(file, flags, span.start, span.len)) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Repeats `call` while signals interrupt it.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::{
        fs::File,
        os::unix::fs::{FileExt, MetadataExt},
    };

    use super::*;
    use crate::PAGE_BYTES;

    const PAGE: usize = 4096;
    const _: () = assert!(PAGE as u64 == PAGE_BYTES, "one page");

    /// A file with a page of 7s, a page of hole, and half a page of 9s.
    fn sparse_file() -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(&[7; PAGE], 0).expect("written");
        file.write_all_at(&[9; PAGE / 2], 2 * PAGE_BYTES).expect("written");
        file
    }

    #[test]
    fn holes_are_filled_and_data_stays() {
        let file = sparse_file();
        let before = file.metadata().expect("a file").blocks();
        let owned = OwnedFd::from(file.try_clone().expect("a copy"));
        fill_holes(&owned, Span::new(0, 5 * PAGE_BYTES)).expect("space");
        file.sync_all().expect("written");
        let metadata = file.metadata().expect("a file");
        assert_eq!(metadata.len(), 5 * PAGE_BYTES);
        assert!(metadata.blocks() > before);
        let mut bytes = vec![1; 5 * PAGE];
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert!(bytes[..PAGE].iter().all(|&b| b == 7));
        assert!(bytes[PAGE..2 * PAGE].iter().all(|&b| b == 0));
        assert!(bytes[2 * PAGE..2 * PAGE + PAGE / 2].iter().all(|&b| b == 9));
        assert!(bytes[2 * PAGE + PAGE / 2..].iter().all(|&b| b == 0));
    }

    #[test]
    fn data_is_found_between_holes() {
        let owned = OwnedFd::from(sparse_file());
        let data = |place| next_data(&owned, place).expect("an answer");
        assert_eq!(data(0), Some(Span::new(0, PAGE_BYTES)));
        assert_eq!(data(PAGE_BYTES), Some(Span::new(2 * PAGE_BYTES, PAGE_BYTES / 2)));
        assert_eq!(data(3 * PAGE_BYTES), None);
    }

    #[test]
    fn a_span_without_holes_is_left_alone() {
        let file = sparse_file();
        let owned = OwnedFd::from(file.try_clone().expect("a copy"));
        fill_holes(&owned, Span::new(0, PAGE_BYTES)).expect("nothing to do");
        assert_eq!(file.metadata().expect("a file").len(), 2 * PAGE_BYTES + PAGE_BYTES / 2);
    }

    #[test]
    fn a_span_far_behind_the_end_is_filled_from_its_start_only() {
        let file = sparse_file();
        let owned = OwnedFd::from(file.try_clone().expect("a copy"));
        let before = file.metadata().expect("a file").blocks();
        fill_holes(&owned, Span::new(1 << 30, PAGE_BYTES)).expect("space");
        let metadata = file.metadata().expect("a file");
        assert_eq!(metadata.len(), (1 << 30) + PAGE_BYTES);
        assert!(metadata.blocks() - before < 1 << 10);
    }
}
