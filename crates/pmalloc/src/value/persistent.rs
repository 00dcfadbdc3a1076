//! Types that may lie in a heap as they are, and be seen there as `&T`.
//!
//! [`Persistent`] is unsafe to implement; the derive of the same name does it for structs and refuses what it can't check.
//! Here are the trait, its implementations for the types that everything is made of, and the two questions that a heap
//! asks a type: which of its bytes are slots ([`SlotMap`]), and whether it is the type that a root was made with
//! ([`LayoutHash`], [`TypeGraph`]). Volatile: of all this only the hash of a root's type stands on media.
#![allow(unsafe_code)]

use std::{alloc::Layout, any::TypeId};

use super::{block_layout::BlockLayout, slot_map::SlotMap};

/// Types of which a block can hold a value: plain, position-independent, valid whatever the bytes are.
///
/// In-heap values are only ever seen as `&T`; what is to change is a [`PCell`](crate::PCell), a [`Slot`](crate::Slot) or a [`VersionedCell`](crate::VersionedCell).
///
/// Derive it. The derive takes structs that are `#[repr(C)]` or `#[repr(transparent)]`, have no parameters, no padding and
/// no `Drop`, and whose fields are persistent themselves: integers, floats, cells, slots, [`PPtr`](crate::PPtr), arrays of these, and
/// other such structs. `bool`, `char`, enums and references have bit patterns that are no value, and what points into the
/// memory of a process means nothing to the next one.
///
/// # Safety
///
/// 1. Any bytes are a value of the type, it has no padding, and of a value behind a shared reference nothing changes but
///    what is in slots and cells.
/// 2. It has no `Drop` and owns nothing but what its slots own.
/// 3. [`SLOTS`](Self::SLOTS) gives the places of all its slots, and of nothing else.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use pmalloc::{Heap, PCell, Persistent, Slot};
///
/// #[derive(Persistent)]
/// #[repr(C)]
/// struct Account {
///     number: u64,
///     balance: PCell<i64>,
///     next: Slot<Account>,
/// }
///
/// #[derive(Persistent)]
/// #[repr(C)]
/// struct Bank {
///     first: Slot<Account>,
/// }
///
/// let heap = Heap::create(dir.path().join("heap"))?;
/// let bank: &Bank = heap.root("bank", || Bank { first: Slot::new() })?;
/// let account = Account { number: 7, balance: PCell::new(100), next: Slot::new() };
/// heap.alloc_value(&bank.first, account)?;
///
/// let guard = heap.pin();
/// let account = bank.first.get(&guard).expect("just allocated");
/// account.balance.store(&heap, account.balance.load(&heap) - 30)?;
/// assert_eq!((account.number, account.balance.load(&heap)), (7, 70));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't lie in a persistent heap",
    label = "not every bit pattern is a `{Self}`, or it means something to one process only",
    note = "persistent are integers and floats, `PCell`, `Slot`, `VersionedCell`, `PPtr`, arrays of these, and structs that \
            derive `Persistent`; for `bool`, `char` and enums use an integer, for references and boxes a `Slot`"
)]
pub unsafe trait Persistent: Sized + Send + Sync + 'static {
    /// What the type's bytes mean, as a number; slots count as slots, whatever they own.
    const LAYOUT: LayoutHash;
    /// Where its slots are.
    const SLOTS: SlotMap;
    /// The tag of blocks that hold a value of the type.
    const TAG: u8 = 0;

    /// Visits the types of what its slots own.
    fn reach(graph: &mut TypeGraph) {
        let _ = graph;
    }

    /// The value of which all bytes are zero: numbers and cells are zero, slots are empty.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::{Heap, Persistent, Slot, VersionedCell};
    ///
    /// #[derive(Persistent)]
    /// #[repr(C)]
    /// struct Shelf {
    ///     books: VersionedCell,
    ///     places: [Slot; 100],
    /// }
    ///
    /// let heap = Heap::create(dir.path().join("heap"))?;
    /// let shelf = heap.root("shelf", Shelf::zeroed)?;
    /// assert!(shelf.books.load(&heap) == 0 && shelf.places[99].is_empty(&heap.pin()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    fn zeroed() -> Self {
        // SAFETY: any bytes are a value of the type (1.).
        unsafe { std::mem::zeroed() }
    }
}

/// A hash of what a type's bytes mean: size, alignment, and of each field name, offset and type.
///
/// The names of fields count, as two fields of one type that changed places would go unnoticed otherwise; a field that was
/// only renamed keeps its hash with `#[persistent(name = "old")]`. The name of the type itself does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayoutHash(u64);

impl BlockLayout {
    /// What a block for a `T` is asked for with.
    #[inline]
    pub(crate) const fn of<T: Persistent>() -> Self {
        Self::new(Layout::new::<T>()).with_tag(T::TAG)
    }
}

impl LayoutHash {
    /// The hash of a type without fields.
    #[must_use]
    pub const fn of_primitive(name: &str, size_bytes: usize) -> Self {
        Self::START.bytes(name.as_bytes()).number(size_bytes as u64)
    }

    /// The hash of the struct `T` before its fields are added.
    #[must_use]
    pub const fn of_struct<T>() -> Self {
        Self::START.bytes(b"struct").number(size_of::<T>() as u64).number(align_of::<T>() as u64)
    }

