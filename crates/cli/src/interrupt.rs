//! The user's wish to stop. Volatile.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use pmalloc_persist::sync::Ordering;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Failure;

/// Whether the user asked to stop, by Ctrl-C or SIGTERM.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        let register = |signal| signal_hook::flag::register(signal, Arc::clone(&flag));
        let registered: io::Result<Vec<_>> = [SIGINT, SIGTERM].into_iter().map(register).collect();
        registered.map_err(Failure::io("listen to signals"))?;
        Ok(Self(flag))
    }

    /// Whether to stop.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
