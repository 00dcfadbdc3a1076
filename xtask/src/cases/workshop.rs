//! The copy of the cases, built and run apart: what they break or leave behind is gone with it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use xtask::install::{root, target};

use super::{
    adapt,
    table::{CASES, Case, Right},
};

/// What a script of the table may call: it stands in an empty folder, and what it runs by `ends` is heard in `$OUT`.
const PRELUDE: &str = r#"
trap 'rmdir /dev/shm/cases 2>/dev/null' EXIT
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p /dev/shm/cases; cd "$(mktemp -d -p "$HEAPS")" || exit 9
OUT=$HEAPS/out; : >"$OUT"
wrong() { echo "    $1"; head -c 3000 "$OUT" | sed 's/^/    | /'; exit 1; }
says() { grep -qE -e "$1" "$OUT" || wrong "doesn't say: $1"; }
never() { ! grep -qE -e "$1" "$OUT" || wrong "says: $1"; }
ends() { "${@:2}" >>"$OUT" 2>&1; local rc=$?; [ $rc = "$1" ] || wrong "ends with $rc, not $1: ${*:2}"; }
"#;

/// Seconds that a script may take.
const PATIENCE: &str = "400";

/// The manifest of the tests. They have a crate of their own: cargo builds the programs of a crate before its tests, and some
/// of the cases must not compile.
const MANIFEST_OF_TESTS: &str = r#"
[package]
name = "cases-tests"
version = "0.0.0"
edition = "2024"
[workspace]
[lib]
path = "empty.rs"
[dev-dependencies]
pmalloc = { path = "CHECKOUT" }
tempfile = "3"
"#;

/// The folders in which cases are built and run.
pub(super) struct Workshop {
    /// The copy of the cases, with what is built of those in C.
    cases: TempDir,
    /// Where heaps are made: in memory where that is a file system.
    heaps: TempDir,
    /// The target folder of the programs, kept from run to run: what they depend on is built once.
    target: PathBuf,
    /// Where library and command are installed.
    prefix: PathBuf,
}

impl Workshop {
    /// Copies the cases and installs what they run on, unless it is under `prefix`.
    pub(super) fn new(dir: &Path, prefix: Option<PathBuf>) -> Result<Self, String> {
        let heaps = match Path::new("/dev/shm") {
            shm if shm.is_dir() => TempDir::with_prefix_in("pmalloc-cases-", shm),
            _ => TempDir::with_prefix("pmalloc-cases-"),
        };
        let heaps = heaps.map_err(named(Path::new("a temporary folder")))?;
        let cases = TempDir::with_prefix("pmalloc-cases-").map_err(named(dir))?;
        for (kind, to) in [("rust", "rust"), ("c", "c"), ("sh", "sh"), ("tests", "tests/tests")] {
            copy(&dir.join(kind), &cases.path().join(to)).map_err(named(&dir.join(kind)))?;
        }
        let prefix = match prefix {
            Some(prefix) => std::path::absolute(&prefix).map_err(named(&prefix))?,
            None => {
                let prefix = cases.path().join("installed");
                xtask::install::run(&["--no-strip", "--prefix", &prefix.to_string_lossy()])?;
                prefix
            }
        };
        let workshop = Self { heaps, target: target().join("cases"), prefix, cases };
        workshop.point_to_checkout()?;
        workshop.build_helpers()?;
        Ok(workshop)
    }

    /// Makes the crates of the cases depend on this checkout, with its lock file and its compiler.
    fn point_to_checkout(&self) -> Result<(), String> {
        let (programs, tests) = (self.cases.path().join("rust"), self.cases.path().join("tests"));
        let checkout = root().join("crates/pmalloc");
        let manifest = programs.join("Cargo.toml");
        if manifest.is_file() {
            let text = fs::read_to_string(&manifest).map_err(named(&manifest))?;
            let pmalloc = format!("pmalloc = {{ path = {checkout:?} }}");
            let lines = text.lines().map(|line| match line.starts_with("pmalloc ") {
                true => pmalloc.as_str(),
                false => line,
            });
            fs::write(&manifest, lines.collect::<Vec<_>>().join("\n")).map_err(named(&manifest))?;
        }
        let manifest = MANIFEST_OF_TESTS.replace("CHECKOUT", &checkout.to_string_lossy());
        fs::write(tests.join("Cargo.toml"), manifest).map_err(named(&tests))?;
        fs::write(tests.join("empty.rs"), "").map_err(named(&tests))?;
        for file in ["Cargo.lock", "rust-toolchain.toml"] {
            let from = root().join(file);
            for to in [&programs, &tests] {
                fs::copy(&from, to.join(file)).map_err(named(&from))?;
            }
        }
        Ok(())
    }

