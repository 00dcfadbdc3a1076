//! Mappings: where durable memory comes from.
//!
//! A [`MediaFile`] is created (and later published) or opened, and becomes a [`Mapped`] medium; [`Anon`] is
//! memory without a file. [`LazyTable`] and [`ForkMark`] are volatile companions of a mapping.

mod anon;
mod copy;
mod draft;
mod error;
mod extents;
mod file;
mod fork;
mod grow;
mod holes;
mod lazy_table;
mod mapped;
mod options;
mod place;
mod promise;
mod reservation;
mod storage;

pub use anon::Anon;
pub use copy::CopyProgress;
pub use error::{MapError, is_out_of_space};
pub use file::{Access, MediaFile, Owner};
pub use fork::ForkMark;
pub use lazy_table::LazyTable;
pub use mapped::Mapped;
pub use options::MapOptions;
pub use promise::Warning;
pub use reservation::has_addresses;
pub use storage::Storage;
