//! What a file system does not promise of the memory that it gave: whether that can still be written when the file system
//! is full.

use core::fmt;
use std::os::fd::OwnedFd;

use rustix::{
    fs::{self, IFlags},
    io::Errno,
    ioctl::{self, Getter, Opcode, opcode},
};

use super::extents::shares_extents;

const BTRFS_MAGIC: u64 = 0x9123_683e;
const XFS_MAGIC: u64 = 0x5846_5342;
const BCACHEFS_MAGIC: u64 = 0xca45_1a4e;
const ZFS_MAGIC: u64 = 0x2fc1_2fc1;
const NILFS_MAGIC: u64 = 0x3434;
const REMOTE_MAGICS: [u64; 7] = [
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x6b41_4653, // AFS
];

/// Why a store into memory that a file has may still end the process with a bus error, or not end: the file system may want
/// room for it, and may be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// The file system writes every page to a new place.
    CopyOnWrite,
    /// Parts of the file are shared with a copy or a snapshot, and are moved when they are written.
    SharedExtents,
    /// The file system keeps its own notes and what files hold in the same groups of blocks (btrfs made by `mkfs.btrfs
    /// -M`), and wants room for notes when a page is written.
    MixedGroups,
    /// The file system has room for what the file has, and looks for more before it finds that (btrfs).
    WaitsForRoom,
    /// The file lies on another machine, or with another process, which may run out of room unnoticed.
    Remote,
}

impl Warning {
    /// A word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CopyOnWrite => "copy-on-write",
            Self::SharedExtents => "shared-extents",
            Self::MixedGroups => "mixed-groups",
            Self::WaitsForRoom => "waits-for-room",
            Self::Remote => "remote",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CopyOnWrite => {
                "the file system writes each page to a new place, and if it is full, a program that stores into the heap \
                 dies of SIGBUS: keep room free, or make the heap where copy-on-write is off (on btrfs, `chattr +C`)"
            }
            Self::SharedExtents => {
                "parts of the file are shared with a snapshot or a reflink copy, and if the file system is full, a \
                 program that stores into the heap dies of SIGBUS: keep room free, or remove the other copy"
            }
            Self::MixedGroups => {
                "the file system was made with mixed block groups (`mkfs.btrfs -M`), and if it is full, a program that \
                 stores into the heap dies of SIGBUS: keep room free, or use one that was made without"
            }
            Self::WaitsForRoom => {
                "if the file system is full, a program that stores into the heap waits for each page until all of the \
                 file system is written, and with a store across two pages until there is room again: keep room free, or \
                 use another file system"
            }
            Self::Remote => {
                "the file system is not this machine's own, and if it is full, a program that stores into the heap may \
                 die of SIGBUS: keep room free, or use a local file system"
            }
        })
    }
}

/// What is to be warned of for `file`.
pub(super) fn warnings(file: &OwnedFd) -> Vec<Warning> {
    let magic = magic(file);
    let mut warnings = Vec::new();
    if copies_on_write(file, magic) {
        warnings.push(Warning::CopyOnWrite);
    } else if magic == BTRFS_MAGIC && shares_extents(file) {
        warnings.push(Warning::SharedExtents);
    }
    if magic == BTRFS_MAGIC && has_mixed_groups(file) {
        warnings.push(Warning::MixedGroups);
    }
    // A page that is stored to is given room first of all, for which a full btrfs writes back all it can, and takes the right
    // to store from the pages that it wrote. Where a store needs two pages, each takes it from the other, over and over.
    if magic == BTRFS_MAGIC && warnings.is_empty() {
        warnings.push(Warning::WaitsForRoom);
    }
    if REMOTE_MAGICS.contains(&magic) {
        warnings.push(Warning::Remote);
    }
    warnings
}

/// Turns copy-on-write off for a new and empty `file`, if its file system has such a switch.
pub(super) fn write_in_place(file: &OwnedFd) {
    if magic(file) == BTRFS_MAGIC
        && let Ok(flags) = fs::ioctl_getflags(file)
    {
        // Where it is refused, the file works all the same, and is warned of.
        let _ = fs::ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

/// Whether `file` has parts in common with another one, of which it can be given copies of its own.
pub(super) fn can_unshare(file: &OwnedFd) -> bool {
    magic(file) == XFS_MAGIC && shares_extents(file)
}

fn magic(file: &OwnedFd) -> u64 {
    // The type is a signed word of which 32 bits count.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "only the bits count")]
    fs::fstatfs(file).map_or(0, |stat| stat.f_type as u64 & 0xffff_ffff)
}

fn copies_on_write(file: &OwnedFd, magic: u64) -> bool {
    match magic {
        BTRFS_MAGIC => {
            let is_off = fs::ioctl_getflags(file).is_ok_and(|flags| flags.contains(IFlags::NOCOW));
            !(is_off && release().is_some_and(|release| release >= BTRFS_IN_PLACE))
        }
        BCACHEFS_MAGIC | ZFS_MAGIC | NILFS_MAGIC => true,
        _ => false,
    }
}

/// `struct btrfs_ioctl_feature_flags` of `linux/btrfs.h`.
#[repr(C)]
struct Features {
    compatible: u64,
    compatible_if_read: u64,
    incompatible: u64,
}

const GET_FEATURES: Opcode = opcode::read::<Features>(0x94, 57);

/// Among the features that a kernel has to know.
const MIXED_GROUPS: u64 = 1 << 2;

/// Whether the btrfs of `file` has mixed block groups.
fn has_mixed_groups(file: &OwnedFd) -> bool {
    features(file).is_ok_and(|features| features.incompatible & MIXED_GROUPS != 0)
}

fn features(file: &OwnedFd) -> Result<Features, Errno> {
    // SAFETY:
    // 1. the number is that of `BTRFS_IOC_GET_FEATURES`;
    // 2. the kernel writes three words, which may have any value.
    let getter = unsafe { Getter::<GET_FEATURES, Features>::new() };
    // SAFETY: as for the getter, which changes nothing but its answer.
    unsafe { ioctl::ioctl(file, getter) }
}

/// The first Linux whose btrfs asks for no room when a page is stored to for which copy-on-write is off.
const BTRFS_IN_PLACE: (u32, u32) = (6, 17);

/// The version of the running kernel.
fn release() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(['.', '-', '\n']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_warning_has_a_name_and_says_what_happens_and_what_to_do() {
        let all = [
            Warning::CopyOnWrite,
            Warning::SharedExtents,
            Warning::MixedGroups,
            Warning::WaitsForRoom,
            Warning::Remote,
        ];
        for warning in all {
            let text = warning.to_string();
            let happens = if warning == Warning::WaitsForRoom { "waits" } else { "SIGBUS" };
            assert!(text.contains(happens) && text.contains("keep room free"), "{text}");
            assert!(!warning.name().contains(' '));
        }
    }

    #[test]
    fn the_kernel_says_its_version() {
        assert!(release().is_some_and(|release| release > (3, 0)));
    }
}
