//! Blocks as bytes and as values: where the allocator turns heap memory into references.
#![allow(unsafe_code)]

use pmalloc_persist::{Medium, Span};

use super::{
    persistent::Persistent,
    slot::{Slot, SlotCell},
    versioned_cell::{CellImage, VersionedCell},
};

/// Keeps blocks that a slot owned when it was made, or later, from being reused and changed while it lives.
pub(crate) trait BlockGuard {}

/// The bytes of a live block.
///
/// `span` is that of a live block, found under `guard`.
pub(crate) fn bytes<'g, M: Medium>(
    m: &M,
    _guard: &'g impl BlockGuard,
    span: Span,
) -> Option<&'g [u8]> {
    let start = m.region().pointer(span).ok()?;
    let len = usize::try_from(span.len).ok()?;
    // SAFETY:
    // 1. `pointer` puts the span inside the mapping, which the guard's borrow of the heap keeps alive, and a
    //    live block has memory (it was backed before it was handed out);
    // 2. a mapping's bytes are always initialised, and `u8` has no invalid values;
    // 3. nobody writes to the block while the guard lives: the heap does not reuse it. What the heap writes to it, by
    //    initialisers and to its slots, it writes before it stores the slot outside of it that leads here (`commit` of a
    //    group stores the slots of new blocks first); that store is a release, and the slot was read by an acquire. A slot
    //    or cell inside is changed later only by who has vouched for it (`slot_at`, `cell_at`), as is what a program
    //    writes by pointers of its own; and no other heap has the memory (`Medium::claim`).
    Some(unsafe { core::slice::from_raw_parts(start.as_ptr(), len) })
}

/// Runs `init` on the bytes of a block that is reserved and that nobody else has seen.
pub(crate) fn initialise<M: Medium>(m: &M, span: Span, init: impl FnOnce(&mut [u8])) {
    let start = m.region().pointer(span).expect("a reserved block lies in the heap");
    let len = usize::try_from(span.len).expect("a block fits the address space");
    m.settle(span);
    // SAFETY:
    // 1. inside the mapping and backed, as in `bytes`;
    // 2. exclusive: the block is reserved by this operation, so no slot names it, no cache holds it and, as it
    //    was not reused before all older guards were gone, no reference to its former content is left.
    let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) };
    init(bytes);
}

/// The value in a live block, or `None` if the block can't hold a `T`.
///
/// `span` is that of a live block that a slot for a `T` owns, found under `guard`.
pub(crate) fn value<'g, T: Persistent, M: Medium>(
    m: &M,
    _guard: &'g impl BlockGuard,
    span: Span,
) -> Option<&'g T> {
    view(m, span)
}

/// The value in the block of a root that is not removed while the heap is open, or `None` if it can't hold a `T`.
pub(crate) fn root_value<T: Persistent, M: Medium>(m: &M, span: Span) -> Option<&T> {
    view(m, span)
}

/// The value in a block that is reserved, was written as a `T`, and is seen by nobody else while `look` runs.
pub(crate) fn with_reserved<T: Persistent, M: Medium, R>(
    m: &M,
    span: Span,
    look: impl FnOnce(&T) -> R,
) -> Option<R> {
    view(m, span).map(look)
}

/// The slot of bytes whose word is `cell`.
///
/// The caller knows that the word is used as a slot only: what it owns is shown as bytes.
pub(crate) fn slot(cell: &SlotCell) -> &Slot {
    let place: *const Slot = core::ptr::from_ref(cell).cast();
    // SAFETY: a `Slot` is a transparent `SlotCell`.
    unsafe { &*place }
}

/// As [`slot`], for an array.
pub(crate) fn slots(cells: &[SlotCell]) -> &[Slot] {
    // SAFETY: a `Slot` is a transparent `SlotCell`, and so is each of as many of them.
    unsafe { core::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
}

/// The cell whose word is `image`.
///
/// The caller knows that the word is used as a cell only.
pub(crate) fn cell(image: &CellImage) -> &VersionedCell {
    let place: *const VersionedCell = core::ptr::from_ref(image).cast();
    // SAFETY: a `VersionedCell` is a transparent `CellImage`.
    unsafe { &*place }
}

fn view<'a, T: Persistent, M: Medium>(m: &M, span: Span) -> Option<&'a T> {
    let bytes = Span::new(span.start, size_of::<T>() as u64);
    let start = m.region().pointer(bytes).ok()?.cast::<T>();
    if !span.contains(bytes) || !start.is_aligned() {
        return None;
    }
    m.settle(bytes);
    // SAFETY:
    // 1. inside the mapping, which outlives what the three callers tie the reference to, backed, and aligned;
    // 2. any bytes are a `T` (`Persistent`, 1), and a mapping's bytes are always initialised;
    // 3. while the reference lives nothing but cells and slots changes in the block: the heap does not reuse it, by the
    //    guard, because it is a root that was handed out, or because it is reserved; and a slot for a `T`, or a root of
    //    that type, has blocks that are seen as a `T` only.
    Some(unsafe { start.as_ref() })
}

/// Writes `value` into a block that is reserved and that nobody else has seen.
pub(crate) fn write<T: Persistent, M: Medium>(m: &M, span: Span, value: T) {
    let start = m.region().pointer(span).expect("a reserved block lies in the heap");
    let start = start.cast::<T>();
    assert!(
        span.len >= size_of::<T>() as u64 && start.is_aligned(),
        "a block of the value's layout"
    );
    m.settle(span);
    // SAFETY: inside the mapping, backed and exclusive, as in `initialise`; large enough and aligned, as asserted.
    unsafe { start.write(value) };
}
