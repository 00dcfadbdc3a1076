//! The state page: read at open, and its clean flag and owner, written when a heap is served and closed.

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Span, Word};

use super::salvage;
use crate::{
    error::{Error, Findings, Result},
    lane::Left,
    layout::{
        geometry::Geometry,
        root::RootEntry,
        sealed::{Flip, checksum, seal, undo_flip, unseal},
        state::{Clean, EPOCH_MAX, OWNER_IN_WORK, OwnerRecord, Policy, State},
    },
    size_class::SLAB_PAGES_MAX,
};

/// How the heap was left, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftBehind {
    /// How.
    pub(crate) clean: Clean,
    /// By whom.
    pub(crate) owner: OwnerFound,
}

/// What the state page says.
#[derive(Debug, Clone)]
pub(crate) struct StateImage {
    /// How the heap was left.
    pub(crate) clean: Clean,
    /// The policy that wrote the records.
    pub(crate) policy: Policy,
    /// The durable epoch.
    pub(crate) durable: u64,
    /// Pages of the data area that ever had memory.
    pub(crate) grown_pages: u32,
    /// Entries of the root table that were ever used.
    pub(crate) roots_used: u32,
    /// Who wrote last.
    pub(crate) owner: OwnerFound,
}

impl StateImage {
    /// What tells the records of operations in flight.
    pub(crate) fn left(&self) -> Left {
        let is_closed = self.clean == Clean::Closed;
        Left { is_closed, policy: self.policy, durable: self.durable }
    }
}

/// What the owner record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerFound {
    /// Nothing was ever written there: the heap was created, and never served.
    Never,
    /// A process.
    Known(OwnerImage),
    /// A crash interrupted its writing, in this boot or before it.
    Interrupted {
        /// What stands where the boot does.
        boot: u128,
        /// What stands where the durability does.
        durability: u64,
    },
    /// What no crash leaves.
    Damaged,
}

impl OwnerFound {
    /// The process, if it is known.
    pub(crate) fn known(self) -> Option<OwnerImage> {
        if let Self::Known(image) = self { Some(image) } else { None }
    }

    /// The boot that wrote to the heap last, if it is known.
    ///
    /// An interrupted record names it as well as a whole one: who finds an unclean heap of another boot does not get
    /// as far as writing its own.
    pub(crate) fn boot(self) -> Option<u128> {
        match self {
            Self::Known(image) => Some(image.boot),
            Self::Interrupted { boot, .. } => Some(boot),
            Self::Never | Self::Damaged => None,
        }
    }

    /// Whether what it stored is durable only since the last sync, if that is known.
    ///
    /// Of a record that was interrupted the word of either process tells. It is written when all that was left is durable, and
    /// before its process stores more than recovery does, which the next one does again.
    pub(crate) fn needed_sync(self) -> bool {
        match self {
            Self::Known(OwnerImage { durability, .. }) | Self::Interrupted { durability, .. } => {
                durability == NEEDS_SYNC
            }
            Self::Never | Self::Damaged => false,
        }
    }
}

/// The durability of a process whose stores are durable only when they are synchronized, and of one whose are when they are
/// flushed and fenced.
const NEEDS_SYNC: u64 = 0;
const FENCED: u64 = 1;

/// Who wrote to a heap last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerImage {
    /// The boot in which it ran.
    pub(crate) boot: u128,
    /// Its process id.
    pub(crate) pid: u64,
    /// Its start time in clock ticks since boot.
    pub(crate) start_time: u64,
    /// [`NEEDS_SYNC`] or [`FENCED`].
    durability: u64,
}

impl OwnerImage {
    /// A process that ran in this boot, with this id and start time, and whose stores are durable only when they are
    /// synchronized, or when they are fenced.
    pub(crate) fn new(boot: u128, pid: u64, start_time: u64, needs_sync: bool) -> Self {
        let durability = if needs_sync { NEEDS_SYNC } else { FENCED };
        Self { boot, pid, start_time, durability }
    }
}

/// The state page of a medium.
pub(crate) fn page<M: Medium>(m: &M) -> Result<&State> {
    Ok(m.at(Offset::new(Geometry::state()))?)
}

/// Bytes of the state page.
pub(crate) fn span() -> Span {
    Span::new(Geometry::state(), PAGE_BYTES)
}

/// Byte offset of the owner record.
pub(crate) fn owner_offset() -> u64 {
    Geometry::state() + std::mem::offset_of!(State, owner) as u64
}

