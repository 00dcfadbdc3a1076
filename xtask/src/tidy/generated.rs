//! Documents that repeat what the code says are rendered from the code and compared.

use super::{Violation, format, source::Repository};

/// A passage of a document that is generated.
struct Passage {
    /// The document.
    path: &'static str,
    /// Renders the passage as it must stand there, whole.
    render: fn(&Repository) -> String,
    /// The command that writes it there.
    command: &'static str,
}

/// All generated passages.
const PASSAGES: &[Passage] =
    &[Passage { path: format::DOCUMENT, render: format::render, command: "cargo xtask format" }];

/// Finds documents that do not contain their generated passages.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    compare(repository, PASSAGES)
}

fn compare(repository: &Repository, passages: &[Passage]) -> Vec<Violation> {
    let stale = passages.iter().filter(|passage| {
        let document = repository.find(passage.path);
        document.is_none_or(|document| !document.text.contains(&(passage.render)(repository)))
    });
    stale
        .map(|passage| {
            let what = format!("out of date: run `{}`", passage.command);
            Violation::new(passage.path, 1, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_missing_document_is_found() {
        let passage =
            |path| Passage { path, render: |_| "| word | 8 |\n".to_owned(), command: "make" };
        let repository = Repository::of(&[
            ("docs/fresh.md", "# Format\n\n| word | 8 |\n"),
            ("docs/stale.md", "# Format\n\n| word | 4 |\n"),
        ]);
        let passages = [passage("docs/fresh.md"), passage("docs/stale.md"), passage("docs/no.md")];
        let found: Vec<String> =
            compare(&repository, &passages).into_iter().map(|v| v.path).collect();
        assert_eq!(found, ["docs/stale.md", "docs/no.md"]);
    }
}
