//! The handle: a heap, and what C holds of it by numbers and calls where Rust holds values. Volatile.

use std::{collections::HashMap, ffi::c_int, mem, ptr::NonNull};

use pmalloc::{
    Heap, Reservation,
    persist::{
        Mapped, Medium, Traced,
        sync::{Arc, Mutex},
    },
};

use crate::{
    arguments,
    error::{Failure, Result, report, report_or},
    pins::Pins,
};

/// A heap that C opened.
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is C's")]
pub struct pma_heap(pub(crate) Served);

/// The media that C can have a heap on.
#[derive(Debug)]
pub(crate) enum Served {
    /// A mapped file.
    Plain(Owned<Mapped>),
    /// One that counts what is asked of it.
    Counted(Owned<Traced<Mapped>>),
}

/// Evaluates an expression with the [`Owned`] of a [`pma_heap`], whatever its medium.
macro_rules! served {
    ($heap:expr, $owned:ident => $value:expr) => {
        match &$heap.0 {
            $crate::handle::Served::Plain($owned) => $value,
            $crate::handle::Served::Counted($owned) => $value,
        }
    };
}
pub(crate) use served;

/// A heap with the reservations and pins that C made of it.
#[derive(Debug)]
pub(crate) struct Owned<M: Medium + 'static> {
    /// From a box; freed by [`close`](Self::close), when nothing that borrows from it is left.
    heap: NonNull<Heap<M>>,
    reserved: Mutex<Reserved<M>>,
    pins: Arc<Pins<M>>,
}

/// Reserved blocks by their offsets.
pub(crate) type Reserved<M> = HashMap<u64, Held<M>>;

/// A reserved block.
#[derive(Debug)]
pub(crate) struct Held<M: Medium + 'static> {
    /// The block. It borrows from the [`Owned`] that it is kept in.
    pub(crate) block: Reservation<'static, M>,
    /// Bytes that were asked for.
    pub(crate) size_bytes: u64,
}

/// All threads may use what a handle consists of: C passes its address around without asking.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Heap<Mapped>>();
    is_shared::<Mutex<Reserved<Mapped>>>();
    is_shared::<Arc<Pins<Mapped>>>();
    is_shared::<Heap<Traced<Mapped>>>();
    is_shared::<Mutex<Reserved<Traced<Mapped>>>>();
    is_shared::<Arc<Pins<Traced<Mapped>>>>();
};

impl<M: Medium + 'static> Owned<M> {
    /// A heap without reservations and pins.
    pub(crate) fn new(heap: Heap<M>) -> Self {
        Self {
            heap: NonNull::from(Box::leak(Box::new(heap))),
            reserved: Mutex::default(),
            pins: Pins::new(),
        }
    }

    /// The heap.
    pub(crate) fn heap(&self) -> &Heap<M> {
        // SAFETY: from a box that only `close` frees, which consumes `self`; only shared references are made of it.
        unsafe { self.heap.as_ref() }
    }

    /// The heap, for what outlives a call.
    ///
    /// # Safety
    ///
    /// What borrows from the reference is dropped before `self` is, or kept in [`reserved`](Self::reserved) or
    /// [`pins`](Self::pins).
    pub(crate) unsafe fn lasting(&self) -> &'static Heap<M> {
        // SAFETY: as in `heap`; `close` frees the box after `reserved` and `pins` were emptied.
        unsafe { self.heap.as_ref() }
    }

    /// The blocks that are reserved.
    pub(crate) fn reserved(&self) -> &Mutex<Reserved<M>> {
        &self.reserved
    }

    /// The guards that threads hold.
    pub(crate) fn pins(&self) -> &Arc<Pins<M>> {
        &self.pins
    }

    /// Gives up reservations and pins, and closes the heap.
    fn close(self) -> Result<()> {
        let Self { heap, reserved, pins } = self;
        // SAFETY: as in `heap`, for this statement.
        if unsafe { heap.as_ref() }.is_forked() {
            // The parent's other threads may have held their locks, and been changing them.
            mem::forget((reserved, pins));
        } else {
            drop(reserved);
            pins.end();
        }
        // SAFETY: made by `new` from a box, freed here and nowhere else. Nothing borrows from it: reservations are
        // dropped, pins too, and none can be added, as no other call runs any more (4 of the crate's list). What a
        // forked child forgot is not used again: threads leave the pins of their parent alone.
        let heap = unsafe { Box::from_raw(heap.as_ptr()) };
        Ok(heap.close()?)
    }
}

impl pma_heap {
    /// Closes the heap.
    pub(crate) fn close(self) -> Result<()> {
        match self.0 {
            Served::Plain(owned) => owned.close(),
            Served::Counted(owned) => owned.close(),
        }
    }

    fn check_process(&self) -> Result<()> {
        let forked = served!(self, owned => owned.heap().is_forked());
        if forked { Err(Failure::forked()) } else { Ok(()) }
    }
}

/// Makes a call of a heap.
///
/// # Safety
///
/// `heap` is null or a handle that is not closed before the call is over.
pub(crate) unsafe fn call(
    heap: *const pma_heap,
    call: impl FnOnce(&pma_heap) -> Result<()>,
) -> c_int {
    // SAFETY: as the caller guarantees.
    report(|| call(unsafe { own(heap) }?))
}

/// Makes a call of a heap that has a value, `instead` if it fails.
///
/// # Safety
///
/// As for [`call`].
pub(crate) unsafe fn call_or<T>(
    instead: T,
    heap: *const pma_heap,
    call: impl FnOnce(&pma_heap) -> Result<T>,
) -> T {
    // SAFETY: as the caller guarantees.
    report_or(instead, || call(unsafe { own(heap) }?))
}

/// The heap of a handle, if it is this process's own.
///
/// # Safety
///
/// As for [`call`].
unsafe fn own<'a>(heap: *const pma_heap) -> Result<&'a pma_heap> {
    // SAFETY: as the caller guarantees; a handle is only ever shared.
    let heap = unsafe { arguments::reference(heap, "heap") }?;
    heap.check_process()?;
    Ok(heap)
}
