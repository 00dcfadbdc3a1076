//! Noticing that this process is a forked child of the one that mapped.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use std::{io, ptr};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// A page that the kernel wipes in children: one load tells them from the parent.
///
/// The alternatives were a process id compared at each call, which is a system call, and a handler that
/// runs at fork, which misses children that are not made by the C library.
#[derive(Debug)]
pub struct ForkMark {
    /// Volatile: non-zero in the process that made the mark; `None` if the kernel can't wipe pages.
    page: Option<NonNull<AtomicU64>>,
    /// Volatile: the process that made the mark.
    creator: u32,
}

// SAFETY: the page is only read through an atomic, and it is unmapped only when nobody borrows the mark.
unsafe impl Send for ForkMark {}
// SAFETY: as for `Send`.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// A mark of the calling process.
    ///
    /// # Errors
    ///
    /// That of the system if it has no page left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { page: marked_page()?, creator: std::process::id() })
    }

    /// Whether the calling process is a child (of a child) of the one that made the mark.
    #[inline]
    #[must_use]
    pub fn forked(&self) -> bool {
        match self.page {
            // Relaxed: the word changes in no thread's sight, only from one process to the next.
            // SAFETY: the page is mapped until `drop`, in children too.
            Some(page) => unsafe { page.as_ref() }.load(Ordering::Relaxed) == 0,
            None => self.creator != std::process::id(),
        }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: mapped in `marked_page`, and no borrow of it outlives this value.
            let _ = unsafe { mm::munmap(page.as_ptr().cast(), rustix::param::page_size()) };
        }
    }
}

/// A page with a word that is wiped at fork, or `None` if the kernel is too old for that or there is none.
fn marked_page() -> io::Result<Option<NonNull<AtomicU64>>> {
    if cfg!(miri) {
        return Ok(None);
    }
    let len = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE) }?;
    // SAFETY: the advice changes what a child inherits, nothing in this process.
    if unsafe { mm::madvise(page, len, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: mapped just above, and nothing refers to it.
        unsafe { mm::munmap(page, len) }?;
        return Ok(None);
    }
    let word = NonNull::new(page.cast::<AtomicU64>()).expect("nothing is mapped at address zero");
    // SAFETY: a fresh, zeroed, page-aligned mapping of this process.
    unsafe { word.as_ref() }.store(1, Ordering::Relaxed);
    Ok(Some(word))
}