/// Reads how the heap was left: of the state page what is there even if a power loss left the rest of the heap, the length
/// of its file too, a mixture.
///
/// # Errors
///
/// [`Error::Corrupted`] if the flag does not match its check or the file is too short for it, [`Error::Version`].
pub(crate) fn left_behind<M: Medium>(m: &M) -> Result<LeftBehind> {
    if m.len() < span().end() {
        return Err(truncated(m));
    }
    let state = page(m)?;
    let damaged = |what| Error::corrupted(m.region().span_of(&state.clean).start, what);
    let clean = unseal(m.load(&state.clean)).ok_or_else(|| damaged("the clean flag is damaged"))?;
    let clean = known_clean(clean)?;
    Ok(LeftBehind { clean, owner: read_owner(m, &state.owner) })
}

fn truncated<M: Medium>(m: &M) -> Error {
    Error::corrupted(m.len(), "the file was truncated: it ends before the heap does")
}

/// Reads the state page.
///
/// # Errors
///
/// [`Error::Corrupted`] if a word does not match its check or the file is shorter than it says.
pub(crate) fn read<M: Medium>(m: &M, geometry: &Geometry) -> Result<StateImage> {
    // Before the first look: what lies behind the end of a file can't even be read.
    if m.len() < geometry.data_span().start {
        return Err(truncated(m));
    }
    let LeftBehind { clean, owner } = left_behind(m)?;
    let state = page(m)?;
    let damaged = |word: &Word, what| Error::corrupted(m.region().span_of(word).start, what);
    let value = |word: &Word, what| unseal(m.load(word)).ok_or_else(|| damaged(word, what));
    let policy = known_policy(value(&state.policy, "the policy is damaged")?)?;
    let durable = value(&state.durable_epoch, "the durable epoch is damaged")?;
    if durable > EPOCH_MAX {
        return Err(damaged(&state.durable_epoch, "the durable epoch is beyond all epochs"));
    }
    let grown = value(&state.grown_pages, "the grown length is damaged")?;
    let grown_pages = u32::try_from(grown)
        .ok()
        .filter(|pages| u64::from(*pages) <= geometry.data_pages())
        .ok_or_else(|| damaged(&state.grown_pages, "the heap has grown beyond its capacity"))?;
    if m.len() < geometry.data_span().start + grown * PAGE_BYTES {
        return Err(truncated(m));
    }
    let roots_used = roots_used(m, geometry)?;
    Ok(StateImage { clean, policy, durable, grown_pages, roots_used, owner })
}

/// The state with this number, or [`Error::Version`]: the word was sealed by a program that knows more.
fn known_clean(code: u64) -> Result<Clean> {
    Clean::from_code(code)
        .ok_or_else(|| Error::unknown("clean flag", code, Clean::Unwritten.code()))
}

/// The policy with this number, or [`Error::Version`].
fn known_policy(code: u64) -> Result<Policy> {
    Policy::from_code(code).ok_or_else(|| Error::unknown("policy", code, Policy::CODE_MAX))
}

/// Sees that whoever wrote a state page that may be damaged knew nothing that this program does not know.
///
/// # Errors
///
/// [`Error::Version`].
pub(crate) fn require_known<M: Medium>(m: &M) -> Result<()> {
    let state = page(m)?;
    unseal(m.load(&state.clean)).map_or(Ok(()), |code| known_clean(code).map(drop))?;
    unseal(m.load(&state.policy)).map_or(Ok(()), |code| known_policy(code).map(drop))
}

/// Entries of the root table that were ever used.
///
/// # Errors
///
/// [`Error::Corrupted`] if the word that says it is damaged.
pub(crate) fn roots_used<M: Medium>(m: &M, geometry: &Geometry) -> Result<u32> {
    let word = &page(m)?.roots_used;
    let used = unseal(m.load(word)).and_then(|used| u32::try_from(used).ok());
    used.filter(|used| *used <= geometry.roots).ok_or_else(|| {
        let place = m.region().span_of(word).start;
        Error::corrupted(place, "the number of root entries in use is damaged")
    })
}

/// Says that the first `used` entries of the root table were used, and flushes that, without fencing.
pub(crate) fn set_roots_used<M: Medium>(m: &M, used: u32) -> Result<()> {
    let word = &page(m)?.roots_used;
    // CRASH: the new entry is durable, and no root yet: its slot is empty. The caller fences before it fills the slot.
    m.store(word, seal(u64::from(used)));
    m.flush_of(word);
    Ok(())
}

/// Whether the slots of the root table are those of the last close.
pub(crate) fn roots_check_matches<M: Medium>(m: &M, slots: &[u64]) -> Result<bool> {
    Ok(m.load(&page(m)?.roots_check) == roots_check(slots))
}

/// As [`roots_check_matches`]; flips the one bit back that is wrong in `slots`, if it is one.
pub(crate) fn undo_flip_of_roots<M: Medium>(m: &M, slots: &mut [u64]) -> Result<Flip> {
    Ok(undo_flip(slots, m.load(&page(m)?.roots_check), roots_check))
}

