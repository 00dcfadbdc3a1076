//! Maps of heaps: figures, text and a picture of what each part of a heap is. Volatile.
//!
//! | file | what it does |
//! |---|---|
//! | [`summary`] | the parts of a heap added up by what they are |
//! | [`grid`] | the data area cut into cells that stand for equally many bytes |
//! | [`svg`] | the grid and the figures as a picture |
//! | [`text`] | the same for a terminal |

mod grid;
mod summary;
mod svg;
mod text;

pub(crate) use self::{summary::Summary, svg::svg, text::text};
