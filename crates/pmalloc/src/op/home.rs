//! The home of a session's slots: a root in which they lie, so that not every operation has to ask where its slot is.

use pmalloc_persist::{Medium, Span};

use super::{Engine, Result};
use crate::error::Error;

/// Bytes of a slot.
const SLOT_BYTES: u64 = 8;

/// The root in which the session's latest slot lay that is in one. References to it were handed out: it stays as long as the
/// heap is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home(Span);

impl Home {
    /// None yet.
    pub(super) const NONE: Self = Self(Span::new(0, 0));

    /// Sees that the slot or cell at byte `slot` lies in a live block.
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`].
    #[inline]
    pub(super) fn check<M: Medium>(&mut self, engine: &Engine<M>, slot: u64) -> Result<()> {
        if self.0.contains(Span::new(slot, SLOT_BYTES)) {
            return Ok(());
        }
        self.look(engine, slot)
    }

    #[inline(never)]
    fn look<M: Medium>(&mut self, engine: &Engine<M>, slot: u64) -> Result<()> {
        let Some(around) = engine.space.live_around(slot) else {
            return Err(Error::SlotForeign.into());
        };
        if engine.root_blocks.contains(around.start)
            && engine.root_blocks.is_handed_out(around.start)
        {
            self.0 = around;
        }
        Ok(())
    }
}
