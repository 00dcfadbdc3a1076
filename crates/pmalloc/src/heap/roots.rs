//! Named roots: the blocks that are found without a pointer.

use std::{alloc::Layout, any::type_name};

use pmalloc_persist::{
    Medium, Offset, Span,
    sync::{Arc, lock},
};

use super::{
    Heap, Persistent, SlotMap, TypeGraph,
    core::Core,
    declare, own_root, raw,
    root_entry::{self, Entry, RootInfo, Shape},
    root_table,
    session::{Implicit, Session},
    slot::{Slot, SlotCell},
    versioned_cell::{CellImage, VersionedCell},
};
use crate::{
    error::{Error, Result},
    layout::{
        declared::OWN_PREFIX,
        root::{ROOT_NAME_MAX_BYTES, RootEntry, RootKind},
        slot::SlotWord,
    },
    op::{self, Access, SessionState},
    recovery::state,
};

/// Alignment of root blocks: they share no line with other blocks.
const ROOT_ALIGN: usize = 64;

impl<M: Medium + 'static> Heap<M> {
    /// The `count` slots of the root array `name`, creating it with empty slots if there is none.
    ///
    /// A name has at most 63 bytes. The slots live as long as the heap.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, [`Error::Invalid`] for a bad name or
    /// length zero, [`Error::Limit`] if the root table is full, [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the array exists whole, with empty slots, or not at all.
    pub fn slots(&self, name: &str, count: u64) -> Result<&[Slot]> {
        let core = self.core();
        if count == 0 || count > core.header.geometry.capacity_bytes / 8 {
            return Err(Error::Invalid {
                what: "number of slots",
                why: format!("{count}; a root array has at least one slot and must fit the heap"),
            });
        }
        let shape = Shape { kind: RootKind::Slots, length: count, type_id: 0 };
        let shape = (shape, SlotMap::None);
        let root = obtain(core, &mut Implicit(core), name, shape, || zero)?;
        Ok(raw::slots(core.medium().region().array(Offset::<SlotCell>::new(root.offset), count)?))
    }

    /// The root `name` of `size_bytes` bytes, creating it zeroed if there is none.
    ///
    /// The heap does not look into it. `type_id` is what the program calls its type, any number; it is compared whenever
    /// the root is asked for. A root may be as large as the heap, and starts at a multiple of 64 bytes.
    ///
    /// The root is told by its offset and not by a reference, as nothing keeps it from being
    /// [removed](Heap::root_remove): who makes pointers from the offset sees to that. Bytes that are zero are empty
    /// [`Slot`]s, too, and may be used as such in place.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, also of another size or type;
    /// [`Error::Invalid`] for a bad name or size zero, [`Error::Limit`] if the root table is full,
    /// [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root exists whole, all its bytes zero, or not at all.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
    /// let made = heap.root_bytes("settings", 256, 1)?;
    /// assert_eq!(heap.root_bytes("settings", 256, 1)?, made);
    /// assert_eq!(heap.root_find("settings")?, Some(made));
    /// heap.root_remove("settings")?;
    /// assert_eq!(heap.root_find("settings")?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn root_bytes(&self, name: &str, size_bytes: usize, type_id: u64) -> Result<RootInfo> {
        if size_bytes == 0 {
            return Err(Error::Invalid {
                what: "size of a root",
                why: "zero; a root has at least one byte".into(),
            });
        }
        let shape = Shape { kind: RootKind::Bytes, length: size_bytes as u64, type_id };
        obtain(self.core(), &mut Implicit(self.core()), name, (shape, SlotMap::None), || zero)
    }

    /// The versioned cell at byte `at_byte`, a multiple of 8, of a root of bytes.
    ///
    /// The cell lives as long as the heap: from now on until the heap is closed the root can't be removed. Its bytes are used
    /// as cells only: what [`slot_at`](Heap::slot_at) makes of them is answered for there.
    ///
    /// # Errors
    ///
    /// [`Error::RootMissing`] if `root` is no more, or not in this heap, [`Error::RootMismatch`] if it is not one of bytes;
    /// [`Error::Invalid`] for a place that is misaligned or not inside, [`Error::Corrupted`], [`Error::Forked`],
    /// [`Error::Io`].
    ///
    /// # Examples
    ///
    /// See [`VersionedCell`].
    pub fn root_cell(&self, root: &RootInfo, at_byte: u64) -> Result<&VersionedCell> {
        let core = self.core();
        {
            let _entered = core.enter()?;
            let _roots = lock(&core.roots);
            let found =
                find(core, &root.name)?.root.filter(|(_, found)| found.offset == root.offset);
            let missing = || Error::RootMissing { name: root.name.clone() };
            let (index, found) = found.ok_or_else(missing)?;
            if found.kind != RootKind::Bytes {
                return Err(mismatch(&found, "bytes".into()));
            }
            if !at_byte.is_multiple_of(8) || at_byte.saturating_add(8) > found.size_bytes() {
                let why =
                    format!("byte {at_byte}; cells are 8 bytes, aligned to 8, inside the root");
                return Err(Error::Invalid { what: "place of a cell", why });
            }
            check_block(core, &found)?;
            if !core.root_blocks.hand_out(found.offset, index) {
                return Err(Error::corrupted(found.offset, "two roots lie in one block"));
            }
        }
        Ok(raw::cell(core.medium().at(Offset::<CellImage>::new(root.offset + at_byte))?))
    }

    /// The value of the root `name`, creating it with what `init` returns if there is none.
    ///
    /// The value lives as long as the heap. It is known again by the layout of its type and of all types that it leads to
    /// by slots: size, alignment, and the names, offsets and types of the fields.
    ///
    /// Where its slots are, and those of all that they lead to, is noted in the heap for its check, as
    /// [`declare_slots`](Heap::declare_slots) does for bytes.
    ///
    /// `init` may use the heap. If another thread creates the root meanwhile, what `init` returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, also of another layout;
    /// [`Error::Invalid`] for a bad name, a type without bytes or one aligned to more than 64; [`Error::Limit`] if the root
    /// table is full, [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root exists with its whole value, or not at all.
    ///
    /// # Examples
    ///
    /// See [`Persistent`].
    pub fn root<T: Persistent>(&self, name: &str, init: impl FnOnce() -> T) -> Result<&T> {
        let core = self.core();
        let shape = (typed_shape::<T>()?, T::SLOTS);
        let root = obtain(core, &mut Implicit(core), name, shape, || {
            let value = init();
            move |core: &Core<M>, span| raw::write(core, span, value)
        })?;
        // Behind the root, whose creation may fail: what a crash leaves undeclared is declared when it is asked for again.
        declare::declare_type::<M, T>(core);
        let value = raw::root_value(core, Span::new(root.offset, root.size_bytes()));
        value.ok_or_else(|| Error::corrupted(root.offset, "a root can't hold a value of its type"))
    }

    /// Removes the root `name`, which holds a `T`, as [`root_remove`](Heap::root_remove) does for others.
    ///
    /// # Errors
    ///
    /// As [`root_remove`](Heap::root_remove), and [`Error::RootMismatch`] for a root that is no `T`.
    ///
    /// # Crash consistency
    ///
    /// As [`root_remove`](Heap::root_remove).
    pub fn root_remove_typed<T: Persistent>(&self, name: &str) -> Result<()> {
        remove(self.core(), &mut Implicit(self.core()), name, Removal::of_typed::<T>()?)
    }

    /// The root `name`, of whatever kind, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name; [`Error::Corrupted`] if a damaged entry of the table may have it, or if the
    /// root lies in no live block.
    pub fn root_find(&self, name: &str) -> Result<Option<RootInfo>> {
        check_name(name)?;
        let _entered = self.core().enter()?;
        let _roots = lock(&self.core().roots);
        let root = find(self.core(), name)?.root.map(|(_, root)| root);
        root.iter().try_for_each(|root| check_block(self.core(), root))?;
        Ok(root)
    }

    /// All roots of the program, in the order of the table.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if an entry of the table is damaged.
    pub fn roots(&self) -> Result<Vec<RootInfo>> {
        let _entered = self.core().enter()?;
        let _roots = lock(&self.core().roots);
        let live = |(_, entry)| match entry {
            Ok(Entry::Live(root)) if !own_root::is_own(&root.name) => Some(Ok(root)),
            Ok(Entry::Live(_) | Entry::Dead) => None,
            Err(error) => Some(Err(error)),
        };
        entries(self.core())?.filter_map(live).collect()
    }

    /// Removes the root `name` and frees its block; the name can be used again.
    ///
    /// A typed root is removed by [`root_remove_typed`](Heap::root_remove_typed), which knows where its slots are.
    ///
    /// A root of bytes is not looked into: what slots in it own is lost to the program, and pointers into it dangle, as
    /// those into any block that is freed. The block is not reused while guards live that are older.
    ///
    /// # Errors
    ///
    /// [`Error::RootMissing`]; [`Error::RootMismatch`] for a typed root; [`Error::RootInUse`] for a root array that [`slots`](Heap::slots) returned since the heap
    /// was opened, as references to it may live as long as the heap; [`Error::ChildrenAlive`] for a root array with a full
    /// slot; [`Error::Invalid`] for a bad name, [`Error::Corrupted`] if the table is damaged; [`Error::OutOfMemory`] or
    /// [`Error::NoSpace`] if the bookkeeping log of a large root has no room. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root is there, whole, or neither it nor its block is.
    pub fn root_remove(&self, name: &str) -> Result<()> {
        remove(self.core(), &mut Implicit(self.core()), name, Removal::Untyped)
    }
}

