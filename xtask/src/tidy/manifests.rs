//! Every crate inherits the workspace's lints: one that does not is outside the law unseen.

use super::{Violation, source::Repository};

/// Finds manifests of packages without `[lints] workspace = true`.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let manifests = repository.all().filter(|file| file.path.ends_with("Cargo.toml"));
    manifests
        .filter(|file| file.text.lines().any(|line| line.trim() == "[package]"))
        .filter(|file| !inherits_lints(&file.text))
        .map(|file| Violation::new(&file.path, 1, "no `[lints] workspace = true`"))
        .collect()
}

/// Whether the first entry of the table `[lints]` is the inheritance, as cargo writes it.
fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_the_lints_is_found() {
        let repository = Repository::of(&[
            ("Cargo.toml", "[workspace]\n"),
            ("crates/good/Cargo.toml", "[package]\nname = \"good\"\n\n[lints]\nworkspace = true\n"),
            ("crates/none/Cargo.toml", "[package]\nname = \"none\"\n"),
            ("crates/own/Cargo.toml", "[package]\n[lints]\nrust.missing_docs = \"allow\"\n"),
        ]);
        let found: Vec<String> = check(&repository).into_iter().map(|v| v.path).collect();
        assert_eq!(found, ["crates/none/Cargo.toml", "crates/own/Cargo.toml"]);
    }
}
