//! Mutations: persists that the simulator leaves out, to prove that the tests would notice.

use std::collections::HashMap;

use super::model::{Site, Store};
use crate::sync::thread::ThreadId;

/// Kinds of sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// A store, an atomic read-modify-write, or plain stores that the medium was told of.
    Store,
    /// A flush.
    Flush,
    /// A fence.
    Fence,
    /// A sync, where it is the only barrier.
    Sync,
}

/// A place in the source that stored, flushed, fenced or synchronized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteCount {
    /// What was done there.
    pub kind: SiteKind,
    /// Where.
    pub location: &'static core::panic::Location<'static>,
    /// How often: word stores, flush calls, fences or syncs, those of explored recoveries included.
    pub count: u64,
}

/// Counts per site.
#[derive(Debug, Default)]
pub(super) struct SiteTable(HashMap<(SiteKind, usize), SiteCount, AddressHasher>);

impl SiteTable {
    pub(super) fn note(&mut self, kind: SiteKind, site: Site) {
        self.add(SiteCount { kind, location: site, count: 1 });
    }

    /// Moves the counts of `other` here.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        for (_, count) in other.0.drain() {
            self.add(count);
        }
    }

    /// All sites in the order of kind and place.
    pub(super) fn list(&self) -> Vec<SiteCount> {
        let mut list: Vec<SiteCount> = self.0.values().copied().collect();
        list.sort();
        // One place may have several addresses, one per unit of code generation.
        list.dedup_by(|later, first| {
            let same = (later.kind, later.location) == (first.kind, first.location);
            if same {
                first.count += later.count;
            }
            same
        });
        list
    }

    fn add(&mut self, new: SiteCount) {
        let key = (new.kind, core::ptr::from_ref(new.location).addr());
        self.0.entry(key).and_modify(|old| old.count += new.count).or_insert(new);
    }
}

/// The persists to leave out.
#[derive(Debug, Clone, Default)]
pub(super) struct Mutations {
    list: Vec<(SiteKind, Site)>,
}

impl Mutations {
    pub(super) fn add(&mut self, kind: SiteKind, site: Site) {
        self.list.push((kind, site));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn hits(&self, kind: SiteKind, site: Site) -> bool {
        self.list.iter().any(|&(k, at)| k == kind && at == site)
    }
}

/// Stores that wait for the next store of their thread.
#[derive(Debug, Default)]
pub(super) struct Delayed(HashMap<ThreadId, Store>);

impl Delayed {
    pub(super) fn hold(&mut self, thread: ThreadId, store: Store) {
        self.0.insert(thread, store);
    }

    pub(super) fn release(&mut self, thread: ThreadId) -> Option<Store> {
        self.0.remove(&thread)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Hashes the few addresses of sites; far cheaper than the standard library's hasher, and no one chooses
/// the keys.
#[derive(Debug, Clone, Default)]
struct AddressHasher;

impl core::hash::BuildHasher for AddressHasher {
    type Hasher = AddressHash;
    fn build_hasher(&self) -> AddressHash {
        AddressHash(0)
    }
}

#[derive(Debug)]
struct AddressHash(u64);

impl core::hash::Hasher for AddressHash {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
