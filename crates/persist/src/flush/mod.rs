//! Writing cache lines back: which instruction, chosen once, and what a fence costs.
//!
//! A mapping owns one `Flusher`, a two-byte value fixed when it is mapped, so that a flush is a branch that
//! is always predicted and then the instruction itself. Everything here is volatile.
//!
//! Miri can't execute assembly: there a flush and a fence do nothing, as on a processor whose caches are
//! in the persistence domain.

use core::{
    fmt,
    ptr::NonNull,
    sync::atomic::{Ordering, compiler_fence},
};

use crate::{Durability, LINE_BYTES, OnMedia, Region, Span, Word};

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[path = "aarch64.rs"]
mod arch;
#[cfg(miri)]
#[path = "nothing.rs"]
mod arch;
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[path = "x86_64.rs"]
mod arch;

/// An instruction that writes a cache line back to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushInstruction {
    /// x86-64 `clwb`: writes back and may keep the line cached.
    Clwb,
    /// x86-64 `clflushopt`: writes back and evicts, weakly ordered.
    Clflushopt,
    /// x86-64 `clflush`: writes back and evicts, one line after the other.
    Clflush,
    /// aarch64 `dc cvap`: cleans to the point of persistence.
    DcCvap,
    /// aarch64 `dc cvac`: cleans to the point of coherency, the best that older processors have.
    DcCvac,
}

impl FlushInstruction {
    const ALL: [Self; 5] =
        [Self::Clwb, Self::Clflushopt, Self::Clflush, Self::DcCvap, Self::DcCvac];

    /// All instructions that this processor has, the best one first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|&instruction| arch::has(instruction)).collect()
    }

    /// The best instruction that this processor has; none under miri.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Self::ALL.into_iter().find(|&instruction| arch::has(instruction))
    }

    /// The name in the processor's manual.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clwb => "clwb",
            Self::Clflushopt => "clflushopt",
            Self::Clflush => "clflush",
            Self::DcCvap => "dc cvap",
            Self::DcCvac => "dc cvac",
        }
    }
}

impl fmt::Display for FlushInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What flush and fence do on one mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flusher {
    /// Volatile: `None` where caches need no flushing.
    instruction: Option<FlushInstruction>,
    /// Volatile: how long a fence waits.
    fence: Fence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    /// The kernel keeps what this process stored, in the order of its instructions, also when it is killed:
    /// only the compiler has to be kept from reordering.
    Compiler,
    /// Waits for the flushed lines, and orders stores where caches are persistent.
    Hardware,
}

impl Flusher {
    /// The flusher of memory whose durability is nobody's concern, or the kernel's.
    pub(crate) const NONE: Self = Self { instruction: None, fence: Fence::Compiler };

    /// The flusher that `durability` asks for on this processor.
    ///
    /// # Panics
    ///
    /// If the processor has no flush instruction at all; every x86-64 and aarch64 has one.
    pub(crate) fn new(durability: Durability) -> Self {
        match durability {
            Durability::PowerFail => Self::with(FlushInstruction::detect()),
            Durability::Eadr => Self { instruction: None, fence: Fence::Hardware },
            Durability::ProcessCrash | Durability::Msync => Self::NONE,
        }
    }

    /// The instruction that a flush executes, if any.
    pub(crate) fn instruction(self) -> Option<FlushInstruction> {
        self.instruction
    }

    /// Starts writing back the lines of `span`.
    ///
    /// # Panics
    ///
    /// If lines have to be flushed and `span` lies outside `region`.
    #[inline]
    #[track_caller]
    pub(crate) fn flush(self, region: &Region, span: Span) {
        if let Some(instruction) = self.instruction {
            let (first, lines) = first_line(region, span);
            // SAFETY:
            // 1. `first_line` returns consecutive lines of the region, whose addresses stay mapped while
            //    it is borrowed;
            // 2. `with` checked that the processor has the instruction.
            unsafe { arch::write_back(instruction, first, lines) }
        }
    }

    /// Starts writing back the line, or the lines, of `value`.
    #[inline]
    pub(crate) fn flush_of<T: OnMedia>(self, value: &T) {
        if let Some(instruction) = self.instruction {
            let first = NonNull::from(value).cast::<u8>();
            let lines = lines_of::<T>(first.addr().get() as u64);
            // SAFETY:
            // 1. the lines are those of a reference that lives: `write_back` touches the line of `first` and those behind
            //    it, and the last one holds the last byte;
            // 2. `with` checked that the processor has the instruction.
            unsafe { arch::write_back(instruction, first, lines) }
        }
    }