    /// The hash of the struct with one more field.
    #[must_use]
    pub const fn field(self, name: &str, at_byte: usize, layout: Self) -> Self {
        self.bytes(name.as_bytes()).number(at_byte as u64).number(layout.0)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// FNV-1a, 64 bits: a layout is not chosen by an adversary.
    const START: Self = Self(0xcbf2_9ce4_8422_2325);

    const fn bytes(self, bytes: &[u8]) -> Self {
        let mut hash = self.number(bytes.len() as u64).0;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }

    const fn number(self, number: u64) -> Self {
        let (mut hash, mut rest) = (self.0, number);
        let mut at = 0;
        while at < 8 {
            hash = (hash ^ (rest & 0xff)).wrapping_mul(0x0100_0000_01b3);
            rest >>= 8;
            at += 1;
        }
        Self(hash)
    }
}

/// The types that a type leads to by slots, and a hash of them all.
///
/// [`LayoutHash`] alone ends at a slot, as a list's node has a slot of its own type. A root is compared by the hash of its
/// graph: a change of any type that can be reached from it is noticed.
#[derive(Debug)]
pub struct TypeGraph {
    seen: Vec<TypeId>,
    hash: LayoutHash,
    /// What was seen, in the same order.
    types: Vec<TypeNode>,
    /// Index of the type that is being visited.
    visiting: Option<usize>,
}

/// A type of a graph.
#[derive(Debug)]
pub(crate) struct TypeNode {
    /// Bytes of a value.
    pub(crate) size_bytes: usize,
    /// Where its slots are.
    pub(crate) slots: SlotMap,
    /// What they own, in the order of the map, those of an array once: the index of a type, or `None` for bytes.
    pub(crate) owns: Vec<Option<usize>>,
}

impl TypeGraph {
    /// The hash of all that can be reached from a `T`.
    pub(crate) fn hash_of<T: Persistent>() -> u64 {
        Self::of::<T>().hash()
    }

    /// All that can be reached from a `T`, itself first; nothing from bytes.
    pub(crate) fn of<T: Content + ?Sized>() -> Self {
        let (seen, types) = (Vec::new(), Vec::new());
        let mut graph = Self { seen, hash: LayoutHash::START, types, visiting: None };
        T::reach(&mut graph);
        graph
    }

    /// The hash of the graph.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// The types of the graph.
    pub(crate) fn types(&self) -> &[TypeNode] {
        &self.types
    }

    /// Adds bytes, which are no type: a slot that owns bytes is not one that owns nothing of interest.
    fn visit_bytes(&mut self) {
        self.hash = self.hash.number(u64::MAX);
        self.note(None);
    }

    /// Notes what the next slot of the type that is being visited owns.
    fn note(&mut self, owned: Option<usize>) {
        if let Some(visiting) = self.visiting {
            self.types[visiting].owns.push(owned);
        }
    }

    /// Adds `T` and what can be reached from it.
    pub fn visit<T: Persistent>(&mut self) {
        let id = TypeId::of::<T>();
        let known = self.seen.iter().position(|seen| *seen == id);
        let index = known.unwrap_or(self.seen.len());
        self.hash = self.hash.number(index as u64);
        self.note(Some(index));
        if known.is_none() {
            self.seen.push(id);
            self.types.push(TypeNode {
                size_bytes: size_of::<T>(),
                slots: T::SLOTS,
                owns: Vec::new(),
            });
            self.hash = self.hash.number(T::LAYOUT.get());
            let around = self.visiting.replace(index);
            T::reach(self);
            self.visiting = around;
        }
    }
}

/// What a slot can own: bytes, or a value of a [`Persistent`] type. Nothing else implements it.
pub trait Content: sealed::Content {}

impl<T: sealed::Content + ?Sized> Content for T {}

mod sealed {
    use super::{Persistent, SlotMap, TypeGraph};

    /// Keeps [`Content`](super::Content) to what is known here.
    pub trait Content: 'static {
        /// The slots to look at before a block is freed, and the bytes that they are in.
        const SLOTS: SlotMap;
        /// Bytes that a block must have.
        const SIZE_BYTES: usize;
        /// Visits the type, if it is one.
        fn reach(graph: &mut TypeGraph);
    }

    impl Content for [u8] {
        const SLOTS: SlotMap = SlotMap::None;
        const SIZE_BYTES: usize = 0;
        fn reach(graph: &mut TypeGraph) {
            graph.visit_bytes();
        }
    }

    impl<T: Persistent> Content for T {
        const SLOTS: SlotMap = T::SLOTS;
        const SIZE_BYTES: usize = size_of::<T>();
        fn reach(graph: &mut TypeGraph) {
            graph.visit::<T>();
        }
    }
}

macro_rules! plain {
    ($($plain:ty),*) => {$(
        // SAFETY: any bytes of its size are a value; no padding, no `Drop`, no slots.
        unsafe impl Persistent for $plain {
            const LAYOUT: LayoutHash =
                LayoutHash::of_primitive(stringify!($plain), size_of::<$plain>());
            const SLOTS: SlotMap = SlotMap::None;
        }
    )*};
}

plain!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

// SAFETY: as its elements: an array has no padding of its own.
unsafe impl<T: Persistent, const N: usize> Persistent for [T; N] {
    const LAYOUT: LayoutHash =
        LayoutHash::of_primitive("array", size_of::<Self>()).field("", 0, T::LAYOUT);
    const SLOTS: SlotMap = SlotMap::Array { count: N, stride_bytes: size_of::<T>(), of: &T::SLOTS };

    fn reach(graph: &mut TypeGraph) {
        T::reach(graph);
    }
}
