//! Is it a heap, and which? The superblock, from either copy.

use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        superblock::{Header, SUPERBLOCK_WORDS},
    },
};

/// Byte offsets of the superblock copies, the preferred one first.
pub(crate) const fn superblock_places() -> [u64; 2] {
    [0, Geometry::second_superblock()]
}

/// What the first valid copy says. `copies` are the words at [`superblock_places`].
///
/// # Errors
///
/// The first copy's error if neither is valid, but the second's if that one at least looks like a heap, or like one that
/// a newer program wrote.
pub(crate) fn identify(copies: &[[u64; SUPERBLOCK_WORDS]; 2]) -> Result<Header> {
    let places = superblock_places();
    Header::decode(&copies[0], places[0]).or_else(|first| {
        Header::decode(&copies[1], places[1]).map_err(|second| match (&first, &second) {
            (Error::NotAHeap { .. }, _) | (_, Error::Version { .. }) => second,
            _ => first,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::superblock::Model;

    #[test]
    fn either_copy_identifies_the_heap() {
        let header = Header {
            uuid: 7,
            model: Model::Log,
            created_s: 0,
            layout_name: String::new(),
            geometry: crate::tests::small_geometry(),
        };
        let copies = superblock_places().map(|place| header.encode(place));
        let none = [0; SUPERBLOCK_WORDS];
        assert_eq!(identify(&copies).expect("both"), header);
        assert_eq!(identify(&[none, copies[1]]).expect("second"), header);
        assert_eq!(identify(&[copies[0], none]).expect("first"), header);
        assert!(matches!(identify(&[none, none]), Err(Error::NotAHeap { .. })));
    }
}