/// Notes the slots of the root table in a heap that is being closed, and flushes that, without fencing.
pub(crate) fn set_roots_check<M: Medium>(m: &M, slots: &[u64]) -> Result<()> {
    let word = &page(m)?.roots_check;
    // CRASH: it counts only when the heap is closed, and the caller fences before it says so.
    m.store(word, roots_check(slots));
    m.flush_of(word);
    Ok(())
}

/// Bit 32 is set, so that a word never written is no check.
fn roots_check(slots: &[u64]) -> u64 {
    1 << 32 | checksum(slots, Geometry::root_table().bytes())
}

/// Where the check of the root table stands.
pub(crate) fn roots_check_offset() -> u64 {
    Geometry::state() + std::mem::offset_of!(State, roots_check) as u64
}

/// Makes every word of a damaged state page one that [`read`] accepts, and the file as long as it says.
///
/// # Errors
///
/// [`Error::NoSpace`] if the file has to grow and can't.
///
/// # Crash consistency
///
/// None: nobody may open the heap before this is done and durable.
pub(crate) fn mend<M: Medium>(m: &M, geometry: &Geometry, findings: &mut Findings) -> Result<()> {
    let reached = salvage::pages_in(geometry, m.len());
    let state = page(m)?;
    let is_clean = |value| Clean::from_code(value).is_some();
    let is_policy = |value| Policy::from_code(value).is_some();
    let is_grown = |pages| pages <= geometry.data_pages();
    let is_used = |used| used <= u64::from(geometry.roots);
    let what = "the clean flag, which says whether operations were in flight";
    mend_word(m, &state.clean, is_clean, Clean::No.code(), |at| findings.lost(at, what));
    let what = "the policy, which says which operations were in flight";
    mend_word(m, &state.policy, is_policy, Policy::Eager.code(), |at| findings.lost(at, what));
    let what = "the durable epoch, which says which operations were in flight";
    let is_epoch = |epoch| epoch <= EPOCH_MAX;
    mend_word(m, &state.durable_epoch, is_epoch, 0, |at| findings.lost(at, what));
    let what = "the grown length: all that the file holds";
    mend_word(m, &state.grown_pages, is_grown, reached, |at| findings.repaired(at, what));
    let what = "the number of root entries in use: as many as hold something";
    let used = entries_in_sight(m, geometry)?;
    mend_word(m, &state.roots_used, is_used, used, |at| findings.repaired(at, what));
    if read_owner(m, &state.owner) == OwnerFound::Damaged {
        for word in owner_words(&state.owner).into_iter().chain([&state.owner.checksum]) {
            m.store(word, 0);
        }
        findings.repaired(owner_offset(), "the owner record is damaged");
    }
    // What lies far behind the end of the file is lost, and the heap may grow there again.
    let most = reached + u64::from(SLAB_PAGES_MAX);
    let grown = unseal(m.load(&state.grown_pages)).expect("it was mended").min(most);
    m.store(&state.grown_pages, seal(grown));
    // CRASH: see above.
    m.persist(m.region().span_of(state));
    let end = geometry.data_span().start + grown * PAGE_BYTES;
    let last = Span::new(end - 1, 1);
    m.back(last).map_err(Error::backing("giving a salvaged heap its length"))
}

/// Entries of the root table up to the last one that holds anything.
fn entries_in_sight<M: Medium>(m: &M, geometry: &Geometry) -> Result<u64> {
    let entries = m.region().array::<RootEntry>(Geometry::root_table(), geometry.roots.into())?;
    let is_used = |entry: &RootEntry| m.load(&entry.checksum) != 0 || m.load(&entry.slot) != 0;
    Ok(entries.iter().rposition(is_used).map_or(0, |last| last as u64 + 1))
}

/// Stores `value` into a sealed word whose value is damaged or not `valid`, and says where to `note`.
fn mend_word<M: Medium>(
    m: &M,
    word: &Word,
    valid: impl Fn(u64) -> bool,
    value: u64,
    note: impl FnOnce(u64),
) {
    if !unseal(m.load(word)).is_some_and(valid) {
        // CRASH: nobody opens the heap yet.
        m.store(word, seal(value));
        note(m.region().span_of(word).start);
    }
}

