//! How many bytes and blocks are live, and the most that ever were. Volatile.

use pmalloc_persist::sync::{AtomicU64, Ordering};

/// Running sums and their peaks, over all threads.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    bytes: AtomicU64,
    blocks: AtomicU64,
    peak_bytes: AtomicU64,
    peak_blocks: AtomicU64,
}

impl Usage {
    /// A block of `size_bytes` has come to life.
    pub(crate) fn add(&self, size_bytes: u64) {
        raise(&self.peak_bytes, self.bytes.fetch_add(size_bytes, Ordering::Relaxed) + size_bytes);
        raise(&self.peak_blocks, self.blocks.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// A block of `size_bytes` is gone.
    pub(crate) fn remove(&self, size_bytes: u64) {
        self.bytes.fetch_sub(size_bytes, Ordering::Relaxed);
        self.blocks.fetch_sub(1, Ordering::Relaxed);
    }

    /// Most bytes that were live.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Most blocks that were live.
    pub(crate) fn peak_blocks(&self) -> u64 {
        self.peak_blocks.load(Ordering::Relaxed)
    }
}

/// Raises `peak` to `value`; the look before saves most of the writes. Relaxed, like all here: figures that
/// nothing else depends on.
fn raise(peak: &AtomicU64, value: u64) {
    if value > peak.load(Ordering::Relaxed) {
        peak.fetch_max(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_outlasts_the_blocks() {
        let usage = Usage::default();
        usage.add(100);
        usage.add(50);
        usage.remove(100);
        usage.add(60);
        assert_eq!((usage.peak_bytes(), usage.peak_blocks()), (150, 2));
    }
}
