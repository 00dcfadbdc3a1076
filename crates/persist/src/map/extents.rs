//! Which blocks a file has, as its file system tells: also those that were never written, or that another file has, too.

use core::ffi::c_void;
use std::os::fd::OwnedFd;

use rustix::{
    io::Errno,
    ioctl::{self, Opcode, Updater, opcode},
};

use crate::Span;

/// Extents that are asked for at a time.
const EXTENTS: usize = 128;

/// Flags of an extent: the file's last one; blocks that another file has, too.
const EXTENT_LAST: u32 = 0x1;
const EXTENT_SHARED: u32 = 0x2000;

/// `struct fiemap_extent` of `linux/fiemap.h`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`, without the extents behind it, which its number does not count.
#[repr(C)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

#[repr(C)]
struct Question {
    head: Head,
    extents: [Extent; EXTENTS],
}

const FIEMAP: Opcode = opcode::read_write::<Head>(b'f', 11);

/// Whether another file has some of the blocks of `file`; false where the file system can't tell.
pub(super) fn shares_extents(file: &OwnedFd) -> bool {
    let mut start = 0;
    while let Ok((extents, count)) = extents_from(file, start) {
        let extents = &extents[..count];
        if extents.iter().any(|extent| extent.flags & EXTENT_SHARED != 0) {
            return true;
        }
        match extents.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => start = last.logical + last.length,
            _ => return false,
        }
    }
    false
}

/// The parts of `hole` that have no blocks; all of it where the file system can't tell. Blocks that were allocated and never
/// written read as a hole, too.
pub(super) fn without_blocks(file: &OwnedFd, hole: Span) -> Vec<Span> {
    let mut bare = Vec::new();
    let mut place = hole.start;
    while place < hole.end() {
        let Ok((extents, count)) = extents_from(file, place) else { break };
        for extent in &extents[..count] {
            let start = extent.logical.min(hole.end());
            if place < start {
                bare.push(Span::new(place, start - place));
            }
            place = place.max(extent.logical.saturating_add(extent.length)).min(hole.end());
        }
        if count == 0 || extents[count - 1].flags & EXTENT_LAST != 0 {
            break;
        }
    }
    if place < hole.end() {
        bare.push(Span::new(place, hole.end() - place));
    }
    bare
}

fn extents_from(file: &OwnedFd, start: u64) -> Result<([Extent; EXTENTS], usize), Errno> {
    let head = Head {
        start,
        length: u64::MAX - start,
        flags: 0,
        mapped_extents: 0,
        extent_count: u32::try_from(EXTENTS).expect("a few"),
        reserved: 0,
    };
    let mut question = Question { head, extents: [Extent::default(); EXTENTS] };
    // SAFETY:
    // 1. the number is that of `FS_IOC_FIEMAP`;
    // 2. the kernel expects a head with room for as many extents behind it as the head says.
    let updater = unsafe { Updater::<FIEMAP, Question>::new(&mut question) };
    // SAFETY: the answer is written into the question, whose words may have any value.
    unsafe { ioctl::ioctl(file, updater) }?;
    let count = (question.head.mapped_extents as usize).min(EXTENTS);
    Ok((question.extents, count))
}

const _: () = assert!(size_of::<Extent>() == 56 && size_of::<Head>() == 32, "as the kernel has it");
const _: () = assert!(size_of::<*const c_void>() == 8, "the numbers are those of 64-bit Linux");

#[cfg(all(test, not(miri)))]
mod tests {
    use rustix::fs::{self, FallocateFlags};

    use super::*;

    #[test]
    fn a_file_of_this_machine_that_nobody_copied_shares_nothing() {
        let file: OwnedFd = tempfile::tempfile().expect("a temporary file").into();
        fs::ftruncate(&file, 1 << 30).expect("a length");
        rustix::io::pwrite(&file, &[1; 4096], 1 << 29).expect("written");
        assert!(!shares_extents(&file));
    }

    #[test]
    fn blocks_that_were_never_written_are_blocks() {
        let file: OwnedFd = tempfile::tempfile().expect("a temporary file").into();
        fs::ftruncate(&file, 1 << 20).expect("a length");
        let whole = Span::new(0, 1 << 20);
        assert_eq!(without_blocks(&file, whole), [whole]);
        let allocated = fs::fallocate(&file, FallocateFlags::empty(), 1 << 18, 1 << 18);
        if allocated.is_err() || extents_from(&file, 0).is_err() {
            return;
        }
        let (before, behind) = (Span::new(0, 1 << 18), Span::new(1 << 19, 1 << 19));
        assert_eq!(without_blocks(&file, whole), [before, behind]);
        let inside = Span::new(1 << 18, 1 << 17);
        assert_eq!(without_blocks(&file, inside), []);
    }
}
