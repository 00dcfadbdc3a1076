//! What runs against each planted fault: first what notices most in a second, and only against what survives that, the rest.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    process::Command,
};

use serde_json::Value;

use super::{
    Args, choice,
    mutant::Mutant,
    tree::{absolute, folder},
};

/// A crate in which faults are planted, and the tests that have to notice them.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) folder: &'static str,
    stages: &'static [Stage],
}

/// What is built and run together.
struct Stage {
    name: &'static str,
    /// What is built, in cargo's words: also before it is run, which is why it is not left to the arguments of the run.
    targets: &'static [&'static str],
    /// Parts of the names of tests that take longer than what they notice is worth.
    without: &'static [&'static str],
}

/// The crates in which faults are planted.
pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "pmalloc-persist",
        folder: "crates/persist/",
        stages: &[
            // Most of what the simulator has to do is seen by test programs, and all together are quick.
            Stage { name: "all tests", targets: &["--tests"], without: &[] },
        ],
    },
    Package {
        name: "pmalloc",
        folder: "crates/pmalloc/",
        stages: &[
            Stage {
                name: "unit tests",
                targets: &["--lib"],
                // Each of these takes as long as all others together, or many times that.
                without: &[
                    "forged_heaps_are_refused",
                    "sealed::every",
                    "explore::a_recovery_that_",
                    "explore::every_crash_of_every",
                    "explore::a_book_that_crashed",
                ],
            },
            Stage {
                name: "test programs",
                // Without those that change every byte of a heap, and that fork.
                targets: &["--test=counts", "--test=crash", "--test=heap", "--test=surroundings"],
                without: &[
                    "killed::",
                    "starved::",
                    "stress::",
                    "with_any_byte_changed",
                    "a_salvage_may_be_cut_off_anywhere",
                ],
            },
        ],
    },
];

/// The file of cargo-mutants with the names of the faults that it need not plant any more.
const KNOWN: &str = "previously_caught.txt";

/// The file beside it with those of them whose tests were stopped when time was up.
const ENDLESS: &str = "endless.txt";

/// The folder that cargo-mutants writes, in that of a crate.
const OUTPUT: &str = "mutants.out";

/// For one build and run of tests: many times what they take, so that a slow machine makes no difference.
const TIMEOUT_S: u32 = 90;

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A test failed.
    Noticed,
    /// Tests passed, all of them.
    Survived,
    /// Tests were stopped when time was up: a loop without end, or a machine that is very slow.
    Endless,
    /// The compiler refused it.
    NoCode,
}

/// By cargo-mutants' name of the fault.
pub(super) type Verdicts = HashMap<String, Verdict>;

/// Plants the faults of `chosen`, which are among `all` that there are, in the `tree`, one at a time.
pub(super) fn run(
    tree: &Path,
    all: &[Mutant],
    chosen: &[Mutant],
    args: &Args,
) -> Result<Verdicts, String> {
    let mut begun = Vec::new();
    // All of it first: a campaign may be stopped before it comes to the second crate.
    for package in PACKAGES {
        let faults = |of: &[Mutant]| -> HashSet<String> {
            of.iter().filter(|m| m.is_in(package)).map(|m| m.name.clone()).collect()
        };
        let (all, chosen) = (faults(all), faults(chosen));
        let folder = absolute(&folder().join(package.name))?;
        begin(&folder, &all, &chosen, args.resume)?;
        begun.push((package, folder.join(OUTPUT), chosen));
    }
    let mut verdicts = Verdicts::new();
    for (package, found, chosen) in begun.into_iter().filter(|(.., chosen)| !chosen.is_empty()) {
        let of_package = run_package(tree, package, &found)?;
        verdicts.extend(of_package.into_iter().filter(|(name, _)| chosen.contains(name)));
    }
    Ok(verdicts)
}