    /// Asks for the line of `word`, to store in it: a flush may have put it out of the cache.
    #[inline(always)]
    pub(crate) fn prefetch(self, word: &Word) {
        if self.instruction.is_some() {
            arch::prefetch(NonNull::from(word).cast());
        }
    }

    /// Waits for everything that this thread flushed.
    #[inline]
    pub(crate) fn fence(self) {
        match self.fence {
            // Pairs with no other thread: the other side is whoever maps the file next.
            Fence::Compiler => compiler_fence(Ordering::SeqCst),
            Fence::Hardware => arch::fence(),
        }
    }

    fn with(instruction: Option<FlushInstruction>) -> Self {
        assert!(
            instruction.is_some_and(arch::has) || cfg!(miri),
            "no {instruction:?} to flush with"
        );
        Self { instruction, fence: Fence::Hardware }
    }
}

/// The number of lines that a `T` at this address touches.
#[inline]
fn lines_of<T>(address: u64) -> u64 {
    let size = size_of::<T>() as u64;
    // What is no longer than a line and aligned to its size crosses none: nearly all that is flushed are words.
    if size <= LINE_BYTES && size_of::<T>() <= align_of::<T>() {
        1
    } else {
        (address % LINE_BYTES + size).div_ceil(LINE_BYTES)
    }
}

/// The address of the first line that `span` touches and the number of lines.
#[inline]
#[track_caller]
fn first_line(region: &Region, span: Span) -> (NonNull<u8>, u64) {
    let start = span.start & !(LINE_BYTES - 1);
    let len = span.end() - start;
    let first = region.pointer(Span::new(start, len)).expect("a flush inside the region");
    let lines = if span.is_empty() { 0 } else { len.div_ceil(LINE_BYTES) };
    (first, lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Anon, Medium, Offset, PAGE_BYTES, Word};

    #[test]
    fn every_available_instruction_leaves_the_bytes_as_they_are() {
        let memory = Anon::new(PAGE_BYTES);
        let word = memory.at(Offset::<Word>::new(128)).expect("inside");
        for instruction in FlushInstruction::available() {
            let flusher = Flusher::with(Some(instruction));
            memory.store(word, 7 + instruction as u64);
            flusher.flush(memory.region(), Span::new(100, 300));
            flusher.fence();
            assert_eq!(memory.load(word), 7 + instruction as u64, "{instruction}");
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn the_processor_has_an_instruction_and_the_first_available_one_is_taken() {
        assert_eq!(FlushInstruction::detect(), FlushInstruction::available().first().copied());
        assert!(FlushInstruction::detect().is_some());
    }

    #[test]
    fn lines_of_a_span_are_counted_from_the_line_that_holds_its_first_byte() {
        let memory = Anon::new(PAGE_BYTES);
        let base = memory.region().base().addr().get();
        for (start, len, offset, lines) in
            [(0, 1, 0, 1), (63, 2, 0, 2), (64, 64, 64, 1), (100, 300, 64, 6), (70, 0, 64, 0)]
        {
            let (first, count) = first_line(memory.region(), Span::new(start, len));
            assert_eq!((first.addr().get() - base, count), (offset, lines), "{start} {len}");
        }
    }

    #[test]
    fn a_value_touches_the_lines_of_all_its_bytes() {
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        assert_eq!([0, 8, 56, 120].map(lines_of::<u64>), [1; 4]);
        assert_eq!([0, 32, 40, 64].map(lines_of::<[u64; 4]>), [1, 1, 2, 1]);
        assert_eq!([0, 8, 64].map(lines_of::<[u64; 16]>), [2, 3, 2]);
        assert_eq!(lines_of::<Page>(4096), 64, "although it is aligned to its size");
        assert_eq!(size_of_val(&Page([0; 4096]).0), 4096);
    }

    #[test]
    #[should_panic(expected = "a flush inside the region")]
    fn a_span_behind_the_region_is_refused() {
        let memory = Anon::new(PAGE_BYTES);
        let _ = first_line(memory.region(), Span::new(PAGE_BYTES - 8, 16));
    }

    #[test]
    fn only_power_fail_flushes() {
        assert_eq!(Flusher::new(Durability::PowerFail).instruction(), FlushInstruction::detect());
        for durability in [Durability::Eadr, Durability::ProcessCrash, Durability::Msync] {
            assert_eq!(Flusher::new(durability).instruction(), None, "{durability}");
        }
        assert_eq!(Flusher::new(Durability::Eadr).fence, Fence::Hardware);
        assert_eq!(Flusher::new(Durability::ProcessCrash).fence, Fence::Compiler);
    }
}
