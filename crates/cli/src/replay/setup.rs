//! What the passes of a replay have in common. Volatile, but for the files in the scratch directory.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use super::{
    engine::Manner,
    journal::Shape,
    mix::Mix,
    plan::Plan,
    scratch::{Need, Scratch},
};
use crate::{
    args::{HeapFlags, Order, ReplayArgs, Verification},
    exit::Failure,
    trace::Trace,
};

/// What the passes of a replay have in common.
pub(super) struct Setup {
    pub(super) plan: Plan,
    pub(super) order: Order,
    pub(super) manner: Manner,
    pub(super) flags: HeapFlags,
    pub(super) scratch: Scratch,
}

impl Setup {
    /// Makes the scratch directory, and in it the trace, uncompressed, if workers will read it again and again.
    pub(super) fn prepare(args: &ReplayArgs, trace: Trace) -> Result<Self, Failure> {
        let mut uncompressed = Vec::new();
        if args.kills > 0 {
            trace.write(&mut uncompressed).map_err(Failure::io("write to memory"))?;
        }
        let plan = Plan::of(trace);
        let scratch_bytes = Shape::of(&plan).len_bytes() + uncompressed.len() as u64;
        let need = Need {
            least_bytes: plan.peak_bytes().saturating_add(scratch_bytes),
            most_bytes: plan.total_bytes().saturating_add(scratch_bytes),
        };
        let setup = Self {
            scratch: Scratch::new(args.heap.as_deref(), need)?,
            plan,
            order: args.order,
            manner: Manner {
                verification: if args.no_verify { Verification::Off } else { Verification::Full },
                mix: Mix {
                    percent: args.publish_percent(),
                    seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
                },
            },
            flags: args.heap_flags,
        };
        if args.kills > 0 {
            let write = || {
                let mut file = BufWriter::new(File::create(setup.trace_path())?);
                file.write_all(&uncompressed).and_then(|()| file.flush())
            };
            write().map_err(Failure::io("write the trace for the workers"))?;
        }
        Ok(setup)
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::of(&self.plan)
    }

    pub(super) fn journal_path(&self) -> PathBuf {
        self.scratch.file("journal")
    }

    pub(super) fn trace_path(&self) -> PathBuf {
        self.scratch.file("trace.mtr")
    }
}
