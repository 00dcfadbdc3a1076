//! Creating and opening heaps.

use std::{path::Path, sync::OnceLock, time::Duration};

use pmalloc_persist::{
    DurabilityChoice, Exclusive, Mapped, MediaFile, Medium, Span, has_addresses,
};

use super::handle::Heap;
use crate::{
    core::{
        format::{self, Exposure},
        header,
    },
    error::{Error, Result},
    inspect::{
        CheckReport, SalvageReport, check,
        map::areas,
        owner::{self, owner_on},
        salvage,
        serve::{self, Opening},
    },
    layout::{
        geometry::{
            CHUNK_BYTES, Geometry, LANES, LOGS_MAX, RING_PLACES, ROOTS, SLAB_BYTES, STRIPES_MAX,
        },
        state::Policy,
        superblock::{Header, LAYOUT_NAME_MAX_BYTES, Model},
    },
};

/// The least that is chosen where a process has no addresses for the default.
const CAPACITY_NARROW_BYTES: u64 = 64 << 20;

/// Bitmap stripes of a heap whose creator asked for none: what the paper's authors use. Two would do to keep a bit line
/// four flushes away from its next flush while blocks are taken in order; six leave room for frees out of order.
const STRIPES_DEFAULT: u32 = 6;

/// How to create or open a heap. Every option has a default.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let heap = pmalloc::Heap::options()
///     .capacity_bytes(1 << 30)
///     .layout("my-cache-v1")
///     .create(dir.path().join("heap"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct HeapOptions {
    opening: Opening,
    initial_bytes: u64,
    /// Whether nobody asked for a capacity, so that a new file may have less than the default.
    is_capacity_open: bool,
    geometry: Geometry,
}

impl HeapOptions {
    /// Capacity of a heap whose creator asked for none, where the process has the addresses.
    pub const CAPACITY_DEFAULT_BYTES: u64 = 256 << 30;

    /// The policy of a heap whose creator asked for none.
    pub const POLICY_DEFAULT: Policy = Policy::Batched;

    pub(super) fn new() -> Self {
        Self {
            opening: Opening::default(),
            initial_bytes: 0,
            is_capacity_open: true,
            geometry: Geometry {
                capacity_bytes: Self::CAPACITY_DEFAULT_BYTES,
                slab_bytes: SLAB_BYTES,
                ring_places: RING_PLACES,
                lanes: LANES,
                chunk_bytes: CHUNK_BYTES,
                logs: default_arenas(),
                roots: ROOTS,
                stripes: STRIPES_DEFAULT,
            },
        }
    }

