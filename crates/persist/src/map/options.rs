//! How a file is to be mapped.

use crate::{Access, Durability, DurabilityChoice};

/// How a [`MediaFile`](crate::MediaFile) is to be mapped.
///
/// # Examples
///
/// ```
/// use pmalloc_persist::{DurabilityChoice, MapOptions};
///
/// // DRAM that plays persistent memory, for a benchmark: every persist costs what it would cost there.
/// let options = MapOptions::new(1 << 30)
///     .durability(DurabilityChoice::PowerFail)
///     .unsafe_force_durability();
/// ```
///
/// A durability is one of four; there is no fifth:
///
/// ```compile_fail
/// use pmalloc_persist::{DurabilityChoice, MapOptions};
///
/// let options = MapOptions::new(1 << 30).durability(DurabilityChoice::Always);
/// ```
#[derive(Debug, Clone)]
pub struct MapOptions {
    pub(super) reserve_len: u64,
    pub(super) access: Option<Access>,
    choice: DurabilityChoice,
    force: Force,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    OnlyIfReal,
    EvenIfUnsafe,
}

/// The durability that a mapping got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) durability: Durability,
    pub(super) is_forced: bool,
}

impl MapOptions {
    /// Reserves `reserve_len_bytes` of address space, rounded up to pages: the length that the file may
    /// grow to. The file's own access, the durability that the mapping really has.
    #[must_use]
    pub fn new(reserve_len_bytes: u64) -> Self {
        Self {
            reserve_len: reserve_len_bytes,
            access: None,
            choice: DurabilityChoice::Auto,
            force: Force::OnlyIfReal,
        }
    }

    /// Maps with `access`, which may be less than the file was opened with.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Asks for a durability.
    #[must_use]
    pub fn durability(mut self, choice: DurabilityChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Takes the durability asked for even where the memory doesn't have it.
    ///
    /// Flush and fence then do all their work, and a loss of power destroys the data all the same: this is
    /// how DRAM stands in for persistent memory in benchmarks and tests. Memory safety is not at stake.
    #[must_use]
    pub fn unsafe_force_durability(mut self) -> Self {
        self.force = Force::EvenIfUnsafe;
        self
    }

    /// The durability of a mapping that offers `offered`, or the one that would have to be forced.
    pub(super) fn grant(&self, offered: Durability) -> Result<Granted, Durability> {
        match self.choice.resolve(offered) {
            Ok(durability) => Ok(Granted { durability, is_forced: false }),
            Err(durability) if self.force == Force::EvenIfUnsafe => {
                Ok(Granted { durability, is_forced: true })
            }
            Err(wanted) => Err(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_offered_counts_as_forced() {
        let options =
            MapOptions::new(1).durability(DurabilityChoice::Eadr).unsafe_force_durability();
        for (offered, is_forced) in [
            (Durability::Eadr, false),
            (Durability::PowerFail, true),
            (Durability::ProcessCrash, true),
        ] {
            let granted = Granted { durability: Durability::Eadr, is_forced };
            assert_eq!(options.grant(offered), Ok(granted), "{offered}");
        }
        let gentle = MapOptions::new(1).durability(DurabilityChoice::Eadr);
        assert_eq!(gentle.grant(Durability::ProcessCrash), Err(Durability::Eadr));
    }
}
