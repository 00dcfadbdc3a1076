//! Writes an empty heap.

use pmalloc_persist::{Medium, Offset, Span, Word};

use crate::{
    book::Book,
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        state::Policy,
        superblock::{Header, MAGIC, SUPERBLOCK_WORDS},
    },
    recovery::{state, superblock_places},
};

const SUPERBLOCK_BYTES: u64 = (SUPERBLOCK_WORDS * size_of::<Word>()) as u64;

/// Who may find a heap before it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Nobody: its file has no name yet under which it is looked for, and gets one when all of it is synchronized.
    Hidden,
    /// Who opens the medium after a crash.
    InPlace,
}

impl Exposure {
    /// Does what a fence doesn't where the kernel writes pages when it likes.
    fn settle<M: Medium>(self, m: &M) -> Result<()> {
        if self == Self::Hidden || !m.needs_sync() {
            return Ok(());
        }
        m.sync().map_err(Error::io("writing a new heap"))
    }
}

/// Writes an empty heap to a medium that holds only zeros.
///
/// # Crash consistency
///
/// The superblock copies come last, and of these the magic words: a medium with a magic word is a whole heap, one
/// without is no heap.
pub(crate) fn format<M: Medium>(
    m: &M,
    header: &Header,
    policy: Policy,
    exposure: Exposure,
) -> Result<()> {
    let geometry = &header.geometry;
    for span in fixed_spans(geometry) {
        m.back(span).map_err(Error::backing("backing a new heap"))?;
    }
    state::format(m, policy)?;
    Book::format(m, geometry);
    // CRASH: no superblock yet. What stands in the root table and the directory is zero: nothing there. The fence in
    // front of the first magic word makes all of it durable.
    write_superblocks(m, header, &superblock_places(), exposure)
}

/// Writes the superblock copies at `places`.
///
/// # Crash consistency
///
/// The magic words come last: a copy with its magic word is whole.
pub(crate) fn write_superblocks<M: Medium>(
    m: &M,
    header: &Header,
    places: &[u64],
    exposure: Exposure,
) -> Result<()> {
    for place in places {
        let [magic, rest @ ..] = copy_at(m, *place)?;
        for (word, value) in rest.iter().zip(&header.encode(*place)[1..]) {
            m.store(word, *value);
        }
        m.flush(Span::new(m.region().span_of(magic).start, SUPERBLOCK_BYTES));
    }
    // CRASH: without the magic word there is no copy, whatever else of it is durable.
    m.fence();
    exposure.settle(m)?;
    for place in places {
        let [magic, ..] = copy_at(m, *place)?;
        m.store(magic, MAGIC);
        m.flush_of(magic);
        // CRASH: one atomic store. The first makes the heap; until the second is durable as well, the first serve
        // completes it.
        m.fence();
        exposure.settle(m)?;
    }
    Ok(())
}

/// Makes both superblock copies of a heap that was never served durable: writes the second one, if a crash kept its
/// creator from it.
///
/// # Crash consistency
///
/// Nobody has served the heap: until both copies are durable, the next open gets here again.
pub(crate) fn complete<M: Medium>(m: &M, header: &Header) -> Result<()> {
    for place in superblock_places() {
        m.flush(Span::new(place, SUPERBLOCK_BYTES));
    }
    // CRASH: nothing was stored. A creator that was killed may have left either copy in the cache only.
    m.fence();
    Exposure::InPlace.settle(m)?;
    let place = Geometry::second_superblock();
    let words = copy_at(m, place)?;
    if words.iter().zip(header.encode(place)).all(|(word, value)| m.load(word) == value) {
        return Ok(());
    }
    write_superblocks(m, header, &[place], Exposure::InPlace)
}

fn copy_at<M: Medium>(m: &M, place: u64) -> Result<&[Word; SUPERBLOCK_WORDS]> {
    Ok(m.at(Offset::new(place))?)
}

/// What a heap has memory for from the start: superblock, state, log roots, the first page of the root table
/// and the lane directory. The file reaches to the data area, so that no metadata lies behind its end.
pub(crate) fn fixed_spans(geometry: &Geometry) -> [Span; 3] {
    let roots_end = Geometry::root_table().bytes() + 1;
    let data = geometry.data_span().start;
    [Span::new(0, roots_end), geometry.directory_span(), Span::new(data - 1, 1)]
}
