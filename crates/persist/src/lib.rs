//! Durable memory as a library.
//!
//! A program stores; a line is flushed; a fence waits; then the store is durable. This crate owns that
//! sequence: the mapping that makes memory durable, the instruction that flushes it, the tracer that counts
//! it, and the simulator that crashes between any two steps of it.

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

mod map;
mod medium;
mod offset;
mod on_media;
mod region;
pub mod sync;
mod word;

pub use map::Anon;
pub use medium::Medium;
pub use offset::{LINE_BYTES, Line, Offset, PAGE_BYTES, Span};
pub use on_media::OnMedia;
pub use region::{OutOfBounds, Region};
pub use word::Word;
