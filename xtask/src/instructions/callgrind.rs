//! Runs a program under callgrind and reads what it counted.
//!
//! A program calls a marked function for each operation, and prints the operation's name and number when it has. Callgrind
//! counts while the function runs and writes a file when it ends: the n-th file is of the n-th line.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::Count;

/// The line of a file that has the sum.
const TOTALS: &str = "totals: ";

/// A program to be counted.
#[derive(Debug)]
pub(super) struct Program {
    /// The program; its argument is an empty folder.
    pub(super) path: PathBuf,
    /// The function around the operations, as callgrind calls it. A pattern would not match here.
    pub(super) measured: &'static str,
    /// Where callgrind writes its files.
    pub(super) folder: PathBuf,
}

/// Whether there is a valgrind.
pub(super) fn is_installed() -> bool {
    let mut command = Command::new("valgrind");
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Program {
    /// Runs it; returns what was counted of each operation.
    pub(super) fn run(&self) -> Result<Vec<Count>, String> {
        let trouble = |error: io::Error| format!("{}: {error}", self.folder.display());
        // Files of an earlier run would be taken for those of this one.
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(trouble)?;
        }
        fs::create_dir_all(&self.folder).map_err(trouble)?;
        let heap = scratch().map_err(|error| format!("no folder for a heap: {error}"))?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--dump-instr=yes"]);
        for option in ["toggle-collect", "dump-after"] {
            command.arg(format!("--{option}={}", self.measured));
        }
        command.arg(format!("--callgrind-out-file={}", self.file().display()));
        command.arg(&self.path).arg(heap.path());
        let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}\n{said}", output.status));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        printed.lines().enumerate().map(|(at, line)| self.count(at, line)).collect()
    }

    /// Callgrind's name for its files, to which it adds their numbers.
    fn file(&self) -> PathBuf {
        self.folder.join("out")
    }

    /// What was counted of the operation that the program printed as `line`, its number `at` from zero.
    fn count(&self, at: usize, line: &str) -> Result<Count, String> {
        let path = self.file().with_added_extension((at + 1).to_string());
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        count(line, &text).ok_or_else(|| {
            let program = self.path.display();
            format!("{program} said {line:?}, and {} tells no count", path.display())
        })
    }
}

/// A folder for the heap: in memory where there is such a file system, as for benchmarks. In a page cache every operation
/// passes a gate in addition, which keeps `sync` apart.
fn scratch() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

/// The count that callgrind's file `text` has for the operation that was printed as `line`.
fn count(line: &str, text: &str) -> Option<Count> {
    let (operation, operations) = line.split_once('\t')?;
    let operations: u64 = operations.parse().ok().filter(|&number| number > 0)?;
    let totals = text.lines().find_map(|line| line.strip_prefix(TOTALS))?;
    // Nothing is counted if the function has another name than callgrind was told.
    let instructions: u64 = totals.parse().ok().filter(|&number| number > 0)?;
    Some(Count { operation: operation.into(), instructions: instructions / operations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_the_instructions_of_one_operation() {
        let expected = Count { operation: "pin".into(), instructions: 12 };
        assert_eq!(count("pin\t10", "version: 1\nsummary: 7\n\ntotals: 129\n"), Some(expected));
    }

    #[test]
    fn what_was_not_counted_is_no_count() {
        for (line, text) in [
            ("pin\t10", "totals: 0"),
            ("pin\t0", "totals: 10"),
            ("pin 10", "totals: 10"),
            ("pin\t10", "summary: 10"),
        ] {
            assert_eq!(count(line, text), None, "{line} {text}");
        }
    }
}
