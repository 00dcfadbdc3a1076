//! A persistent ring of self-validating records: the smallest structure worth exploring.
//!
//! One producer appends, one consumer takes. A record is two words; each carries the number of its turn in
//! its upper half, so a torn record, and one of an earlier turn, is recognised by its own content. The head
//! (how many were ever taken) is one word. Recovery finds the tail by reading records until one is not valid.

#![allow(unreachable_pub, reason = "written as it would stand in a library")]

use pmalloc_persist::{Medium, Offset, OutOfBounds, Span, Word, on_media};

/// Records that the ring holds.
pub const PLACES: u64 = 6;

on_media! {
    /// One record.
    pub struct Record: 16 {
        /// Persistent: number of the record + 1 in the upper half, lower half of the value below.
        low: Word,
        /// Persistent: likewise, with the upper half of the value.
        high: Word,
    }
}

on_media! {
    /// The whole ring.
    pub struct Media: 160 {
        /// Persistent: how many records were ever taken.
        head: Word,
        /// Unused: the records have lines of their own.
        reserved: [Word; 7],
        /// Persistent: the records; number n lies at n modulo their count.
        records: [Record; 6],
    }
}

/// A ring on a medium.
#[derive(Debug)]
pub struct Ring<M> {
    medium: M,
    /// Volatile: how many records were ever appended.
    tail: u64,
}

impl<M: Medium> Ring<M> {
    /// Opens the ring at the start of `medium`; zeroes are an empty ring.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if the medium is too small.
    pub fn open(medium: M) -> Result<Self, OutOfBounds> {
        let mut ring = Self { medium, tail: 0 };
        let media = ring.medium.at::<Media>(Offset::new(0))?;
        let head = ring.medium.load(&media.head);
        ring.tail = head;
        while ring.tail < head + PLACES && ring.read(ring.tail).is_some() {
            ring.tail += 1;
        }
        ring.scrub(head);
        Ok(ring)
    }

    /// Appends `value`; false if the ring is full.
    ///
    /// # Crash consistency
    ///
    /// Durable on return; after an earlier crash it is there or not.
    pub fn push(&mut self, value: u64) -> bool {
        if self.tail == self.head() + PLACES {
            return false;
        }
        let record = self.place(self.tail);
        let tag = (self.tail + 1) << 32;
        // CRASH: before both words are durable their tags differ, or are those of an earlier turn: recovery
        // ends the ring before this record. After, it is in the ring.
        self.medium.store(&record.low, tag | value & 0xffff_ffff);
        self.medium.store(&record.high, tag | value >> 32);
        self.medium.flush_of(record);
        self.medium.fence();
        self.tail += 1;
        true
    }

    /// Takes the oldest value.
    ///
    /// # Crash consistency
    ///
    /// Durable on return; after an earlier crash the value is still there or not.
    pub fn pop(&mut self) -> Option<u64> {
        let head = self.head();
        let value = (head < self.tail).then(|| self.read(head).expect("the ring holds it"))?;
        let media = self.media();
        // CRASH: one word, old or new.
        self.medium.store(&media.head, head + 1);
        self.medium.flush_of(&media.head);
        self.medium.fence();
        Some(value)
    }

    /// The values in the ring, oldest first.
    pub fn values(&self) -> Vec<u64> {
        (self.head()..self.tail).map(|n| self.read(n).expect("the ring holds it")).collect()
    }

    /// Zeroes what a crash may have left in free places.
    fn scrub(&self, head: u64) {
        // CRASH: nothing here is in the ring. Unless it is gone for certain, a word of a record that was
        // torn now could complete a record written to the same place, with the same number, later.
        let mut is_dirty = false;
        for number in self.tail..head + PLACES {
            let record = self.place(number);
            for word in [&record.low, &record.high] {
                if self.medium.load(word) >> 32 == number + 1 {
                    self.medium.store(word, 0);
                    is_dirty = true;
                }
            }
            self.medium.flush_of(record);
        }
        if is_dirty {
            self.medium.fence();
        }
    }

    fn head(&self) -> u64 {
        self.medium.load(&self.media().head)
    }

    fn read(&self, number: u64) -> Option<u64> {
        let record = self.place(number);
        let (low, high) = (self.medium.load(&record.low), self.medium.load(&record.high));
        let is_valid = low >> 32 == number + 1 && high >> 32 == number + 1;
        is_valid.then_some(high << 32 | low & 0xffff_ffff)
    }

    fn place(&self, number: u64) -> &Record {
        let index = usize::try_from(number % PLACES).expect("a small number");
        &self.media().records[index]
    }

    fn media(&self) -> &Media {
        self.medium.at(Offset::new(0)).expect("checked by open")
    }
}

/// The bytes that a ring occupies.
pub const BYTES: Span = Span::new(0, size_of::<Media>() as u64);