impl<M: Medium + 'static> Session<M> {
    /// As [`Heap::root_remove`].
    ///
    /// # Errors
    ///
    /// As [`Heap::root_remove`].
    pub fn root_remove(&mut self, name: &str) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        remove(&core, &mut self.access(), name, Removal::Untyped)
    }

    /// As [`Heap::root_remove_typed`].
    ///
    /// # Errors
    ///
    /// As [`Heap::root_remove_typed`].
    pub fn root_remove_typed<T: Persistent>(&mut self, name: &str) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        remove(&core, &mut self.access(), name, Removal::of_typed::<T>()?)
    }
}

/// The shape of a root that holds a `T`.
fn typed_shape<T: Persistent>() -> Result<Shape> {
    if size_of::<T>() == 0 || align_of::<T>() > ROOT_ALIGN {
        return Err(Error::Invalid {
            what: "type of a root",
            why: format!("{}; it must have bytes, and be aligned to 64 at most", type_name::<T>()),
        });
    }
    let length = size_of::<T>() as u64;
    Ok(Shape { kind: RootKind::Typed, length, type_id: TypeGraph::hash_of::<T>() })
}

/// Writes the contents of a root that is not typed.
pub(super) fn zero<M: Medium>(core: &Core<M>, span: Span) {
    raw::initialise(core, span, |block| block.fill(0));
}

