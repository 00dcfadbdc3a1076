//! Names of roots: which a program may give, and which are the heap's own.

use crate::{
    error::{Error, Result},
    layout::{declared::OWN_PREFIX, root::ROOT_NAME_MAX_BYTES},
};

/// Whether a root of this name is the heap's, and not the program's.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// Refuses a name that no root of a program can have.
pub(crate) fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > ROOT_NAME_MAX_BYTES || name.contains('\0') {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; a name has 1 to {ROOT_NAME_MAX_BYTES} bytes and no NUL"),
        });
    }
    if is_own(name) {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; names that begin with {OWN_PREFIX:?} are the heap's own"),
        });
    }
    Ok(())
}
