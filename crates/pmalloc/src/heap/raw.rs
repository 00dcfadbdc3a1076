//! The one file of the allocator with unsafe code: blocks as bytes.
#![allow(unsafe_code)]

use pmalloc_persist::{Medium, Span};

use super::{core::Core, guard::Guard};

/// The bytes of a live block.
///
/// `span` is that of a live block, found under `guard`.
pub(super) fn bytes<'g, M: Medium>(
    core: &Core<M>,
    _guard: &'g Guard<'_, M>,
    span: Span,
) -> Option<&'g [u8]> {
    let start = core.medium().region().pointer(span).ok()?;
    let len = usize::try_from(span.len).ok()?;
    // SAFETY:
    // 1. `pointer` puts the span inside the mapping, which the guard's borrow of the heap keeps alive, and a
    //    live block has memory (it was backed before it was handed out);
    // 2. a mapping's bytes are always initialised, and `u8` has no invalid values;
    // 3. nobody writes to the block while the guard lives: the heap does not reuse it, initialisers run before
    //    a block is published, and programs write to published blocks only through raw pointers, under their
    //    own responsibility.
    Some(unsafe { core::slice::from_raw_parts(start.as_ptr(), len) })
}

/// Runs `init` on the bytes of a block that is reserved and that nobody else has seen.
pub(super) fn initialise<M: Medium>(core: &Core<M>, span: Span, init: impl FnOnce(&mut [u8])) {
    let start = core.medium().region().pointer(span).expect("a reserved block lies in the heap");
    let len = usize::try_from(span.len).expect("a block fits the address space");
    core.medium().settle(span);
    // SAFETY:
    // 1. inside the mapping and backed, as in `bytes`;
    // 2. exclusive: the block is reserved by this operation, so no slot names it, no cache holds it and, as it
    //    was not reused before all older guards were gone, no reference to its former content is left.
    let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) };
    init(bytes);
}
