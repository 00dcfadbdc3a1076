//! The homes of a session's slots: roots in which they lie, so that not every operation has to ask where its slot is.

use pmalloc_persist::{Medium, Span};

use super::{Engine, Result};

/// Bytes of a slot.
const SLOT_BYTES: u64 = 8;

/// The two roots in which the session's latest slots lay that are in one: operations may go back and forth.
///
/// A root stays where it is until it is removed, so they count until one is.
#[derive(Debug)]
pub(super) struct Homes {
    /// The later one first.
    roots: [Span; 2],
    /// How many roots were removed from the heap when these were found.
    removed: u64,
}

impl Homes {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { roots: [Span::new(0, 0); 2], removed: 0 }
    }

    /// Sees that the slot or cell at byte `slot` lies in a live block.
    ///
    /// # Errors
    ///
    /// As [`Engine::check_live`].
    #[inline(always)]
    pub(super) fn check<M: Medium>(&mut self, engine: &Engine<M>, slot: u64) -> Result<()> {
        let slot_span = Span::new(slot, SLOT_BYTES);
        let [later, earlier] = self.roots;
        if self.removed == engine.root_blocks.removed()
            && (later.contains(slot_span) || earlier.contains(slot_span))
        {
            return Ok(());
        }
        self.look(engine, slot)
    }

    #[inline(never)]
    fn look<M: Medium>(&mut self, engine: &Engine<M>, slot: u64) -> Result<()> {
        // Before the look at the block: what is removed behind that is not taken for one that stays.
        let removed = engine.root_blocks.removed();
        if self.removed != removed {
            *self = Self { removed, ..Self::new() };
        }
        let around = engine.check_live(slot)?;
        if engine.root_blocks.contains(around.start) {
            self.roots = [around, self.roots[0]];
        }
        Ok(())
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use pmalloc_persist::Anon;

    use super::*;
    use crate::heap::Heap;

    #[test]
    fn a_root_is_a_home_until_it_is_removed() {
        let options = Heap::options().capacity_bytes(1 << 20).arenas(1);
        let heap = options.create_on(Anon::new(options.heap_bytes().unwrap())).unwrap();
        let roots = ["a", "b", "c"].map(|name| heap.root_bytes(name, 64, 0).unwrap().offset);
        let large = heap.root_bytes("large", 100_000, 0).unwrap().offset + 99_992;
        let engine = heap.core();
        let mut homes = Homes::new();
        for _ in 0..2 {
            for slot in roots.into_iter().chain([large]) {
                assert!(
                    homes.check(engine, slot).is_ok()
                        && homes.roots[0].contains(Span::new(slot, 8))
                );
                // As it is known now, without another look.
                let known = homes.roots;
                assert!(homes.check(engine, slot).is_ok());
                assert_eq!(homes.roots, known);
            }
        }
        heap.root_remove("c").unwrap();
        assert!(homes.check(engine, roots[2]).is_err(), "its root is gone");
        assert!(homes.check(engine, roots[1]).is_ok());
        // A block that is no root may be freed at any time.
        let slots = heap.slots("slots", 1).unwrap();
        heap.alloc_to(&slots[0], std::alloc::Layout::new::<[u64; 8]>()).unwrap();
        let block = heap.block_of(&slots[0]).unwrap().unwrap().offset;
        let known = homes.roots;
        assert!(homes.check(engine, block).is_ok());
        assert_eq!(homes.roots, known);
    }
}
