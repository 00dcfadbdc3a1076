//! Proves the power of the means of testing: plants bugs, one at a time, in a copy of the sources, and expects each to be
//! found: by the schedules, if only threads can trip over it, by a set of the explorer, if it takes a crash, or by a test.
//!
//! `plants [NAME]`; the copy and its build lie in `plants` under the target directory.

mod batched;
mod list;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Schedules within which a planted bug must show.
const PATIENCE: &str = "20000";

/// Text to find, exactly once, and what to put there.
type Change = (&'static str, &'static str);

/// A bug.
struct Plant {
    name: &'static str,
    /// The source file, in `crates/pmalloc/src`.
    file: &'static str,
    changes: &'static [Change],
    by: By,
}

/// What must find a bug.
#[derive(Clone, Copy)]
enum By {
    /// Schedules of all scenarios.
    Schedules,
    /// Those of one.
    Scenario(&'static str),
    /// Schedules under the policy Batched.
    Batched,
    /// Those of one scenario.
    BatchedScenario(&'static str),
    /// The sets of the explorer that begin like this.
    Explorer(&'static str),
    /// The same under the policy Batched.
    BatchedExplorer(&'static str),
    /// Unit tests of the allocator, by the beginning of their names.
    Unit(&'static str),
    /// A program of its integration tests, and in it a module.
    Test(&'static str, &'static str),
}

impl By {
    /// The arguments of cargo that look for the bug, and what its output says of one.
    fn arguments(self) -> (Vec<&'static str>, &'static [&'static str]) {
        let schedules =
            ["run", "-p", "pmalloc-schedules", "--", "--seed", "1", "--failures", "1"].as_slice();
        let explore = ["run", "-p", "pmalloc-verify", "--", "explore"].as_slice();
        // A scenario may also fail when its length is measured, and what hangs is ended by a watchdog.
        let fails = ["FAILED", "does not work", "SIGABRT"].as_slice();
        let (arguments, more, says) = match self {
            Self::Schedules => (schedules, vec!["--schedules", PATIENCE], fails),
            Self::Scenario(name) => {
                (schedules, vec!["--schedules", PATIENCE, "--scenario", name], fails)
            }
            Self::Batched => {
                (schedules, vec!["--schedules", PATIENCE, "--policy", "batched"], fails)
            }
            Self::BatchedScenario(name) => {
                let more = vec!["--schedules", PATIENCE, "--policy", "batched", "--scenario", name];
                (schedules, more, fails)
            }
            Self::Explorer(set) => (explore, vec!["--set", set], ["VIOLATION"].as_slice()),
            Self::BatchedExplorer(set) => {
                (explore, vec!["--policy", "batched", "--set", set], ["VIOLATION"].as_slice())
            }
            Self::Unit(name) => (["test", "-p", "pmalloc", "--lib"].as_slice(), vec![name], fails),
            Self::Test(program, module) => {
                (["test", "-p", "pmalloc", "--test"].as_slice(), vec![program, "--", module], fails)
            }
        };
        ([arguments, &more].concat(), says)
    }

    /// Whether threads are the schedule tester's.
    const fn is_shuttle(self) -> bool {
        matches!(
            self,
            Self::Schedules | Self::Scenario(_) | Self::Batched | Self::BatchedScenario(_)
        )
    }
}

impl Plant {
    fn file_in(&self, workspace: &Path) -> PathBuf {
        workspace.join("crates/pmalloc/src").join(self.file)
    }

    /// The file in `workspace` with the bug in it.
    fn planted(&self, workspace: &Path) -> Result<String, String> {
        let mut source =
            fs::read_to_string(self.file_in(workspace)).map_err(|error| error.to_string())?;
        for (from, to) in self.changes {
            if source.matches(from).count() != 1 {
                return Err(format!("{from:?} does not occur exactly once"));
            }
            source = source.replace(from, to);
        }
        Ok(source)
    }
}

fn all() -> impl Iterator<Item = &'static Plant> {
    list::PLANTS.iter().chain(batched::PLANTS)
}

fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    let sown = all().filter(|plant| plant.name.contains(&wanted));
    let results: Vec<Result<(), String>> = sown.map(grow).collect();
    let missed = results.iter().filter(|result| result.is_err()).count();
    println!("{} planted, {} found", results.len(), results.len() - missed);
    if missed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants one bug, builds, and looks whether it is found.
fn grow(plant: &Plant) -> Result<(), String> {
    let outcome = try_grow(plant);
    match &outcome {
        Ok(schedule) => println!("found: {}: {schedule}", plant.name),
        Err(problem) => println!("MISSED: {}: {problem}", plant.name),
    }
    outcome.map(drop)
}

fn try_grow(plant: &Plant) -> Result<String, String> {
    let field = field();
    let copy = field.join("src");
    let text = |error: io::Error| error.to_string();
    copy_tree(&workspace(), &copy).map_err(text)?;
    let source = plant.planted(&copy)?;
    fs::write(plant.file_in(&copy), source).map_err(text)?;
    let (arguments, says) = plant.by.arguments();
    let mut run = cargo(&copy, &field, plant.by);
    let ran = run.args(arguments).stderr(Stdio::piped()).output().map_err(text)?;
    if ran.status.success() {
        return Err("nothing notices".into());
    }
    let told = [ran.stdout, ran.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    let failure = told.lines().find(|line| says.iter().any(|what| line.contains(what)));
    failure.map(str::to_owned).ok_or_else(|| format!("it does not build, or broke off: {told}"))
}

/// Cargo on the copy, with the flags of the schedules where they look.
fn cargo(copy: &Path, field: &Path, by: By) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let (flags, target) =
        if by.is_shuttle() { ("--cfg shuttle", "target") } else { ("", "target-threads") };
    cargo.current_dir(copy).env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", field.join(target));
    cargo.stdout(Stdio::piped());
    cargo
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn field() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into);
    target.join("plants")
}

/// Copies the sources, touching only what differs so that little is built again.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with(".git") {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &copy)?;
        } else {
            let bytes = fs::read(&source)?;
            if fs::read(&copy).ok().as_ref() != Some(&bytes) {
                fs::write(&copy, bytes)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_place_for_every_plant() {
        for plant in all() {
            plant.planted(&workspace()).unwrap_or_else(|error| panic!("{}: {error}", plant.name));
        }
    }

    #[test]
    fn every_module_of_tests_is_there() {
        for plant in all() {
            let By::Test(program, module) = plant.by else { continue };
            let file = module.strip_suffix("::").expect("the module, and nothing like it");
            let path = format!("crates/pmalloc/tests/{program}/{file}.rs");
            assert!(workspace().join(&path).is_file(), "{}: no {path}", plant.name);
        }
    }
}
