//! `pmalloc documents`: the manual and the completions of this command, made of what it accepts. Volatile.
//!
//! The installation calls it: nobody else needs to know.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory};
use clap_complete::{
    generate,
    shells::{Bash, Fish, Zsh},
};

use crate::{
    args::{Cli, DocumentsArgs},
    exit::Failure,
};

/// The command's name, and that of everything that is written.
const NAME: &str = "pmalloc";

/// Writes into the folder that `args` name, which is usually called `share`.
pub(super) fn run(args: &DocumentsArgs) -> Result<(), Failure> {
    let share = &args.share;
    let write = || {
        manual(&share.join("man/man1"))?;
        completions(share)
    };
    write().map_err(Failure::io(format!("write the manual into {}", share.display())))
}

/// A page for the command and for each of its subcommands.
fn manual(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(shown(), folder)
}

/// Where each shell looks for what it completes.
fn completions(share: &Path) -> io::Result<()> {
    let (mut bash, mut zsh, mut fish) = (Vec::new(), Vec::new(), Vec::new());
    generate(Bash, &mut shown(), NAME, &mut bash);
    generate(Zsh, &mut shown(), NAME, &mut zsh);
    generate(Fish, &mut shown(), NAME, &mut fish);
    for (place, text) in [
        ("bash-completion/completions/pmalloc", bash),
        ("zsh/site-functions/_pmalloc", zsh),
        ("fish/vendor_completions.d/pmalloc.fish", fish),
    ] {
        let file = share.join(place);
        fs::create_dir_all(file.parent().expect("a folder"))?;
        fs::write(file, text)?;
    }
    Ok(())
}

/// What people are told of: without the commands that this program starts itself.
fn shown() -> Command {
    let whole = Cli::command();
    let hidden = |command: &&Command| !command.is_hide_set();
    let commands: Vec<Command> = whole.get_subcommands().filter(hidden).cloned().collect();
    let bare = Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommand_required(true);
    let about = whole.get_about().cloned().unwrap_or_default();
    let after = whole.get_after_help().cloned().unwrap_or_default();
    bare.about(about).after_help(after).subcommands(commands)
}
