//! Files as memory, and the medium that counts.

#[path = "../common/mod.rs"]
mod common;

mod mapped;
mod media_file;
mod traced;
