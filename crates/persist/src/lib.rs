//! Durable memory as a library.
//!
//! A program stores; a line is flushed; a fence waits; then the store is durable. This crate owns that
//! sequence: the mapping that makes memory durable, the instruction that flushes it, the tracer that counts
//! it, and the simulator that crashes between any two steps of it.
//!
//! # Examples
//!
//! Creates a file, makes a counter in it durable, and finds it again:
//!
//! ```
//! use pmalloc_persist::{
//!     Access, LINE_BYTES, MapOptions, MediaFile, Medium, Offset, Span, Word, on_media,
//! };
//!
//! on_media! {
//!     /// A counter in a line of its own.
//!     pub struct Counter: 64 {
//!         /// Persistent: the value.
//!         pub value: Word,
//!         /// Unused.
//!         pub reserved: [Word; 7],
//!     }
//! }
//! const COUNTER: Offset<Counter> = Offset::new(0);
//!
//! let directory = tempfile::tempdir()?;
//! let path = directory.path().join("counter");
//! let options = MapOptions::new(1 << 20);
//!
//! let created = MediaFile::create(&path)?.map(&options)?;
//! created.back(Span::new(0, LINE_BYTES))?; // now the line has memory of its own
//! let counter = created.at(COUNTER)?;
//! created.store(&counter.value, 42);
//! created.flush_of(counter);
//! created.fence(); // now the store survives what `created.durability()` says
//! created.publish()?; // now the file has its name
//! drop(created);
//!
//! let opened = MediaFile::open(&path, Access::Shared)?.map(&options)?;
//! assert_eq!(opened.load(&opened.at(COUNTER)?.value), 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "pmalloc-persist needs Linux: it maps, grows and punches files with Linux system calls"
);
#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "pmalloc-persist needs a 64-bit target: a heap reserves its whole capacity as address space"
);
#[cfg(not(target_endian = "little"))]
compile_error!("pmalloc-persist needs a little-endian target: the media format is little-endian");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("pmalloc-persist knows how to flush cache lines on x86-64 and aarch64 only");

mod claim;
mod domain;
mod flush;
mod map;
mod media_info;
mod medium;
mod observed;
mod offset;
mod on_media;
mod process;
mod region;
pub mod sim;
pub mod sync;
mod thread_end;
mod traced;
mod word;

pub use claim::{Claim, ClaimError};
pub use domain::{Durability, DurabilityChoice};
pub use flush::FlushInstruction;
pub use map::{
    Access, Anon, CopyProgress, ForkMark, LazyTable, MapError, MapOptions, Mapped, MediaFile,
    Owner, Storage, Warning, has_addresses, is_out_of_space,
};
pub use media_info::MediaInfo;
pub use medium::{Exclusive, Medium};
pub use observed::{Observed, Observer};
pub use offset::{LINE_BYTES, Line, Offset, PAGE_BYTES, Span};
pub use on_media::OnMedia;
pub use process::{ProcessId, boot_id};
pub use region::{OutOfBounds, Region};
pub use thread_end::AtThreadEnd;
pub use traced::{Counts, Event, Traced};
pub use word::Word;
