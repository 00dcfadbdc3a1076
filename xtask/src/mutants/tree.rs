//! A copy of the sources, in which faults are planted: the sources themselves are never changed.
//!
//! The copy stays, always at the same place and with its times of change, so that cargo builds next time only what
//! differs.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use xtask::install::{root, target};

/// Where everything of a campaign lies.
pub(super) fn folder() -> PathBuf {
    target().join("mutants")
}

/// `path`, whatever folder a program that is told of it runs in.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Brings the copy up to date and returns its place.
pub(super) fn copy() -> Result<PathBuf, String> {
    let (from, to) = (root(), folder().join("tree"));
    let files = sources(&from)?;
    update(&from, &to, &files)
        .map_err(|e| format!("can't copy the sources to {}: {e}", to.display()))?;
    Ok(to)
}

/// What git knows or would take: all but what is ignored.
fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output().map_err(|e| format!("can't run git: {e}"))?;
    if !output.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let listed = String::from_utf8(output.stdout).map_err(|e| format!("git: {e}"))?;
    let paths = listed.split_terminator('\0').map(PathBuf::from);
    Ok(paths.filter(|path| root.join(path).is_file()).collect())
}

/// Makes `to` hold the `files` of `from` and no other, and writes only those that differ.
fn update(from: &Path, to: &Path, files: &[PathBuf]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let wanted: HashSet<PathBuf> = files.iter().map(|file| to.join(file)).collect();
    remove_others(to, &wanted)?;
    for file in files {
        let (original, copy) = (from.join(file), to.join(file));
        if fs::read(&copy).is_ok_and(|old| fs::read(&original).is_ok_and(|new| old == new)) {
            continue;
        }
        fs::create_dir_all(copy.parent().expect("a file lies in a folder"))?;
        fs::copy(&original, &copy)?;
    }
    Ok(())
}

fn remove_others(folder: &Path, wanted: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_and_keeps_the_time_of_what_did_not_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("src")).expect("a folder");
        let [same, changed, gone] = ["same.rs", "src/changed.rs", "src/gone.rs"].map(PathBuf::from);
        for file in [&same, &changed, &gone] {
            fs::write(from.join(file), "old").expect("written");
        }
        update(&from, &to, &[same.clone(), changed.clone(), gone.clone()]).expect("copied");
        let time =
            |file: &Path| fs::metadata(to.join(file)).and_then(|m| m.modified()).expect("a time");
        let before = time(&same);

        fs::write(to.join(&changed), "a planted fault").expect("written");
        update(&from, &to, &[same.clone(), changed.clone()]).expect("copied");
        assert_eq!(time(&same), before);
        assert_eq!(fs::read_to_string(to.join(&changed)).expect("read"), "old");
        assert!(!to.join(&gone).exists());
    }
}
