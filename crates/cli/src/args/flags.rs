//! What many commands are told: how a heap is made durable, and how results are written. Volatile.

use clap::{Args, ValueEnum};
use pmalloc::{Heap, HeapOptions, Policy, persist::DurabilityChoice};

/// How a heap is made and made durable.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct HeapFlags {
    /// When the effects of operations are made durable
    #[arg(long, value_enum, default_value_t = PolicyArg::DEFAULT)]
    pub(crate) policy: PolicyArg,
    #[command(flatten)]
    pub(crate) media: MediaFlags,
}

/// How heaps of any policy are made and made durable.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct MediaFlags {
    /// Consistency model
    #[arg(long, value_enum, default_value_t = ModelArg::Log)]
    pub(crate) model: ModelArg,
    /// What the heap's memory survives; `powerfail` is taken at its word, also on a page-cache file
    #[arg(long, value_enum, default_value_t = DurabilityArg::Auto)]
    pub(crate) durability: DurabilityArg,
    /// Stripes of the interleaved bitmaps, 1 for none [default: chosen by the library]
    #[arg(long, value_name = "N")]
    pub(crate) stripes: Option<u32>,
}

/// How the heaps of benchmarks are made.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct BenchHeapFlags {
    /// Give each heap a thread of its own that makes durable what operations leave, under the policy Batched
    #[arg(long)]
    pub(crate) background_thread: bool,
    #[command(flatten)]
    pub(crate) media: MediaFlags,
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
    /// Before the operation returns: three fences
    Eager,
    /// For many operations at once: one fence, and memory that is freed comes back a little later
    Batched,
}

impl PolicyArg {
    /// All of them, that of the library's choice first.
    pub(crate) const ALL: [Self; 2] = match Self::DEFAULT {
        Self::Eager => [Self::Eager, Self::Batched],
        Self::Batched => [Self::Batched, Self::Eager],
    };

    /// What the library chooses.
    pub(crate) const DEFAULT: Self = match HeapOptions::POLICY_DEFAULT {
        Policy::Batched => Self::Batched,
        _ => Self::Eager,
    };
}

impl From<PolicyArg> for Policy {
    fn from(arg: PolicyArg) -> Self {
        match arg {
            PolicyArg::Eager => Self::Eager,
            PolicyArg::Batched => Self::Batched,
        }
    }
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
    /// The library's options.
    pub(crate) fn options(self) -> HeapOptions {
        self.media.options().policy(self.policy.into())
    }

    /// The flags as the command line has them.
    pub(crate) fn to_args(self) -> Vec<String> {
        let policy = ["--policy".to_owned(), name_of(&self.policy)];
        policy.into_iter().chain(self.media.to_args()).collect()
    }
}

impl MediaFlags {
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
        for (flag, value) in
            [("--model", name_of(&self.model)), ("--durability", name_of(&self.durability))]
        {
            args.extend([flag.to_owned(), value]);
        }
        if let Some(stripes) = self.stripes {
            args.extend(["--stripes".to_owned(), stripes.to_string()]);
        }
        args
    }
}

impl BenchHeapFlags {
    /// The library's options.
    pub(crate) fn options(self) -> HeapOptions {
        self.media.options().background_thread(self.background_thread)
    }

    /// The flags as the command line has them.
    pub(crate) fn to_args(self) -> Vec<String> {
        let background = self.background_thread.then(|| "--background-thread".to_owned());
        self.media.to_args().into_iter().chain(background).collect()
    }
}

/// The name that the command line has for `value`.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}
