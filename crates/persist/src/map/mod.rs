//! Mappings: where durable memory comes from.

mod anon;

pub use anon::Anon;
