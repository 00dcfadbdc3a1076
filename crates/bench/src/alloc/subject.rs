//! Who is measured, by name. Volatile.

use std::fmt;

use pmalloc::{HeapOptions, Policy};
use pmalloc_bench_peers::Peer;
use serde::{Deserialize, Serialize, de};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The heap of this project, through its public interface, with this policy.
    Heap(Policy),
    /// Nobody: each operation is one bare persist, the least that a durable operation costs.
    Bare,
    /// A volatile allocator whose pointers are stored into the heap's file and made durable there.
    Pointer(Peer),
}

impl Subject {
    /// The name, as results have it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Heap(HeapOptions::POLICY_DEFAULT) => "pmalloc".into(),
            Self::Heap(policy) => format!("pmalloc-{}", policy.name()),
            Self::Bare => "bare".into(),
            Self::Pointer(peer) => format!("{peer}{POINTER_SUFFIX}"),
        }
    }

    /// Whether it is the heap of this project.
    #[must_use]
    pub fn is_heap(self) -> bool {
        matches!(self, Self::Heap(_))
    }

    /// The subject of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(policy) = name.strip_prefix("pmalloc-") {
            return Policy::from_name(policy).map(Self::Heap);
        }
        match name {
            "pmalloc" => Some(Self::Heap(HeapOptions::POLICY_DEFAULT)),
            "bare" => Some(Self::Bare),
            _ => Peer::from_name(name.strip_suffix(POINTER_SUFFIX)?).map(Self::Pointer),
        }
    }
}

/// What marks the name of a volatile allocator whose pointers are made durable.
const POINTER_SUFFIX: &str = "+pointer";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name)
            .ok_or_else(|| de::Error::custom(format!("no allocator is called {name}")))
    }
}
