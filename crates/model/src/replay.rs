//! From media back to the logs' mirrors, and what no crash may leave there.

use crate::{
    book::{Mirror, Pool},
    layout::{Block, Word},
    memory::Image,
    packed::{Entry, Extent},
    rule::Break,
    world::Model,
};

impl Model<'_> {
    /// Reads the logs; an error is what a heap would call corrupted.
    pub(crate) fn replay(&self, image: &Image) -> Result<Vec<Mirror>, String> {
        let mut pool = Pool::new(0, self.layout.shape().chunks);
        let mut logs = Vec::new();
        for log in 0..self.layout.shape().logs {
            logs.push(self.replay_log(image, log, &mut pool)?);
        }
        let holders = |extent| logs.iter().filter(|log| log.holds(extent)).count();
        if let Some(extent) = Extent::ALL.into_iter().find(|extent| holders(*extent) > 1) {
            return Err(format!("{extent:?} is allocated in two logs"));
        }
        if holders(Extent::Slab) > 0 && holders(Extent::Large(Block::Y)) > 0 {
            return Err("two allocated extents overlap: the slab and Y".to_owned());
        }
        Ok(logs)
    }

    fn replay_log(&self, image: &Image, log: usize, pool: &mut Pool) -> Result<Mirror, String> {
        let mut mirror = Mirror::empty();
        let mut link = image.get(self.layout.root(log));
        while link != 0 {
            let chunk = (link - 1).to_le_bytes()[0];
            if !pool.take_exact(chunk) {
                return Err(format!("chunk {chunk} is linked twice"));
            }
            let base = image.get(self.layout.base(chunk.into())).to_le_bytes()[0];
            if base < mirror.next {
                return Err(format!("chunk {chunk} has base {base}, below {}", mirror.next));
            }
            mirror.extend(chunk, base);
            self.replay_chunk(image, &mut mirror, chunk, base)?;
            link = image.get(self.layout.link(chunk.into()));
        }
        if mirror.chunks.is_empty() {
            return Err(format!("the root of log {log} names no chunk"));
        }
        Ok(mirror)
    }

    fn replay_chunk(
        &self,
        image: &Image,
        mirror: &mut Mirror,
        chunk: u8,
        base: u8,
    ) -> Result<(), String> {
        let mut first_hole = None;
        for nth in 0..self.layout.shape().entries {
            let words = self.layout.entry(chunk.into(), nth).map(|word| image.get(word));
            let sequence = base + u8::try_from(nth).expect("a chunk is small");
            let entry = Entry::decode(words);
            if entry.is_some() || words != [0; 2] && !self.breaks(Break::BehindLastValid) {
                mirror.next = sequence + 1;
            }
            match entry {
                Some(entry) if entry.sequence != sequence => {
                    return Err(format!("chunk {chunk} has {entry:?} at the place of {sequence}"));
                }
                Some(entry) => self.replay_entry(image, mirror, entry)?,
                None if words.contains(&0) => first_hole = first_hole.or(Some(sequence)),
                None => {
                    return Err(format!("chunk {chunk}: words of two entries at {sequence}"));
                }
            }
        }
        if let Some(hole) = first_hole.filter(|_| self.breaks(Break::FirstHole)) {
            mirror.next = hole;
        }
        Ok(())
    }

    fn replay_entry(&self, image: &Image, mirror: &mut Mirror, entry: Entry) -> Result<(), String> {
        if self.is_ignored(image, entry) {
            return Ok(());
        }
        let is_twice = entry.booked == crate::packed::Booked::Alloc && mirror.holds(entry.extent);
        if is_twice {
            return Err(format!("{:?} is allocated twice without a free between", entry.extent));
        }
        mirror.count(entry.booked, entry.extent, entry.sequence);
        Ok(())
    }

    fn is_ignored(&self, image: &Image, entry: Entry) -> bool {
        let durable = image.get(self.layout.durable());
        self.breaks(Break::EntriesByEpoch) && u32::from(entry.epoch) > durable
    }

    /// The words of all entries that replay ignored.
    pub(crate) fn ignored(&self, image: &Image, logs: &[Mirror]) -> Vec<Word> {
        let entries = self.entries(image, logs);
        let ignored = entries.filter(|(_, entry)| self.is_ignored(image, *entry));
        ignored.flat_map(|(words, _)| words).collect()
    }

    /// All valid entries of the logs.
    pub(crate) fn entries<'a>(
        &'a self,
        image: &'a Image,
        logs: &'a [Mirror],
    ) -> impl Iterator<Item = ([Word; 2], Entry)> + 'a {
        let chunks = logs.iter().flat_map(|log| &log.chunks).map(|chunk| usize::from(chunk.index));
        let places = chunks.flat_map(move |chunk| {
            (0..self.layout.shape().entries).map(move |nth| self.layout.entry(chunk, nth))
        });
        places.filter_map(|words| Some((words, Entry::decode(words.map(|word| image.get(word)))?)))
    }
}
