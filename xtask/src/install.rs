//! `cargo xtask install`: the C library under the names and in the folders where compilers, loaders and pkg-config look.
//!
//! The tests of the library install it, too, and compile against what they installed.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The version that is installed, which all crates share.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a program asks the loader for; the library's `build.rs` writes it into the library.
const SONAME: &str = "libpmalloc.so.0";

/// Builds the library for release and installs it, as `args` say: `--prefix DIR`.
///
/// # Errors
///
/// What could not be done, for people.
pub fn run(args: &[&str]) -> Result<(), String> {
    let ["--prefix", prefix] = args else {
        return Err("usage: cargo xtask install --prefix DIR".to_owned());
    };
    let prefix = std::path::absolute(prefix).map_err(|error| format!("{prefix}: {error}"))?;
    install(&build()?, &prefix)?;
    println!("installed libpmalloc {VERSION} in {}", prefix.display());
    Ok(())
}

/// Installs the library from the folder in which cargo built it.
///
/// # Errors
///
/// What could not be written.
pub fn install(built: &Path, prefix: &Path) -> Result<(), String> {
    let source = root().join("crates/capi");
    let library = prefix.join("lib");
    let header = prefix.join("include/pmalloc.h");
    let description = library.join("pkgconfig/pmalloc.pc");
    let shared = format!("libpmalloc.so.{VERSION}");
    copy(&built.join("libpmalloc_capi.so"), &library.join(&shared), 0o755)?;
    link(&shared, &library.join(SONAME))?;
    link(SONAME, &library.join("libpmalloc.so"))?;
    copy(&built.join("libpmalloc_capi.a"), &library.join("libpmalloc.a"), 0o644)?;
    copy(&source.join("include/pmalloc.h"), &header, 0o644)?;
    let template = source.join("pmalloc.pc.in");
    let text = fs::read_to_string(&template).map_err(failed(&template))?;
    let text = text.replace("@PREFIX@", &prefix.to_string_lossy()).replace("@VERSION@", VERSION);
    replace(&description, |new| fs::write(new, text))
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the library for release; returns the folder that it is in.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Without the library for Rust, which can't be optimised as a whole and would keep the others from it.
    command.args(["rustc", "--release", "--locked", "--package", "pmalloc-capi", "--lib"]);
    command.args(["--crate-type", "cdylib,staticlib"]);
    let status = command.current_dir(root()).status().map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("the library can't be built: {status}"));
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(root().join(target).join("release"))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    replace(to, |new| {
        fs::copy(from, new).map_err(|error| named(from, &error))?;
        fs::set_permissions(new, fs::Permissions::from_mode(mode))
    })
}

fn link(target: &str, to: &Path) -> Result<(), String> {
    replace(to, |new| symlink(target, new))
}

/// Makes a file beside `to` and gives it that name then: a program that has the old one open keeps it.
fn replace(to: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), String> {
    let new = to.with_added_extension(format!("new-{}", std::process::id()));
    let replaced = || {
        fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        make(&new)?;
        fs::rename(&new, to)
    };
    replaced().map_err(failed(to))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> String {
    move |error| format!("can't write {}: {error}", path.display())
}
