//! Cases that were written for an earlier interface, made to compile by words alone.
//!
//! Media are implemented by `unsafe impl` now, and what shares one with a heap calls functions that are unsafe. A case that
//! shows something else may do both: what it did before is meant, and a compiler that objects says so.

/// What earlier callers had, by other names: inherent functions would come first.
const EARLIER: &str = r"
#[allow(dead_code)]
mod earlier {
    use pmalloc::{Heap, HeapOptions, Result, persist::Medium};
    pub trait Options {
        fn earlier_create_on<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>>;
        fn earlier_open_on<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>>;
    }
    impl Options for HeapOptions {
        fn earlier_create_on<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
            unsafe { self.create_on_shared(medium) }
        }
        fn earlier_open_on<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
            unsafe { self.open_on_shared(medium) }
        }
    }
    pub trait OfHeap<M> { fn earlier_medium(&self) -> &M; }
    impl<M: Medium + 'static> OfHeap<M> for Heap<M> {
        fn earlier_medium(&self) -> &M { unsafe { self.medium() } }
    }
}
#[allow(unused_imports)]
use earlier::{OfHeap as _, Options as _};
";

/// `source` for the interface of today.
pub(super) fn to_interface(source: &str) -> String {
    const IMPLEMENTS: &str = "impl Medium for ";
    let exclusive = source.split(IMPLEMENTS).skip(1).filter_map(|rest| {
        let name = rest.split([' ', '{']).next()?;
        Some(format!("unsafe impl pmalloc::persist::Exclusive for {name} {{}}\n"))
    });
    let changed = source
        .replace("#![deny(unsafe_code)]", "")
        .replace("#![forbid(unsafe_code)]", "")
        .replace(IMPLEMENTS, "unsafe impl Medium for ")
        .replace(".create_on(", ".earlier_create_on(")
        .replace(".open_on(", ".earlier_open_on(")
        .replace(".medium()", ".earlier_medium()")
        // A heap that is forgotten keeps its claim on the medium: it dies by losing all that it stores from now on.
        .replace("std::mem::forget(heap); // dies", "left.store(0, SeqCst); drop(heap);");
    changed + EARLIER + &exclusive.collect::<String>()
}
