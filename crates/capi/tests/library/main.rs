//! The C library as it is installed, and the programs that are compiled against it.

mod common;
mod mirror;

mod header;
mod install;
mod killed;
mod programs;
mod rust;
mod valgrind;