    /// How far the heap may grow, in bytes of data: at least 64 KiB, rounded up to it. Create only; default 256 GiB.
    ///
    /// It costs address space, not memory: the file grows as the heap is used. Whoever opens the heap needs as much of that:
    /// a process with a limit on it (`RLIMIT_AS`), or under a tool like valgrind, may not get it. Where the default is not to
    /// be had, [`create`](Self::create) halves it until it takes at most half of the addresses that are; what is asked for here
    /// is taken or refused. [`info`](crate::info) tells what a heap has.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.is_capacity_open = false;
        // What is too little is kept as it is, to be refused.
        let rounded = bytes.checked_next_multiple_of(SLAB_BYTES).unwrap_or(u64::MAX);
        self.geometry.capacity_bytes = if bytes < SLAB_BYTES { bytes } else { rounded };
        self
    }

    /// Bytes of data that the file has memory for from the start, at most the capacity: until they are used, blocks need
    /// no further room in the file system. What the heap notes about them does, little by little: lanes, chunks of the
    /// bookkeeping log and slab descriptors get memory when they are needed. Create only; default none.
    pub fn initial_bytes(mut self, bytes: u64) -> Self {
        self.initial_bytes = bytes;
        self
    }

    /// How long memory that is no more in use is kept, at least while the heap does little; default 10 seconds.
    ///
    /// A heap may occupy what was in use at most over the last one or two times as long as this, and a sixteenth more; what is
    /// free beyond that goes back to the file system, whoever freed it and when, also before the heap was opened. Under load it
    /// goes back earlier: 262 144 operations, of any size, count as much as this time. `Duration::ZERO` gives memory back as
    /// soon as it is free, which costs system calls and page faults; `Duration::MAX` keeps it until [`Heap::trim`]. A heap has no
    /// thread of its own: it looks at this about every 256 operations of a thread, and does about 1 MiB at a
    /// time; one that nobody calls gives nothing back until it is trimmed or closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    ///
    /// let options = pmalloc::Heap::options().decay(Duration::from_secs(60));
    /// let heap = options.create(dir.path().join("heap"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn decay(mut self, time: Duration) -> Self {
        self.opening.decay = time;
        self
    }

    /// When the effects of operations are made durable. Default: at create [`POLICY_DEFAULT`](Self::POLICY_DEFAULT), at open
    /// what the heap has. Opening with another policy switches the heap to it, for good.
    ///
    /// Under either policy an operation that has returned survives. [`Policy::Batched`] waits for one fence where
    /// [`Policy::Eager`] waits for three; memory that it frees is reused a little later, and now and then one operation makes
    /// the effects of some hundred durable.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::{Heap, Policy};
    ///
    /// let path = dir.path().join("heap");
    /// Heap::options().policy(Policy::Batched).create(&path)?.close()?;
    /// assert_eq!(Heap::open(&path)?.policy(), Policy::Batched);
    /// # Ok(())
    /// # }
    /// ```
    pub fn policy(mut self, policy: Policy) -> Self {
        self.opening.policy = Some(policy);
        self
    }

    /// Whether the heap has a thread of its own that makes the effects of operations durable, under
    /// [`Policy::Batched`]; default: none. Operations do that themselves now and then, some microseconds each time, and need
    /// not where another processor has nothing else to do.
    ///
    /// The thread ends when the heap is closed.
    pub fn background_thread(mut self, has_thread: bool) -> Self {
        self.opening.has_thread = has_thread;
        self
    }

    /// A name for the layout of the application's data, at most 63 bytes: written at create, compared at open.
    pub fn layout(mut self, name: impl Into<String>) -> Self {
        self.opening.layout = Some(name.into());
        self
    }

    /// Lines over which the bits of consecutive blocks rotate, 1 to 15; 1 turns interleaving off. Create only;
    /// default 6.
    pub fn stripes(mut self, stripes: u32) -> Self {
        self.geometry.stripes = stripes;
        self
    }

    /// Number of arenas, each with a bookkeeping log, 1 to 64. Create only; default: the number of CPUs.
    pub fn arenas(mut self, arenas: u32) -> Self {
        self.geometry.logs = arenas;
        self
    }

    /// The durability to run with. Default: what the mapping offers.
    pub fn durability(mut self, choice: DurabilityChoice) -> Self {
        self.opening.durability = choice;
        self
    }

    /// Runs with the durability asked for even where the memory does not have it: DRAM or a page-cache file
    /// then stands in for persistent memory, at its cost, and a power loss destroys the heap.
    pub fn unsafe_force_durability(mut self) -> Self {
        self.opening.forced = true;
        self
    }

    /// Where the area `name` of such a heap is, by the names of `pmalloc map`. For tests of the heap itself.
    #[doc(hidden)]
    #[must_use]
    pub fn area(&self, name: &str) -> Option<Span> {
        areas(&self.geometry).into_iter().find(|area| area.0 == name).map(|area| area.1)
    }

    /// Replaces sizes that production heaps have in common, so that a full ring, chunk or slab is a few
    /// operations away. For tests of the heap itself.
    #[doc(hidden)]
    pub fn test_geometry(mut self, sizes: TestGeometry) -> Self {
        self.is_capacity_open = false;
        self.geometry = Geometry {
            capacity_bytes: sizes.capacity_bytes,
            slab_bytes: sizes.slab_bytes,
            ring_places: sizes.ring_places,
            lanes: sizes.lanes,
            chunk_bytes: sizes.chunk_bytes,
            logs: sizes.logs,
            roots: sizes.roots,
            stripes: sizes.stripes,
        };
        self
    }

    /// Creates a heap in a new file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if the file exists, can't be created or does not have the durability asked for, or if there are no
    /// addresses for the capacity; [`Error::Invalid`] for an option out of range.
    ///
    /// # Crash consistency
    ///
    /// Atomic: the file gets its name when the heap in it is whole and durable. After an error nothing has this name, but
    /// for [`MapError::Published`](pmalloc_persist::MapError::Published), which says that the heap is there.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Heap> {
        self.create_with(path, |mapped| mapped)
    }

    /// As [`create`](Self::create), on the medium that `wrap` makes of the mapping.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with<M: Exclusive + 'static>(
        &self,
        path: impl AsRef<Path>,
        wrap: impl FnOnce(Mapped) -> M,
    ) -> Result<Heap<M>> {
        let header = Self { geometry: self.fitting_geometry(), ..self.clone() }.header()?;
        let file = MediaFile::create(path.as_ref())?;
        let mapped = file.map(&self.opening.map_options(&header.geometry))?;
        let owner = owner_on(&mapped)?;
        self.format(&mapped, &header, Exposure::Hidden)?;
        mapped.sync().map_err(Error::io("writing a new heap"))?;
        let file = std::sync::Arc::clone(mapped.file());
        let medium = wrap(mapped);
        let claim = medium.claim()?;
        let heap = self.opening.serve_new(medium, claim, header, &owner)?;
        // Last, as what fails behind it would leave a heap although it was not created.
        file.publish()?;
        Heap::new(heap)
    }

    /// Opens the heap in the file at `path`, recovering it first if it was not closed.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if there is no such file, another process has it open, it does not have the durability
    /// asked for, or there are no addresses for its capacity; [`Error::NotAHeap`], [`Error::Version`], [`Error::Layout`], [`Error::Corrupted`],
    /// [`Error::PowerLoss`].
    ///
    /// # Crash consistency
    ///
    /// A crash while opening leaves a heap that opens to the same state.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Heap> {
        self.open_with(path, |mapped| mapped)
    }

    /// As [`open`](Self::open), on the medium that `wrap` makes of the mapping.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with<M: Exclusive + 'static>(
        &self,
        path: impl AsRef<Path>,
        wrap: impl FnOnce(Mapped) -> M,
    ) -> Result<Heap<M>> {
        Heap::new(self.opening.open_file(path, wrap)?)
    }

    /// Opens a copy of the heap in the file at `path` that only this process sees: nothing of what is done to it reaches the
    /// file, which nobody can write meanwhile.
    ///
    /// For tools that want to know what opening, or an operation, would do.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_private_with<M: Exclusive + 'static>(
        &self,
        path: impl AsRef<Path>,
        wrap: impl FnOnce(Mapped) -> M,
    ) -> Result<Heap<M>> {
        Heap::new(self.opening.open_private(path, wrap)?)
    }

    /// Creates a heap on a medium of zeros, which it has to itself.
    ///
    /// For a medium of which others have handles there is [`create_on_shared`](Self::create_on_shared).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an option out of range or a medium shorter than [`heap_bytes`](Self::heap_bytes),
    /// [`Error::Medium`] for a mapping that isn't shared, [`Error::NoSpace`] if the medium has no memory.
    pub fn create_on<M: Exclusive + 'static>(&self, medium: M) -> Result<Heap<M>> {
        self.create_on_medium(medium)
    }

    /// Opens the heap on a medium, which it has to itself.
    ///
    /// For a medium of which others have handles there is [`open_on_shared`](Self::open_on_shared).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for those of files; [`Error::Medium`] for a mapping that isn't shared.
    pub fn open_on<M: Exclusive + 'static>(&self, medium: M) -> Result<Heap<M>> {
        self.open_on_medium(medium)
    }

    pub(crate) fn create_on_medium<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
        let claim = medium.claim()?;
        let header = self.header()?;
        let (len, needed) = (medium.region().len(), header.geometry.heap_bytes());
        if len < needed {
            let why = format!("{len} bytes; a heap with these options needs {needed}");
            return Err(Error::Invalid { what: "medium", why });
        }
        self.format(&medium, &header, Exposure::InPlace)?;
        let owner = owner_on(&medium)?;
        Heap::new(self.opening.serve_new(medium, claim, header, &owner)?)
    }

    pub(crate) fn open_on_medium<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
        Heap::new(self.opening.open_on(medium)?)
    }

    /// Checks the heap on a medium without opening it. A heap that was not closed is recovered, on the medium.
    ///
    /// # Errors
    ///
    /// [`Error::NotAHeap`], [`Error::Version`], [`Error::Io`], [`Error::Medium`] if a heap is served from it; damage is in
    /// the report.
    pub fn check_on<M: Medium>(&self, medium: M) -> Result<CheckReport> {
        let _claim = serve::claim_if_shared(&medium)?;
        let power = owner::power_on(&medium)?;
        check::check_closed(header::read_header_of(&medium), medium, Some(power))
    }

    /// Salvages the heap on a medium that nobody serves: see [`salvage_file`](crate::salvage_file).
    ///
    /// # Errors
    ///
    /// As for that, but for those of files.
    ///
    /// # Crash consistency
    ///
    /// None: what a crash leaves on the medium is to be salvaged again, and is not to be opened before.
    pub fn salvage_on<M: Medium + Clone>(&self, medium: &M) -> Result<SalvageReport> {
        let _claim = serve::claim_if_shared(medium)?;
        salvage::salvage(&header::read_header_of(medium)?, medium)
    }

    /// The areas of a heap with these options, in the order of their places: what the geometry says about its bytes.
    /// For tests of the heap itself.
    #[doc(hidden)]
    pub fn areas(&self) -> Result<Vec<(&'static str, Span)>> {
        Ok(areas(&self.header()?.geometry).to_vec())
    }

    /// Bytes that a heap with these options can grow to, metadata included: the length that a medium for
    /// [`create_on`](Self::create_on) needs.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an option out of range.
    pub fn heap_bytes(&self) -> Result<u64> {
        Ok(self.header()?.geometry.heap_bytes())
    }

    /// Writes an empty heap, with the memory that it is to have from the start.
    fn format<M: Medium>(&self, m: &M, header: &Header, exposure: Exposure) -> Result<()> {
        // Before the heap is there: who finds it finds all of its memory. The heap does not count it as grown.
        let start = header.geometry.data_span().start;
        m.back(Span::new(start, self.initial_bytes))
            .map_err(Error::backing("backing a new heap"))?;
        let policy = self.opening.policy.unwrap_or(Self::POLICY_DEFAULT);
        format::format(m, header, policy, exposure)
    }

    fn header(&self) -> Result<Header> {
        let invalid = |what, why: String| Error::Invalid { what, why };
        let layout_name = self.opening.layout.clone().unwrap_or_default();
        if layout_name.len() > LAYOUT_NAME_MAX_BYTES || layout_name.contains('\0') {
            let why = format!("{layout_name:?}; at most {LAYOUT_NAME_MAX_BYTES} bytes and no NUL");
            return Err(invalid("layout name", why));
        }
        let geometry = self.geometry;
        if !(1..=STRIPES_MAX).contains(&geometry.stripes) {
            return Err(invalid("stripes", format!("{}; 1 to {STRIPES_MAX}", geometry.stripes)));
        }
        if !(1..=LOGS_MAX).contains(&geometry.logs) {
            return Err(invalid("arenas", format!("{}; 1 to {LOGS_MAX}", geometry.logs)));
        }
        if !geometry.is_valid() {
            let (bytes, least) = (geometry.capacity_bytes, geometry.slab_bytes);
            let why = format!("{bytes} bytes; at least {least} and at most about 15 TiB");
            return Err(invalid("capacity", why));
        }
        if self.initial_bytes > geometry.capacity_bytes {
            let (initial, capacity) = (self.initial_bytes, geometry.capacity_bytes);
            let why = format!("{initial}; at most the capacity, {capacity} bytes");
            return Err(invalid("initial bytes", why));
        }
        let mut uuid = [0; 16];
        getrandom::fill(&mut uuid).map_err(|error| Error::Io {
            doing: "drawing the heap's identity",
            source: std::io::Error::other(error),
        })?;
        let created_s = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs());
        Ok(Header {
            uuid: uuid::Builder::from_random_bytes(uuid).into_uuid().as_u128(),
            model: Model::Log,
            created_s,
            layout_name,
            geometry,
        })
    }

    /// The geometry, with less than the default capacity where this process has no addresses for that. As many again are
    /// left to the program, which has other uses for them, and to the heap's own tables.
    fn fitting_geometry(&self) -> Geometry {
        let mut geometry = self.geometry;
        let fits = |geometry: &Geometry| has_addresses(2 * geometry.heap_bytes());
        let least = self.initial_bytes.max(CAPACITY_NARROW_BYTES);
        while self.is_capacity_open && geometry.capacity_bytes / 2 >= least && !fits(&geometry) {
            geometry.capacity_bytes /= 2;
        }
        geometry
    }
}

impl Heap {
    /// Options for creating and opening heaps, all at their defaults.
    pub fn options() -> HeapOptions {
        HeapOptions::new()
    }

    /// Creates a heap in a new file at `path` with default options.
    ///
    /// # Errors
    ///
    /// As [`HeapOptions::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().create(path)
    }

    /// Opens the heap in the file at `path` with default options.
    ///
    /// # Errors
    ///
    /// As [`HeapOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }
}

impl Default for HeapOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Arenas of a heap whose creator asked for none: the number of CPUs that this process may use.
///
/// Asked for once: the answer takes files of the control groups to be read, also for options that only open.
fn default_arenas() -> u32 {
    static ARENAS: OnceLock<u32> = OnceLock::new();
    *ARENAS.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(cpus).unwrap_or(LOGS_MAX).min(LOGS_MAX)
    })
}

/// Sizes for [`HeapOptions::test_geometry`].
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "not part of the interface; the fields are those of the superblock")]
pub struct TestGeometry {
    pub capacity_bytes: u64,
    pub slab_bytes: u64,
    pub ring_places: u32,
    pub lanes: u32,
    pub chunk_bytes: u64,
    pub logs: u32,
    pub roots: u32,
    pub stripes: u32,
}
