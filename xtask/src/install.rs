//! `cargo xtask install`: the C library and the command, under the names and in the folders where compilers, loaders,
//! pkg-config, man and shells look.
//!
//! The tests of the library install it, too, and compile against what they installed.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser;

/// The version that is installed, which all crates share.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a program asks the loader for; the library's `build.rs` writes it into the library.
const SONAME: &str = "libpmalloc.so.0";

/// The hidden command of `pmalloc` that writes its manual and completions.
const DOCUMENTS: &str = "documents";

/// What `cargo xtask install` is told.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask install",
    about = "Builds the C library and the command for release, and installs both"
)]
struct Args {
    /// Where everything is found once it is installed
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Where the libraries are found [default: PREFIX/lib]
    #[arg(long, value_name = "DIR")]
    libdir: Option<PathBuf>,
    /// Put in front of every path that is written, for packages [default: the environment's DESTDIR]
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
    /// Leave symbols and line numbers in what is installed
    #[arg(long)]
    no_strip: bool,
}

/// Whether symbols go, which only a debugger needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// They stay.
    Keep,
    /// They go.
    Strip,
}

/// Where things are found once they are installed, and what is put in front of that while they are.
#[derive(Debug, Clone)]
pub struct Folders {
    prefix: PathBuf,
    libdir: PathBuf,
    destdir: PathBuf,
    symbols: Symbols,
}

impl Folders {
    /// The usual folders under an absolute `prefix`.
    #[must_use]
    pub fn new(prefix: &Path) -> Self {
        let (libdir, destdir) = (prefix.join("lib"), PathBuf::new());
        Self { prefix: prefix.to_owned(), libdir, destdir, symbols: Symbols::Keep }
    }

    /// With the libraries in another absolute folder.
    #[must_use]
    pub fn libdir(mut self, libdir: &Path) -> Self {
        self.libdir = libdir.to_owned();
        self
    }

    /// Written under `destdir`, from where they are moved or packed later.
    #[must_use]
    pub fn destdir(mut self, destdir: &Path) -> Self {
        self.destdir = destdir.to_owned();
        self
    }

    /// With or without symbols.
    #[must_use]
    pub fn symbols(mut self, symbols: Symbols) -> Self {
        self.symbols = symbols;
        self
    }

    /// The folder to write instead of the absolute path `found`.
    fn staged(&self, found: &Path) -> PathBuf {
        // As GNU has it: the one is simply put in front of the other.
        let mut staged = self.destdir.clone().into_os_string();
        staged.push(found);
        staged.into()
    }

    fn share(&self) -> PathBuf {
        self.staged(&self.prefix.join("share"))
    }

    /// The folder of the libraries as the pkg-config file has it: it may be moved with the prefix.
    fn libdir_of_prefix(&self) -> String {
        match self.libdir.strip_prefix(&self.prefix) {
            Ok(inside) => format!("${{prefix}}/{}", inside.display()),
            Err(_) => self.libdir.display().to_string(),
        }
    }
}

