//! `cargo xtask model`: the models of the protocol, optimised, as they run for minutes.

use std::{env, process::Command};

/// Builds and runs the explorer of the models.
///
/// # Errors
///
/// What could not be started, or that the models found something.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--locked", "--package", "pmalloc-model", "--"])
        .args(args)
        .status()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("model: {status}")) }
}
