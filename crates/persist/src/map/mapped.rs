//! A file mapped as a medium: what production heaps live on.
//!
//! The whole reserved range is mapped at once, however short the file is, so that growth never moves
//! anything. Touching what lies behind the end of the file is a bus error, which
//! [`back`](Medium::back) prevents by allocating blocks first. The bytes of a shared mapping are
//! persistent; everything in the value itself is volatile.

use std::{io, path::Path, sync::Arc};

use rustix::fs::{self, Stat};

use super::{
    ForkMark, MapError, MapOptions, MediaFile, Storage, Warning,
    error::MAX_RESERVE_BYTES,
    extents::without_blocks,
    file::len_of,
    grow::{self, Allocated},
    holes::holes_in,
    options::Granted,
    promise,
    reservation::{Reservation, Sharing, is_dax},
};
use crate::{
    Access, Claim, ClaimError, Durability, Exclusive, FlushInstruction, MediaInfo, Medium, OnMedia,
    PAGE_BYTES, ProcessId, Region, Span, Word, boot_id, domain,
    flush::Flusher,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// Type number that the kernel reports for a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Bytes per block in what the kernel reports, whatever the file system's own block is.
const REPORTED_BLOCK_BYTES: u64 = 512;

/// A mapped [`MediaFile`].
///
/// A forked child does not inherit the memory: touching it there is a segmentation fault. Ask
/// [`forked`](Self::forked) first where a child might call.
#[derive(Debug)]
pub struct Mapped {
    region: Region,
    flusher: Flusher,
    /// Volatile: bytes that may be touched. In a shared mapping it never exceeds the length of the file.
    len: AtomicU64,
    fork: ForkMark,
    access: Access,
    granted: Granted,
    storage: Storage,
    /// Volatile: bytes at the start that are pages of the file; behind them a private mapping has anonymous
    /// ones.
    file_pages_len: u64,
    /// Volatile: held while the file grows, and while holes are filled by hand.
    growth: Mutex<()>,
    /// Volatile: a run of bytes that has memory, as [`Medium::ensure`] found last.
    data: Mutex<Span>,
    /// Volatile: whether blocks of the file belong to a copy as well, and have to be made its own.
    shares_extents: bool,
    /// Volatile: what the file system does not promise.
    warnings: Vec<Warning>,
    range: Reservation,
    file: Arc<MediaFile>,
}

impl MediaFile {
    /// Maps the file.
    ///
    /// # Errors
    ///
    /// [`MapError::NotPowerSafe`] if a durability was asked for that the memory doesn't have,
    /// [`MapError::AccessTooLow`] if the file was opened with less access than the mapping asks for,
    /// [`MapError::BadReserve`] if the range to reserve is empty, too large, or shorter than the file,
    /// [`MapError::NoAddresses`] if this process can't have so many addresses.
    pub fn map(self, options: &MapOptions) -> Result<Mapped, MapError> {
        Arc::new(self).map_shared(options)
    }

    pub(super) fn map_shared(self: Arc<Self>, options: &MapOptions) -> Result<Mapped, MapError> {
        let access = self.granted_access(options)?;
        let stat = self.stat()?;
        let reserve_len = self.reserve_len(options, &stat)?;
        let storage = self.storage()?;
        let granted = self.granted_durability(options, storage, &stat)?;
        let file_len = len_of(&stat);
        let sharing = match (access, storage) {
            (Access::Shared, Storage::Dax) => Sharing::Synchronous,
            (Access::Shared, _) => Sharing::Shared,
            (Access::PrivateCopy | Access::ReadOnly, _) => Sharing::Private,
        };
        let range = self.map_range(reserve_len, file_len, (access, storage, sharing))?;
        // SAFETY:
        // 1. the range is page aligned, mapped readable and writable, and unmapped only when the `Mapped`
        //    that owns both it and the region is dropped;
        // 2. the reservation keeps everything else in this process out of it.
        let region = unsafe { Region::new(range.base(), reserve_len as u64) };
        let durable = access == Access::Shared;
        Ok(Mapped {
            region,
            flusher: if durable { Flusher::new(granted.durability) } else { Flusher::NONE },
            len: AtomicU64::new(file_len),
            fork: ForkMark::new().map_err(|source| self.map_error(source))?,
            access,
            granted,
            storage,
            file_pages_len: file_len.next_multiple_of(system_page_bytes()),
            growth: Mutex::new(()),
            data: Mutex::new(Span::new(0, 0)),
            shares_extents: durable && promise::can_unshare(&self.file),
            warnings: promise::warnings(&self.file),
            range,
            file: self,
        })
    }

    fn granted_access(&self, options: &MapOptions) -> Result<Access, MapError> {
        let opened = self.access();
        let asked = options.access.unwrap_or(opened);
        if asked <= opened {
            return Ok(asked);
        }
        Err(MapError::AccessTooLow { path: self.path().to_owned(), opened, asked })
    }

    fn reserve_len(&self, options: &MapOptions, stat: &Stat) -> Result<usize, MapError> {
        let (reserve_len, file_len) = (options.reserve_len, len_of(stat));
        if reserve_len > 0 && (file_len..=MAX_RESERVE_BYTES).contains(&reserve_len) {
            let whole_pages = reserve_len.next_multiple_of(system_page_bytes());
            return Ok(to_usize(whole_pages));
        }
        Err(MapError::BadReserve { path: self.path().to_owned(), reserve_len, file_len })
    }

    /// Where the bytes of the file are.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn storage(&self) -> Result<Storage, MapError> {
        if is_dax(&self.file) {
            return Ok(Storage::Dax);
        }
        let stat = fs::fstatfs(&self.file)
            .map_err(|errno| MapError::of("look at the file system of", self.path(), errno))?;
        let is_tmpfs = u64::try_from(stat.f_type) == Ok(TMPFS_MAGIC);
        Ok(if is_tmpfs { Storage::Tmpfs } else { Storage::PageCache })
    }

    fn granted_durability(
        &self,
        options: &MapOptions,
        storage: Storage,
        stat: &Stat,
    ) -> Result<Granted, MapError> {
        let offered = domain::offered(storage == Storage::Dax, stat.st_dev);
        let path = || self.path().to_owned();
        options.grant(offered).map_err(|asked| MapError::NotPowerSafe {
            path: path(),
            asked,
            offered,
        })
    }

    /// Shared: the file over the whole range, whatever its length. Private: anonymous memory, and the file
    /// over as much of it as the file has pages, so that growth needs neither file nor mapping.
    fn map_range(
        &self,
        len: usize,
        file_len: u64,
        (access, storage, how): (Access, Storage, Sharing),
    ) -> Result<Reservation, MapError> {
        let range = Reservation::new(len)
            .map_err(|errno| MapError::of_reserving(self.path(), len as u64, errno))?;
        let map = || -> io::Result<()> {
            match access {
                Access::Shared => range.map_file(&self.file, (0, len), how)?,
                Access::PrivateCopy => {
                    range.map_anonymous()?;
                    self.map_data(&range, file_len)?;
                }
                Access::ReadOnly => {
                    range.map_anonymous()?;
                    range.map_file(&self.file, (0, to_usize(file_len)), how)?;
                }
            }
            if storage == Storage::PageCache && access == Access::Shared {
                range.advise_random()?;
            }
            Ok(range.seal()?)
        };
        match map() {
            Ok(()) => Ok(range),
            Err(error) => Err(MapError::of_system("map", self.path().to_owned(), error)),
        }
    }

    /// Puts the parts of the file that hold data into anonymous memory: a tmpfs would have to fill the hole that is read,
    /// and may have no room for that. The longest parts are mapped, and so many that a process may have as many mappings;
    /// what is left is read.
    fn map_data(&self, range: &Reservation, file_len: u64) -> io::Result<()> {
        let mut parts: Vec<Span> = Vec::new();
        for span in self.data_spans()? {
            let end = span.end().min(file_len);
            let start = span.start / system_page_bytes() * system_page_bytes();
            // Pages that are data in part belong to both neighbours.
            let start = parts.last().map_or(start, |last| start.max(last.end()));
            if start < end {
                let len = end.next_multiple_of(system_page_bytes()) - start;
                match parts.last_mut() {
                    Some(last) if last.end() == start => last.len += len,
                    _ => parts.push(Span::new(start, len)),
                }
            }
        }
        parts.sort_unstable_by_key(|part| core::cmp::Reverse(part.len));
        for (at, part) in parts.iter().enumerate() {
            let place = (to_usize(part.start), to_usize(part.len));
            if at < MAPPED_PARTS {
                range.map_file(&self.file, place, Sharing::Private)?;
            } else {
                range.read_file(&self.file, place)?;
            }
        }
        Ok(())
    }

    fn map_error(&self, source: io::Error) -> MapError {
        MapError::of_system("map", self.path().to_owned(), source)
    }
}

