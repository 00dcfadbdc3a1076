//! Structures that may be viewed in place on media, and the macro that declares them.

use crate::Word;

/// Types that may be viewed in place on media.
///
/// # Safety
///
/// `Self` is `repr(C)` or `repr(transparent)`, consists of [`Word`]s only (so it has no padding and every
/// bit pattern is valid) and has an alignment of at most 64 bytes.
pub unsafe trait OnMedia: Sized {}

// SAFETY: `Word` is a transparent `AtomicU64`.
unsafe impl OnMedia for Word {}

// SAFETY: an array of `OnMedia` values has no padding of its own and only `OnMedia` bytes.
unsafe impl<T: OnMedia, const N: usize> OnMedia for [T; N] {}

/// Declares an on-media structure with a fixed size.
///
/// Every field must be [`OnMedia`]; a wrong size, padding or a bare integer field is a compile error.
///
/// # Examples
///
/// ```
/// use pmalloc_persist::{Word, on_media};
///
/// on_media! {
///     /// The head of a ring.
///     pub struct RingHead: 64 {
///         /// Persistent: index of the oldest element.
///         pub first: Word,
///         /// Persistent: index behind the newest element.
///         pub end: Word,
///         /// Unused.
///         pub reserved: [Word; 6],
///     }
/// }
/// assert_eq!(size_of::<RingHead>(), 64);
/// ```
#[macro_export]
macro_rules! on_media {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident: $size:literal {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty),*
        }
        const _: () = assert!(::core::mem::size_of::<$name>() == $size, "the size is not as declared");
        const _: () = assert!(
            0 $(+ ::core::mem::size_of::<$ty>())* == $size,
            "an on-media structure has no padding"
        );
        const _: () = assert!(::core::mem::align_of::<$name>() <= 64, "alignment over a line");
        // SAFETY: `repr(C)`; every field is bounded by `OnMedia` in the where clause; padding and a
        // larger alignment are excluded by the assertions above.
        #[allow(unsafe_code)]
        unsafe impl $crate::OnMedia for $name where $($ty: $crate::OnMedia),* {}
    };
}
