//! Which heap lies in a file or on a medium: its superblock, by the copy that is whole.

use pmalloc_persist::{MediaFile, Medium, Offset, Word};

use crate::{
    error::{Error, Result},
    layout::superblock::{Header, MAGIC, SUPERBLOCK_WORDS},
    recovery::{identify, superblock_places},
};

/// The superblock of a file.
pub(crate) fn read_header(file: &MediaFile) -> Result<Header> {
    let mut copies = [[0; SUPERBLOCK_WORDS]; 2];
    for (copy, place) in copies.iter_mut().zip(superblock_places()) {
        let mut bytes = [0; SUPERBLOCK_WORDS * 8];
        match file.read_at(place, &mut bytes) {
            Ok(()) => {}
            // A short file may still hold the first copy; what is missing reads as no copy.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => continue,
            Err(source) => return Err(Error::Io { doing: "reading the superblock", source }),
        }
        for (word, bytes) in copy.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
    }
    identify(&copies)
}

/// The superblock of a medium.
pub(crate) fn read_header_of<M: Medium>(m: &M) -> Result<Header> {
    if m.len() <= superblock_places()[1] {
        return Err(Error::NotAHeap { why: "it is too short for a superblock" });
    }
    let mut copies = [[0; SUPERBLOCK_WORDS]; 2];
    for (copy, place) in copies.iter_mut().zip(superblock_places()) {
        let words: &[Word; SUPERBLOCK_WORDS] = m.at(Offset::new(place))?;
        // Without the magic word there is no copy, whatever stands behind it.
        if m.load(&words[0]) == MAGIC {
            *copy = words.each_ref().map(|word| m.load(word));
        }
    }
    let header = identify(&copies)?;
    if header.geometry.heap_bytes() > m.region().len() {
        return Err(Error::corrupted(0, "the heap is larger than its medium"));
    }
    Ok(header)
}
