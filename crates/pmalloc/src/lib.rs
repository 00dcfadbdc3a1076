//! A persistent heap.
#![deny(unsafe_code)]
