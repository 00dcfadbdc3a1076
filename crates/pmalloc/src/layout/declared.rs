//! Declarations: where the slots are in roots of bytes, in blocks of a tag, and in the values of a program's types.
//!
//! They lie in a block of their own, which the first slot of the root array [`DECLARED_ROOT`] owns, and are replaced as a
//! whole. Nothing but the heap's check believes them.
//!
//! ```text
//! header       magic, words in all, CRC-32C of the words behind it, zero
//! declaration  scope | types << 8, key
//! type         bytes of a value, runs
//! run          offset, stride, count, what they own | certainty << 63
//! ```

use super::sealed::checksum;

/// The name of the root array. Names that begin so are the heap's own.
pub(crate) const DECLARED_ROOT: &str = "pmalloc:slots";

/// What the names of the heap's own roots begin with.
pub(crate) const OWN_PREFIX: &str = "pmalloc:";

/// Slots of that array: the first owns the declarations; through the second what nobody owns is freed.
pub(crate) const DECLARED_ROOT_SLOTS: u64 = 2;

/// Most words of all declarations: a megabyte.
pub(crate) const DECLARED_MAX_WORDS: u64 = 1 << 17;

/// First word of the block.
const MAGIC: u64 = u64::from_le_bytes(*b"PMALDECL");

/// Words of the header.
const HEADER_WORDS: usize = 4;

/// The count of a run that goes on to the end of its block.
pub(crate) const TO_THE_END: u64 = u64::MAX;

/// Bit of a run of words that may be slots.
const MAYBE: u64 = 1 << 63;

/// What a declaration is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Roots of bytes of this type.
    RootType(u64),
    /// Blocks of bytes with this tag.
    Tag(u8),
    /// Typed roots whose type graph has this hash, and all that can be reached from them by its types.
    Graph(u64),
}

impl Scope {
    const fn encode(self) -> (u64, u64) {
        match self {
            Self::RootType(key) => (1, key),
            Self::Tag(tag) => (2, tag as u64),
            Self::Graph(hash) => (3, hash),
        }
    }

    fn decode(code: u64, key: u64) -> Option<Self> {
        match code {
            1 => Some(Self::RootType(key)),
            2 => Some(Self::Tag(u8::try_from(key).ok()?)),
            3 => Some(Self::Graph(key)),
            _ => None,
        }
    }
}

/// What a program says about one kind of root or block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// What it is about.
    pub(crate) scope: Scope,
    /// One type, but for a graph; the first one is that of the root.
    pub(crate) types: Vec<TypeSlots>,
}

/// Where a type has slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TypeSlots {
    /// Bytes of a value, zero if they are not known.
    pub(crate) size_bytes: u64,
    /// Its slots.
    pub(crate) runs: Vec<Run>,
}

/// Slots at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// Byte of the first one in its block.
    pub(crate) offset: u64,
    /// Bytes from one to the next.
    pub(crate) stride: u64,
    /// How many, or [`TO_THE_END`].
    pub(crate) count: u64,
    /// Index of the type of what they own; `None` for bytes.
    pub(crate) owns: Option<u32>,
    /// Whether they are slots.
    pub(crate) certainty: Certainty,
}

/// Whether words are slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Certainty {
    /// Each is one.
    Slots,
    /// Each may be one, or something else.
    Maybe,
}

/// All declarations as they lie in their block.
pub(crate) fn encode(declarations: &[Declaration]) -> Vec<u64> {
    let mut words = vec![0; HEADER_WORDS];
    for declaration in declarations {
        let (scope, key) = declaration.scope.encode();
        words.extend([scope | (declaration.types.len() as u64) << 8, key]);
        for slots in &declaration.types {
            words.extend([slots.size_bytes, slots.runs.len() as u64]);
            for run in &slots.runs {
                let maybe = if run.certainty == Certainty::Maybe { MAYBE } else { 0 };
                let owns = run.owns.map_or(0, |index| u64::from(index) + 1);
                words.extend([run.offset, run.stride, run.count, owns | maybe]);
            }
        }
    }
    words[0] = MAGIC;
    words[1] = words.len() as u64;
    words[2] = checksum(&words[HEADER_WORDS..], words[1]);
    words
}

