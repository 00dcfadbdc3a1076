//! Goal: what `cargo xtask install` writes is found where it is said to be: by pkg-config, by the linker, with the library
//! shared and inside the program, in any folders, staged or not.
//!
//! Method: the library is installed into folders of several shapes, and programs are linked by what pkg-config says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::common::{built, installed, succeed};
use tempfile::TempDir;
use xtask::install::{Folders, Symbols, install_library};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What pkg-config says of the library whose description is in `library`, as words; nothing if there is no pkg-config.
fn pkg_config(library: &Path, args: &[&str]) -> Option<Vec<String>> {
    let is_there = Command::new("pkg-config").arg("--version").stdout(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        println!("skipped: there is no pkg-config (on Debian: apt-get install pkg-config)");
        return None;
    }
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", library.join("pkgconfig")).args(args).arg("pmalloc");
    Some(succeed(&mut command, "").split_whitespace().map(str::to_owned).collect())
}

/// Links the guest book by these words and sees it work; returns where it is, and its folder.
#[track_caller]
fn guestbook(flags: &[String], more: &[&str]) -> (TempDir, PathBuf) {
    let folder = folder();
    let program = folder.path().join("guestbook");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/guestbook.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    succeed(command.arg(source).arg("-o").arg(&program).args(more).args(flags), "");
    (folder, program)
}

fn run(program: &Path, library: &Path) {
    let folder = folder();
    let call = |args: &[&str]| {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", library).arg(folder.path().join("heap")).args(args);
        succeed(&mut command, "")
    };
    call(&["title", "Guests"]);
    assert_eq!(call(&["read"]), "Guests: 0\n");
}

#[test]
fn pkg_config_static_links_a_program_that_needs_no_library() {
    let library = installed().file("lib");
    let Some(flags) = pkg_config(&library, &["--static", "--cflags", "--libs"]) else { return };
    // All of it, the C library too.
    let (_folder, program) = guestbook(&flags, &["-static"]);
    run(&program, Path::new("/nowhere"));
    let needed = succeed(Command::new("readelf").arg("-d").arg(&program), "");
    assert!(!needed.contains("NEEDED"), "{needed}");
    // And as it comes: with the shared library, which is there as well.
    let (_folder, program) = guestbook(&flags, &[]);
    run(&program, &library);
}

#[test]
fn an_installation_is_found_in_any_folders_staged_or_not() {
    let folder = folder();
    let stage = folder.path().join("stage");
    let prefix = folder.path().join("opt");
    for (libdir, said) in [
        (prefix.join("lib/x86_64-linux-gnu"), "libdir=${prefix}/lib/x86_64-linux-gnu"),
        (folder.path().join("elsewhere"), "libdir=/"),
    ] {
        let folders = Folders::new(&prefix).libdir(&libdir).symbols(Symbols::Strip);
        install_library(built(), &folders).expect("installed");
        let text = fs::read_to_string(libdir.join("pkgconfig/pmalloc.pc")).expect("installed");
        assert!(text.contains(said), "{text}");
        if let Some(flags) = pkg_config(&libdir, &["--cflags", "--libs"]) {
            let (_folder, program) = guestbook(&flags, &[]);
            run(&program, &libdir);
        }
        // What is stripped is smaller, and links all the same.
        for (name, original) in
            [("libpmalloc.so.0", "libpmalloc_capi.so"), ("libpmalloc.a", "libpmalloc_capi.a")]
        {
            let size = |path: PathBuf| fs::metadata(path).expect("there").len();
            assert!(size(libdir.join(name)) < size(built().join(original)), "{name}");
        }
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(prefix.join("share/doc/pmalloc").join(licence).exists(), "{licence}");
        }
        fs::remove_dir_all(&prefix).expect("removed");

        // Staged, the same files lie elsewhere, and say the same of where they will be.
        let staged = |path: &Path| stage.join(path.strip_prefix("/").expect("an absolute path"));
        install_library(built(), &folders.destdir(&stage)).expect("installed");
        let pc = fs::read_to_string(staged(&libdir).join("pkgconfig/pmalloc.pc")).expect("staged");
        assert_eq!(pc, text);
        assert!(!prefix.exists() && staged(&prefix).join("include/pmalloc.h").exists());
        let link = fs::read_link(staged(&libdir).join("libpmalloc.so")).expect("a link");
        assert_eq!(link, Path::new("libpmalloc.so.0"));
    }
}
