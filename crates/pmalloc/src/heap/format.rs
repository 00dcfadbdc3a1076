//! Writes an empty heap.

use pmalloc_persist::{Medium, Offset, Span, Word};

use crate::{
    book::Book,
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        state::Policy,
        superblock::{Header, SUPERBLOCK_WORDS},
    },
    recovery::{state, superblock_places},
};

/// Writes an empty heap to a medium that holds only zeros.
///
/// # Crash consistency
///
/// The superblock copies come last, each durable before the next: a medium with a valid copy is a whole heap,
/// one without is no heap.
pub(super) fn format<M: Medium>(m: &M, header: &Header) -> Result<()> {
    let geometry = &header.geometry;
    for span in fixed_spans(geometry) {
        m.back(span).map_err(Error::io("backing a new heap"))?;
    }
    state::format(m, Policy::Eager)?;
    Book::format(m, geometry);
    // CRASH: no superblock yet. What stands in the root table and the directory is zero: nothing there.
    m.fence();
    for place in superblock_places() {
        let words: &[Word; SUPERBLOCK_WORDS] = m.at(Offset::new(place))?;
        for (word, value) in words.iter().zip(header.encode(place)) {
            m.store(word, value);
        }
        // CRASH: a torn copy does not match its checksum. The first copy makes the heap; recovery reads the
        // second only if the first is damaged.
        m.flush_of(words);
        m.fence();
    }
    Ok(())
}

/// What a heap has memory for from the start: superblock, state, log roots, the first page of the root table
/// and the lane directory. The file reaches to the data area, so that no metadata lies behind its end.
fn fixed_spans(geometry: &Geometry) -> [Span; 3] {
    let roots_end = Geometry::root_table().bytes() + 1;
    let data = geometry.data_span().start;
    [Span::new(0, roots_end), geometry.directory_span(), Span::new(data - 1, 1)]
}