/// Finds the root `name`, or creates it, and sees that it is of `shape`.
///
/// `prepare` is called if there is no such root, while no lock is held; what it returns writes the contents.
fn obtain<M: Medium, W: FnOnce(&Core<M>, Span)>(
    core: &Core<M>,
    access: &mut impl Access,
    name: &str,
    shape: (Shape, SlotMap),
    prepare: impl FnOnce() -> W,
) -> Result<RootInfo> {
    check_name(name)?;
    obtain_any(core, access, name, shape, prepare)
}

/// As [`obtain`], also for the heap's own names.
pub(super) fn obtain_any<M: Medium, W: FnOnce(&Core<M>, Span)>(
    core: &Core<M>,
    access: &mut impl Access,
    name: &str,
    shape: (Shape, SlotMap),
    prepare: impl FnOnce() -> W,
) -> Result<RootInfo> {
    let found = {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        match find(core, name)?.root {
            Some((index, root)) => Some(admit(core, index, root, shape)?),
            None => None,
        }
    };
    if let Some(root) = found {
        return Ok(root);
    }
    let write = prepare();
    access.with(|state| find_or_create(core, state, name, shape, write))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > ROOT_NAME_MAX_BYTES || name.contains('\0') {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; a name has 1 to {ROOT_NAME_MAX_BYTES} bytes and no NUL"),
        });
    }
    if own_root::is_own(name) {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; names that begin with {OWN_PREFIX:?} are the heap's own"),
        });
    }
    Ok(())
}

/// Sees that a root is what was asked for and lies where it can; one that is seen by reference is noted as such.
fn admit<M: Medium>(
    core: &Core<M>,
    index: u32,
    root: RootInfo,
    (wanted, slots): (Shape, SlotMap),
) -> Result<RootInfo> {
    check_shape(&root, wanted)?;
    check_block(core, &root)?;
    if core.was_left_open && !core.root_blocks.is_handed_out(root.offset) {
        check_slots(core, &root, slots)?;
    }
    if root.kind != RootKind::Bytes && !core.root_blocks.hand_out(root.offset, index) {
        return Err(Error::corrupted(root.offset, "two roots lie in one block"));
    }
    Ok(root)
}

fn check_shape(root: &RootInfo, wanted: Shape) -> Result<()> {
    if root.shape() == wanted { Ok(()) } else { Err(mismatch(root, wanted.to_string())) }
}

