//! What a durable store survives: the durability of a mapping, how it is chosen and how it is detected.
//!
//! Durability is a property of the mapping, not of the build: the same program is power-safe on a DAX file
//! and survives only its own death on a file in the page cache. Everything here is volatile; a mapping
//! carries its [`Durability`], and nothing of it is stored.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// What a store that was flushed and fenced survives on a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Persistent memory behind volatile caches: a persist is a flush of each line and a fence.
    PowerFail,
    /// Persistent memory whose persistence domain contains the caches: a persist is a fence.
    Eadr,
    /// Memory that the kernel keeps when a process dies: a persist costs nothing.
    ProcessCrash,
    /// As [`ProcessCrash`](Self::ProcessCrash), and an explicit sync writes everything to the disk.
    Msync,
}

impl Durability {
    /// What a durable store survives, in plain words.
    #[must_use]
    pub fn survives(self) -> &'static str {
        match self {
            Self::PowerFail | Self::Eadr => "a loss of power, and the death of the process",
            Self::ProcessCrash => "the death of the process, not a loss of power",
            Self::Msync => {
                "the death of the process; a loss of power only if nothing was written since the last sync"
            }
        }
    }

    /// The name that the command line uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerFail => "powerfail",
            Self::Eadr => "eadr",
            Self::ProcessCrash => "process",
            Self::Msync => "msync",
        }
    }

    /// Whether a durable store survives a loss of power without a sync.
    #[must_use]
    pub fn is_power_safe(self) -> bool {
        matches!(self, Self::PowerFail | Self::Eadr)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The durability that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DurabilityChoice {
    /// The best that the mapping really has: power-safe on DAX, else [`Durability::ProcessCrash`].
    #[default]
    Auto,
    /// [`Durability::PowerFail`], or an error where the mapping isn't DAX.
    PowerFail,
    /// [`Durability::Eadr`], or an error where the caches aren't in the persistence domain.
    Eadr,
    /// [`Durability::ProcessCrash`], wherever the file is.
    ProcessCrash,
    /// [`Durability::Msync`], wherever the file is.
    Msync,
}

impl DurabilityChoice {
    /// The durability asked for by name, if it isn't left open.
    #[must_use]
    pub fn wanted(self) -> Option<Durability> {
        match self {
            Self::Auto => None,
            Self::PowerFail => Some(Durability::PowerFail),
            Self::Eadr => Some(Durability::Eadr),
            Self::ProcessCrash => Some(Durability::ProcessCrash),
            Self::Msync => Some(Durability::Msync),
        }
    }

    /// The durability of a mapping that offers `offered`, or the one that would have to be forced.
    pub(crate) fn resolve(self, offered: Durability) -> Result<Durability, Durability> {
        match self.wanted() {
            None => Ok(offered),
            // Flushing what needs no flushing is slow, not wrong.
            Some(Durability::PowerFail) if offered.is_power_safe() => Ok(Durability::PowerFail),
            Some(wanted) if wanted.is_power_safe() && wanted != offered => Err(wanted),
            Some(wanted) => Ok(wanted),
        }
    }
}

/// What a mapping offers without any choice: `is_dax` says that the kernel granted a synchronous mapping,
/// `device` is the number of the device that holds the file.
pub(crate) fn offered(is_dax: bool, device: u64) -> Durability {
    if !is_dax {
        return Durability::ProcessCrash;
    }
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if caches_are_persistent(Path::new("/sys"), major, minor) {
        Durability::Eadr
    } else {
        Durability::PowerFail
    }
}

/// Whether the platform flushes the caches into the device `major:minor` when power fails.
///
/// The persistence domain is an attribute of the region that the block device's namespace lies in, so it is
/// looked for in the ancestors of the device. Where a device is made of others (device mapper), all of
/// them must agree. Whatever can't be read counts as "no": flushing needlessly is only slow.
fn caches_are_persistent(sys: &Path, major: u32, minor: u32) -> bool {
    let link = sys.join("dev/block").join(format!("{major}:{minor}"));
    let Ok(device) = fs::canonicalize(link) else { return false };
    device_caches_are_persistent(&device, MAX_STACKED_DEVICES)
}

/// Devices that may lie on top of each other; a bound against loops.
const MAX_STACKED_DEVICES: u32 = 8;

fn device_caches_are_persistent(device: &Path, depth: u32) -> bool {
    let parts = parts_of(device);
    if parts.is_empty() {
        return device.ancestors().find_map(persistence_domain).as_deref() == Some("cpu_cache");
    }
    depth > 0 && parts.iter().all(|part| device_caches_are_persistent(part, depth - 1))
}

fn persistence_domain(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join("persistence_domain")).ok()?;
    Some(text.trim().to_owned())
}