/// Begins a campaign with the faults `chosen` in `folder`, or sees that the one there was begun with these.
fn begin(
    folder: &Path,
    all: &HashSet<String>,
    chosen: &HashSet<String>,
    resume: bool,
) -> Result<(), String> {
    let trouble = |e: io::Error| format!("{}: {e}", folder.display());
    if resume {
        let compared = choice::compare(folder, chosen).map_err(trouble)?;
        return compared.map_err(|refusal| format!("mutants: {refusal}"));
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(trouble)?;
    }
    start(&folder.join(OUTPUT), all.difference(chosen)).map_err(trouble)?;
    // Last: what is not begun is not gone on with.
    choice::write(folder, chosen).map_err(trouble)
}

/// Makes cargo-mutants believe that it knows of the faults `without`: its filters by name let some kinds of faults through.
fn start<'a>(found: &Path, without: impl Iterator<Item = &'a String>) -> io::Result<()> {
    fs::create_dir_all(found)?;
    append(&found.join(KNOWN), without.map(String::as_str))
}

/// Leaves out faults whose tests never ended: a test that is stopped takes as long as a hundred others.
fn leave_out<'a>(found: &Path, endless: impl Iterator<Item = &'a str> + Clone) -> io::Result<()> {
    append(&found.join(ENDLESS), endless.clone())?;
    append(&found.join(KNOWN), endless)
}

fn append<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut known = fs::read_to_string(path).unwrap_or_default();
    names.for_each(|name| known.extend([name, "\n"]));
    fs::write(path, known)
}

/// What earlier stages, or a campaign that was stopped, came to.
fn known(found: &Path) -> Verdicts {
    let of = |file, verdict| {
        let text = fs::read_to_string(found.join(file)).unwrap_or_default();
        text.lines().map(|name| (name.to_owned(), verdict)).collect::<Verdicts>()
    };
    let mut known = of(KNOWN, Verdict::Noticed);
    known.extend(of(ENDLESS, Verdict::Endless));
    known
}

/// Runs stage after stage against what survived those before.
fn run_package(tree: &Path, package: &Package, found: &Path) -> Result<Verdicts, String> {
    let trouble = |e: io::Error| format!("{}: {e}", found.display());
    let mut verdicts = known(found);
    for stage in package.stages {
        println!("==> {}: {}", package.name, stage.name);
        let mut command = cargo_mutants(tree, package, stage, found)?;
        let status = command.status().map_err(|e| format!("can't run cargo-mutants: {e}"))?;
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            return Err(format!("cargo-mutants: {status}; its logs are in {}", found.display()));
        }
        verdicts.extend(read(found)?);
        let of = |wanted| {
            let found = verdicts.iter().filter(move |&(_, &verdict)| verdict == wanted);
            found.map(|(name, _)| name.as_str())
        };
        if of(Verdict::Survived).next().is_none() {
            break;
        }
        leave_out(found, of(Verdict::Endless)).map_err(trouble)?;
    }
    Ok(verdicts)
}

fn cargo_mutants(
    tree: &Path,
    package: &Package,
    stage: &Stage,
    found: &Path,
) -> Result<Command, String> {
    let mut command = Command::new("cargo-mutants");
    // It does not plant what it noticed already.
    command.args(["mutants", "--iterate", "--in-place", "--no-shuffle", "--colors=never"]);
    command.arg(format!("--timeout={TIMEOUT_S}")).current_dir(tree);
    command.arg("--output").arg(found.parent().expect("a folder in the target folder"));
    command.args(["--package", package.name, "--test-package", package.name]);
    command.args(stage.targets.iter().map(|target| format!("--cargo-arg={target}")));
    command.arg("--").arg("--").args(stage.without.iter().flat_map(|name| ["--skip", name]));
    // One crate is compiled again and again with a line changed: the case for which incremental compilation is made.
    command.env("CARGO_INCREMENTAL", "1").env("INSTA_UPDATE", "no");
    command.env("CARGO_TARGET_DIR", absolute(&folder().join("build"))?);
    // Of the cargo that runs this: the tree asks for its own.
    command.env_remove("CARGO");
    Ok(command)
}

