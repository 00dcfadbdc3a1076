//! A persistent heap: memory that a program allocates outlives the program, and every crash.
//!
//! A [`Heap`] is a file that the program maps and allocates in. After a crash at any instruction it opens again:
//! every operation that had returned is there, every one that had not is there wholly or not at all. Nothing is
//! lost, nothing leaks, nothing is handed out twice.
//!
//! # The four things
//!
//! | | what it is | lives |
//! |---|---|---|
//! | [`Heap`] | a handle to an open heap; clones share it, all threads may call it | until it is closed or the last handle is dropped |
//! | [`Slot`] | eight bytes *in* the heap that own at most one block | as long as the block or root array that it stands in |
//! | [`Guard`] | permission to look at blocks: what a slot owned when it was made, or later, is not reused | as long as you look |
//! | [`Session`] | what a thread holds of a heap: a lane to record in, and free blocks at hand | until the thread exits, or as long as you keep it |
//!
//! **Slots** are where everything hangs. Memory is not allocated and then stored somewhere: it is allocated *to* a
//! slot, in one atomic and durable step, and freed *from* it. So there is no moment at which a block has no owner,
//! or an owner no block. A heap has named arrays of slots ([`Heap::slots`]), which are found again by name after
//! every open; slots may stand inside blocks, too.
//!
//! **Guards** are needed because another thread may free the block that you are reading. [`Slot::get`] lends the
//! bytes of a block for as long as the guard lives. Making one is cheap; keeping one for long keeps all memory that
//! is freed meanwhile from being reused.
//!
//! **Sessions** come by themselves with the first call of a thread. Programs that run many tasks on few threads can
//! make their own with [`Heap::session`].
//!
//! # Examples
//!
//! A mailbox of eight messages, filled by one run of the program and emptied by the next:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("mail");
//! use std::alloc::Layout;
//! use pmalloc::Heap;
//!
//! let heap = Heap::options().layout("mail-v1").create(&path)?;
//! let mailbox = heap.slots("mailbox", 8)?;
//! let text = b"see you after the crash";
//! heap.alloc_init(&mailbox[0], Layout::for_value(text), |block| block.copy_from_slice(text))?;
//! // From here on the message survives: by a close, by kill -9, and by a power loss if the memory does.
//! heap.close()?;
//!
//! let heap = Heap::options().layout("mail-v1").open(&path)?;
//! for slot in heap.slots("mailbox", 8)? {
//!     let guard = heap.pin();
//!     let Some(block) = slot.get(&guard) else { continue };
//!     // A block is at least as long as what was asked for: the program knows how long its message is.
//!     assert_eq!(&block[..text.len()], text);
//!     heap.free_from(slot)?; // the guard still lives, so `block` may still be read
//! }
//! assert_eq!(heap.check()?.problems, []);
//! heap.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What survives
//!
//! When an operation returns, it is *durable*: it survives what the memory under the heap survives. That is found
//! out when the heap is opened, and [`persist::Durability`] names it:
//!
//! - On persistent memory that is mapped directly (DAX), it survives a loss of power.
//! - On anything else, `/dev/shm` or an ordinary file, it survives the death of the process, however it died, but
//!   not a loss of power: the kernel writes pages when it likes. Such a heap can be made safe at chosen moments
//!   with [`Heap::sync`] and by closing it. If power fails after a later change, opening it is refused with
//!   [`Error::PowerLoss`]: a mixture of moments is not passed off as a heap.
//!
//! Three things are the program's own business. What it writes into a block *after* the block was published is
//! neither flushed nor ordered by the heap; [`Heap::alloc_init`] makes the first contents durable and atomic.
//! [`Heap::alloc_to`] hands out bytes as they were. And freeing a block does not free what slots inside it own.
//!
//! # What else can reach the memory
//!
//! A heap lends its memory as `&[u8]` and `&T`, and relies on nobody else changing it. In this process that is seen to: a
//! [`Heap`] has its [medium](persist::Exclusive) to itself, and a file that is open can't be opened again. From outside it
//! can't be: like every mapped file, a heap's is also a file. Another process that writes it (an editor, a backup that is
//! played back, a program that maps it, anything that does not ask for the advisory lock which this crate takes) changes
//! bytes under references, which is **undefined behaviour**; one that truncates it makes the next access die with `SIGBUS`.
//! So does memory that fails, and a disk that can't be read. Keep the file from others by its permissions: new heaps can be
//! read and written by their owner only. Reading it, as a copy does, harms nobody but the copy.
//!
//! A forked child has none of the memory: it is not inherited. Calls of the heap there are refused with [`Error::Forked`],
//! or find nothing (a slot is empty, [`Heap::map`] has no parts); a cell, which has no such answer, panics. References that
//! the parent had got are dangling there, and die with `SIGSEGV` when they are followed. The child may `exec`, or open
//! another heap.
//!
//! # Errors
//!
//! Whatever can fail fails before anything has changed: every [`Error`] leaves the heap as it was. Damaged and
//! hostile files are errors, too; they never make a call panic or read out of bounds.
//!
//! # More
//!
//! The repository's `docs/guide.md` shows how to write structures that are whole after every crash, and how to explore
//! their crashes. `ARCHITECTURE.md` shows how the heap is built, `docs/walkthrough.md` follows one block through
//! it, and `docs/crash-consistency.md` gives the order of every store, flush and fence. The layer below is usable
//! by itself: [`persist`].

#![deny(unsafe_code)]

mod arena;
mod book;
mod core;
mod error;
mod extent;
mod heap;
mod inspect;
mod lane;
mod layout;
mod op;
mod page_map;
mod recovery;
mod root;
mod size_class;
mod slab;
mod tcache;
#[cfg(test)]
mod tests;
mod value;

// The tests of damaged heaps are shared with those that see only the public interface.
#[cfg(all(test, not(shuttle)))]
extern crate self as pmalloc;

pub use self::core::{Block, NewBlock, PUBLISH_MAX};
pub use error::{Error, Result};
#[doc(hidden)]
pub use heap::TestGeometry;
pub use heap::{Guard, Heap, HeapOptions, Publish, Reservation, Session, SlotRef};
pub use inspect::{
    Blocks, CheckReport, ClassStats, CopyReport, HeapMap, Info, LogStats, Part, PartKind, Problem,
    ProblemKind, RecoveryReport, SalvageReport, Stats, TagStats, check_file, copy_file,
    copy_file_with, info, map_file, recover_file, salvage_file, stats_file,
};
pub use layout::{root::RootKind, state::Policy, superblock::Model};
pub use pmalloc_derive::Persistent;
pub use pmalloc_persist as persist;
pub use root::RootInfo;
pub use value::{
    BlockLayout, CellInteger, CellValue, Content, LayoutHash, PCell, PPtr, Persistent, Slot,
    SlotLayout, SlotMap, SlotScope, TypeGraph, VersionedCell,
};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct ReadmeExample;
