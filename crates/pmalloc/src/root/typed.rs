//! Roots that hold a value of a [`Persistent`] type.

use std::any::type_name;

use pmalloc_persist::{Medium, Span, sync::Arc};

use super::{
    declarations,
    entry::Shape,
    obtain::{ROOT_ALIGN, obtain},
};
use crate::{
    core::{Core, Implicit},
    error::{Error, Result},
    layout::root::RootKind,
    value::{Persistent, TypeGraph, raw},
};

/// The shape of a root that holds a `T`.
pub(super) fn shape<T: Persistent>() -> Result<Shape> {
    if size_of::<T>() == 0 || align_of::<T>() > ROOT_ALIGN {
        return Err(Error::Invalid {
            what: "type of a root",
            why: format!("{}; it must have bytes, and be aligned to 64 at most", type_name::<T>()),
        });
    }
    let length = size_of::<T>() as u64;
    Ok(Shape { kind: RootKind::Typed, length, type_id: TypeGraph::hash_of::<T>() })
}

/// The value of the root `name`, which `init` makes if there is none.
pub(crate) fn value<'c, M: Medium + 'static, T: Persistent>(
    core: &'c Arc<Core<M>>,
    name: &str,
    init: impl FnOnce() -> T,
) -> Result<&'c T> {
    let shape = (shape::<T>()?, T::SLOTS);
    let root = obtain(core, &mut Implicit(core), name, shape, || {
        let value = init();
        move |core: &Core<M>, span| raw::write(core.medium(), span, value)
    })?;
    // Behind the root, whose creation may fail: what a crash leaves undeclared is declared when it is asked for again.
    declarations::declare_type::<M, T>(core);
    let value = raw::root_value(core.medium(), Span::new(root.offset, root.size_bytes()));
    value.ok_or_else(|| Error::corrupted(root.offset, "a root can't hold a value of its type"))
}
