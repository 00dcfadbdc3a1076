//! The heap's own types as [`Persistent`] ones: slots, cells and pointers may lie in values.
#![allow(unsafe_code)]

use super::{
    pcell::{CellValue, PCell},
    persistent::{Content, LayoutHash, Persistent, TypeGraph},
    pptr::PPtr,
    slot::Slot,
    slot_map::SlotMap,
    versioned_cell::VersionedCell,
};

// SAFETY: a transparent word, of which any bits are a slot's: what they name is looked at before it is used. It is its own
// only slot.
unsafe impl<T: Content + ?Sized> Persistent for Slot<T> {
    const LAYOUT: LayoutHash = LayoutHash::of_primitive("slot", size_of::<Self>());
    const SLOTS: SlotMap = SlotMap::Slot;

    fn reach(graph: &mut TypeGraph) {
        T::reach(graph);
    }
}

// SAFETY: a transparent word, of which any bits are a value's (`CellValue`); it changes as a cell.
unsafe impl<T: CellValue> Persistent for PCell<T> {
    const LAYOUT: LayoutHash =
        LayoutHash::of_primitive("cell", size_of::<Self>()).field("", 0, T::LAYOUT);
    const SLOTS: SlotMap = SlotMap::None;
}

// SAFETY: a word, of which any bits are a cell's; it changes as a cell.
unsafe impl Persistent for VersionedCell {
    const LAYOUT: LayoutHash = LayoutHash::of_primitive("versioned cell", size_of::<Self>());
    const SLOTS: SlotMap = SlotMap::None;
}

// SAFETY: a transparent `u64` that owns nothing.
unsafe impl<T: ?Sized + 'static> Persistent for PPtr<T> {
    const LAYOUT: LayoutHash = LayoutHash::of_primitive("pointer", size_of::<Self>());
    const SLOTS: SlotMap = SlotMap::None;
}
