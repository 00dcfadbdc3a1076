//! The files that tidy looks at: what git tracks or would track.

use std::{path::PathBuf, process::Command};

use super::Violation;

/// One text file, Rust or not.
pub(super) struct Source {
    /// Path from the repository's root.
    pub path: String,
    pub text: String,
    /// The parsed file, if it is Rust and parses.
    pub syntax: Option<syn::File>,
}

impl Source {
    /// A file of the given contents, parsed if its name says that it is Rust.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let is_rust = path.ends_with(".rs");
        let syntax = is_rust.then(|| syn::parse_file(text).ok()).flatten();
        Self { path: path.to_owned(), text: text.to_owned(), syntax }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file is code that only tests, examples or a build run.
    pub(super) fn is_auxiliary(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.iter().any(|part| ["tests", "examples", "build.rs"].contains(part))
    }
}

/// The files of a repository.
pub(super) struct Repository {
    files: Vec<Source>,
}

impl Repository {
    /// A repository made of the given paths and contents, for the tests of the checks.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| Source::new(path, text)).collect() }
    }

    /// Reads every text file that git tracks, and every new one that it does not ignore.
    pub(super) fn read() -> Result<Self, String> {
        let root = root()?;
        let listing =
            git(&root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = Vec::new();
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            let Ok(bytes) = std::fs::read(root.join(path)) else {
                continue; // Deleted, but the deletion is not yet staged.
            };
            // What is not UTF-8 is data, and has no rules.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(Source::new(path, &text));
            }
        }
        if files.is_empty() {
            return Err("tidy: git lists no file".to_owned());
        }
        Ok(Self { files })
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// Rust files that parse, with their syntax trees.
    pub(super) fn parsed(&self) -> impl Iterator<Item = (&Source, &syn::File)> {
        self.rust().filter_map(|file| Some((file, file.syntax.as_ref()?)))
    }

    pub(super) fn find(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Every Rust file parses: otherwise the other checks would pass it unseen.
pub(super) fn check_syntax(repository: &Repository) -> Vec<Violation> {
    let broken = repository.rust().filter(|file| file.syntax.is_none());
    broken.map(|file| Violation::new(&file.path, 1, "does not parse as Rust")).collect()
}

pub(super) fn root() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| format!("tidy: no current directory: {e}"))?;
    Ok(PathBuf::from(git(&here, &["rev-parse", "--show-toplevel"])?.trim_end()))
}

fn git(directory: &std::path::Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new("git").current_dir(directory).args(args).output();
    let output = output.map_err(|e| format!("tidy: cannot run git: {e}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("tidy: git {}: {}", args.join(" "), reason.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|_| "tidy: a path that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_parse_is_a_violation() {
        let repository = Repository::of(&[("a.rs", "fn f() {}"), ("b.rs", "fn f( {}")]);
        let found = check_syntax(&repository);
        assert_eq!(found, [Violation::new("b.rs", 1, "does not parse as Rust")]);
    }

    #[test]
    fn the_repository_itself_is_read() {
        let repository = Repository::read().expect("the tests run inside the repository");
        assert!(repository.find("xtask/src/tidy/source.rs").is_some());
    }
}
