//! What the tests of the C library share: an installed library, and programs that are compiled against it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Every warning is an error, also those of the standard's letter.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A language that the header is written in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Language {
    /// C, of a standard as the compiler calls it.
    C(&'static str),
    /// C++, likewise.
    Cxx(&'static str),
}

impl Language {
    fn compiler(self) -> Command {
        let (variable, usual, kind, standard) = match self {
            Self::C(standard) => ("CC", "cc", "c", standard),
            Self::Cxx(standard) => ("CXX", "c++", "c++", standard),
        };
        let program = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
        let mut command = Command::new(program);
        command.args(STRICT).arg(format!("-std={standard}")).args(["-x", kind]);
        command
    }
}

/// How a program is linked with the library.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Linking {
    /// The loader finds it.
    Shared,
    /// It is in the program.
    Static,
    /// The program opens it by itself.
    Late,
}

/// An installed library.
#[derive(Debug)]
pub(crate) struct Installed {
    prefix: PathBuf,
}

/// Names the prefix of an installed library that is to be tested: what users get, not what cargo builds for tests.
const PREFIX: &str = "PMALLOC_TEST_PREFIX";

/// The library under test, installed as the install command does it.
pub(crate) fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if let Some(prefix) = std::env::var_os(PREFIX) {
            let prefix = std::path::absolute(prefix).expect("a path");
            assert!(prefix.join("lib/libpmalloc.so").exists(), "a library in {}", prefix.display());
            return Installed { prefix };
        }
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let folders = xtask::install::Folders::new(&prefix);
        xtask::install::install_library(built(), &folders).expect("installed");
        Installed { prefix }
    })
}

/// The folder where cargo builds the library for its tests, which is theirs.
pub(crate) fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of this program");
        test.parent().expect("a folder").to_owned()
    })
}

/// A compiled program; it goes when the value does.
#[derive(Debug)]
pub(crate) struct Program {
    _folder: TempDir,
    path: PathBuf,
}

impl Program {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs it.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

impl Installed {
    /// The path of an installed file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.prefix.join(name)
    }

    /// What the pkg-config file says under `field`, as words.
    pub(crate) fn flags(&self, field: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file("lib/pkgconfig/pmalloc.pc")).expect("installed");
        let mut text = text.trim().to_owned();
        let variables: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (format!("${{{name}}}"), value.to_owned()))
            .collect();
        for (name, value) in variables.iter().rev() {
            text = text.replace(name, value);
        }
        let field = format!("{field}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&field));
        line.expect("a field").split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program from the file `source`, a path from the crate's folder.
    #[track_caller]
    pub(crate) fn program(
        &self,
        language: Language,
        source: impl AsRef<Path>,
        linking: Linking,
    ) -> Program {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("program");
        let mut command = language.compiler();
        command.arg(&source).arg("-o").arg(&path).args(["-x", "none", "-pthread"]);
        command.args(self.flags("Cflags"));
        match linking {
            Linking::Shared => {
                let path = format!("-Wl,-rpath,{}", self.file("lib").display());
                command.args(self.flags("Libs")).arg(path);
            }
            Linking::Static => {
                let [place, library] = &self.flags("Libs")[..] else {
                    panic!("a place, a library")
                };
                command.args([place, "-Wl,-Bstatic", library, "-Wl,-Bdynamic"]);
                command.args(self.flags("Libs.private"));
            }
            Linking::Late => _ = command.arg("-ldl"),
        }
        succeed(&mut command, "");
        Program { _folder: folder, path }
    }

    /// Sees that a text compiles, or says why not.
    pub(crate) fn compile(&self, language: Language, text: &str) -> Result<(), String> {
        let mut command = language.compiler();
        command.args(self.flags("Cflags")).args(["-fsyntax-only", "-"]);
        let output = run(&mut command, text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}

/// Runs a command with `input`.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("can't run {program}: {error}; the tests of the C library need gcc and g++: install both (on Debian: apt-get install gcc g++)")
    });
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Runs a command, which must succeed; returns what it printed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command, input: &str) -> String {
    let output = run(command, input);
    let (printed, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{said}", output.status);
    printed.into_owned()
}

/// The header as it is installed.
pub(crate) fn header() -> String {
    fs::read_to_string(installed().file("include/pmalloc.h")).expect("installed")
}

/// A text of C without its comments.
pub(crate) fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |code, part| code + part.split_once("*/").expect("a comment ends").1)
}

/// The functions that a text of C declares: words that an opening parenthesis follows.
pub(crate) fn functions_in(code: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = code.match_indices("pma_").map(|(at, _)| at);
    let whole = starts.filter(|at| !code[..*at].ends_with(is_word));
    let words = whole.map(|at| code[at..].split_at(code[at..].find(|c| !is_word(c)).unwrap_or(0)));
    words.filter(|(_, rest)| rest.starts_with('(')).map(|(name, _)| name).collect()
}
