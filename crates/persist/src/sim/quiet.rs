//! Panics as values: a panic inside a check is a finding, not noise on the terminal.

use core::cell::{Cell, RefCell};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `call`; a panic becomes the error, with its message and place.
pub(super) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    install();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|_| LAST.take().unwrap_or_else(|| "a panic without a message".into()))
}

/// Puts a panic hook before the present one that keeps the panics of checks to itself.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                next(info);
            } else {
                LAST.set(Some(info.to_string().replace('\n', " ")));
            }
        }));
    });
}
