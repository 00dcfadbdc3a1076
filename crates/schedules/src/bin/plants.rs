//! Proves the power of the schedules: plants bugs that only threads can trip over, one at a time, in a copy of
//! the sources, and expects the schedules to find each.
//!
//! `plants [NAME]`; the copy and its build lie in `plants` under the target directory.

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

const PLANTS: &[Plant] = &[
    Plant {
        name: "an allocation does not keep its slot",
        file: "heap/alloc.rs",
        changes: &[(
            "let _owned = core.slot_locks.lock(place);\n    // Under the lock",
            "drop(core.slot_locks.lock(place));\n    // Under the lock",
        )],
    },
    Plant {
        name: "a free does not keep its slot",
        file: "heap/free.rs",
        changes: &[(
            "let _owned = core.slot_locks.lock(place);\n    // Under the lock",
            "drop(core.slot_locks.lock(place));\n    // Under the lock",
        )],
    },
    Plant {
        name: "a publish does not keep its slots",
        file: "heap/group.rs",
        changes: &[(
            "let _owned = core.slot_locks.lock_all(places.chain(children.iter().copied()));",
            "drop(core.slot_locks.lock_all(places.chain(children.iter().copied())));",
        )],
    },
    Plant {
        name: "a publish locks its slots in its own order",
        file: "heap/slot_locks.rs",
        changes: &[(
            "let stripes: BTreeSet<usize> = places.map(stripe).collect();",
            "let mut seen = BTreeSet::new();\n        \
             let stripes: Vec<usize> = places.map(stripe).filter(|at| seen.insert(*at)).collect();",
        )],
    },
    Plant {
        name: "a slot is not read again",
        file: "heap/blocks.rs",
        changes: &[(
            "Some(now) if now == block =>",
            "Some(now) if now == block || now != block =>",
        )],
    },
    Plant {
        name: "a publish clears bits before it stores slots",
        file: "heap/group.rs",
        changes: &[
            ("        clear_bits(m, plan, &mut lines, &mut unlinked);\n", ""),
            (
                "        set_bits(m, plan, &mut lines);\n",
                "        set_bits(m, plan, &mut lines);\n        \
                 clear_bits(m, plan, &mut lines, &mut unlinked);\n",
            ),
        ],
    },
    Plant {
        name: "a cell in a freed block is damage",
        file: "recovery/replay.rs",
        changes: &[(
            "self.geometry.page_at(record.slot).is_some() && record.slot.is_multiple_of(8)",
            "false",
        )],
    },
    Plant {
        name: "a root is looked up without the lock under which it is made",
        file: "heap/roots.rs",
        changes: &[(
            "    let _roots = lock(&core.roots);\n    let Found",
            "    drop(lock(&core.roots));\n    let Found",
        )],
    },
    Plant {
        name: "a block is reused before its free is retired",
        file: "heap/free.rs",
        changes: &[
            (
                "let was_live = unlink_small(core, state, source, bit)?;",
                "let was_live = unlink_small(core, state, source, bit, arena)?;",
            ),
            (
                "bit: LiveBit,\n) -> Result<bool> {",
                "bit: LiveBit,\n    arena: LogId,\n) -> Result<bool> {",
            ),
            (
                "        lane.retire(m);\n        // CRASH: the mark is durable before the block",
                "        let early = core.guards.quiescent();\n        \
                 if early { core.recycle(Freed::Small { arena, offset: block }); }\n        \
                 lane.retire(m);\n        // CRASH: the mark is durable before the block",
            ),
            ("        was_live\n    })", "        was_live && !early\n    })"),
        ],
    },
    Plant {
        name: "an extent is reused before its free is retired",
        file: "heap/free.rs",
        changes: &[
            (
                "space.page_map.clear(extent.range);\n        // CRASH",
                "space.page_map.clear(extent.range);\n        \
                 let range = extent.range;\n        \
                 let early = core.guards.quiescent();\n        \
                 if early { core.recycle(Freed::Large { range, log }); }\n        // CRASH",
            ),
            (
                "Ok(Unlinked::Large { range: extent.range, log })",
                "Ok(if early { Unlinked::Lost } else { Unlinked::Large { range, log } })",
            ),
        ],
    },
    Plant {
        name: "a free does not look for guards",
        file: "heap/guard.rs",
        changes: &[(
            "self.live.iter().all(|live| live.load(Ordering::SeqCst) == 0)",
            "!self.live.is_empty()",
        )],
    },
    Plant {
        name: "freed memory waits for one epoch only",
        file: "heap/guard.rs",
        changes: &[("freed_in + 2 <= epoch", "freed_in < &epoch")],
    },
    Plant {
        name: "the epoch moves on over live guards",
        file: "heap/guard.rs",
        changes: &[(
            "if self.counter(epoch + 1).load(Ordering::SeqCst) != 0 {",
            "if epoch > 1 << 40 {",
        )],
    },
    Plant {
        name: "a chunk is dropped while an entry is written to it",
        file: "book/chain.rs",
        changes: &[(
            "self.live == 0 && self.needed == 0 && self.in_flight == 0",
            "self.live == 0 && self.needed == 0",
        )],
    },
];

fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    let sown = PLANTS.iter().filter(|plant| plant.name.contains(&wanted));
    let results: Vec<Result<(), String>> = sown.map(grow).collect();
    let missed = results.iter().filter(|result| result.is_err()).count();
    println!("{} planted, {} found", results.len(), results.len() - missed);
    if missed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants one bug, builds, and looks whether the schedules find it.
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
    let built = cargo(&copy, &field)
        .args(["build", "-p", "pmalloc-schedules"])
        .stderr(Stdio::piped())
        .output()
        .map_err(text)?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let mut run = cargo(&copy, &field);
    run.args([
        "run",
        "--quiet",
        "-p",
        "pmalloc-schedules",
        "--",
        "--schedules",
        PATIENCE,
        "--seed",
        "1",
        "--failures",
        "1",
    ]);
    let ran = run.stderr(Stdio::piped()).output().map_err(text)?;
    if ran.status.success() {
        return Err(format!("no schedule of {PATIENCE} fails"));
    }
    let told = [ran.stdout, ran.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    // A scenario may also fail when its length is measured.
    let mut lines = told.lines();
    let failure = lines.find(|line| line.starts_with("FAILED") || line.contains("does not work"));
    failure.map(str::to_owned).ok_or_else(|| format!("the schedules broke off: {told}"))
}

/// Cargo on the copy, with the flags of the schedules.
fn cargo(copy: &Path, field: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(copy).env("RUSTFLAGS", "--cfg shuttle");
    cargo.env("CARGO_TARGET_DIR", field.join("target")).stdout(Stdio::piped());
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
        for plant in PLANTS {
            plant.planted(&workspace()).unwrap_or_else(|error| panic!("{}: {error}", plant.name));
        }
    }
}
