//! Goal: what is installed beside the command tells of it truly: a page of manual for each command, completions for each
//! shell, and nothing of the commands that only this program starts.
//!
//! Method: the chore of the installation installs the built command; shells read their completions.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use crate::common::{Place, run};
use xtask::install::{Folders, Symbols, install_command};

/// The commands that `pmalloc --help` lists.
fn listed() -> BTreeSet<String> {
    let help = run(&["--help"]).expect_code(0).stdout();
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Whether there is such a program.
fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn the_command_is_installed_with_its_manual_and_completions() {
    let place = Place::new();
    let built = Path::new(env!("CARGO_BIN_EXE_pmalloc")).parent().expect("a folder");
    let folders = Folders::new(Path::new("/usr")).destdir(&place.path("stage"));
    install_command(built, &folders.symbols(Symbols::Strip)).expect("installed");
    let root = place.path("stage/usr");

    let command = root.join("bin/pmalloc");
    assert_eq!(fs::metadata(&command).expect("there").permissions().mode() & 0o777, 0o755);
    let size = |path: &Path| fs::metadata(path).expect("there").len();
    assert!(size(&command) < size(Path::new(env!("CARGO_BIN_EXE_pmalloc"))), "it is stripped");
    let version = Command::new(&command).arg("--version").output().expect("it runs");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("pmalloc "), "{version:?}");

    let names = listed();
    assert!(names.contains("check") && names.contains("bench") && names.len() >= 9, "{names:?}");
    let entries = fs::read_dir(root.join("share/man/man1")).expect("pages");
    let pages: BTreeSet<String> = entries
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    for name in &names {
        assert!(pages.contains(&format!("pmalloc-{name}.1")), "no page of {name}: {pages:?}");
    }
    assert!(pages.contains("pmalloc.1") && !pages.iter().any(|page| page.contains("worker")));
    let page = fs::read_to_string(root.join("share/man/man1/pmalloc-map.1")).expect("a page");
    assert!(page.contains(".TH pmalloc-map 1") && page.contains("svg"), "{page}");
    let whole = fs::read_to_string(root.join("share/man/man1/pmalloc.1")).expect("a page");
    assert!(whole.contains("Exit codes") && !whole.contains("documents"), "{whole}");

    for (shell, file) in [
        ("bash", "share/bash-completion/completions/pmalloc"),
        ("zsh", "share/zsh/site-functions/_pmalloc"),
        ("fish", "share/fish/vendor_completions.d/pmalloc.fish"),
    ] {
        let file = root.join(file);
        let text = fs::read_to_string(&file).expect("completions");
        assert!(names.iter().all(|name| text.contains(name)), "{shell} knows all commands");
        assert!(!text.contains("replay-worker") && !text.contains("bench-cell"), "{shell}");
        if has(shell) {
            let read = Command::new(shell).arg("-n").arg(&file).status().expect("it runs");
            assert!(read.success(), "{shell} can't read its completions");
        } else {
            println!("not tried with {shell}, which is not there");
        }
    }
}