    /// The library of the cases, and what other cases call.
    fn build_helpers(&self) -> Result<(), String> {
        let library = self.cases.path().join("rust/lib.rs");
        if library.is_file() {
            adapt_file(&library)?;
        }
        CASES
            .iter()
            .filter(|case| matches!(case.right, Right::Helper) && self.source(case).is_file())
            .try_for_each(|case| self.build(case))
    }

    /// The names of the cases, such as `c/late`.
    pub(super) fn names(&self) -> Result<BTreeSet<String>, String> {
        let mut names = BTreeSet::new();
        for (kind, ending) in [("rust", "rs"), ("c", "c"), ("sh", "sh"), ("tests", "rs")] {
            let folder = self.folder(kind);
            for file in files(&folder).map_err(named(&folder))? {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let is_case = file.extension().is_some_and(|found| found == ending);
                if is_case && (kind, stem.as_str()) != ("rust", "lib") {
                    names.insert(format!("{kind}/{stem}"));
                }
            }
        }
        Ok(names)
    }

    fn folder(&self, kind: &str) -> PathBuf {
        self.cases.path().join(if kind == "tests" { "tests/tests" } else { kind })
    }

    fn source(&self, case: &Case) -> PathBuf {
        let (kind, name) = case.name.split_once('/').unwrap_or_default();
        let ending = if matches!(kind, "c" | "sh") { kind } else { "rs" };
        self.folder(kind).join(name).with_extension(ending)
    }

    /// Builds a case; what the compiler says if it refuses.
    pub(super) fn build(&self, case: &Case) -> Result<(), String> {
        let (kind, name) = case.name.split_once('/').unwrap_or_default();
        if case.adapt {
            adapt_file(&self.source(case))?;
        }
        let mut compiler = match kind {
            "rust" => self.cargo(kind, &["build", "--bin", name]),
            "tests" => self.cargo(kind, &["test", "--no-run", "--test", name]),
            "c" => self.cc(&self.source(case), name),
            _ => return Ok(()),
        };
        let output = compiler.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    }

    fn cargo(&self, folder: &str, args: &[&str]) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(self.cases.path().join(folder)).args(args).args(["--release", "--quiet"]);
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    fn cc(&self, source: &Path, name: &str) -> Command {
        let library = self.prefix.join("lib");
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.args(["-O1", "-w", "-pthread", "-o"]).arg(self.cases.path().join("c").join(name));
        cc.arg(source).arg("-I").arg(self.prefix.join("include"));
        cc.arg("-L").arg(&library).arg(format!("-Wl,-rpath,{}", library.display()));
        cc.args(["-lpmalloc", "-ldl"]);
        cc
    }

    /// Runs a script of the table; what was wrong, if it doesn't end well.
    pub(super) fn script(&self, script: &str) -> Result<(), String> {
        let cases = self.cases.path();
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=5", PATIENCE]);
        if has("root") {
            // What it mounts goes with it.
            shell.args(["unshare", "--mount", "--propagation", "private"]);
        }
        shell.args(["bash", "-c"]).arg(format!("{PRELUDE}{script}"));
        shell.env("HEAPS", self.heaps.path()).env("P", self.prefix.join("bin/pmalloc"));
        shell.env("RUST", self.target.join("release")).env("CARGO_TARGET_DIR", &self.target);
        for (name, folder) in [("C", "c"), ("SH", "sh"), ("PROGRAMS", "rust"), ("TESTS", "tests")] {
            shell.env(name, cases.join(folder));
        }
        let output = shell.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(124 | 137) => Err(format!("    it doesn't end\n{}", text(&output))),
            _ => Err(text(&output)),
        }
    }
}

/// Whether there is a tool; `root` is the right to use one.
pub(super) fn has(tool: &str) -> bool {
    let asked = match tool {
        "root" => "unshare --mount true".to_owned(),
        "miri" => "cargo +nightly miri --version".to_owned(),
        "a loop device" => "test -e /dev/loop-control".to_owned(),
        tool => format!("PATH=$PATH:/usr/sbin:/sbin; command -v {tool}"),
    };
    let output = Command::new("sh").args(["-c", &asked]).output();
    output.is_ok_and(|output| output.status.success())
}

fn adapt_file(path: &Path) -> Result<(), String> {
    let source = fs::read_to_string(path).map_err(named(path))?;
    fs::write(path, adapt::to_interface(&source)).map_err(named(path))
}

/// Copies the files of a folder, if it is there, so that they can be changed and run.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in files(from)? {
        // Contents only: the file itself may be one that can't be written.
        fs::write(to.join(file.file_name().unwrap_or_default()), fs::read(&file)?)?;
    }
    Ok(())
}

/// The files of a folder; none if it isn't there.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}
