//! Where the slots of a type are.

/// Where the slots of a type are.
///
/// A tree and not a list of offsets, because the length of an array's list can't be computed at compile time.
#[derive(Debug, Clone, Copy)]
pub enum SlotMap {
    /// There is none.
    None,
    /// The type is a slot.
    Slot,
    /// In fields, at these bytes.
    Fields(&'static [(usize, Self)]),
    /// In each element of an array.
    Array {
        /// Elements.
        count: usize,
        /// Bytes from one to the next.
        stride_bytes: usize,
        /// Where in an element.
        of: &'static Self,
    },
}

impl SlotMap {
    /// Whether there is no slot.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Slot => false,
            Self::Array { count, of, .. } => *count == 0 || of.is_empty(),
            Self::Fields(fields) => {
                let mut at = 0;
                while at < fields.len() {
                    if !fields[at].1.is_empty() {
                        return false;
                    }
                    at += 1;
                }
                true
            }
        }
    }

    /// Calls `visit` with the byte of each slot, in ascending order, until it returns true; returns whether it did.
    pub(crate) fn any(&self, at_byte: usize, visit: &mut dyn FnMut(usize) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::Slot => visit(at_byte),
            Self::Fields(fields) => {
                fields.iter().any(|(field, slots)| slots.any(at_byte + field, visit))
            }
            Self::Array { of, .. } if of.is_empty() => false,
            Self::Array { count, stride_bytes, of } => {
                (0..*count).any(|nth| of.any(at_byte + nth * stride_bytes, visit))
            }
        }
    }

    /// The bytes at which the slots are, in ascending order.
    #[must_use]
    pub fn offsets(&self) -> Vec<usize> {
        let mut offsets = Vec::new();
        self.any(0, &mut |at| {
            offsets.push(at);
            false
        });
        offsets
    }
}