fn parts_of(device: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(device.join("slaves")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok()).collect()
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ALL: [Durability; 4] =
        [Durability::PowerFail, Durability::Eadr, Durability::ProcessCrash, Durability::Msync];

    #[test]
    fn power_safety_is_never_granted_where_it_is_not_offered() {
        for offered in [Durability::PowerFail, Durability::Eadr, Durability::ProcessCrash] {
            assert_eq!(DurabilityChoice::Auto.resolve(offered), Ok(offered));
            assert_eq!(
                DurabilityChoice::ProcessCrash.resolve(offered),
                Ok(Durability::ProcessCrash)
            );
            assert_eq!(DurabilityChoice::Msync.resolve(offered), Ok(Durability::Msync));
        }
        let refused = DurabilityChoice::PowerFail.resolve(Durability::ProcessCrash);
        assert_eq!(refused, Err(Durability::PowerFail));
        let refused = DurabilityChoice::Eadr.resolve(Durability::PowerFail);
        assert_eq!(refused, Err(Durability::Eadr));
        let lowered = DurabilityChoice::PowerFail.resolve(Durability::Eadr);
        assert_eq!(lowered, Ok(Durability::PowerFail));
    }

    #[test]
    fn words_and_names_differ_and_only_two_are_power_safe() {
        for (i, one) in ALL.iter().enumerate() {
            for other in &ALL[i + 1..] {
                assert_ne!(one.to_string(), other.to_string());
            }
            assert_eq!(one.is_power_safe(), one.survives().starts_with("a loss of power"));
        }
    }

    /// A sysfs with pmem0 (259:0, `domain`), its partition (259:1), and dm-0 (252:0) over `parts`.
    fn fake_sys(domain: &str, parts: &[&str]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let root = sys.path();
        let region = root.join("devices/ndbus0/region0");
        let partition = region.join("namespace0.0/block/pmem0/pmem0p1");
        let disk = root.join("devices/pci0/block/sda");
        let mapper = root.join("devices/virtual/block/dm-0");
        for directory in [&partition, &disk, &mapper.join("slaves"), &root.join("dev/block")] {
            fs::create_dir_all(directory).expect("a directory");
        }
        fs::write(region.join("persistence_domain"), format!("{domain}\n")).expect("a file");
        let pmem = partition.parent().expect("a parent");
        for (number, device) in
            [("259:0", pmem), ("259:1", &partition), ("252:0", &mapper), ("8:0", &disk)]
        {
            symlink(device, root.join("dev/block").join(number)).expect("a link");
        }
        for part in parts {
            let target = if *part == "sda" { disk.as_path() } else { pmem };
            symlink(target, mapper.join("slaves").join(part)).expect("a link");
        }
        sys
    }

    #[test]
    fn the_domain_is_found_in_the_ancestors_of_the_device() {
        let sys = fake_sys("cpu_cache", &["pmem0"]);
        for (major, minor, expected) in
            [(259, 0, true), (259, 1, true), (252, 0, true), (8, 0, false), (1, 1, false)]
        {
            assert_eq!(
                caches_are_persistent(sys.path(), major, minor),
                expected,
                "{major}:{minor}"
            );
        }
    }

    #[test]
    fn a_controller_domain_or_one_ordinary_part_means_flushing() {
        let sys = fake_sys("memory_controller", &[]);
        assert!(!caches_are_persistent(sys.path(), 259, 0));
        let sys = fake_sys("cpu_cache", &["pmem0", "sda"]);
        assert!(!caches_are_persistent(sys.path(), 252, 0));
    }
}