fn mismatch(root: &RootInfo, expected: String) -> Error {
    Error::RootMismatch { name: root.name.clone(), expected, found: root.shape().to_string() }
}

/// Sees that a root lies in a live block that is large enough.
fn check_block<M: Medium>(core: &Core<M>, root: &RootInfo) -> Result<()> {
    if core.block_span(root.offset).is_none_or(|span| span.len < root.size_bytes()) {
        return Err(Error::corrupted(root.offset, "a root lies in no live block of its size"));
    }
    Ok(())
}

/// Sees that each slot at one of the places `slots` in a typed root owns a live block, or none: after a crash nothing else
/// tells whether a live bit is damaged. Those of root arrays, and of types that are declared, were looked at when the heap
/// was opened.
fn check_slots<M: Medium>(core: &Core<M>, root: &RootInfo, slots: SlotMap) -> Result<()> {
    let m = core.medium();
    let mut dangling = None;
    slots.any(0, &mut |at| {
        let slot = root.offset + at as u64;
        let block = m.at(Offset::new(slot)).ok().and_then(|cell: &SlotCell| cell.read(m).place());
        dangling = block.filter(|block| !core.is_live(*block)).map(|_| slot);
        dangling.is_some()
    });
    dangling.map_or(Ok(()), |slot| {
        let what = format!("a slot of the root {:?} owns no live block", root.name);
        Err(Error::corrupted(slot, what))
    })
}

/// What a search of the root table found.
struct Found {
    /// The root and the index of its entry.
    root: Option<(u32, RootInfo)>,
    /// The index of the first entry that can be used for a new one.
    free: Option<u32>,
}

/// Searches the root `name`.
///
/// # Errors
///
/// [`Error::Corrupted`] if the name is not found and a damaged entry may have had it. Roots that are whole are found
/// whatever stands before them.
fn find<M: Medium>(core: &Core<M>, name: &str) -> Result<Found> {
    let (mut free, mut damaged) = (None, None);
    for (index, entry) in entries(core)? {
        match entry {
            Ok(Entry::Live(root)) if root.name == name => {
                return Ok(Found { root: Some((index, root)), free });
            }
            Ok(Entry::Live(_)) => {}
            Ok(Entry::Dead) => free = free.or(Some(index)),
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    let geometry = &core.header.geometry;
    let next = state::roots_used(core.medium(), geometry)?;
    let free = free.or((next < geometry.roots).then_some(next));
    damaged.map_or(Ok(Found { root: None, free }), Err)
}

/// The entries of the table that were ever used, with their indexes.
pub(super) fn entries<M: Medium>(
    core: &Core<M>,
) -> Result<impl Iterator<Item = (u32, Result<Entry>)>> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    let read = |index| root_entry::at(m, geometry, index).and_then(|at| root_entry::read(m, at));
    Ok((0..state::roots_used(m, geometry)?).map(move |index| (index, read(index))))
}

/// What a root that is to be removed is held for.
#[derive(Clone, Copy)]
enum Removal {
    /// Slots or bytes.
    Untyped,
    /// A value with slots at these places.
    Typed(Shape, SlotMap),
}

impl Removal {
    /// A `T`.
    fn of_typed<T: Persistent>() -> Result<Self> {
        Ok(Self::Typed(typed_shape::<T>()?, T::SLOTS))
    }
}

/// Removes the root `name`.
fn remove<M: Medium>(
    core: &Core<M>,
    access: &mut impl Access,
    name: &str,
    removal: Removal,
) -> Result<()> {
    check_name(name)?;
    access.with(|state| {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        let missing = || Error::RootMissing { name: name.into() };
        let (index, root) = find(core, name)?.root.ok_or_else(missing)?;
        check_unused(core, &root, removal)?;
        check_alone(core, index, &root)?;
        let entry = root_entry::at(core.medium(), &core.header.geometry, index)?;
        op::free_root(core, state, slot_of(core, entry), root.offset)
    })
}

/// Sees that a root is what it is held for, that nobody has a reference to it, and that none of its slots owns a block.
fn check_unused<M: Medium>(core: &Core<M>, root: &RootInfo, removal: Removal) -> Result<()> {
    match removal {
        Removal::Typed(shape, _) => check_shape(root, shape)?,
        Removal::Untyped if root.kind == RootKind::Typed => {
            return Err(mismatch(root, "slots or bytes".into()));
        }
        Removal::Untyped => {}
    }
    if core.root_blocks.is_handed_out(root.offset) {
        return Err(Error::RootInUse { name: root.name.clone() });
    }
    check_block(core, root)?;
    let m = core.medium();
    let is_full = |slot: &SlotCell| slot.read(m).place().is_some();
    let full = match removal {
        Removal::Typed(_, slots) => {
            let mut full = None;
            slots.any(0, &mut |at| {
                let slot = root.offset + at as u64;
                full = m.at(Offset::new(slot)).is_ok_and(is_full).then_some(slot);
                full.is_some()
            });
            full
        }
        Removal::Untyped if root.kind == RootKind::Slots => {
            let slots: &[SlotCell] = m.region().array(Offset::new(root.offset), root.length)?;
            let full = slots.iter().find(|slot| is_full(slot));
            full.map(|slot| m.region().span_of(slot).start)
        }
        Removal::Untyped => None,
    };
    full.map_or(Ok(()), |slot| Err(Error::ChildrenAlive { slot }))
}

/// Sees that no other root lies in the block of the one at `index`, as a hostile table could have it.
fn check_alone<M: Medium>(core: &Core<M>, index: u32, root: &RootInfo) -> Result<()> {
    for (other, _) in entries(core)?.filter(|(other, _)| *other != index) {
        let entry = root_entry::at(core.medium(), &core.header.geometry, other)?;
        if SlotWord::from_bits(core.medium().load(&entry.slot)).place() == Some(root.offset) {
            return Err(Error::corrupted(root.offset, "two roots lie in one block"));
        }
    }
    Ok(())
}

/// Notes the blocks of all roots, before a slot can name one of them.
pub(super) fn protect<M: Medium>(core: &Core<M>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    for index in 0..state::roots_used(m, geometry)? {
        let entry = root_entry::at(m, geometry, index)?;
        if let Some(block) = SlotWord::from_bits(m.load(&entry.slot)).place() {
            core.root_blocks.insert(block);
        }
    }
    Ok(())
}

/// As [`obtain`], where another thread may have created the root since.
fn find_or_create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    name: &str,
    shape: (Shape, SlotMap),
    write: impl FnOnce(&Core<M>, Span),
) -> Result<RootInfo> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let Found { root, free } = find(core, name)?;
    let (index, root) = match root {
        Some(found) => found,
        None => create(core, state, free, (name, shape.0), write)?,
    };
    admit(core, index, root, shape)
}

