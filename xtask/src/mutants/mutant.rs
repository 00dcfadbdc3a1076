//! One planted fault, under a name that stays when lines around it come and go.

use std::{collections::HashMap, fmt, path::Path, process::Command, str::FromStr};

use super::campaign::{PACKAGES, Package};

/// The file, what is done there, and which of the places in the file where the same is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mutant {
    /// As cargo-mutants names it, with line and column.
    pub(super) name: String,
    file: String,
    what: String,
    number: usize,
}

impl Mutant {
    /// Whether the fault is planted in `package`.
    pub(super) fn is_in(&self, package: &Package) -> bool {
        self.file.starts_with(package.folder)
    }

    /// What names the fault in the list of survivors.
    pub(super) fn identity(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, what, number, .. } = self;
        write!(f, "{file} {number}: {what}")
    }
}

/// One of as many samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    index: u32,
    count: u32,
}

impl Sample {
    /// Whether a fault is in the sample: by its name alone, so that a change of the code changes only its own faults.
    pub(super) fn holds(self, mutant: &Mutant) -> bool {
        crc32c::crc32c(mutant.identity().as_bytes()) % self.count == self.index
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |number: &str| number.parse().map_err(|_| format!("{number} is no number"));
        let (index, count) = text.split_once('/').ok_or("samples are written as 0/100")?;
        match (parse(index)?, parse(count)?) {
            (index, count) if index < count => Ok(Self { index, count }),
            (_, count) => {
                Err(format!("samples of {count} are counted from 0 to {}", i64::from(count) - 1))
            }
        }
    }
}

/// All faults in the `tree`, or those in `files`.
pub(super) fn list(tree: &Path, files: &[String]) -> Result<Vec<Mutant>, String> {
    let mut command = Command::new("cargo-mutants");
    command.args(["mutants", "--list", "--colors=never"]).current_dir(tree);
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package.name]));
    command.args(files.iter().flat_map(|file| ["--file", file]));
    let output = command.output().map_err(|e| {
        format!(
            "can't run cargo-mutants, of which .ci/run names the version that is used here: {e}"
        )
    })?;
    if !output.status.success() {
        return Err(format!("cargo-mutants: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let listed = String::from_utf8(output.stdout).map_err(|e| format!("cargo-mutants: {e}"))?;
    let parsed = parse(&listed);
    parsed.ok_or_else(|| "cargo-mutants lists faults in a form that is not known".to_owned())
}

fn parse(listed: &str) -> Option<Vec<Mutant>> {
    let mut found = Vec::new();
    for name in listed.lines() {
        let (at, what) = name.split_once(": ")?;
        let [file, line, column] = at.split(':').collect::<Vec<_>>().try_into().ok()?;
        let place: (u32, u32) = (line.parse().ok()?, column.parse().ok()?);
        let [name, file, what] = [name, file, what].map(str::to_owned);
        found.push((place, Mutant { name, file, what, number: 0 }));
    }
    // They are not listed in the order of their places.
    found.sort_by(|(a, one), (b, other)| (&one.file, a).cmp(&(&other.file, b)));
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    for (_, mutant) in &mut found {
        let number = seen.entry((mutant.file.clone(), mutant.what.clone())).or_default();
        *number += 1;
        mutant.number = *number;
    }
    Some(found.into_iter().map(|(_, mutant)| mutant).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The faults at these places, each of which swaps the same operator of the same function.
    pub(in crate::mutants) fn swaps(places: &[&str]) -> Vec<Mutant> {
        let names = places.iter().map(|at| format!("src/a.rs:{at}: replace < with > in f\n"));
        parse(&names.collect::<String>()).expect("well-formed")
    }

    #[test]
    fn faults_are_numbered_by_their_places_and_keep_their_names_when_lines_move() {
        let identities =
            |places: &[&str]| swaps(places).iter().map(Mutant::identity).collect::<Vec<_>>();
        let found = swaps(&["10:4", "9:8", "9:30"]);
        assert_eq!(found[0].name, "src/a.rs:9:8: replace < with > in f");
        assert_eq!(found[2].identity(), "src/a.rs 3: replace < with > in f");
        assert_eq!(identities(&["10:4", "9:8", "9:30"]), identities(&["19:8", "19:30", "27:4"]));
    }

    #[test]
    fn every_fault_is_in_one_sample() {
        let places: Vec<String> = (1..500).map(|line| format!("{line}:1")).collect();
        let faults = swaps(&places.iter().map(String::as_str).collect::<Vec<_>>());
        let samples: Vec<Sample> =
            (0..7).map(|k| format!("{k}/7").parse().expect("a sample")).collect();
        for fault in &faults {
            assert_eq!(samples.iter().filter(|sample| sample.holds(fault)).count(), 1, "{fault}");
        }
        for sample in samples {
            let held = faults.iter().filter(|fault| sample.holds(fault)).count();
            assert!((40..110).contains(&held), "{sample:?} holds {held}");
        }
        for wrong in ["7/7", "1", "a/7", "0/0"] {
            assert!(wrong.parse::<Sample>().is_err(), "{wrong}");
        }
    }
}
