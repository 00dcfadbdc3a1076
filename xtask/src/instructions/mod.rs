//! `cargo xtask instructions`: how many instructions an operation runs, in Rust and through the C library, beside a golden
//! range of each.
//!
//! Time hides what an operation computes behind the flushes that it waits for, and is no two times the same; callgrind
//! counts, and finds the same for the same program within a few instructions; how the compiler inlines makes more of a
//! difference, for which the ranges have room. The programs that it runs, and what steady state
//! means, are `crates/bench/examples/instructions.rs` and `.c`; the ranges are in `crates/bench/instructions.txt`.

mod callgrind;
mod golden;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser;
use xtask::install::{self, Folders};

use callgrind::Program;
use golden::Golden;

/// The ranges, from the repository's root.
const GOLDEN: &str = "crates/bench/instructions.txt";
/// The programs, from the repository's root.
const EXAMPLES: &str = "crates/bench/examples";
/// Where all that is made lies, in cargo's target folder.
const FOLDER: &str = "instructions";

/// What `cargo xtask instructions` is told.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask instructions",
    about = "Counts the instructions of each operation under callgrind, and compares with crates/bench/instructions.txt"
)]
struct Args {
    /// Write the ranges anew, around what is counted now
    #[arg(long)]
    bless: bool,
}

/// Instructions of an operation, on average.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    operation: String,
    instructions: u64,
}

/// Counts, prints, and compares or writes, as `args` say.
///
/// # Errors
///
/// What could not be built or run, or the operations that are out of their ranges; the table is printed before.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let name = ["cargo xtask instructions"];
    let args = match Args::try_parse_from(name.iter().chain(args)) {
        Ok(args) => args,
        // Help is an answer, not a failure.
        Err(answer) if !answer.use_stderr() => return answer.print().map_err(|e| e.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    if !callgrind::is_installed() {
        println!("skipped: there is no valgrind (on Debian: apt-get install valgrind)");
        return Ok(());
    }
    let mut counts = Vec::new();
    for program in programs()? {
        counts.extend(program.run()?);
    }
    let path = install::root().join(GOLDEN);
    if args.bless {
        let text = Golden::around(&counts).to_string();
        fs::write(&path, text).map_err(|error| format!("{GOLDEN}: {error}"))?;
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{GOLDEN}: {error}"))?;
    let golden = Golden::read(&text).map_err(|line| format!("{GOLDEN}:{line}: not a range"))?;
    print!("{}", golden.table(&counts));
    if !cfg!(target_arch = "x86_64") {
        println!("not compared: the ranges are those of x86-64");
        return Ok(());
    }
    match &golden.complaints(&counts)[..] {
        [] => Ok(()),
        complaints => Err(format!(
            "{}\nif that is meant, write {GOLDEN} anew: cargo xtask instructions --bless",
            complaints.join("\n")
        )),
    }
}

/// Builds the programs, with the profile that users get, and with symbols.
fn programs() -> Result<[Program; 2], String> {
    let example = ["build", "--release", "--locked", "--package", "pmalloc-bench"];
    let mut command = install::cargo();
    command.args(example).args(["--example", "instructions"]);
    install::succeed(&mut command, "the program in Rust can't be built")?;
    let built = install::build_library()?;
    let folder = install::target().join(FOLDER);
    let (prefix, program) = (folder.join("prefix"), folder.join("instructions-c"));
    install::install_library(&built, &Folders::new(&prefix))?;
    compile(&prefix, &program)?;
    let rust = built.join("examples/instructions");
    Ok([
        Program { path: rust, measured: "instructions::measured", folder: folder.join("rust") },
        Program { path: program, measured: "measured", folder: folder.join("c") },
    ])
}

/// Compiles the program in C against the library in `prefix`.
fn compile(prefix: &Path, program: &Path) -> Result<(), String> {
    let source: PathBuf = install::root().join(EXAMPLES).join("instructions.c");
    let library = prefix.join("lib");
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-O2", "-g", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
    command.arg(source).arg("-o").arg(program);
    command.arg("-I").arg(prefix.join("include")).arg("-L").arg(&library).arg("-lpmalloc");
    command.arg(format!("-Wl,-rpath,{}", library.display()));
    install::succeed(&mut command, "the program in C can't be compiled")
}
