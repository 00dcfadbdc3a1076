//! What explores the heap, explored: that it reaches what it should, leaves out nothing, and notices what is planted.

mod alphabet;
mod cache;
mod eager;
mod smoke;
