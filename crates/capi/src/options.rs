//! From `pma_options` to those of the heap. Volatile.

use std::ptr;

use pmalloc::{HeapOptions, Policy, persist::DurabilityChoice};

use crate::{
    arguments::name,
    error::{Failure, Result},
    numbers::*,
    types::pma_options,
};

/// What C asks for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The heap's.
    pub(crate) heap: HeapOptions,
    /// Whether the medium counts.
    pub(crate) counting: Counting,
}

/// Whether the medium of a heap counts what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// It does.
    On,
    /// It does not.
    Off,
}

impl Options {
    /// The options that `options` points to; the defaults if it is null.
    ///
    /// # Safety
    ///
    /// `options` is null or points to a structure as [`read`] needs it, with a layout name that is null or a string.
    pub(crate) unsafe fn of(options: *const pma_options) -> Result<Self> {
        if options.is_null() {
            return Ok(Self { heap: HeapOptions::default(), counting: Counting::Off });
        }
        // SAFETY: not null; else as the caller guarantees.
        let options = unsafe { read(options) }?;
        check_model(&options)?;
        let mut heap = HeapOptions::default().durability(durability(options.durability)?);
        if !options.layout.is_null() {
            // SAFETY: as the caller guarantees.
            heap = heap.layout(unsafe { name(options.layout, "layout name") }?);
        }
        if options.capacity != 0 {
            heap = heap.capacity_bytes(options.capacity);
        }
        if let Some(policy) = policy(options.policy)? {
            heap = heap.policy(policy);
        }
        if options.stripes != 0 {
            heap = heap.stripes(options.stripes);
        }
        if options.flags & PMA_F_BACKGROUND != 0 {
            heap = heap.background_thread(true);
        }
        if options.flags & PMA_F_UNSAFE_FORCE != 0 {
            heap = heap.unsafe_force_durability();
        }
        let counting = if options.flags & PMA_F_COUNT == 0 { Counting::Off } else { Counting::On };
        Ok(Self { heap: heap.initial_bytes(options.initial), counting })
    }
}

/// The options at `place`, which have the size that they say.
///
/// # Safety
///
/// `place` points to a size, and to as many bytes as it says, if those are enough for a [`pma_options`].
unsafe fn read(place: *const pma_options) -> Result<pma_options> {
    // SAFETY: as the caller guarantees.
    let size = unsafe { place.cast::<usize>().read() };
    if size != size_of::<pma_options>() {
        let why = format!("{size} bytes; pma_options_init sets them");
        return Err(Failure::invalid("size of the options", why));
    }
    // SAFETY: there are enough bytes for the structure, and any are valid for its members.
    Ok(unsafe { place.read() })
}

/// Sees that nothing is asked for that this version has not.
fn check_model(options: &pma_options) -> Result<()> {
    let not_here = |what: &str| {
        let text = format!("{what}: heaps of this version have the model PMA_LOG");
        Failure::new(PMA_E_MODEL, text)
    };
    let known_flags = PMA_F_COUNT | PMA_F_UNSAFE_FORCE | PMA_F_BACKGROUND;
    match options.consistency {
        PMA_LOG => {}
        PMA_GC => return Err(not_here("PMA_GC")),
        PMA_IC => return Err(not_here("PMA_IC")),
        other => return Err(Failure::invalid("consistency", format_args!("{other}; PMA_LOG"))),
    }
    if options.flags & !known_flags != 0 {
        let why = format!("{:#x}; PMA_F_* are {known_flags:#x}", options.flags);
        return Err(Failure::invalid("flags", why));
    }
    if options.nvisitors != 0 || !options.visitors.is_null() {
        return Err(not_here("visitors"));
    }
    Ok(())
}

/// The policy with this number; none for that of the heap or, if it is new, of the library's choice.
fn policy(number: u32) -> Result<Option<Policy>> {
    Ok(match number {
        PMA_P_AUTO => None,
        PMA_P_EAGER => Some(Policy::Eager),
        PMA_P_BATCHED => Some(Policy::Batched),
        other => return Err(Failure::invalid("policy", format_args!("{other}; one of PMA_P_*"))),
    })
}

fn durability(number: u32) -> Result<DurabilityChoice> {
    Ok(match number {
        PMA_D_AUTO => DurabilityChoice::Auto,
        PMA_D_POWERFAIL => DurabilityChoice::PowerFail,
        PMA_D_EADR => DurabilityChoice::Eadr,
        PMA_D_PROCESS => DurabilityChoice::ProcessCrash,
        PMA_D_MSYNC => DurabilityChoice::Msync,
        other => {
            return Err(Failure::invalid("durability", format_args!("{other}; one of PMA_D_*")));
        }
    })
}

/// Sets all options to their defaults.
///
/// # Safety
///
/// That of [all functions](crate#safety); `options` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_options_init(options: *mut pma_options, size: usize) {
    if options.is_null() || size < size_of::<usize>() {
        return;
    }
    // SAFETY: as the caller guarantees; a later version of the structure may be longer, and is zero in all its bytes.
    unsafe { ptr::write_bytes(options.cast::<u8>(), 0, size) };
    // SAFETY: as the caller guarantees; the size is the first member of every version.
    unsafe { options.cast::<usize>().write(size) };
}
