//! `cargo xtask model`: the models of the protocol, optimised, as they run for minutes.

use xtask::install;

/// Builds and runs the explorer of the models.
///
/// # Errors
///
/// What could not be started, or that the models found something.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let mut command = install::cargo();
    command.args(["run", "--quiet", "--release", "--locked", "--package", "pmalloc-model", "--"]);
    install::succeed(command.args(args), "the models")
}