/// Creates the root `name` in the entry `free` and returns it with its index.
fn create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    free: Option<u32>,
    (name, shape): (&str, Shape),
    write: impl FnOnce(&Core<M>, Span),
) -> Result<(u32, RootInfo)> {
    let m = core.medium();
    let geometry = &core.header.geometry;
    let limit = Error::Limit { what: "named roots", limit: u64::from(geometry.roots) };
    let index = free.ok_or(limit)?;
    let size = usize::try_from(shape.size_bytes()).ok();
    let layout = size.and_then(|size| Layout::from_size_align(size, ROOT_ALIGN).ok());
    let layout = layout.ok_or_else(|| Error::Invalid {
        what: "size of a root",
        why: format!("{shape}; that is more than an address space"),
    })?;
    root_entry::back(m, index)?;
    let entry = root_entry::at(m, geometry, index)?;
    let is_new = index == state::roots_used(m, geometry)?;
    if is_new && root_table::is_misplaced(m, entry, true)? {
        let place = m.region().span_of(entry).start;
        return Err(Error::corrupted(place, "a root stands behind the last one of the table"));
    }
    root_entry::write(m, entry, name, shape);
    if is_new {
        // CRASH: until here the entry is what comes next, whatever is in it. It is durable before it counts as used: of
        // those that were used none is empty. That it counts is durable with the root's contents, before its slot is full.
        m.fence();
        state::set_roots_used(m, index + 1)?;
    }
    let slot = slot_of(core, entry);
    op::alloc_root(core, state, slot, layout, |span| write(core, span))?;
    let offset = SlotWord::from_bits(m.load(&entry.slot)).place();
    let offset = offset.ok_or(Error::SlotEmpty { slot })?;
    core.root_blocks.insert(offset);
    let Shape { kind, length, type_id } = shape;
    Ok((index, RootInfo { name: name.into(), kind, length, type_id, offset }))
}

/// Byte offset of the slot of an entry.
fn slot_of<M: Medium>(core: &Core<M>, entry: &RootEntry) -> u64 {
    core.medium().region().span_of(&entry.slot).start
}
