//! The C library: what `pmalloc.h` declares, over the crate `pmalloc`.
//!
//! The header is the reference of the interface; here is how it is carried out. Every function is the same three steps:
//! what C passes is checked, the heap is called, and what it says becomes a number and a sentence (`error`). Nothing
//! is persistent here: a heap that C made is any other heap.
//!
//! | file | what it does |
//! |---|---|
//! | `types`, `numbers` | the header's types and numbers, as Rust has them |
//! | `error` | numbers and sentences of errors; no panic gets past it |
//! | `arguments` | pointers of C, checked for null, as references |
//! | `options` | from `pma_options` to those of the heap |
//! | `handle` | `pma_heap`: a heap of either medium, which owns the reservations and pins that C made |
//! | `pins` | guards by thread |
//! | `publish` | reservations and the actions on them |
//! | the others | the functions, by what they are about |
//!
//! # Safety
//!
//! What the caller of each function guarantees, whoever it is:
//!
//! 1. Every pointer is null or what the function's declaration in `pmalloc.h` says it is: a handle that
//!    [`pma_create`] or [`pma_open`] gave out and that [`pma_close`] did not take back, a string that a zero byte ends,
//!    memory that can be read, or written, with the type and for the length named. Nobody else writes it meanwhile.
//! 2. Pointers to slots and cells may be any address.
//! 3. A function that is passed in takes the arguments that are declared, and returns.
//! 4. While [`pma_close`] runs and after it, nothing else is called with the same handle.

mod access;
mod arguments;
mod check;
mod error;
mod handle;
mod life;
mod numbers;
mod options;
mod owners;
mod pins;
mod publish;
mod roots;
mod slots;
mod stats;
mod types;

pub use access::*;
pub use check::*;
pub use error::{pma_last_error, pma_strerror};
pub use handle::pma_heap;
pub use life::*;
pub use numbers::*;
pub use options::pma_options_init;
pub use owners::*;
pub use publish::*;
pub use roots::*;
pub use slots::*;
pub use stats::*;
pub use types::*;
