//! A reserved range of addresses: where a mapping goes, and what lies around it.

use std::{os::fd::OwnedFd, ptr};

use core::{ffi::c_void, ptr::NonNull};

use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, MsyncFlags, ProtFlags},
};

use super::grow::retry;

/// Bytes of inaccessible addresses kept on each side, so that an overflow out of the range faults. Also
/// the alignment of the range, so that the kernel can use large pages.
const GUARD_BYTES: usize = 2 << 20;

/// Whether this process could reserve `len_bytes` of addresses now; none of them stays reserved.
///
/// What is chosen by the answer may be refused all the same: other threads take addresses, too.
#[must_use]
pub fn has_addresses(len_bytes: u64) -> bool {
    usize::try_from(len_bytes).is_ok_and(|len| Reservation::new(len).is_ok())
}

/// A range of addresses that nothing else in the process is mapped into; unmapped when dropped.
///
/// Children of a fork do not inherit it.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Volatile: start of all addresses, guards included.
    whole: NonNull<c_void>,
    /// Volatile: start of the usable addresses.
    base: NonNull<c_void>,
    /// Volatile: number of usable addresses.
    len: usize,
    /// Volatile: number of all addresses.
    whole_len: usize,
}

// SAFETY: the addresses belong to the process, not to a thread, and every method takes `&self` for what
// the kernel serialises itself.
unsafe impl Send for Reservation {}
// SAFETY: as for `Send`.
unsafe impl Sync for Reservation {}

/// How a file is mapped over a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Stores go to the file.
    Shared,
    /// Stores go to the file, and page faults make its metadata durable first (DAX).
    Synchronous,
    /// Stores go to private copies of pages.
    Private,
}

impl Sharing {
    fn flags(self) -> MapFlags {
        MapFlags::NORESERVE
            | match self {
                Self::Shared => MapFlags::SHARED,
                Self::Synchronous => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
                Self::Private => MapFlags::PRIVATE,
            }
    }
}

impl Reservation {
    /// Reserves `len` addresses, inaccessible as yet. `len` is a positive multiple of the page size.
    pub(super) fn new(len: usize) -> Result<Self, Errno> {
        let whole_len = len.checked_add(3 * GUARD_BYTES).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let whole =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), whole_len, ProtFlags::empty(), flags) }?;
        let ahead = whole.addr().next_multiple_of(GUARD_BYTES) - whole.addr() + GUARD_BYTES;
        let base = whole.wrapping_byte_add(ahead);
        let (whole, base) = (not_null(whole), not_null(base));
        Ok(Self { whole, base, len, whole_len })
    }

    /// Address of the first usable byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base.cast()
    }

    /// Maps zeroed private memory over the whole range.
    pub(super) fn map_anonymous(&self) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is this reservation's own, so that nothing else is replaced; nobody holds a
        // reference into it before `seal`.
        unsafe { mm::mmap_anonymous(self.base.as_ptr(), self.len, read_write(), flags) }?;
        Ok(())
    }

    /// Maps `len` bytes of `file` from `start`, the start of a page, on over the same place of the range.
    pub(super) fn map_file(
        &self,
        file: &OwnedFd,
        (start, len): (usize, usize),
        how: Sharing,
    ) -> Result<(), Errno> {
        assert!(start <= self.len && len <= self.len - start, "a mapping inside the reservation");
        if len == 0 {
            return Ok(());
        }
        let flags = how.flags() | MapFlags::FIXED;
        let place = self.base.as_ptr().wrapping_byte_add(start);
        // SAFETY: as in `map_anonymous`.
        unsafe { mm::mmap(place, len, read_write(), flags, file, start as u64) }?;
        Ok(())
    }

    /// Reads `len` bytes of `file` from `start` on into the anonymous memory at the same place; what lies behind the end of
    /// the file stays as it is.
    pub(super) fn read_file(
        &self,
        file: &OwnedFd,
        (start, len): (usize, usize),
    ) -> Result<(), Errno> {
        assert!(start <= self.len && len <= self.len - start, "inside the reservation");
        let place = self.base().as_ptr().wrapping_add(start);
        // SAFETY: the bytes are mapped, readable and writable, and nobody holds a reference into them before `seal`.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(place, len) };
        let mut from = start as u64;
        while !rest.is_empty() {
            match retry(|| rustix::io::pread(file, &mut *rest, from))? {
                0 => break,
                count => {
                    rest = &mut rest[count..];
                    from += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Tells the kernel not to read ahead, which would put pages in use and holes between them into one piece of its cache:
    /// it asks for room for all of a piece when one page of it is stored to.
    pub(super) fn advise_random(&self) -> Result<(), Errno> {
        // SAFETY: the advice changes what is read from the file ahead of time, and no byte of the mapping.
        unsafe { mm::madvise(self.base.as_ptr(), self.len, Advice::Random) }
    }

    /// Keeps children of a fork from inheriting the addresses; the last step of mapping.
    pub(super) fn seal(&self) -> Result<(), Errno> {
        // SAFETY: the advice changes what a child inherits, nothing in this process.
        unsafe { mm::madvise(self.whole.as_ptr(), self.whole_len, Advice::LinuxDontFork) }
    }

    /// Writes `len` bytes from `start`, the start of a page, on to the file's storage and waits for it.
    pub(super) fn sync(&self, start: usize, len: usize) -> Result<(), Errno> {
        assert!(start <= self.len && len <= self.len - start, "a sync inside the reservation");
        let place = self.base.as_ptr().wrapping_byte_add(start);
        // SAFETY: the range is mapped; writing it back changes no byte of it.
        unsafe { mm::msync(place, len, MsyncFlags::SYNC) }
    }

    /// Drops the private memory of `len` bytes from `start` on; anonymous ones read as zero then.
    pub(super) fn discard(&self, start: usize, len: usize) -> Result<(), Errno> {
        assert!(start <= self.len && len <= self.len - start, "inside the reservation");
        let place = self.base.as_ptr().wrapping_byte_add(start);
        // SAFETY: the range is mapped and all words in it are atomics that any value is valid for; that
        // they read as zero afterwards is what the caller asked for.
        unsafe { mm::madvise(place, len, Advice::LinuxDontNeed) }
    }

    /// Forgets the addresses, which a forked child doesn't have: others may be mapped there by now.
    pub(super) fn forget(&mut self) {
        self.whole_len = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.whole_len > 0 {
            // SAFETY: the addresses are this reservation's own, and whoever was lent them by reference is
            // gone. Failure would mean a wrong range: impossible, and harmless but for the addresses.
            let _ = unsafe { mm::munmap(self.whole.as_ptr(), self.whole_len) };
        }
    }
}

/// Whether the kernel grants synchronous mappings of `file`, which it does on DAX only.
///
/// Tried on a mapping of its own: a failed one over a reservation may leave a hole in it.
pub(super) fn is_dax(file: &OwnedFd) -> bool {
    let page = rustix::param::page_size();
    let flags = Sharing::Synchronous.flags();
    // SAFETY: a new mapping at an address that the kernel chooses.
    let mapped = unsafe { mm::mmap(ptr::null_mut(), page, ProtFlags::READ, flags, file, 0) };
    let Ok(place) = mapped else { return false };
    // SAFETY: mapped just above, and no reference was made into it.
    let unmapped = unsafe { mm::munmap(place, page) };
    unmapped.expect("a mapping just made can be unmapped");
    true
}

fn read_write() -> ProtFlags {
    ProtFlags::READ | ProtFlags::WRITE
}

fn not_null(address: *mut c_void) -> NonNull<c_void> {
    NonNull::new(address).expect("the kernel maps nothing at address zero unless asked to")
}
