//! The oracle: what a recovered image must be.

use crate::{
    layout::{Block, Slot},
    memory::Image,
    packed::{CONTENTS, Extent, SlotValue},
    thread::HEADER,
    thread::truth_after,
    world::{Model, Truth, World},
};

impl Model<'_> {
    /// All truths that a crash in this state may leave: an operation whose record may be on media has happened or
    /// has not.
    pub(crate) fn allowed(&self, world: &World) -> Vec<Truth> {
        let mut allowed = vec![world.truth];
        for (nth, thread) in
            world.threads.iter().enumerate().filter(|(_, thread)| thread.is_decided)
        {
            let op = self.op(world, nth).expect("it is in an operation");
            for truth in allowed.clone() {
                allowed.push(truth_after(&truth, &thread.changes, op));
            }
        }
        allowed
    }

    /// Compares a recovered image with a truth.
    pub(crate) fn judge(&self, image: &Image, truth: &Truth) -> Result<(), String> {
        let logs = self.replay(image)?;
        let holds = |extent| logs.iter().any(|log| log.holds(extent));
        if holds(Extent::Slab) && image.get(self.layout.header()) != HEADER {
            return Err("the log names a slab whose header is not whole".to_owned());
        }
        self.judge_slots(image, truth)?;
        for block in Block::ALL {
            let is_live = if self.is_large(block) {
                holds(Extent::Large(block))
            } else {
                let has_slab = !self.is_in_slab(block) || holds(Extent::Slab);
                has_slab && image.get(self.layout.bit(block)) == 1
            };
            let is_owned = truth.slots.contains(&Some(block));
            if is_live && !is_owned {
                return Err(format!("{block:?} is live and nothing owns it: LEAK"));
            }
            if is_owned && !is_live {
                return Err(format!("{block:?} is owned and not live: DANGLING"));
            }
            self.judge_contents(image, truth, block, is_owned)?;
        }
        Ok(())
    }

    fn judge_slots(&self, image: &Image, truth: &Truth) -> Result<(), String> {
        for slot in Slot::ALL {
            if slot == Slot::Inner && !truth.is_node {
                continue;
            }
            let word = image.get(self.layout.slot(slot));
            let found = SlotValue::decode(word).block;
            let wanted = truth.owner_of(slot);
            if word & CONTENTS != 0 || found != wanted {
                return Err(format!("slot {slot:?} holds {word:#x} and should own {wanted:?}"));
            }
        }
        Ok(())
    }

    fn judge_contents(
        &self,
        image: &Image,
        truth: &Truth,
        block: Block,
        is_owned: bool,
    ) -> Result<(), String> {
        let found = image.get(self.layout.contents(block));
        match truth.contents[block.index()] {
            Some(wanted) if is_owned && found != wanted => {
                Err(format!("{block:?} holds {found:#x}, not {wanted:#x}: LOST or SCRIBBLED"))
            }
            _ => Ok(()),
        }
    }
}
