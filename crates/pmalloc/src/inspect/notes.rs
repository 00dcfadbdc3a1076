//! What a salvage lost, kept in a text file beside the heap until somebody removes it: a program that salvages and dies, or
//! whose terminal is closed, must not be the only one that knew.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::problem::{Problem, ProblemKind};
use crate::error::{Error, Result};

/// The first line of the file.
const TITLE: &str = "# What salvaging this heap came to. Remove this file when you have read it.";

/// The file.
#[derive(Debug)]
pub(crate) struct Notes(PathBuf);

/// The name of the heap at `path` with `suffix` behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// What stands in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// What could not be kept.
    pub(crate) lost: Vec<Problem>,
    /// What was mended.
    pub(crate) repaired: Vec<Problem>,
}

impl Notes {
    /// The file beside the heap at `path`.
    pub(crate) fn beside(path: &Path) -> Self {
        Self(beside(path, ".salvaged"))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is.
    pub(crate) fn into_path(self) -> PathBuf {
        self.0
    }

    /// What stands in the file, if it is there.
    pub(crate) fn read(&self) -> Result<Option<Noted>> {
        Ok(self.text()?.map(|text| Noted::parse(&text)))
    }

    /// Adds what a salvage came to, durably, and returns what the file held before.
    ///
    /// # Crash consistency
    ///
    /// Atomic: the file is as before, or holds all of it as well.
    pub(crate) fn add(&self, lost: &[Problem], repaired: &[Problem]) -> Result<Option<String>> {
        let before = self.text()?;
        let mut noted = before.as_deref().map(Noted::parse).unwrap_or_default();
        // A salvage that was cut off behind this may have noted the same.
        let add = |to: &mut Vec<Problem>, from: &[Problem]| {
            let new: Vec<_> =
                from.iter().filter(|problem| !to.contains(problem)).cloned().collect();
            to.extend(new);
        };
        add(&mut noted.lost, lost);
        add(&mut noted.repaired, repaired);
        match self.write(&noted.render()) {
            Ok(()) => Ok(before),
            Err(source) => {
                self.restore(before);
                Err(error("writing what a salvage lost")(source))
            }
        }
    }

    /// Makes the file hold `before` again: what was noted has not happened.
    pub(crate) fn restore(&self, before: Option<String>) {
        // The error that made it necessary is told; notes too many tell of damage that is still there.
        let _ = match before {
            Some(text) => self.write(&text),
            None => fs::remove_file(&self.0),
        };
    }

    fn text(&self) -> Result<Option<String>> {
        match fs::read(&self.0) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error("reading what an earlier salvage lost")(source)),
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let new = beside(&self.0, ".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // CRASH: the old notes or the new ones, whole.
            fs::rename(&new, &self.0)
        };
        // A part of it is of no use to anybody.
        written().inspect_err(|_| drop(fs::remove_file(&new)))?;
        let directory = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn error(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    Error::io(doing)
}

impl Noted {
    fn render(&self) -> String {
        let line = |what: &str, problem: &Problem| {
            let text = problem.text.replace('\n', " ");
            format!("{what} {} {:#x} {text}\n", problem.kind.name(), problem.offset)
        };
        let lost = self.lost.iter().map(|problem| line("lost", problem));
        let lines: String =
            lost.chain(self.repaired.iter().map(|problem| line("repaired", problem))).collect();
        format!("{TITLE}\n{lines}")
    }

    /// Whatever is not as [`render`](Self::render) wrote it is told as it stands: somebody may have edited the file.
    fn parse(text: &str) -> Self {
        let mut noted = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            match parse_line(line) {
                Some(("repaired", problem)) => noted.repaired.push(problem),
                Some(("lost", problem)) => noted.lost.push(problem),
                _ => noted.lost.push(Problem::damaged(0, line.to_owned())),
            }
        }
        noted
    }
}

fn parse_line(line: &str) -> Option<(&str, Problem)> {
    let mut parts = line.splitn(4, ' ');
    let (what, kind) = (parts.next()?, ProblemKind::of_name(parts.next()?)?);
    let offset = u64::from_str_radix(parts.next()?.strip_prefix("0x")?, 16).ok()?;
    Some((what, Problem { kind, offset, text: parts.next()?.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let problem = |kind, offset, text: &str| Problem { kind, offset, text: text.into() };
        let noted = Noted {
            lost: vec![
                problem(ProblemKind::PowerLoss, 0x2000, "power was lost"),
                problem(ProblemKind::SharedBlock, 0, "two slots, and more"),
            ],
            repaired: vec![problem(ProblemKind::Damaged, u64::MAX, "a superblock copy")],
        };
        assert_eq!(Noted::parse(&noted.render()), noted);
        let edited = Noted::parse("# a title\n\nwe know about this\nlost what 0x1 x\n");
        assert_eq!(edited.lost.len(), 2);
        assert_eq!(edited.lost[0].text, "we know about this");
    }
}
