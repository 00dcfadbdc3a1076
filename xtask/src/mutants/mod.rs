//! `cargo xtask mutants`: faults of logic, planted one at a time in the allocator by cargo-mutants, and whether a test
//! notices.
//!
//! The whole campaign takes hours and is run by hand; CI runs a sample that is always the same. What survives is listed
//! with the reason in `xtask/survivors.txt`, and a difference between the list and what was found is a failure.
//!
//! What is planted stands in `.cargo/mutants.toml`, what has to notice it in [`campaign`].

mod campaign;
mod choice;
mod mutant;
mod survivors;
mod tree;

use clap::Parser;

use mutant::Sample;

/// What `cargo xtask mutants` is told.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask mutants",
    about = "Plants faults of logic one at a time, and tells which of them no test notices"
)]
struct Args {
    /// Only the K-th of N samples: always the same faults, whatever changes around them
    #[arg(long, value_name = "K/N")]
    sample: Option<Sample>,
    /// Only in files that match, such as `crates/pmalloc/src/lane/**`; can be repeated
    #[arg(short, long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// Go on with a campaign that was stopped; the sources, --file and --sample must be the same
    #[arg(long)]
    resume: bool,
    /// Print the faults, and plant none
    #[arg(long)]
    list: bool,
}

/// Plants the faults that `args` choose and compares what survived with the list.
///
/// # Errors
///
/// What went wrong, or how what was found differs from the list.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let name = ["cargo xtask mutants"];
    let args = match Args::try_parse_from(name.iter().chain(args)) {
        Ok(args) => args,
        // Help is an answer, not a failure.
        Err(answer) if !answer.use_stderr() => return answer.print().map_err(|e| e.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let tree = tree::copy()?;
    let all = mutant::list(&tree, &[])?;
    let mut chosen =
        if args.files.is_empty() { all.clone() } else { mutant::list(&tree, &args.files)? };
    if let Some(sample) = args.sample {
        chosen.retain(|mutant| sample.holds(mutant));
    }
    if args.list {
        chosen.iter().for_each(|mutant| println!("{mutant}"));
        return Ok(());
    }
    println!("{} of {} faults", chosen.len(), all.len());
    let listed = survivors::known()?;
    let verdicts = campaign::run(&tree, &all, &chosen, &args)?;
    survivors::report(&listed, &all, &verdicts)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Args::command().debug_assert();
    }
}
