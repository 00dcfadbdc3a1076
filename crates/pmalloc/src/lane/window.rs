//! Which places of a ring may be written again, under the policy Batched.
//!
//! A record's place is needed until the epoch that stamps it is durable. An epoch begins only when the one before the last
//! is durable, so that a lane has records of at most two that are not.
//!
//! One place is never needed: so fewer records are live than tell a newer version of one slot from an older one.

use crate::layout::{
    geometry::{LANES, RING_PLACES},
    slot::Version,
};

// Each of the records that are live may be of the same slot.
const _: () = assert!((LANES as u64) * (RING_PLACES as u64 - 1) < Version::RANGE / 2);

/// Records of a lane that may not be durable, by the epoch that stamps them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Places of the ring.
    places: u64,
    /// The lane's records so far.
    head: u64,
    /// The records so far at which more than half of the ring may be needed, as of the last look at the durable epoch.
    half: u64,
    /// Likewise, all of it but the place that stays unused.
    full: u64,
    /// The newest epoch that stamped a record.
    newest: Stamped,
    /// The one before.
    older: Stamped,
}

/// An epoch, and the lane's first record of it.
#[derive(Debug, Clone, Copy, Default)]
struct Stamped {
    epoch: u64,
    start: u64,
}

impl Window {
    /// The window of a lane whose ring of so many places is zero.
    pub(super) fn new(places: u32) -> Self {
        let places = places.into();
        let none = Stamped::default();
        Self { places, head: 0, half: places / 2, full: places - 1, newest: none, older: none }
    }

    /// Whether more than half of the ring is needed, where `durable` tells the durable epoch.
    #[inline]
    pub(super) fn is_half_full(&mut self, durable: impl FnOnce() -> u64) -> bool {
        self.head > self.half && {
            self.look(durable());
            self.head > self.half
        }
    }

    /// Whether `records` more find places that may be written.
    #[inline(always)]
    pub(super) fn has_room(&mut self, durable: impl FnOnce() -> u64, records: usize) -> bool {
        let head = self.head + records as u64;
        head <= self.full || {
            self.look(durable());
            head <= self.full
        }
    }

    /// Adds records of `epoch`, the same as the last ones' or a later one.
    #[inline(always)]
    pub(super) fn add(&mut self, epoch: u64, records: u64) {
        if self.newest.epoch != epoch {
            self.older = self.newest;
            self.newest = Stamped { epoch, start: self.head };
        }
        self.head += records;
    }

    /// Looks which records are durable.
    #[cold]
    fn look(&mut self, durable: u64) {
        let tail = if self.newest.epoch <= durable {
            self.head
        } else if self.older.epoch <= durable {
            self.newest.start
        } else {
            self.older.start
        };
        self.half = tail + self.places / 2;
        self.full = tail + self.places - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records more find room, and whether more than half is needed.
    fn state(window: &Window, durable: u64) -> (usize, bool) {
        let room = (0..=8).rev().find(|more| { *window }.has_room(|| durable, *more));
        (room.expect("none is room for none"), { *window }.is_half_full(|| durable))
    }

    #[test]
    fn records_count_until_their_epoch_is_durable() {
        let mut window = Window::new(8);
        assert_eq!(state(&window, 0), (7, false));
        window.add(3, 2);
        window.add(3, 1);
        assert_eq!((state(&window, 2), state(&window, 3)), ((4, false), (7, false)));
        window.add(4, 4);
        assert_eq!(state(&window, 2), (0, true));
        assert_eq!(state(&window, 3), (3, false));
        assert_eq!(state(&window, 4), (7, false));
        // Epoch 6 begins when 4 is durable.
        assert!(window.has_room(|| 4, 1));
        window.add(6, 1);
        assert_eq!(state(&window, 4), (6, false));
    }
}
