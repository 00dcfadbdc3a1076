//! The state page: read at open, and its clean flag and owner, written when a heap is served and closed.

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Word};

use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        sealed::{checksum, seal, unseal},
        state::{Clean, Owner, Policy, State},
    },
};

/// What the state page says.
#[derive(Debug, Clone)]
pub(crate) struct StateImage {
    /// How the heap was left.
    pub(crate) clean: Clean,
    /// The policy that wrote the records.
    pub(crate) policy: Policy,
    /// Pages of the data area that ever had memory.
    pub(crate) grown_pages: u32,
    /// Who wrote last, if that is known: the record is not written atomically.
    pub(crate) owner: Option<OwnerImage>,
}

/// Who wrote to a heap last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OwnerImage {
    /// The boot in which it ran.
    pub(crate) boot: u128,
    /// Its process id.
    pub(crate) pid: u64,
    /// Its start time in clock ticks since boot.
    pub(crate) start_time: u64,
    /// The durability it ran with, as a number.
    pub(crate) durability: u64,
}

/// The state page of a medium.
pub(crate) fn page<M: Medium>(m: &M) -> Result<&State> {
    Ok(m.at(Offset::new(Geometry::state()))?)
}

/// Reads the state page.
///
/// # Errors
///
/// [`Error::Corrupted`] if a word does not match its check or the file is shorter than it says.
pub(crate) fn read<M: Medium>(m: &M, geometry: &Geometry) -> Result<StateImage> {
    let state = page(m)?;
    let damaged = |word: &Word, what| Error::corrupted(m.region().span_of(word).start, what);
    let value = |word: &Word, what| unseal(m.load(word)).ok_or_else(|| damaged(word, what));
    let clean = Clean::from_code(value(&state.clean, "the clean flag is damaged")?)
        .ok_or_else(|| damaged(&state.clean, "the clean flag is not known"))?;
    let policy = Policy::from_code(value(&state.policy, "the policy is damaged")?)
        .ok_or_else(|| damaged(&state.policy, "the policy is not known"))?;
    value(&state.durable_epoch, "the durable epoch is damaged")?;
    let grown = value(&state.grown_pages, "the grown length is damaged")?;
    let grown_pages = u32::try_from(grown)
        .ok()
        .filter(|pages| u64::from(*pages) <= geometry.data_pages())
        .ok_or_else(|| damaged(&state.grown_pages, "the heap has grown beyond its capacity"))?;
    if m.len() < geometry.data_span().start + grown * PAGE_BYTES {
        return Err(Error::corrupted(
            m.len(),
            "the file was truncated: it ends before the heap does",
        ));
    }
    Ok(StateImage { clean, policy, grown_pages, owner: read_owner(m, &state.owner) })
}

fn read_owner<M: Medium>(m: &M, owner: &Owner) -> Option<OwnerImage> {
    let words = owner_words(owner).map(|word| m.load(word));
    let place = m.region().span_of(owner).start;
    (m.load(&owner.checksum) == checksum(&words, place)).then(|| OwnerImage {
        boot: u128::from(words[0]) | u128::from(words[1]) << 64,
        pid: words[2],
        start_time: words[3],
        durability: words[4],
    })
}

/// Writes a new state page, without fencing.
pub(crate) fn format<M: Medium>(m: &M, policy: Policy) -> Result<()> {
    let state = page(m)?;
    m.store(&state.clean, seal(Clean::Closed.code()));
    m.store(&state.durable_epoch, seal(0));
    m.store(&state.policy, seal(policy.code()));
    m.store(&state.grown_pages, seal(0));
    // CRASH: the superblock is not written yet: there is no heap.
    m.flush_of(state);
    Ok(())
}

/// Writes who serves the heap, durably.
///
/// # Crash consistency
///
/// A torn record does not match its checksum: the owner is then unknown, and a heap that needs to know its
/// last boot is treated as if it had been another.
pub(crate) fn set_owner<M: Medium>(m: &M, image: &OwnerImage) -> Result<()> {
    let owner = &page(m)?.owner;
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the boot id")]
    let boot = [image.boot as u64, (image.boot >> 64) as u64];
    let words = [boot[0], boot[1], image.pid, image.start_time, image.durability, 0, 0];
    for (word, value) in owner_words(owner).into_iter().zip(words) {
        m.store(word, value);
    }
    m.store(&owner.checksum, checksum(&words, m.region().span_of(owner).start));
    // CRASH: see above.
    m.flush_of(owner);
    m.fence();
    Ok(())
}

/// Writes how the heap is left, durably.
///
/// # Crash consistency
///
/// One atomic store. It is cleared before the first record is written, and set when nothing is in flight.
pub(crate) fn set_clean<M: Medium>(m: &M, clean: Clean) -> Result<()> {
    let state = page(m)?;
    m.store(&state.clean, seal(clean.code()));
    // CRASH: see above.
    m.flush_of(&state.clean);
    m.fence();
    Ok(())
}

fn owner_words(owner: &Owner) -> [&Word; 7] {
    let [boot_low, boot_high] = &owner.boot;
    let [first, second] = &owner.reserved;
    [boot_low, boot_high, &owner.pid, &owner.start_time, &owner.durability, first, second]
}
