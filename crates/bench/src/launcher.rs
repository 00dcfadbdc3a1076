//! Starts the child of a cell, and reports how it died. Volatile.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;

use crate::{
    cell::{Cell, Outcome},
    error::Error,
};

/// How to start a child: the program and arguments to which the cell's description is added. It has to end in
/// [`crate::run_cell`].
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<OsString>,
}

impl Launcher {
    /// Runs `cell` in a child.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] if it can't be started; [`Error::Child`] if it dies, or ends without an outcome.
    pub fn run(&self, cell: &Cell) -> Result<Outcome, Error> {
        let output = self.output(cell)?;
        let outcome =
            output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten();
        outcome.ok_or_else(|| death(cell, &output))
    }

    /// Runs `cell` in a child that has to kill itself.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and if it lives to its end.
    pub fn run_to_death(&self, cell: &Cell) -> Result<(), Error> {
        let output = self.output(cell)?;
        let signal = output.status.signal();
        if signal == Some(Signal::KILL.as_raw()) { Ok(()) } else { Err(death(cell, &output)) }
    }

    fn output(&self, cell: &Cell) -> Result<Output, Error> {
        let description = serde_json::to_string(cell).expect("a cell has string keys");
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg(description).stdin(Stdio::null());
        command.output().map_err(|source| Error::Start { program: self.program.clone(), source })
    }
}

fn death(cell: &Cell, output: &Output) -> Error {
    Error::Child {
        cell: cell.to_string(),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alloc::Subject, cell::Mode};
    use pmalloc::Policy;

    fn cell() -> Cell {
        crate::cell::tests::cell("none", "none", Subject::Heap(Policy::Eager), 1, Mode::Time)
    }

    /// A launcher of a shell that runs `script` and is given the cell as its argument.
    fn shell(script: &str) -> Launcher {
        Launcher { program: "/bin/sh".into(), args: ["-c", script, "sh"].map(Into::into).into() }
    }

    #[test]
    fn a_child_that_dies_is_reported_with_what_it_said() {
        let error = shell("echo it hurts >&2; kill -9 $$").run(&cell()).expect_err("it died");
        let text = error.to_string();
        for part in ["none/none, pmalloc-eager, 1 threads, Time, round 0", "signal: 9", "it hurts"]
        {
            assert!(text.contains(part), "no {part:?} in {text:?}");
        }
    }

    #[test]
    fn a_child_that_fails_or_says_nothing_is_no_outcome() {
        for script in ["echo '\"Left\"'; exit 1", "true", "echo '{\"Timed\":1}'"] {
            shell(script).run(&cell()).expect_err(script);
        }
        assert_eq!(shell("echo '\"Left\"'").run(&cell()).expect("an outcome"), Outcome::Left);
    }

    #[test]
    fn the_child_is_told_the_cell() {
        let script = r#"case "$1" in *'"bench":"none"'*) echo '"Left"';; esac"#;
        shell(script).run(&cell()).expect("the description is the last argument");
    }

    #[test]
    fn a_child_that_was_to_die_and_lived_is_an_error() {
        shell("kill -9 $$").run_to_death(&cell()).expect("it died as it had to");
        for script in ["true", "kill -ABRT $$"] {
            shell(script).run_to_death(&cell()).expect_err(script);
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let launcher = Launcher { program: "/no/such/program".into(), args: Vec::new() };
        let error = launcher.run(&cell()).expect_err("it can't be started");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
