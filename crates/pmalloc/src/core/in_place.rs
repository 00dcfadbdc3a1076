//! Words that change in place: each change is durable when it returns, and stands by itself.

use pmalloc_persist::{Medium, Span, Word};

use super::open_heap::Core;
use crate::error::{Error, Result};

/// Lets `change` change the `word`, and makes it durable.
///
/// # Errors
///
/// [`Error::SlotForeign`] if it lies in no live block of the heap, [`Error::Forked`], [`Error::Io`].
pub(crate) fn change<M: Medium, R>(
    core: &Core<M>,
    word: &Word,
    change: impl FnOnce(&M) -> R,
) -> Result<R> {
    let _entered = core.enter()?;
    core.place_of(word)?;
    let m = core.medium();
    let result = change(m);
    m.flush_of(word);
    // CRASH: one word: the old value or the new one.
    m.fence();
    Ok(result)
}

/// Stores `new` if the `word` is `current`, and returns what it was: `Ok` if it was `current`. Either is durable.
pub(crate) fn compare_exchange<M: Medium>(
    core: &Core<M>,
    word: &Word,
    current: u64,
    new: u64,
) -> Result<Result<u64, u64>> {
    change(core, word, |m| m.compare_exchange(word, current, new))
}

/// Stores what `make` makes of the `word`, if it makes anything, and returns what it was: `Ok` if it changed. Either is
/// durable. `make` may be called more than once, and may use the heap.
pub(crate) fn update<M: Medium>(
    core: &Core<M>,
    word: &Word,
    mut make: impl FnMut(u64) -> Option<u64>,
) -> Result<Result<u64, u64>> {
    core.check_process()?;
    core.place_of(word)?;
    let mut found = core.medium().load(word);
    while let Some(new) = make(found) {
        match compare_exchange(core, word, found, new)? {
            Ok(before) => return Ok(Ok(before)),
            Err(other) => found = other,
        }
    }
    // Nothing is changed, but what was found is durable on return.
    change(core, word, |_| ())?;
    Ok(Err(found))
}

/// Starts writing back what the program wrote to `span` by pointers of its own.
///
/// # Errors
///
/// [`Error::Invalid`] for bytes outside the heap, [`Error::Forked`], [`Error::Io`].
pub(crate) fn flush<M: Medium>(core: &Core<M>, span: Span) -> Result<()> {
    let m = core.medium();
    let _entered = core.enter()?;
    if span.end() > m.len() {
        let why = format!("{span:?}; the heap has {} bytes", m.len());
        return Err(Error::Invalid { what: "span", why });
    }
    m.stored(span);
    m.flush(span);
    Ok(())
}
