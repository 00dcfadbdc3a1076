//! The heap's own thread, if its program wants one. It keeps no heap open: it ends when the heap is closed.

use pmalloc_persist::{Medium, sync::Arc};

use super::open_heap::Core;
use crate::error::{Error, Result};

/// Begins the thread of a heap that is to have one.
///
/// # Errors
///
/// [`Error::Io`] if the system makes no thread.
pub(crate) fn begin<M: Medium + 'static>(core: &Arc<Core<M>>) -> Result<()> {
    if !core.background.is_wanted() {
        return Ok(());
    }
    let weak = Arc::downgrade(core);
    let run = move || {
        // Who closes the heap waits for those that hold it.
        while let Some(core) = weak.upgrade().filter(|core| core.background.wait()) {
            core.synchronize_behind();
        }
    };
    let began = std::thread::Builder::new().name("pmalloc".into()).spawn(run);
    began.map(drop).map_err(Error::io("beginning the heap's own thread"))
}
