//! `cargo xtask cases DIR`: small programs that once showed a wrong behaviour, run against this checkout.
//!
//! `DIR` holds `rust/` (one crate with a program per file), `c/`, `sh/` and `tests/` (tests of the crate `pmalloc`). It is
//! copied, the copy is built against this checkout, and a line says of each case what is right and whether that was seen.
//! What is right stands in the table: a case that it doesn't know is skipped.

mod adapt;
mod table;
mod workshop;

use std::path::PathBuf;

use clap::Parser;

use self::{
    table::{Case, Right},
    workshop::Workshop,
};

/// What `cargo xtask cases` is told.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cases", about = "Runs a folder of cases against this checkout")]
struct Args {
    /// The folder with rust/, c/, sh/ and tests/
    dir: PathBuf,
    /// Only the cases whose names contain one of these, such as c/late
    names: Vec<String>,
    /// Where library and command are installed, if what this checkout installs isn't meant
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
}

/// How a case went, and why.
enum Verdict {
    Passes(&'static str),
    Fails(String),
    Skipped(String),
    /// It is wrong still, and is not run.
    Later,
}

/// Runs the cases that `args` name.
///
/// # Errors
///
/// What could not be prepared, or how many cases fail.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let args = match Args::try_parse_from(["cargo xtask cases"].iter().chain(args)) {
        Ok(args) => args,
        Err(answer) if !answer.use_stderr() => return answer.print().map_err(|e| e.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let wanted =
        |name: &String| args.names.is_empty() || args.names.iter().any(|part| name.contains(part));
    let workshop = Workshop::new(&args.dir, args.prefix)?;
    let (mut seen, mut failed) = (0, 0);
    for name in workshop.names()?.into_iter().filter(wanted) {
        seen += 1;
        let Some(case) = table::find(&name) else {
            println!("skipped  {name}: the table doesn't say what is right");
            continue;
        };
        match judge(&workshop, case) {
            Verdict::Passes(how) => println!("passes   {name}: {}{how}", case.should),
            Verdict::Later => println!("later    {name}: {}", case.should),
            Verdict::Skipped(why) => println!("skipped  {name}: {why}"),
            Verdict::Fails(said) => {
                failed += 1;
                println!("fails    {name}: should be: {}\n{said}", case.should);
            }
        }
    }
    match (seen, failed) {
        (0, _) => Err(format!("no such cases in {}", args.dir.display())),
        (_, 0) => Ok(()),
        _ => Err(format!("{failed} of {seen} cases fail")),
    }
}

fn judge(workshop: &Workshop, case: &Case) -> Verdict {
    let script = match case.right {
        Right::Helper => return Verdict::Skipped("other cases run it".to_owned()),
        Right::Later => return Verdict::Later,
        Right::Refused(error) => return refused(workshop.build(case), error),
        Right::Behaves(script) => script,
    };
    if let Some(tool) = case.needs.iter().find(|tool| !workshop::has(tool)) {
        return Verdict::Skipped(format!("needs {tool}"));
    }
    match workshop.build(case).and_then(|()| workshop.script(script)) {
        Ok(()) => Verdict::Passes(""),
        Err(said) => Verdict::Fails(said),
    }
}

/// A program that the compiler must refuse with this error.
fn refused(built: Result<(), String>, error: &str) -> Verdict {
    match built {
        Ok(()) => Verdict::Fails("it compiles".to_owned()),
        Err(said) if said.contains(error) => Verdict::Passes("; the compiler refuses it"),
        Err(said) => Verdict::Fails(said),
    }
}
