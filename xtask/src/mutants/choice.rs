//! Which faults a campaign was begun with: one that is gone on with must choose the same.
//!
//! cargo-mutants is told of the faults that were not chosen as of such that it noticed before. Whoever goes on with another
//! choice would be told that they were noticed, and none of them was ever planted.

use std::{collections::HashSet, fmt, fs, io, path::Path};

/// The file beside cargo-mutants' folder with the names of the faults that were chosen.
const CHOICE: &str = "chosen.txt";

/// Why a campaign can't be gone on with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// None was begun.
    NoneBegun,
    /// It was begun with another choice.
    Differs {
        /// Faults that are chosen now and were not then.
        new: usize,
        /// Faults that were chosen then and are not now.
        gone: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoneBegun => f.write_str("no campaign was begun")?,
            Self::Differs { new, gone } => write!(
                f,
                "the campaign that was stopped was another: {new} faults are chosen that were not chosen then, and \
                 {gone} are not that were"
            )?,
        }
        f.write_str(
            "; give the --file and --sample that it was begun with, over the same sources, or leave out --resume to begin anew",
        )
    }
}

/// Notes in `folder` that a campaign begins with the faults `chosen`.
pub(super) fn write(folder: &Path, chosen: &HashSet<String>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut names: Vec<&str> = chosen.iter().map(String::as_str).collect();
    names.sort_unstable();
    let lines: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    fs::write(folder.join(CHOICE), lines)
}

/// Sees whether the campaign in `folder` was begun with the faults `chosen`.
pub(super) fn compare(folder: &Path, chosen: &HashSet<String>) -> io::Result<Result<(), Refusal>> {
    let text = match fs::read_to_string(folder.join(CHOICE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(Refusal::NoneBegun));
        }
        text => text?,
    };
    let then: HashSet<&str> = text.lines().collect();
    let new = chosen.iter().filter(|name| !then.contains(name.as_str())).count();
    let gone = then.iter().filter(|name| !chosen.contains(**name)).count();
    Ok(if (new, gone) == (0, 0) { Ok(()) } else { Err(Refusal::Differs { new, gone }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// What was not planted used to count as noticed.
    #[test]
    fn only_what_was_begun_is_gone_on_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("package");
        let compare = |chosen: &[&str]| compare(&folder, &names(chosen)).expect("readable");
        assert_eq!(compare(&[]), Err(Refusal::NoneBegun));
        write(&folder, &names(&["a", "b"])).expect("written");
        assert_eq!(compare(&["b", "a"]), Ok(()));
        assert_eq!(compare(&["a"]), Err(Refusal::Differs { new: 0, gone: 1 }));
        assert_eq!(compare(&["a", "b", "c"]), Err(Refusal::Differs { new: 1, gone: 0 }));
        let refused = compare(&["c"]).expect_err("another choice").to_string();
        assert!(refused.contains("1 faults") && refused.contains("--resume"), "{refused}");
        // A choice of nothing is one as well: what was begun before does not count any more.
        write(&folder, &names(&[])).expect("written");
        assert_eq!(compare(&["a"]), Err(Refusal::Differs { new: 1, gone: 0 }));
        assert_eq!(compare(&[]), Ok(()));
    }
}
