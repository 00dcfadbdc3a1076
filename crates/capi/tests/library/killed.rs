//! Goal: a program in C that is killed at any moment finds all that its calls had returned, and each interrupted change wholly
//! or not at all.
//!
//! Method: the program says before and after each call what it changes; the test kills it after a random number of such lines,
//! and compares them with what another run of the program finds. The next round goes on with the same heap, under the other
//! policy; who looks at what is left opens it with either, or with what it has.

use std::{
    io::{BufRead, BufReader},
    ops::ControlFlow,
    path::Path,
    process::Stdio,
};

use crate::common::{Language, Linking, Program, installed, succeed};

/// Kills; each takes the time of the program's start and its recovery.
const KILLS: u64 = 20;

/// Slots of the program.
const SLOTS: usize = 48;

/// The numbers of the policies in the header: that of the heap, Eager, Batched.
const POLICIES: [&str; 3] = ["0", "1", "2"];

/// What a slot holds, by its number: 0 for nothing.
type Change = Vec<(usize, u64)>;

/// What the program said.
struct Journal {
    /// What is in the slots, by the changes that were confirmed.
    items: [u64; SLOTS],
    /// Changes that were announced and not confirmed: at most one of each thread.
    open: Vec<Change>,
    confirmed: usize,
}

impl Journal {
    /// Notes a line; one that the kill cut short ends the journal.
    fn note(&mut self, line: &str) -> ControlFlow<()> {
        let Some(line) = line.strip_suffix('\n') else { return ControlFlow::Break(()) };
        let (what, numbers) = line.split_at(1);
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        let index = |number| usize::try_from(number).expect("a slot");
        let change: Change = numbers.chunks(2).map(|pair| (index(pair[0]), pair[1])).collect();
        if what == "?" {
            self.open.push(change);
            return ControlFlow::Continue(());
        }
        let at = self.open.iter().position(|open| *open == change).expect("it was announced");
        self.open.swap_remove(at);
        change.iter().for_each(|&(slot, item)| self.items[slot] = item);
        self.confirmed += 1;
        ControlFlow::Continue(())
    }

    /// Compares with what is in the slots, which becomes what the next round starts with.
    fn settle(&mut self, found: [u64; SLOTS], context: &str) {
        for change in std::mem::take(&mut self.open) {
            let done = change.iter().filter(|&&(slot, item)| found[slot] == item).count();
            let undone =
                change.iter().filter(|&&(slot, _)| found[slot] == self.items[slot]).count();
            let whole = change.len();
            assert!(done == whole || undone == whole, "{context}: half of {change:?}: {found:?}");
            if done == whole {
                change.iter().for_each(|&(slot, item)| self.items[slot] = item);
            }
        }
        assert_eq!(found, self.items, "{context}");
    }
}

/// Lets the program work until it has said `lines` lines and a few more, and kills it.
fn work(program: &Program, heap: &Path, seed: u64, lines: u64, journal: &mut Journal) {
    let mut command = program.command();
    let policy = POLICIES[1 + (seed % 2) as usize];
    command.arg(heap).args([policy, "work", &seed.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
    for number in 0.. {
        let mut line = String::new();
        said.read_line(&mut line).expect("text");
        if number == lines {
            child.kill().expect("it runs");
        }
        if journal.note(&line).is_break() {
            assert!(number > lines, "the program ended by itself");
            break;
        }
    }
    child.wait().expect("it ended");
}

/// What another run of the program finds, which asks for that policy.
fn show(program: &Program, heap: &Path, policy: &str) -> [u64; SLOTS] {
    let shown = succeed(program.command().arg(heap).args([policy, "show"]), "");
    let mut items = [0; SLOTS];
    assert_eq!(shown.lines().count(), SLOTS);
    for line in shown.lines() {
        let (slot, item) = line.split_once(' ').expect("a slot and its item");
        items[slot.parse::<usize>().expect("a slot")] = item.parse().expect("an item");
    }
    items
}

#[test]
fn what_calls_of_a_killed_program_had_returned_is_there() {
    let seed = std::env::var("PMALLOC_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}: set PMALLOC_KILL_SEED to it to draw the same");
    let program = installed().program(Language::C("c99"), "tests/c/work.c", Linking::Shared);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let heap = folder.path().join("heap");
    let mut journal = Journal { items: [0; SLOTS], open: Vec::new(), confirmed: 0 };
    for kill in 0..KILLS {
        let drawn = (seed + kill).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let lines = 20 + drawn % 4000;
        work(&program, &heap, seed + kill, lines, &mut journal);
        let policy = POLICIES[(kill % 3) as usize];
        journal.settle(show(&program, &heap, policy), &format!("seed {seed}, kill {kill}"));
    }
    assert!(journal.confirmed > 100, "too few changes to tell anything");
}
