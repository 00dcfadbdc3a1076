//! The `pmalloc` command: creates, inspects, checks and exercises persistent heaps.

#![deny(unsafe_code)]

mod args;
mod cmd;
mod exit;
mod interrupt;
mod map;
mod output;
mod replay;
mod trace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cmd::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pmalloc: {failure}");
            failure.code().into()
        }
    }
}
