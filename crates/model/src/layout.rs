//! Where everything lies on media, and which words share a line.

use std::fmt;

use crate::book::MAX_CHUNKS;

/// A word on media: eight bytes, written whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word(u8);

impl Word {
    fn new(index: usize) -> Self {
        Self(u8::try_from(index).expect("a model has few words"))
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What survives a crash of what was stored and not fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Of each line a prefix of its stores.
    Line64,
    /// Every word on its own.
    Word8,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line64 => "Line64",
            Self::Word8 => "Word8",
        })
    }
}

/// A place that owns at most one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    /// In the root table.
    S0,
    /// In the root table.
    S1,
    /// In block X, while that is a node.
    Inner,
    /// In the root table.
    S3,
}

impl Slot {
    pub(crate) const ALL: [Self; 4] = [Self::S0, Self::S1, Self::Inner, Self::S3];

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self.index()
    }
}

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Block {
    /// May be a node: its first word is then the slot [`Slot::Inner`].
    X,
    /// A block; where there is a slab to be made, it lies in that.
    A,
    /// As A.
    B,
    /// Other bounds over memory that others use, too: that of X, or that of the slab.
    Y,
}

impl Block {
    pub(crate) const ALL: [Self; 4] = [Self::X, Self::A, Self::B, Self::Y];

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// A set with this block only.
    pub(crate) const fn only(self) -> Blocks {
        Blocks(1 << self as u8)
    }
}

/// A set of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Blocks(u8);

impl Blocks {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(15);

    pub(crate) const fn and(self, block: Block) -> Self {
        Self(self.0 | 1 << block as u8)
    }

    pub(crate) fn contains(self, block: Block) -> bool {
        self.0 & 1 << block.index() != 0
    }
}

/// What a heap of the model consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Threads, and so lanes.
    pub(crate) lanes: usize,
    /// Places of a lane's ring.
    pub(crate) ring: usize,
    /// Words of a lane's mark array; none under Batched.
    pub(crate) marks: usize,
    /// Bookkeeping logs.
    pub(crate) logs: usize,
    /// Chunks of the book.
    pub(crate) chunks: usize,
    /// Entries of a chunk.
    pub(crate) entries: usize,
    /// Whether A and B lie in a slab that has to be made, over the memory of Y.
    pub(crate) slab: bool,
}

impl Shape {
    #[cfg(test)]
    pub(crate) fn small() -> Self {
        Self { lanes: 1, ring: 2, marks: 0, logs: 1, chunks: 1, entries: 2, slab: false }
    }
}

/// The places of a shape's words.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    shape: Shape,
    /// The line of each word.
    lines: Vec<u8>,
    rings: usize,
    marks: usize,
    roots: usize,
    chunks: usize,
}

const SLOTS: usize = 0;
const MEMORY: usize = 3;
const BITS: usize = 6;
const HEADER: usize = 10;
const DURABLE: usize = 11;
const RINGS: usize = 12;

/// Words of a record, and of an entry: each carries the tag, so that torn ones are told.
const PARTS: usize = 2;

/// Words of a chunk's header: base and link.
const CHUNK_HEADER: usize = 2;

impl Layout {
    pub(crate) fn new(shape: Shape, domain: Domain) -> Self {
        assert!(shape.chunks <= MAX_CHUNKS, "a set of chunks is a byte");
        let marks = RINGS + shape.lanes * shape.ring * PARTS;
        let roots = marks + shape.lanes * shape.marks;
        let chunks = roots + shape.logs;
        let words = chunks + shape.chunks * (CHUNK_HEADER + shape.entries * PARTS);
        let lines = (0..words).map(|word| Word::new(word).0).collect();
        let mut layout = Self { shape, lines, rings: RINGS, marks, roots, chunks };
        if domain == Domain::Line64 {
            layout.join_lines();
        }
        layout
    }

    /// Puts words that share a line on one.
    fn join_lines(&mut self) {
        for lane in 0..self.shape.lanes {
            for place in 0..self.shape.ring {
                self.join(self.record(lane, place));
            }
        }
        if self.shape.slab {
            self.join([self.bit(Block::A), self.bit(Block::B)]);
        }
        for chunk in 0..self.shape.chunks {
            self.join([self.base(chunk), self.link(chunk)]);
            // Two entries share a line: the first and the second, and so on.
            for nth in (0..self.shape.entries).step_by(2) {
                let first = self.entry(chunk, nth);
                self.join(first);
                if nth + 1 < self.shape.entries {
                    let second = self.entry(chunk, nth + 1);
                    self.join([first[0], second[0]]);
                    self.join([first[0], second[1]]);
                }
            }
        }
    }

