//! What many commands are told: how a heap is made durable, and how results are written. Volatile.

use clap::{Args, ValueEnum};
use pmalloc::{Heap, HeapOptions, persist::DurabilityChoice};

/// How a heap is made and made durable.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct HeapFlags {
    /// Consistency model
    #[arg(long, value_enum, default_value_t = ModelArg::Log)]
    pub(crate) model: ModelArg,
    /// When the effects of an operation are flushed
    #[arg(long, value_enum, default_value_t = PolicyArg::Eager)]
    pub(crate) policy: PolicyArg,
    /// What the heap's memory survives; `powerfail` is taken at its word, also on a page-cache file
    #[arg(long, value_enum, default_value_t = DurabilityArg::Auto)]
    pub(crate) durability: DurabilityArg,
    /// Stripes of the interleaved bitmaps, 1 for none [default: chosen by the library]
    #[arg(long, value_name = "N")]
    pub(crate) stripes: Option<u32>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputFlags {
    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelArg {
    /// Every operation is recorded before it takes effect
    Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// By the operation itself
    Eager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// What the memory offers
    Auto,
    /// Power loss: every persist is a flush and a fence
    Powerfail,
    /// Power loss, with caches that survive it: a fence
    Eadr,
    /// The death of the process
    Process,
    /// What was synchronized explicitly
    Msync,
}

impl From<DurabilityArg> for DurabilityChoice {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Auto => Self::Auto,
            DurabilityArg::Powerfail => Self::PowerFail,
            DurabilityArg::Eadr => Self::Eadr,
            DurabilityArg::Process => Self::ProcessCrash,
            DurabilityArg::Msync => Self::Msync,
        }
    }
}

impl HeapFlags {
    /// The library's options. A durability that is named on the command line is taken at its word: that
    /// is how ordinary memory stands in for persistent memory.
    pub(crate) fn options(self) -> HeapOptions {
        let options = Heap::options().durability(self.durability.into()).unsafe_force_durability();
        match self.stripes {
            Some(stripes) => options.stripes(stripes),
            None => options,
        }
    }

    /// The flags as the command line has them.
    pub(crate) fn to_args(self) -> Vec<String> {
        let mut args = Vec::new();
        for (flag, value) in [
            ("--model", name_of(&self.model)),
            ("--policy", name_of(&self.policy)),
            ("--durability", name_of(&self.durability)),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        if let Some(stripes) = self.stripes {
            args.extend(["--stripes".to_owned(), stripes.to_string()]);
        }
        args
    }
}

/// The name that the command line has for `value`.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}
