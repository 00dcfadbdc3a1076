//! Which places of a ring may be written again, under the policy Batched.
//!
//! A record's place is needed until the epoch that stamps it is durable. An epoch begins only when the one before the last
//! is durable, so that a lane has records of at most two that are not.

/// Records of a lane that may not be durable, by the epoch that stamps them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    /// The lane's records so far.
    head: u64,
    /// The newest epoch that stamped one.
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
    /// Records that may not be durable, where `durable` is the durable epoch.
    #[inline]
    pub(super) fn len(&self, durable: u64) -> u64 {
        let start = if self.newest.epoch <= durable {
            self.head
        } else if self.older.epoch <= durable {
            self.newest.start
        } else {
            self.older.start
        };
        self.head - start
    }

    /// Adds records of `epoch`, the same as the last ones' or a later one.
    #[inline]
    pub(super) fn add(&mut self, epoch: u64, records: u64) {
        if self.newest.epoch != epoch {
            self.older = self.newest;
            self.newest = Stamped { epoch, start: self.head };
        }
        self.head += records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_until_their_epoch_is_durable() {
        let mut window = Window::default();
        assert_eq!(window.len(0), 0);
        window.add(3, 2);
        window.add(3, 1);
        assert_eq!((window.len(2), window.len(3)), (3, 0));
        window.add(4, 5);
        assert_eq!((window.len(2), window.len(3), window.len(4)), (8, 5, 0));
        // Epoch 6 begins when 4 is durable.
        window.add(6, 1);
        assert_eq!((window.len(4), window.len(5), window.len(6)), (1, 1, 0));
    }
}
