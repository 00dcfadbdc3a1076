//! What a benchmark is given to run a cell. Volatile, but for the heap that it makes in the cell's directory.

use pmalloc::{
    Heap, HeapOptions,
    persist::{Exclusive, Mapped},
};

use crate::{alloc::Subject, cell::Cell, launcher::Launcher};

/// What a benchmark is given to run a cell.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Options of its heap.
    pub options: &'a HeapOptions,
    /// Starts further children.
    pub launcher: &'a Launcher,
}

impl Context<'_> {
    /// Makes the cell's heap, on the medium that `wrap` makes of its file.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn make_heap<M: Exclusive + 'static>(&self, wrap: impl FnOnce(Mapped) -> M) -> Heap<M> {
        let path = self.cell.heap_path();
        let options = match self.cell.subject {
            Subject::Heap(policy) => self.options.clone().policy(policy),
            Subject::Bare | Subject::Pointer(_) => self.options.clone(),
        };
        let made = options.create_with(&path, wrap);
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// How the tests of other modules run cells.
#[cfg(test)]
pub(crate) mod tests {
    use pmalloc::persist::DurabilityChoice;

    use super::*;
    use crate::cell::Outcome;

    /// Runs `cell` in this process with `run`, on memory that needs no flushing.
    pub(crate) fn run_here(cell: Cell, run: impl FnOnce(&Context<'_>) -> Outcome) -> Outcome {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let cell = Cell { directory: directory.path().to_owned(), ..cell };
        let options = Heap::options()
            .capacity_bytes(1 << 30)
            .arenas(2)
            .durability(DurabilityChoice::ProcessCrash);
        let launcher = Launcher { program: "/no/such/program".into(), args: Vec::new() };
        run(&Context { cell: &cell, options: &options, launcher: &launcher })
    }
}
