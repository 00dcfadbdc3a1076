//! Chores of this repository, run as `cargo xtask NAME`.
//!
//! A chore is a subcommand when it is more than one line of shell: it reads the sources, starts other
//! programs or renders a document. Nothing here is shipped.

mod cases;
mod instructions;
mod model;
mod mutants;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask NAME

  tidy                  check the house rules that neither rustc nor clippy knows
  format                write the tables of docs/format.md from the declarations of the layout
  model                 explore the models of the protocol: every crash, every broken rule; --full for
                        hours, --scenario NAME for some, --random SECONDS for others, --list for names
  install               build the C library and the command for release and install both, with manual,
                        completions and pkg-config file; see --help after it
  instructions          count the instructions of each operation under callgrind and compare with
                        crates/bench/instructions.txt; see --help after it
  mutants               plant faults of logic one at a time, and tell which no test notices; see --help
                        after it
  cases DIR [NAME ...]  run a folder of small programs that once showed a wrong behaviour; see --help after it";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match names.as_slice() {
        ["tidy"] => tidy::run(),
        ["format"] => tidy::format::run(),
        ["instructions", args @ ..] => instructions::run(args),
        ["model", args @ ..] => model::run(args),
        ["mutants", args @ ..] => mutants::run(args),
        ["install", args @ ..] => xtask::install::run(args),
        ["cases", args @ ..] => cases::run(args),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
