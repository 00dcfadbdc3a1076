//! What several commands tell beside their results. Volatile.

use std::path::Path;

/// Says that what is shown of the heap at `path` is not what its file holds, if that is so.
pub(super) fn note_if_not_closed(path: &Path) {
    // Whoever looks at the heap says what is wrong with it.
    if pmalloc::info(path).is_ok_and(|info| info.clean == Some(false)) {
        eprintln!(
            "pmalloc: note: the heap was not closed; this is what its next open, or `pmalloc recover`, makes of it. \
             The file is as it was"
        );
    }
}
