//! Proves the power of the means of testing: plants bugs, one at a time, in a copy of the sources, and expects each to be
//! found: by the schedules, if only threads can trip over it, by a set of the explorer, if it takes a crash, or by a test.
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
    by: By,
}

/// What must find a bug.
#[derive(Clone, Copy)]
enum By {
    /// Schedules of all scenarios.
    Schedules,
    /// Those of one.
    Scenario(&'static str),
    /// The sets of the explorer that begin like this.
    Explorer(&'static str),
    /// Unit tests of the allocator, by the beginning of their names.
    Unit(&'static str),
    /// A file of its integration tests.
    Test(&'static str),
}

impl By {
    /// The arguments of cargo that look for the bug, and what its output says of one.
    fn arguments(self) -> (Vec<&'static str>, &'static [&'static str]) {
        let schedules =
            ["run", "-p", "pmalloc-schedules", "--", "--seed", "1", "--failures", "1"].as_slice();
        // A scenario may also fail when its length is measured.
        let fails = ["FAILED", "does not work"].as_slice();
        let (arguments, more, says) = match self {
            Self::Schedules => (schedules, vec!["--schedules", PATIENCE], fails),
            Self::Scenario(name) => {
                (schedules, vec!["--schedules", PATIENCE, "--scenario", name], fails)
            }
            Self::Explorer(set) => {
                let explore = ["run", "-p", "pmalloc-verify", "--", "explore", "--set"].as_slice();
                (explore, vec![set], ["VIOLATION"].as_slice())
            }
            Self::Unit(name) => (["test", "-p", "pmalloc", "--lib"].as_slice(), vec![name], fails),
            Self::Test(file) => (["test", "-p", "pmalloc", "--test"].as_slice(), vec![file], fails),
        };
        ([arguments, &more].concat(), says)
    }

    /// Whether threads are the schedule tester's.
    const fn is_shuttle(self) -> bool {
        matches!(self, Self::Schedules | Self::Scenario(_))
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

const PLANTS: &[Plant] = &[
    Plant {
        name: "an allocation does not keep its slot",
        file: "op/alloc.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    // Under the lock",
            "drop(engine.slot_locks.lock(slot));\n    // Under the lock",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a free does not keep its slot",
        file: "op/free.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    // Under the lock",
            "drop(engine.slot_locks.lock(slot));\n    // Under the lock",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish does not keep its slots",
        file: "op/group.rs",
        changes: &[(
            "engine.slot_locks.lock_all(&owned, &mut locks);\n",
            "engine.slot_locks.lock_all(&owned, &mut locks);\n        locks.clear();\n",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish locks its slots in its own order",
        file: "op/slot_locks.rs",
        changes: &[
            ("    filled: u16,\n}", "    filled: u16,\n    first: usize,\n}"),
            (
                "        self.filled |= 1 << word;\n",
                "        if self.filled == 0 {\n            self.first = stripe;\n        }\n        \
                 self.filled |= 1 << word;\n",
            ),
            (
                "owned.extend(stripes.iter()",
                "let mut order: Vec<usize> = stripes.iter().collect();\n        \
                 order.sort_by_key(|stripe| *stripe != stripes.first);\n        \
                 owned.extend(order.into_iter()",
            ),
        ],
        by: By::Schedules,
    },
    Plant {
        name: "a slot is not read again",
        file: "core/open_heap.rs",
        changes: &[(
            "Some(now) if now == block =>",
            "Some(now) if now == block || now != block =>",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish clears bits before it stores slots",
        file: "op/changes.rs",
        changes: &[(
            "        for in_new in [true, false] {\n",
            "        for freed in &*self.freed {\n            \
                 if let Block::Small(block) = &freed.block {\n                \
                     block.live_bit().store(m, false);\n            \
                 }\n        \
             }\n        \
             for in_new in [true, false] {\n",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a cell in a freed block is damage",
        file: "recovery/replay.rs",
        changes: &[(
            "self.geometry.page_at(record.slot).is_some() && record.slot.is_multiple_of(8)",
            "false",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a root is looked up without the lock under which it is made",
        file: "root/obtain.rs",
        changes: &[(
            "    let _roots = lock(&core.roots);\n    let Found",
            "    drop(lock(&core.roots));\n    let Found",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a block is reused before its free is durable",
        file: "op/free.rs",
        changes: &[(
            "            commit(engine, &mut state.claim, &mut free)?;\n            \
             Ok(Unlinked { block, was_live: free.was_live })",
            "            let early = engine.limbo.quiescent();\n            \
             if early { engine.recycle(block); }\n            \
             commit(engine, &mut state.claim, &mut free)?;\n            \
             Ok(Unlinked { block, was_live: free.was_live && !early })",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "an extent is reused before its free is durable",
        file: "op/free.rs",
        changes: &[(
            "    commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Large(block), was_live: true })",
            "    if engine.limbo.quiescent() { engine.recycle(Block::Large(block)); }\n    \
             commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Large(block), was_live: false })",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a free does not look for guards",
        file: "op/limbo.rs",
        changes: &[(
            "self.live.iter().all(|live| live.load(Ordering::SeqCst) == 0)",
            "!self.live.is_empty()",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "freed memory waits for one epoch only",
        file: "op/limbo.rs",
        changes: &[("freed_in + 2 <= epoch", "freed_in < &epoch")],
        by: By::Schedules,
    },
    Plant {
        name: "the epoch moves on over live guards",
        file: "op/limbo.rs",
        changes: &[(
            "if self.counter(epoch + 1).load(Ordering::SeqCst) != 0 {",
            "if epoch > 1 << 40 {",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a chunk is dropped while an entry is written to it",
        file: "book/chain.rs",
        changes: &[(
            "self.live == 0 && self.needed == 0 && self.in_flight == 0",
            "self.live == 0 && self.needed == 0",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "the children of a freed block are not owned",
        file: "op/group.rs",
        changes: &[("if !owned.contains(&wanted) {", "if !owned.contains(&named) {")],
        by: By::Scenario("typed-parent-replaced"),
    },
    Plant {
        name: "an allocation looks for its slot's block before it has the slot",
        file: "op/alloc.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    \
             // Under the lock: who frees a typed block holds those of its slots.\n    \
             engine.check_live(slot)?;",
            "engine.check_live(slot)?;\n    let _owned = engine.slot_locks.lock(slot);",
        )],
        by: By::Scenario("typed-parent-freed"),
    },
    Plant {
        name: "a log that is copied gives its chunks back before the switch",
        file: "book/gc.rs",
        changes: &[
            (
                "        self.area.set_link(m, Link::Root(log.id), fresh[0]);",
                "        self.pool.give(log.chunks.iter().map(|chunk| chunk.index));\n        \
                 self.area.set_link(m, Link::Root(log.id), fresh[0]);",
            ),
            ("        self.pool.give(old.iter().map(|chunk| chunk.index));", "        drop(old);"),
        ],
        by: By::Scenario("log-collection-two-logs"),
    },
    Plant {
        name: "a group that lacks its fifth record is whole",
        file: "lane/replay.rs",
        changes: &[(
            "usize::from(record.count) == group.len()",
            "(usize::from(record.count) == group.len() || group.len() == 4)",
        )],
        by: By::Explorer("groups of five"),
    },
    Plant {
        name: "a version that begins again is an old one",
        file: "layout/slot.rs",
        changes: &[(
            "ahead != 0 && ahead < 1 << (VERSION_BITS - 1)",
            "ahead != 0 && self.0 > other.0",
        )],
        by: By::Explorer("1 operation, nesting 1"),
    },
    Plant {
        name: "a slot in a new large block is not redone",
        file: "recovery/replay.rs",
        changes: &[(
            "|| self.is_in_flight(record.slot);",
            "|| record.op.is_large() && self.is_in_flight(record.slot);",
        )],
        by: By::Explorer("typed blocks"),
    },
    Plant {
        name: "what was torn and could not be copied away stays",
        file: "recovery/replay.rs",
        changes: &[(
            "    if book.stats().torn > 0 {\n        book.scrub_torn(m);",
            "    if book.stats().torn > 1 << 20 {\n        book.scrub_torn(m);",
        )],
        by: By::Explorer("1 operation, recovery on a full disk"),
    },
    Plant {
        name: "the flag of a sync goes before the sync",
        file: "op/gate.rs",
        changes: &[(
            "        if let Err(error) = m.sync() {\n",
            "        state::set_clean(m, clean)?;\n        if let Err(error) = m.sync() {\n",
        )],
        by: By::Unit("op::gate"),
    },
    Plant {
        name: "the filter of roots clears a bit that others share",
        file: "op/root_blocks.rs",
        changes: &[("!blocks.keys().any(|other| place(*other) == (word, bit))", "bit != 0")],
        by: By::Unit("op::root_blocks"),
    },
    Plant {
        name: "a guard of the epoch before does not count",
        file: "op/limbo.rs",
        changes: &[(
            "self.live.iter().all(|live| live.load(Ordering::SeqCst) == 0)",
            "self.counter(self.epoch.load(Ordering::SeqCst)).load(Ordering::SeqCst) == 0",
        )],
        by: By::Unit("op::limbo"),
    },
    Plant {
        name: "large blocks wait for one epoch only",
        file: "op/limbo.rs",
        changes: &[(
            "|(freed_in, _)| freed_in + 2 <= epoch",
            "|(at, block)| at + 2 <= epoch || matches!(block, Block::Large(_)) && *at < epoch",
        )],
        by: By::Unit("op::limbo"),
    },
    Plant {
        name: "who finds no room does not look at what waits for guards",
        file: "op/engine.rs",
        changes: &[(
            "        self.collect();\n        state.cache.drain",
            "        state.cache.drain",
        )],
        by: By::Unit("op::limbo"),
    },
    Plant {
        name: "the place behind a slab's last block is a block",
        file: "slab/descriptor.rs",
        changes: &[(
            "exact_index_of(offset.checked_sub(self.base)?)?;\n        (block < self.blocks())",
            "exact_index_of(offset.checked_sub(self.base)?)?;\n        (block <= self.blocks())",
        )],
        by: By::Unit("slab::descriptor"),
    },
    Plant {
        name: "a queue between arenas that is too long is forgotten",
        file: "arena/mod.rs",
        changes: &[(
            "            self.drain_remote(space, &mut lock(&self.state));\n        }\n    }\n",
            "            lock(&self.remote).clear();\n        }\n    }\n",
        )],
        by: By::Test("memory"),
    },
    Plant {
        name: "slots that lead to new blocks are stored before those in them",
        file: "op/changes.rs",
        changes: &[("for in_new in [true, false] {", "for in_new in [false, true] {")],
        by: By::Test("persist_count"),
    },
    Plant {
        name: "the slots of a crashed heap are not looked at",
        file: "inspect/refusal.rs",
        changes: &[(
            "Clean::Unwritten => root_table::examine_slots(&core, tell)?,",
            "Clean::Unwritten => {}",
        )],
        by: By::Test("damage"),
    },
    Plant {
        name: "a root without a block is served",
        file: "inspect/root_table.rs",
        changes: &[(
            "if span.is_none_or(|span| span.len < size) {",
            "if span.is_some_and(|span| span.len < size) {",
        )],
        by: By::Test("damage"),
    },
    Plant {
        name: "an entry of the root table that was wiped is one that was never used",
        file: "inspect/root_table.rs",
        changes: &[(
            "            return tell(Problem::damaged(offset, what));\n        }\n",
            "            let _ = (offset, what);\n            return Ok(());\n        }\n",
        )],
        by: By::Test("damage"),
    },
    Plant {
        name: "the live bits of a closed heap are not compared with their check",
        file: "slab/inventory.rs",
        changes: &[("clean == Clean::Closed &&", "clean == Clean::Unwritten &&")],
        by: By::Unit("tests::sealed"),
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
        for plant in PLANTS {
            plant.planted(&workspace()).unwrap_or_else(|error| panic!("{}: {error}", plant.name));
        }
    }
}
