//! Torn places: what appends leave that a crash interrupted.
//!
//! Recovery makes them empty, so that in a heap that was closed a place is empty or holds an entry, and anything else
//! is damage. A place that was made empty is a hole like that of a cancelled append.

use pmalloc_persist::{Medium, Offset, sync::lock};

use super::Book;
use crate::layout::book::{EntryWords, LogEntry};

impl Book {
    /// The first place whose words are no entry, of the lowest log that has one.
    pub(crate) fn first_torn<M: Medium>(&self, m: &M) -> Option<u64> {
        self.torn_places(m).first().map(|place| place.bytes())
    }

    /// Empties every torn place and flushes it; the caller fences before the heap is served.
    ///
    /// # Crash consistency
    ///
    /// Each word of a torn place is that of the entry or zero, and at least one that is not zero in the entry is
    /// missing. So no part of the words, and no part of their erasure, is an entry. The log goes on behind the
    /// place in this run; a later one may use it, as it is durably zero by then.
    pub(crate) fn scrub_torn<M: Medium>(&self, m: &M) {
        for place in self.torn_places(m) {
            // CRASH: see above.
            self.area.clear(m, place);
        }
        for log in &self.logs {
            lock(log).chunks.iter_mut().for_each(|chunk| chunk.torn = 0);
        }
    }

    fn torn_places<M: Medium>(&self, m: &M) -> Vec<Offset<EntryWords>> {
        let mut torn = Vec::new();
        for log in &self.logs {
            for chunk in lock(log).chunks.iter().filter(|chunk| chunk.torn > 0) {
                let places = (0..self.area.entries()).map(|nth| self.area.place(chunk.index, nth));
                torn.extend(places.filter(|&place| {
                    let words = self.area.load(m, place);
                    words != [0; 4] && LogEntry::decode(words, place.bytes()).is_none()
                }));
            }
        }
        torn
    }
}