/// Builds the library and the command for release and installs them as `args` say.
///
/// # Errors
///
/// What could not be done, for people.
pub fn run(args: &[&str]) -> Result<(), String> {
    let name = ["cargo xtask install"];
    let args = match Args::try_parse_from(name.iter().chain(args)) {
        Ok(args) => args,
        // Help is an answer, not a failure.
        Err(answer) if !answer.use_stderr() => return answer.print().map_err(|e| e.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut folders = Folders::new(&absolute(&args.prefix)?);
    if let Some(libdir) = &args.libdir {
        folders = folders.libdir(&absolute(libdir)?);
    }
    let destdir = args.destdir.or_else(|| std::env::var_os("DESTDIR").map(PathBuf::from));
    if let Some(destdir) = destdir.filter(|dir| !dir.as_os_str().is_empty()) {
        folders = folders.destdir(&absolute(&destdir)?);
    }
    if !args.no_strip {
        folders = folders.symbols(Symbols::Strip);
    }
    let built = build()?;
    install_library(&built, &folders)?;
    install_command(&built, &folders)?;
    println!("installed pmalloc {VERSION} in {}", folders.staged(&folders.prefix).display());
    Ok(())
}

/// Installs the library from the folder in which cargo built it, and the licences.
///
/// # Errors
///
/// What could not be written.
pub fn install_library(built: &Path, folders: &Folders) -> Result<(), String> {
    let source = root().join("crates/capi");
    let library = folders.staged(&folders.libdir);
    let header = folders.staged(&folders.prefix).join("include/pmalloc.h");
    let shared = format!("libpmalloc.so.{VERSION}");
    let strip = |options| Some(options).filter(|_| folders.symbols == Symbols::Strip);
    let (from, to) = (built.join("libpmalloc_capi.so"), library.join(&shared));
    program(&from, &to, 0o755, strip("--strip-unneeded"))?;
    link(&shared, &library.join(SONAME))?;
    link(SONAME, &library.join("libpmalloc.so"))?;
    let (from, to) = (built.join("libpmalloc_capi.a"), library.join("libpmalloc.a"));
    program(&from, &to, 0o644, strip("--strip-debug"))?;
    copy(&source.join("include/pmalloc.h"), &header, 0o644)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root().join(licence), &folders.share().join("doc/pmalloc").join(licence), 0o644)?;
    }
    let template = source.join("pmalloc.pc.in");
    let text = fs::read_to_string(&template).map_err(failed(&template))?;
    let text = text
        .replace("@PREFIX@", &folders.prefix.to_string_lossy())
        .replace("@LIBDIR@", &folders.libdir_of_prefix())
        .replace("@VERSION@", VERSION);
    replace(&library.join("pkgconfig/pmalloc.pc"), |new| fs::write(new, text))
}

/// Installs the command from the folder in which cargo built it, with its manual and its completions.
///
/// # Errors
///
/// What could not be written.
pub fn install_command(built: &Path, folders: &Folders) -> Result<(), String> {
    let from = built.join("pmalloc");
    let to = folders.staged(&folders.prefix).join("bin/pmalloc");
    let strip = Some("--strip-all").filter(|_| folders.symbols == Symbols::Strip);
    program(&from, &to, 0o755, strip)?;
    // The command knows its own options: what it writes is never out of date.
    let mut documents = Command::new(&from);
    succeed(documents.arg(DOCUMENTS).arg(folders.share()), "the manual can't be written")
}

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// Cargo, to be run in the repository's root.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds library and command for release; returns the folder that they are in.
fn build() -> Result<PathBuf, String> {
    let built = build_library()?;
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--package", "pmalloc-cli"]);
    succeed(&mut command, "the command can't be built")?;
    Ok(built)
}

/// Builds the library for release; returns the folder that it is in.
///
/// # Errors
///
/// That cargo failed, which says why.
pub fn build_library() -> Result<PathBuf, String> {
    let mut library = cargo();
    // Without the library for Rust, which can't be optimised as a whole and would keep the others from it.
    library.args(["rustc", "--release", "--locked", "--package", "pmalloc-capi", "--lib"]);
    library.args(["--crate-type", "cdylib,staticlib"]);
    succeed(&mut library, "the library can't be built")?;
    Ok(target().join("release"))
}

/// Runs a command; what it says is seen.
///
/// # Errors
///
/// The `trouble`, and how the command ended.
pub fn succeed(command: &mut Command, trouble: &str) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{trouble}: {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{trouble}: {name}: {status}")) }
}

/// Copies a program or library, without its symbols if there is a `strip` option for that.
fn program(from: &Path, to: &Path, mode: u32, strip: Option<&str>) -> Result<(), String> {
    replace(to, |new| {
        fs::copy(from, new).map_err(|error| named(from, &error))?;
        if let Some(option) = strip {
            // Of binutils, as the linker is; another one for another machine's programs.
            let mut command = Command::new(std::env::var_os("STRIP").unwrap_or("strip".into()));
            succeed(
                command.arg(option).arg(new),
                "symbols can't be stripped (--no-strip keeps them)",
            )
            .map_err(io::Error::other)?;
        }
        fs::set_permissions(new, fs::Permissions::from_mode(mode))
    })
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    program(from, to, mode, None)
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
    replaced().map_err(|error| {
        // What is half made must not be found by anybody.
        let _ = fs::remove_file(&new);
        failed(to)(error)
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> String {
    move |error| format!("can't write {}: {error}", path.display())
}
