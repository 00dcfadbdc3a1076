//! `cargo xtask tidy`: the house rules that neither rustc nor clippy knows.
//!
//! Each check is a function from the repository's files to its violations, so that its tests plant a
//! violation in a made-up repository and see it found. [`CHECKS`] lists them all.

pub(crate) mod format;
mod generated;
mod layers;
mod lengths;
mod manifests;
mod source;
mod tokens;
mod words;

use std::fmt;

use source::Repository;

/// Finds the places of a repository that break one rule.
type Check = fn(&Repository) -> Vec<Violation>;

/// All checks, in the order in which they report.
const CHECKS: &[(&str, Check)] = &[
    ("syntax", source::check_syntax),
    ("layers", layers::check),
    ("function length", lengths::check_functions),
    ("file length", lengths::check_files),
    ("module docs", lengths::check_module_docs),
    ("lints inherited", manifests::check),
    ("unsafe", tokens::check_unsafe),
    ("unfinished", tokens::check_unfinished),
    ("words", words::check),
    ("generated docs", generated::check),
];

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks the repository in which the command runs.
///
/// # Errors
///
/// What could not be read, or how many places break a rule; the places themselves are printed.
pub(crate) fn run() -> Result<(), String> {
    let repository = Repository::read()?;
    let mut count = 0;
    for (name, check) in CHECKS {
        for violation in check(&repository) {
            println!("{violation} [{name}]");
            count += 1;
        }
    }
    if count > 0 {
        return Err(format!("tidy: {count} violations"));
    }
    println!("tidy: {} checks, {} files, no violation", CHECKS.len(), repository.len());
    Ok(())
}
