//! Reservations, and the actions that make them live.

use std::{ffi::c_int, slice};

use pmalloc::{
    BlockLayout, Heap, NewBlock, Publish, SlotRef,
    persist::{Medium, Span, sync::lock},
};

use crate::{
    access::bytes,
    arguments::{answer, cell_at, layout, null, offset_of, slot_at},
    error::{Failure, Result},
    handle::{Held, Owned, Reserved, call, pma_heap, served},
    numbers::*,
    types::{pma_action, pma_off, pma_slot},
};

/// Reserves a block.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_reserve(
    heap: *mut pma_heap,
    size: usize,
    align: usize,
    block: *mut pma_off,
) -> c_int {
    let reserve = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let block = unsafe { answer(block, "place for the offset") }?;
        block.write(served!(heap, owned => owned.reserve(size, align, 0))?);
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, reserve) }
}

/// Reserves a block with a tag.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_reserve_tagged(
    heap: *mut pma_heap,
    size: usize,
    align: usize,
    tag: u8,
    block: *mut pma_off,
) -> c_int {
    let reserve = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let block = unsafe { answer(block, "place for the offset") }?;
        block.write(served!(heap, owned => owned.reserve(size, align, tag))?);
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, reserve) }
}

/// Gives a reserved block back.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_cancel(heap: *mut pma_heap, block: pma_off) -> c_int {
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, |heap| served!(heap, owned => owned.cancel(block))) }
}

/// Makes the changes that `n` actions describe, in one step.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_publish(
    heap: *mut pma_heap,
    actions: *const pma_action,
    n: usize,
) -> c_int {
    let publish = |heap: &pma_heap| {
        if n > PMA_PUBLISH_MAX {
            let text = format!("no more than {PMA_PUBLISH_MAX} actions in one publish, not {n}");
            return Err(Failure::new(PMA_E_LIMIT, text));
        }
        if n == 0 {
            return Ok(());
        }
        if actions.is_null() {
            return Err(null("actions"));
        }
        // SAFETY: not null, and few; else 1 of the library's list.
        let actions = unsafe { slice::from_raw_parts(actions, n) };
        actions.iter().try_for_each(check)?;
        served!(heap, owned => owned.publish(actions))
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, publish) }
}

/// Sees that an action is one.
fn check(action: &pma_action) -> Result<()> {
    if action.zero != 0 {
        return Err(Failure::invalid("action", format_args!("zero is {}", action.zero)));
    }
    if !(PMA_A_ALLOC..=PMA_A_SET).contains(&action.kind) {
        return Err(Failure::invalid(
            "kind of action",
            format_args!("{}; one of PMA_A_*", action.kind),
        ));
    }
    Ok(())
}

fn not_reserved(block: pma_off) -> Failure {
    Failure::new(
        PMA_E_NOT_LIVE,
        format!("{block:#x} is not a reserved block: pma_reserve gives them out"),
    )
}

impl<M: Medium + 'static> Owned<M> {
    fn reserve(&self, size: usize, align: usize, tag: u8) -> Result<pma_off> {
        let layout = BlockLayout::new(layout(size, align)?).with_tag(tag);
        // SAFETY: what borrows from it is kept in `reserved`, or dropped right here.
        let heap = unsafe { self.lasting() };
        let held = Held { block: heap.reserve(layout)?, size_bytes: size as u64 };
        let offset = held.block.offset();
        lock(self.reserved()).insert(offset, held);
        Ok(offset)
    }

    fn cancel(&self, block: pma_off) -> Result<()> {
        let held = lock(self.reserved()).remove(&block).ok_or_else(|| not_reserved(block))?;
        // The lock is free: giving a block back may take others.
        drop(held);
        Ok(())
    }

    fn publish(&self, actions: &[pma_action]) -> Result<()> {
        // SAFETY: what borrows from it is kept in `reserved`, or dropped before this function returns.
        let heap = unsafe { self.lasting() };
        let mut group = Group::new(heap, self.take(actions)?);
        let done = actions
            .iter()
            .try_for_each(|action| group.add(action))
            .and_then(|()| Ok(group.publish.commit()?));
        if done.is_err() {
            lock(self.reserved()).extend(group.refused());
        }
        done
    }

    /// Takes the blocks that `actions` allocate: nobody else publishes or cancels them meanwhile.
    fn take(&self, actions: &[pma_action]) -> Result<Reserved<M>> {
        let wanted = || actions.iter().filter(|action| action.kind == PMA_A_ALLOC);
        let mut reserved = lock(self.reserved());
        if let Some(action) = wanted().find(|action| !reserved.contains_key(&action.block)) {
            return Err(not_reserved(action.block));
        }
        // Of a block that is named twice the second action finds nothing.
        Ok(wanted().filter_map(|action| reserved.remove_entry(&action.block)).collect())
    }
}

/// The actions of a publish while they are put together.
struct Group<M: Medium + 'static> {
    heap: &'static Heap<M>,
    publish: Publish<'static, M>,
    /// The bytes of the blocks that the publish allocates.
    new: Vec<(Span, NewBlock)>,
    /// Those of them that no action has allocated yet.
    taken: Reserved<M>,
}

impl<M: Medium + 'static> Group<M> {
    fn new(heap: &'static Heap<M>, mut taken: Reserved<M>) -> Self {
        let new = taken.values_mut().map(|Held { block, size_bytes }| {
            // C has written the contents by pointers of its own: this is where the heap is told.
            block.write(|_| {});
            (Span::new(block.offset(), *size_bytes), block.new_block())
        });
        Self { heap, publish: heap.publish(), new: new.collect(), taken }
    }

    fn add(&mut self, action: &pma_action) -> Result<()> {
        match action.kind {
            PMA_A_ALLOC => {
                let slot = self.slot(action.slot)?;
                let held = self.taken.remove(&action.block);
                self.publish.alloc(slot, held.ok_or_else(|| not_reserved(action.block))?.block);
            }
            PMA_A_FREE => _ = self.publish.free(self.slot(action.slot)?),
            PMA_A_MOVE => {
                _ = self.publish.move_to(self.slot(action.slot2)?, self.slot(action.slot)?);
            }
            _ => _ = self.publish.set(cell_at(self.heap, action.slot)?, action.value),
        }
        Ok(())
    }

    /// The slot at an address: of a block that the publish allocates, or of a live one.
    fn slot(&self, place: *const pma_slot) -> Result<SlotRef<'static>> {
        let offset = offset_of(self.heap, place)?;
        let word = Span::new(offset, size_of::<pma_slot>() as u64);
        match self.new.iter().find(|(span, _)| span.contains(word)) {
            Some((span, block)) if offset.is_multiple_of(8) => {
                Ok(block.slot(bytes(offset - span.start)))
            }
            Some(_) => Err(Failure::foreign()),
            None => Ok(SlotRef::from(slot_at(self.heap, place)?)),
        }
    }

    /// The blocks, when nothing was published.
    fn refused(self) -> impl Iterator<Item = (pma_off, Held<M>)> {
        let Self { publish, new, taken, .. } = self;
        let added = publish.into_reservations().into_iter().map(move |block| {
            let own = new.iter().find(|(span, _)| span.start == block.offset());
            let (span, _) = own.expect("every block of the publish was taken for it");
            (span.start, Held { block, size_bytes: span.len })
        });
        taken.into_iter().chain(added)
    }
}