/// What a run wrote into its folder.
fn read(found: &Path) -> Result<Verdicts, String> {
    let path = found.join("outcomes.json");
    let trouble = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    match fs::read(&path) {
        Ok(bytes) => {
            let outcomes = serde_json::from_slice(&bytes).map_err(|e| trouble(&e))?;
            judge(&outcomes).ok_or_else(|| trouble(&"its form is not known"))
        }
        // There was nothing to plant.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Verdicts::new()),
        Err(e) => Err(trouble(&e)),
    }
}

fn judge(outcomes: &Value) -> Option<Verdicts> {
    let mut verdicts = Verdicts::new();
    for outcome in outcomes.get("outcomes")?.as_array()? {
        // The other scenario is the tree without a fault; if that fails, so does the command.
        let Some(fault) = outcome.get("scenario")?.get("Mutant") else { continue };
        let verdict = match outcome.get("summary")?.as_str()? {
            "CaughtMutant" => Verdict::Noticed,
            "MissedMutant" => Verdict::Survived,
            "Timeout" => Verdict::Endless,
            "Unviable" => Verdict::NoCode,
            _ => return None,
        };
        verdicts.insert(fault.get("name")?.as_str()?.to_owned(), verdict);
    }
    Some(verdicts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_program_of_a_stage_is_there() {
        for package in PACKAGES {
            let folder = xtask::install::root().join(package.folder);
            for target in package.stages.iter().flat_map(|stage| stage.targets) {
                let Some(name) = target.strip_prefix("--test=") else { continue };
                let tests = folder.join("tests");
                let files = [tests.join(format!("{name}.rs")), tests.join(name).join("main.rs")];
                assert!(files.iter().any(|path| path.is_file()), "{}: no {name}", package.name);
            }
        }
    }

    #[test]
    fn outcomes_of_a_form_that_is_not_known_are_an_error() {
        let of = |summary: &str| {
            let fault = json!({ "scenario": { "Mutant": { "name": "a" } }, "summary": summary });
            json!({ "outcomes": [{ "scenario": "Baseline", "summary": "Success" }, fault] })
        };
        assert_eq!(
            judge(&of("MissedMutant")),
            Some(Verdicts::from([("a".into(), Verdict::Survived)]))
        );
        assert_eq!(judge(&of("Timeout")), Some(Verdicts::from([("a".into(), Verdict::Endless)])));
        assert_eq!(judge(&of("Success")), None);
        assert_eq!(judge(&json!({})), None);
    }

    #[test]
    fn what_is_left_out_is_remembered_and_no_outcome_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = folder.path().join(OUTPUT);
        start(&found, ["a".to_owned()].iter()).expect("written");
        leave_out(&found, ["b"].into_iter()).expect("written");
        assert_eq!(fs::read_to_string(found.join(KNOWN)).expect("read"), "a\nb\n");
        // One that never ended is not taken for one that was noticed.
        let remembered =
            Verdicts::from([("a".into(), Verdict::Noticed), ("b".into(), Verdict::Endless)]);
        assert_eq!(known(&found), remembered);
        assert_eq!(read(&found), Ok(Verdicts::new()));
    }

    /// A campaign with another choice used to be gone on with: what was never planted counted as noticed.
    #[test]
    fn a_campaign_with_another_choice_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("package");
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let all = set(&["a", "b", "c"]);
        let refused = |chosen: &[&str]| begin(&folder, &all, &set(chosen), true).is_err();
        assert!(refused(&["a"]), "nothing was begun");
        begin(&folder, &all, &set(&["a", "b"]), false).expect("begun");
        let found = folder.join(OUTPUT);
        let left_out = Verdicts::from([("c".into(), Verdict::Noticed)]);
        assert_eq!(known(&found), left_out);
        assert!(refused(&["b", "c"]) && refused(&["a", "b", "c"]) && refused(&[]));
        assert_eq!(known(&found), left_out);
        assert!(!refused(&["a", "b"]));
        begin(&folder, &all, &set(&[]), false).expect("begun");
        assert!(refused(&["a", "b"]), "that is over");
    }
}