    fn join(&mut self, words: [Word; 2]) {
        self.lines[words[1].index()] = self.lines[words[0].index()];
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn words(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn line_of(&self, word: Word) -> u8 {
        self.lines[word.index()]
    }

    /// The word of a slot.
    pub(crate) fn slot(&self, slot: Slot) -> Word {
        match slot {
            Slot::S0 => Word::new(SLOTS),
            Slot::S1 => Word::new(SLOTS + 1),
            Slot::S3 => Word::new(SLOTS + 2),
            Slot::Inner => self.contents(Block::X),
        }
    }

    /// The first word of a block.
    pub(crate) fn contents(&self, block: Block) -> Word {
        Word::new(match block {
            Block::A => MEMORY + 1,
            Block::B => MEMORY + 2,
            Block::Y if self.shape.slab => MEMORY + 1,
            Block::X | Block::Y => MEMORY,
        })
    }

    /// The live bit of a block.
    pub(crate) fn bit(&self, block: Block) -> Word {
        Word::new(BITS + block.index())
    }

    /// The header of the slab.
    pub(crate) fn header(&self) -> Word {
        Word::new(HEADER)
    }

    /// The durable epoch.
    pub(crate) fn durable(&self) -> Word {
        Word::new(DURABLE)
    }

    /// The words of a ring place.
    pub(crate) fn record(&self, lane: usize, place: usize) -> [Word; 2] {
        let first = self.rings + (lane * self.shape.ring + place) * PARTS;
        [Word::new(first), Word::new(first + 1)]
    }

    /// A word of a lane's mark array.
    pub(crate) fn mark(&self, lane: usize, nth: usize) -> Word {
        Word::new(self.marks + lane * self.shape.marks + nth)
    }

    /// The word that links the first chunk of a log.
    pub(crate) fn root(&self, log: usize) -> Word {
        Word::new(self.roots + log)
    }

    fn chunk(&self, chunk: usize) -> usize {
        self.chunks + chunk * (CHUNK_HEADER + self.shape.entries * PARTS)
    }

    /// The sequence number of a chunk's first entry; zero: no chunk was made there.
    pub(crate) fn base(&self, chunk: usize) -> Word {
        Word::new(self.chunk(chunk))
    }

    /// The word that links the chunk behind `chunk`.
    pub(crate) fn link(&self, chunk: usize) -> Word {
        Word::new(self.chunk(chunk) + 1)
    }

    /// The words of an entry.
    pub(crate) fn entry(&self, chunk: usize, nth: usize) -> [Word; 2] {
        let first = self.chunk(chunk) + CHUNK_HEADER + nth * PARTS;
        [Word::new(first), Word::new(first + 1)]
    }

    /// All words that recovery reads before it redoes anything: all but slots, contents and live bits.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = Word> + use<> {
        (HEADER..self.lines.len()).map(Word::new)
    }

    /// All words of all rings.
    pub(crate) fn ring_words(&self) -> impl Iterator<Item = Word> + use<> {
        (self.rings..self.marks).map(Word::new)
    }

    /// All words of all mark arrays.
    pub(crate) fn mark_words(&self) -> impl Iterator<Item = Word> + use<> {
        (self.marks..self.roots).map(Word::new)
    }

    /// What a word is, for traces.
    pub(crate) fn name_of(&self, word: Word) -> String {
        let index = word.index();
        match index {
            SLOTS => "s0".to_owned(),
            1 => "s1".to_owned(),
            2 => "s3".to_owned(),
            MEMORY..BITS => format!("contents({:?})", Block::ALL[index - MEMORY]),
            BITS..HEADER => format!("bit({:?})", Block::ALL[index - BITS]),
            HEADER => "slab header".to_owned(),
            DURABLE => "D".to_owned(),
            _ => self.name_of_part(index),
        }
    }

    fn name_of_part(&self, index: usize) -> String {
        if index < self.marks {
            let part = index - self.rings;
            let (place, word) = (part / PARTS, part % PARTS);
            format!("lane{}[{}].w{word}", place / self.shape.ring, place % self.shape.ring)
        } else if index < self.roots {
            let part = index - self.marks;
            format!("lane{}.mark{}", part / self.shape.marks, part % self.shape.marks)
        } else if index < self.chunks {
            format!("log{}.root", index - self.roots)
        } else {
            let size = CHUNK_HEADER + self.shape.entries * PARTS;
            let (chunk, part) = ((index - self.chunks) / size, (index - self.chunks) % size);
            match part {
                0 => format!("chunk{chunk}.base"),
                1 => format!("chunk{chunk}.link"),
                _ => {
                    let part = part - CHUNK_HEADER;
                    format!("chunk{chunk}[{}].w{}", part / PARTS, part % PARTS)
                }
            }
        }
    }
}
