//! Where a replay keeps what it removes at its end: a temporary directory, in memory if possible.
//! Volatile, but for a heap that is kept.

use std::{
    env,
    path::{Path, PathBuf},
};

use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::{exit::Failure, output};

/// Preferred place: memory, so that no disk is worn and no disk is measured.
const SHARED_MEMORY: &str = "/dev/shm";

/// Space that is asked for beyond what the trace itself needs, in bytes.
const HEADROOM_BYTES: u64 = 64 << 20;

/// Space that a replay needs, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Without so much the trace can't be replayed.
    pub(super) least_bytes: u64,
    /// With so much it can, whichever thread runs ahead.
    pub(super) most_bytes: u64,
}

/// A temporary directory, and where the heap is.
#[derive(Debug)]
pub(super) struct Scratch {
    directory: TempDir,
    heap: PathBuf,
    asked_for: Option<PathBuf>,
}

impl Scratch {
    /// A scratch directory, with the heap in it unless a place was `asked_for`.
    pub(super) fn new(asked_for: Option<&Path>, need: Need) -> Result<Self, Failure> {
        if let Some(path) = asked_for {
            require_absent(path)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            require_space(parent.unwrap_or(Path::new(".")), need.least_bytes)?;
        }
        let directory = make_directory(need)?;
        let heap = asked_for.map_or_else(|| directory.path().join("heap"), Path::to_owned);
        Ok(Self { directory, heap, asked_for: asked_for.map(Path::to_owned) })
    }

    /// The heap's file.
    pub(super) fn heap(&self) -> &Path {
        &self.heap
    }

    /// A file in the directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether the heap is one that the user named, and so stays.
    pub(super) fn heap_stays(&self) -> bool {
        self.asked_for.is_some()
    }

    /// Keeps the directory, heap and all.
    pub(super) fn keep(self) -> PathBuf {
        let _ = self.directory.keep();
        self.heap
    }
}

fn require_absent(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!(
            "{} exists: a replay makes its own heap, give a path that is free",
            path.display()
        )));
    }
    Ok(())
}

/// In memory if there is certainly enough, else where there may be enough.
fn make_directory(need: Need) -> Result<TempDir, Failure> {
    let (in_memory, elsewhere) = (Path::new(SHARED_MEMORY), env::temp_dir());
    for (parent, need_bytes) in [
        (in_memory, need.most_bytes),
        (&*elsewhere, need.least_bytes),
        (in_memory, need.least_bytes),
    ] {
        if require_space(parent, need_bytes).is_ok()
            && let Ok(directory) = directory_in(parent)
        {
            return Ok(directory);
        }
    }
    require_space(&elsewhere, need.least_bytes)?;
    directory_in(&elsewhere).map_err(Failure::io(format!("use {}", elsewhere.display())))
}

fn directory_in(parent: &Path) -> std::io::Result<TempDir> {
    // The process id tells whose it is, should it ever be left behind.
    let prefix = format!("pmalloc-replay-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)
}

/// A file system that is too small is refused before the heap fills it to the brim.
fn require_space(directory: &Path, need_bytes: u64) -> Result<(), Failure> {
    let stat = statvfs(directory)
        .map_err(|errno| Failure::io(format!("use {}", directory.display()))(errno.into()))?;
    let need_bytes = need_bytes.saturating_add(HEADROOM_BYTES);
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < need_bytes {
        return Err(Failure::Io {
            doing: format!("use {}", directory.display()),
            source: std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                format!(
                    "the trace needs {}, and {} are free",
                    output::bytes(need_bytes),
                    output::bytes(free_bytes)
                ),
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_unless_it_is_kept() {
        let scratch = Scratch::new(None, Need { least_bytes: 0, most_bytes: 0 })
            .expect("some temporary place");
        let place = scratch.file("journal");
        std::fs::write(&place, b"x").expect("a file in it");
        drop(scratch);
        assert!(!place.exists());
    }

    #[test]
    fn no_file_system_has_room_for_everything() {
        let error = Scratch::new(None, Need { least_bytes: u64::MAX, most_bytes: u64::MAX })
            .expect_err("no room");
        assert!(error.to_string().contains("are free"), "{error}");
    }
}
