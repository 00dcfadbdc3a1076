//! Recovers a heap without using it, and says what there was to do.

use std::path::Path;

use pmalloc_persist::Medium;

use super::serve::Opening;
use crate::{
    core::header::read_header_of,
    error::Result,
    lane::{self, InFlight},
    layout::state::Clean,
    recovery::state,
    root,
};

/// What recovery found and did.
///
/// A heap that was closed has nothing to recover: all counts are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the heap had been closed, so that there was nothing to do.
    pub was_closed: bool,
    /// Nanoseconds from opening the file to a heap that could be used.
    pub elapsed_ns: u64,
    /// Records that were redone; an operation on several slots has several.
    pub replayed: u64,
    /// Operations whose records were whole, and whose effects may not have been durable in place: they are completed. Under
    /// [`Policy::Eager`](crate::Policy::Eager) each was in flight; under [`Policy::Batched`](crate::Policy::Batched) most had
    /// returned: they are those of the last two epochs.
    pub rolled_forward: u64,
    /// Operations in flight that had begun to write their records: nothing of them is left, as if they had never been
    /// called. An operation that was interrupted before that left no trace and isn't counted. Where a recovery was cut off
    /// while it wiped the records away, what is left of them looks the same, and is counted here although the operations
    /// were completed.
    pub rolled_back: u64,
    /// Places of the bookkeeping logs that interrupted appends had torn: they are usable again.
    pub reclaimed: u64,
}

/// Recovers the heap in the file at `path` and closes it.
///
/// # Errors
///
/// As [`Heap::open`](crate::Heap::open) and [`Heap::close`](crate::Heap::close).
///
/// # Crash consistency
///
/// As [`Heap::open`](crate::Heap::open): a crash leaves a heap that recovers to the same state.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// pmalloc::Heap::create(&path)?.close()?;
/// let report = pmalloc::recover_file(&path)?;
/// assert!(report.was_closed);
/// # Ok(())
/// # }
/// ```
pub fn recover_file(path: impl AsRef<Path>) -> Result<RecoveryReport> {
    let mut found = None;
    let core = Opening::default().open_file(path, |mapped| {
        // What can't be read makes opening fail, which says so.
        found = survey(&mapped).unwrap_or_default();
        mapped
    })?;
    let in_flight = found.unwrap_or_default();
    root::close(&core)?;
    let figures = core.recovery;
    Ok(RecoveryReport {
        was_closed: found.is_none(),
        elapsed_ns: figures.elapsed_ns,
        replayed: figures.replayed,
        rolled_forward: in_flight.decided,
        rolled_back: in_flight.undecided,
        reclaimed: figures.torn,
    })
}

/// What was in flight, or `None` in a heap that was closed.
fn survey<M: Medium>(m: &M) -> Result<Option<InFlight>> {
    let geometry = read_header_of(m)?.geometry;
    let state = state::read(m, &geometry)?;
    match state.clean {
        Clean::Closed => Ok(None),
        Clean::No | Clean::Synced | Clean::Unwritten => {
            lane::in_flight(m, &geometry, state.left()).map(Some)
        }
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::Arc;

    use pmalloc_persist::{Anon, Offset, Span, Word};

    use super::*;
    use crate::{
        layout::lane::{MARK_LINES, RECORD_BYTES},
        tests::{
            common::image::{self, Interrupted},
            small_geometry,
        },
    };

    #[test]
    fn an_operation_is_decided_until_a_word_of_its_record_is_missing() {
        let m = Arc::new(Anon::new(image::heap_bytes()));
        image::closed().restore(&m);
        assert_eq!(survey(&m).expect("undamaged"), None);

        image::crashed("crashed", Interrupted::AllocLarge, None).restore(&m);
        let decided = InFlight { decided: 1, undecided: 0 };
        assert_eq!(survey(&m).expect("undamaged"), Some(decided));
        let geometry = small_geometry();
        let mut torn = 0;
        for lane in 0..geometry.lanes {
            let ring = geometry.lane_span(lane).start + (1 + MARK_LINES) * 64;
            let span = Span::new(ring, u64::from(geometry.ring_places) * RECORD_BYTES);
            for at in (span.start..span.end()).step_by(8) {
                let word: &Word = m.at(Offset::new(at)).expect("inside");
                let before = m.load(word);
                m.store(word, 0);
                match survey(&m).expect("undamaged").expect("it was not closed") {
                    InFlight { decided: 0, undecided: 1 } => torn += 1,
                    found => assert_eq!(found, decided, "{at:#x}"),
                }
                m.store(word, before);
            }
        }
        assert_eq!(torn, 4, "a record has four words, and no other word matters");
    }
}