/// How many of `words`, which may go on behind them, are declarations; `None` if that is not said.
pub(crate) fn len_in(mut words: impl Iterator<Item = u64>) -> Option<usize> {
    let (MAGIC, len) = (words.next()?, words.next()?) else { return None };
    usize::try_from(len).ok()
}

/// The declarations in `words`, which may go on behind them; `None` if they are damaged.
pub(crate) fn decode(words: &[u64]) -> Option<Vec<Declaration>> {
    let [MAGIC, len, sum, 0, ..] = *words else { return None };
    let content = words.get(HEADER_WORDS..usize::try_from(len).ok()?)?;
    if checksum(content, len) != sum {
        return None;
    }
    let mut words = content.iter().copied();
    let mut declarations = Vec::new();
    while let Some(first) = words.next() {
        let scope = Scope::decode(first & 0xff, words.next()?)?;
        let count = first >> 8;
        let types: Option<Vec<_>> = (0..count).map(|_| decode_type(&mut words, count)).collect();
        declarations.push(Declaration { scope, types: types? });
    }
    let is_root_known = |one: &Declaration| !one.types.is_empty();
    declarations.iter().all(is_root_known).then_some(declarations)
}

fn decode_type(words: &mut impl Iterator<Item = u64>, types: u64) -> Option<TypeSlots> {
    let size_bytes = words.next()?;
    let count = words.next()?;
    let mut runs = Vec::new();
    for _ in 0..count {
        let (offset, stride, count) = (words.next()?, words.next()?, words.next()?);
        let last = words.next()?;
        let certainty = if last & MAYBE == 0 { Certainty::Slots } else { Certainty::Maybe };
        let owns = match last & !MAYBE {
            0 => None,
            owns if owns <= types => Some(u32::try_from(owns - 1).ok()?),
            _ => return None,
        };
        if !offset.is_multiple_of(8) || !stride.is_multiple_of(8) || stride == 0 {
            return None;
        }
        runs.push(Run { offset, stride, count, owns, certainty });
    }
    Some(TypeSlots { size_bytes, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Declaration> {
        let run = |owns, certainty| Run { offset: 16, stride: 24, count: 3, owns, certainty };
        let node = TypeSlots {
            size_bytes: 88,
            runs: vec![run(Some(1), Certainty::Slots), run(None, Certainty::Slots)],
        };
        let words = Run {
            offset: 0,
            stride: 8,
            count: TO_THE_END,
            owns: None,
            certainty: Certainty::Maybe,
        };
        vec![
            Declaration { scope: Scope::Graph(u64::MAX), types: vec![node, TypeSlots::default()] },
            Declaration { scope: Scope::Tag(255), types: vec![TypeSlots::default()] },
            Declaration {
                scope: Scope::RootType(7),
                types: vec![TypeSlots { size_bytes: 0, runs: vec![words] }],
            },
        ]
    }

    #[test]
    fn declarations_survive_encoding() {
        for declarations in [Vec::new(), sample()] {
            let mut words = encode(&declarations);
            assert_eq!(decode(&words), Some(declarations.clone()));
            // Their block is longer, and holds what it held before.
            words.extend([u64::MAX; 5]);
            assert_eq!(decode(&words), Some(declarations));
        }
    }

    #[test]
    fn a_changed_word_is_noticed() {
        let words = encode(&sample());
        for at in 0..words.len() {
            for bit in [0, 17, 40, 63] {
                let mut damaged = words.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(decode(&damaged), None, "word {at}, bit {bit}");
            }
        }
        for len in 0..words.len() {
            assert_eq!(decode(&words[..len]), None, "{len} words");
        }
    }
}