fn read_owner<M: Medium>(m: &M, owner: &OwnerRecord) -> OwnerFound {
    let sum = m.load(&owner.checksum);
    let boot_of = |words: [u64; 2]| u128::from(words[0]) | u128::from(words[1]) << 64;
    if sum == OWNER_IN_WORK {
        // The words are those of two records: of interest is only who began to write the second.
        let boot = boot_of(owner.boot.each_ref().map(|word| m.load(word)));
        return OwnerFound::Interrupted { boot, durability: m.load(&owner.durability) };
    }
    let words = owner_words(owner).map(|word| m.load(word));
    match sum {
        0 if words == [0; 7] => OwnerFound::Never,
        sum if sum == owner_checksum(&words, m.region().span_of(owner).start) => {
            let [low, high, pid, start_time, durability, _, _] = words;
            let boot = boot_of([low, high]);
            OwnerFound::Known(OwnerImage { boot, pid, start_time, durability })
        }
        _ => OwnerFound::Damaged,
    }
}

/// Bit 32 is set, so that the sum is neither zero nor near [`OWNER_IN_WORK`].
fn owner_checksum(words: &[u64; 7], place: u64) -> u64 {
    1 << 32 | checksum(words, place)
}

/// Writes a new state page, without fencing.
pub(crate) fn format<M: Medium>(m: &M, policy: Policy) -> Result<()> {
    let state = page(m)?;
    m.store(&state.clean, seal(Clean::Closed.code()));
    m.store(&state.durable_epoch, seal(0));
    m.store(&state.policy, seal(policy.code()));
    m.store(&state.grown_pages, seal(0));
    m.store(&state.roots_used, seal(0));
    m.store(&state.roots_check, roots_check(&[]));
    // CRASH: the superblock is not written yet: there is no heap.
    m.flush_of(state);
    Ok(())
}

/// Writes who serves the heap, durably.
///
/// # Crash consistency
///
/// The checksum says that the record is in work before its other words change, and seals it when they are durable:
/// at no point does a crash leave what looks like damage.
pub(crate) fn set_owner<M: Medium>(m: &M, image: &OwnerImage) -> Result<()> {
    let owner = &page(m)?.owner;
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the boot id")]
    let boot = [image.boot as u64, (image.boot >> 64) as u64];
    let words = [boot[0], boot[1], image.pid, image.start_time, image.durability, 0, 0];
    m.store(&owner.checksum, OWNER_IN_WORK);
    // CRASH: the record is the old one, or interrupted.
    m.flush_of(owner);
    m.fence();
    for (word, value) in owner_words(owner).into_iter().zip(words) {
        m.store(word, value);
    }
    // CRASH: interrupted.
    m.flush_of(owner);
    m.fence();
    m.store(&owner.checksum, owner_checksum(&words, m.region().span_of(owner).start));
    // CRASH: interrupted, or the new record.
    m.flush_of(owner);
    m.fence();
    Ok(())
}

/// Says which epoch is durable, durably.
///
/// # Crash consistency
///
/// One atomic store. The effects of all operations up to that epoch are durable before.
pub(crate) fn set_durable_epoch<M: Medium>(m: &M, epoch: u64) -> Result<()> {
    let word = &page(m)?.durable_epoch;
    m.store(word, seal(epoch));
    // CRASH: see above. Without the word recovery redoes what is durable already, which changes nothing.
    m.flush_of(word);
    m.fence();
    Ok(())
}

/// Says which policy writes records from now on, durably.
///
/// # Crash consistency
///
/// One atomic store. All rings are durably zero: there is no record that the two policies could read differently (rule 16).
pub(crate) fn set_policy<M: Medium>(m: &M, policy: Policy) -> Result<()> {
    let word = &page(m)?.policy;
    m.store(word, seal(policy.code()));
    // CRASH: see above.
    m.flush_of(word);
    m.fence();
    Ok(())
}

/// Writes how the heap is left, durably.
///
/// # Crash consistency
///
/// One atomic store. It is cleared before anything changes, and set when nothing is in flight. Where the kernel writes
/// pages when it likes, that alone orders nothing: see the gate of the heap.
pub(crate) fn set_clean<M: Medium>(m: &M, clean: Clean) -> Result<()> {
    let state = page(m)?;
    m.store(&state.clean, seal(clean.code()));
    // CRASH: see above.
    m.flush_of(&state.clean);
    m.fence();
    Ok(())
}

/// Notes that a sync has failed before anything changed in a heap whose flag said `was`: of one that was not whole the kernel
/// may have failed to write any page, and says so only once.
pub(crate) fn set_unsynced<M: Medium>(m: &M, was: Clean) -> Result<()> {
    set_clean(m, if was.is_whole() { was } else { Clean::Unwritten })
}

fn owner_words(owner: &OwnerRecord) -> [&Word; 7] {
    let [boot_low, boot_high] = &owner.boot;
    let [first, second] = &owner.reserved;
    [boot_low, boot_high, &owner.pid, &owner.start_time, &owner.durability, first, second]
}