/// Parts of a sparse file that a private copy maps at most. Linux grants a process 65 530 mappings by default.
const MAPPED_PARTS: usize = 1024;

impl Mapped {
    /// What a durable store survives.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.granted.durability
    }

    /// Whether the durability was forced and the memory doesn't have it.
    #[must_use]
    pub fn durability_is_forced(&self) -> bool {
        self.granted.is_forced
    }

    /// Where the bytes of the file are.
    #[must_use]
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// The instruction that a flush executes, if one is needed.
    #[must_use]
    pub fn flush_instruction(&self) -> Option<FlushInstruction> {
        self.flusher.instruction()
    }

    /// What may be done to the mapping.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The path that the file was opened with, or will be published under.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The open file; its lock goes with the mapping and with whoever shares it.
    #[must_use]
    pub fn file(&self) -> &Arc<MediaFile> {
        &self.file
    }

    /// Numbers of the device and of the inode: equal for two paths of the same file.
    ///
    /// # Errors
    ///
    /// That of the file system.
    pub fn identity(&self) -> Result<(u64, u64), MapError> {
        self.file.identity()
    }

    /// Makes all that was stored durable and gives a created file its name.
    ///
    /// # Errors
    ///
    /// As for [`MediaFile::publish`].
    ///
    /// # Panics
    ///
    /// If another thread panicked while it published.
    ///
    /// # Crash consistency
    ///
    /// As for [`MediaFile::publish`].
    pub fn publish(&self) -> Result<(), MapError> {
        self.file.publish()
    }

    /// Allocates the pages of `span` in the file; makes that durable where flushes are.
    fn back_file(&self, span: Span) -> io::Result<()> {
        let grows = span.end() > self.len.load(Ordering::Acquire);
        let growth = grows.then(|| lock(&self.growth));
        let result = match self.allocate(span) {
            Ok(Allocated::Yes) => Ok(()),
            Ok(Allocated::Unsupported) => {
                let _growth = growth.is_none().then(|| lock(&self.growth));
                grow::fill_holes(&self.file.file, span)
            }
            Err(error) => Err(error),
        };
        if result.is_err() && growth.is_some() {
            self.give_back_growth();
        }
        result?;
        // CRASH: before the sync the file may be shorter, or lack blocks; nothing refers to them yet, since
        // this function hasn't returned.
        if self.granted.durability.is_power_safe() {
            grow::retry(|| fs::fsync(&self.file.file))?;
        }
        // Release: whoever sees the length (Acquire in `len`) may touch the bytes.
        self.len.fetch_max(span.end(), Ordering::Release);
        Ok(())
    }

    fn allocate(&self, span: Span) -> io::Result<Allocated> {
        match self.shares_extents {
            true => match grow::unshare(&self.file.file, span)? {
                Allocated::Yes => Ok(Allocated::Yes),
                Allocated::Unsupported => grow::allocate(&self.file.file, span),
            },
            false => grow::allocate(&self.file.file, span),
        }
    }

    /// Gives `holes`, which had memory once, memory again: all or none.
    #[cold]
    fn fill(&self, holes: &[Span]) -> io::Result<()> {
        let before = self.occupied_bytes()?;
        let filled = holes.iter().try_for_each(|hole| self.back_file(hole.to_pages()));
        if filled.is_err() {
            // What a full file system gave in part is what others want. Holes hold zeros, whether they stay or not.
            holes.iter().for_each(|hole| drop(grow::punch(&self.file.file, *hole)));
        }
        filled?;
        if self.storage == Storage::PageCache && self.occupied_bytes()? > before {
            // A copy. Its pages lie in the kernel's cache in large pieces, as they were written, and those that have no
            // memory among them would be given some when the others are stored to: from now on page by page.
            grow::retry(|| fs::fsync(&self.file.file))?;
            grow::retry(|| fs::fadvise(&self.file.file, 0, None, fs::Advice::DontNeed))?;
        }
        Ok(())
    }

    /// Cuts off what a growth that failed halfway left behind the end. Called with the growth lock held, so
    /// that the length is that of all growths that succeeded, and nobody has touched what lies behind it.
    fn give_back_growth(&self) {
        let len = self.len.load(Ordering::Acquire);
        // A file that stays too long only wastes space until the next growth.
        let _ = grow::retry(|| fs::ftruncate(&self.file.file, len));
    }

    /// Gives back the anonymous pages of a private mapping. Pages of the file stay: dropping their copies
    /// would bring the file's bytes back.
    fn punch_private(&self, span: Span) -> io::Result<()> {
        let page = system_page_bytes();
        let start = span.start.max(self.file_pages_len).next_multiple_of(page);
        let end = span.end() / page * page;
        if start < end {
            self.range.discard(to_usize(start), to_usize(end - start))?;
        }
        Ok(())
    }

    /// The error if `span` does not lie inside the reserved range.
    fn require_inside(&self, span: Span) -> io::Result<()> {
        if span.end() > self.region.len() {
            let message = format!(
                "{span:?} ends behind the {:#x} bytes that were reserved: choose a larger capacity",
                self.region.len()
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.forked() {
            self.range.forget();
        }
    }
}

// SAFETY: the file was opened for this mapping, and a mapping is not cloned. Its descriptor gives out no words and writes
// nothing. Of an open file there is one shared mapping: `map` takes the file, and `private_copy` makes what can't write the file
// and can't be claimed. Shared mappings of other opens are kept apart by the file's lock.
unsafe impl Exclusive for Mapped {}

// SAFETY:
// 1. the reservation is unmapped when the medium is dropped;
// 2. the length is raised only after the file reaches there, and `back` allocates the pages, or copies them;
// 3. and 4. the words are the hardware's; pages lose their memory in `punch` only;
// 5. the region's claims, and none for a mapping of a file that others may write.
unsafe impl Medium for Mapped {
    #[inline]
    fn region(&self) -> &Region {
        &self.region
    }
    #[inline]
    fn len(&self) -> u64 {
        // Acquire: pairs with the Release in `back`.
        self.len.load(Ordering::Acquire)
    }
    #[inline]
    fn load(&self, word: &Word) -> u64 {
        word.get()
    }
    #[inline]
    fn store(&self, word: &Word, value: u64) {
        word.set(value);
    }
    #[inline]
    fn prefetch(&self, word: &Word) {
        self.flusher.prefetch(word);
    }
    #[inline]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        word.compare_exchange(current, new)
    }
    #[inline]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        word.fetch_or(bits)
    }
    #[inline]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        word.fetch_and(bits)
    }
    #[inline]
    #[track_caller]
    fn flush(&self, span: Span) {
        self.flusher.flush(&self.region, span);
    }
    #[inline]
    #[track_caller]
    fn flush_of<T: OnMedia>(&self, value: &T) {
        debug_assert!(
            self.region.offset_of(core::ptr::from_ref(value).cast()).is_some(),
            "a view of another region"
        );
        self.flusher.flush_of(value);
    }
    #[inline]
    fn fence(&self) {
        self.flusher.fence();
    }

    fn back(&self, span: Span) -> io::Result<()> {
        self.require_inside(span)?;
        match self.access {
            Access::ReadOnly => Err(io::ErrorKind::PermissionDenied.into()),
            _ if span.is_empty() => Ok(()),
            Access::PrivateCopy => {
                self.len.fetch_max(span.to_pages().end(), Ordering::Release);
                Ok(())
            }
            Access::Shared => self.back_file(span.to_pages()),
        }
    }

    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        if self.access != Access::Shared {
            return Ok(());
        }
        // What lies behind the end of a file that was cut off is missing, which is another error.
        let len = self.len();
        let inside = |span: &Span| {
            let pages = span.to_pages();
            Span::new(pages.start, pages.end().min(len).saturating_sub(pages.start))
        };
        let pages: Vec<Span> = spans.iter().map(inside).filter(|span| !span.is_empty()).collect();
        if self.shares_extents {
            return pages.into_iter().try_for_each(|span| self.back_file(span));
        }
        let file = &self.file.file;
        let holes = holes_in(file, &pages, &mut lock(&self.data))?;
        let holes: Vec<Span> =
            holes.into_iter().flat_map(|hole| without_blocks(file, hole)).collect();
        if holes.is_empty() { Ok(()) } else { self.fill(&holes) }
    }

    fn punch(&self, span: Span) -> io::Result<()> {
        self.require_inside(span)?;
        // What is known to have memory may be what loses it.
        *lock(&self.data) = Span::new(0, 0);
        let start = span.start.next_multiple_of(PAGE_BYTES);
        let whole = Span::new(start, (span.end() / PAGE_BYTES * PAGE_BYTES).saturating_sub(start));
        match self.access {
            Access::ReadOnly => Err(io::ErrorKind::PermissionDenied.into()),
            _ if whole.is_empty() => Ok(()),
            Access::PrivateCopy => self.punch_private(whole),
            Access::Shared => grow::punch(&self.file.file, whole),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.access != Access::Shared {
            return Ok(());
        }
        self.range.sync(0, to_usize(self.len()))?;
        grow::retry(|| fs::fsync(&self.file.file))?;
        Ok(())
    }

    fn sync_span(&self, span: Span) -> io::Result<()> {
        self.require_inside(span)?;
        if self.access != Access::Shared || span.is_empty() {
            return Ok(());
        }
        // That is an fsync of the range: the disk's own cache is emptied, too.
        let start = span.start / system_page_bytes() * system_page_bytes();
        Ok(self.range.sync(to_usize(start), to_usize(span.end() - start))?)
    }

    fn needs_sync(&self) -> bool {
        self.storage.needs_sync(self.granted.durability)
    }

    #[inline]
    fn forked(&self) -> bool {
        self.fork.forked()
    }

    fn claim(&self) -> Result<Claim, ClaimError> {
        match self.access {
            Access::Shared => self.region.claim(),
            access => Err(ClaimError::NotShared { access }),
        }
    }

    fn info(&self) -> MediaInfo<'_> {
        MediaInfo {
            path: Some(self.path()),
            storage: Some(self.storage),
            identity: self.identity().ok(),
            access: Some(self.access),
            durability: Some(self.durability()),
            durability_is_forced: self.durability_is_forced(),
            flush_instruction: self.flush_instruction(),
            warnings: &self.warnings,
            ..MediaInfo::of_memory(self.len(), self.region.len())
        }
    }

    fn process(&self) -> io::Result<ProcessId> {
        ProcessId::current()
    }

    fn boot(&self) -> io::Result<u128> {
        boot_id()
    }

    fn occupied_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstat(&self.file.file)?;
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * REPORTED_BLOCK_BYTES)
    }
}

/// Bytes per page of the machine, which may be larger than [`PAGE_BYTES`].
fn system_page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// `bytes` inside the address space, which all callers checked against the reservation.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a length inside the reservation")
}
