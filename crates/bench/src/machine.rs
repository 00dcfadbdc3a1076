//! Where something was measured. Volatile.

use std::{fs, path::Path, thread};

use pmalloc::{Heap, HeapOptions, persist::Storage};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};

use crate::{alloc::BareLines, clock::cpu_ns_per_op, error::Error, stats::Samples};

/// The machine, and what heaps lie on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, as far as the kernel knows it.
    pub cpu: String,
    /// Its architecture.
    pub arch: String,
    /// Processors that the run may use.
    pub cores: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// What a flush executes, if anything.
    pub flush_instruction: Option<String>,
    /// What a persist of the heaps survives.
    pub durability: String,
    /// Whether that was forced, and the memory does not have it.
    pub durability_is_forced: bool,
    /// Where the heaps' bytes are.
    pub storage: String,
    /// The directory of the heaps.
    pub directory: String,
}

/// What a heap that is made with the plan's options says of itself.
#[derive(Debug)]
pub(crate) struct HeapTraits {
    pub(crate) machine: Machine,
    pub(crate) storage: Storage,
    pub(crate) model: String,
    pub(crate) flush_again: Option<f64>,
}

impl HeapTraits {
    /// Makes a heap in `scratch`, which lies in `directory`, looks at it and removes it.
    pub(crate) fn find_out(
        directory: &Path,
        scratch: &Path,
        options: &HeapOptions,
    ) -> Result<Self, Error> {
        let path = scratch.join("heap");
        let heap = options.create(&path)?;
        let media = heap.media();
        let storage = media.storage.expect("the heap lies in a file");
        let machine = Machine {
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            arch: std::env::consts::ARCH.to_owned(),
            cores: thread::available_parallelism().map_or(1, Into::into),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            flush_instruction: media.flush_instruction.map(|flush| flush.name().to_owned()),
            durability: media.durability.expect("that of a file").to_string(),
            durability_is_forced: media.durability_is_forced,
            storage: storage.to_string(),
            directory: directory.display().to_string(),
        };
        let flush_again = media.flush_instruction.map(|_| flush_again(&heap));
        heap.close()?;
        let info = pmalloc::info(&path)?;
        fs::remove_file(&path).map_err(Error::io("remove a heap"))?;
        let name = |choice: &dyn std::fmt::Debug| format!("{choice:?}").to_lowercase();
        Ok(Self { machine, storage, model: name(&info.model), flush_again })
    }
}

/// What a persist costs over one line, in those over lines in turn: the median of a few rounds.
fn flush_again(heap: &Heap) -> f64 {
    const ROUNDS: usize = 9;
    const PERSISTS: usize = 5_000;
    let cost = |lines: &mut BareLines<'_, _>| cpu_ns_per_op(|| lines.persists::<1>(PERSISTS));
    let (mut one, mut many) = (BareLines::with_lines(heap, 0, 1), BareLines::new(heap, 0));
    let mut ratios = Samples::default();
    (0..ROUNDS).for_each(|_| ratios.push(cost(&mut one) / cost(&mut many)));
    ratios.spread().median
}

/// The processor that `cpuinfo` tells of first.
fn cpu_model(cpuinfo: &str) -> String {
    // ARM has no name for it, but numbers.
    ["model name", "CPU part"]
        .into_iter()
        .find_map(|key| {
            let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Bytes that a file in `directory` can have: what its file system has left. One that lies in the kernel's memory allows
/// itself more than there may be.
pub(crate) fn room_bytes(directory: &Path, storage: Storage) -> Result<u64, Error> {
    let stat = statvfs(directory)
        .map_err(|errno| Error::io(format!("use {}", directory.display()))(errno.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if storage != Storage::Tmpfs {
        return Ok(free_bytes);
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Ok(available_bytes(&meminfo).map_or(free_bytes, |available| available.min(free_bytes)))
}

/// Memory that `meminfo` says can be had.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_as_its_kernel_names_it() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\nmodel name\t: other\n";
        assert_eq!(cpu_model(x86), "Some CPU @ 2.50GHz");
        assert_eq!(cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n"), "0xd0c");
        assert_eq!(cpu_model(""), "unknown");
    }

    #[test]
    fn available_memory_is_read_in_kib() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:       2048 kB\n";
        assert_eq!(available_bytes(text), Some(2 << 20));
        assert_eq!(available_bytes("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn there_is_some_room_and_not_without_bounds() {
        let room = |storage| room_bytes(&std::env::temp_dir(), storage).expect("it can be asked");
        let (on_disk, in_memory) = (room(Storage::PageCache), room(Storage::Tmpfs));
        assert!(in_memory > 0 && on_disk < u64::MAX / 2, "{in_memory} {on_disk}");
        let error = room_bytes(Path::new("/no/such/place"), Storage::Tmpfs).expect_err("it isn't");
        assert!(error.to_string().contains("/no/such/place"), "{error}");
    }
}
