//! Documents that repeat what the code says are rendered from the code and compared.

use super::{Violation, source::Repository};

/// A passage of a document that is generated.
struct Passage {
    /// The document.
    path: &'static str,
    /// Renders the passage as it must stand there, whole.
    render: fn() -> String,
}

/// All generated passages.
const PASSAGES: &[Passage] = &[];

/// Finds documents that do not contain their generated passages.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    compare(repository, PASSAGES)
}

fn compare(repository: &Repository, passages: &[Passage]) -> Vec<Violation> {
    let stale = passages.iter().filter(|passage| {
        let document = repository.find(passage.path);
        document.is_none_or(|document| !document.text.contains(&(passage.render)()))
    });
    stale
        .map(|passage| {
            let what = format!("out of date; it must contain:\n{}", (passage.render)());
            Violation::new(passage.path, 1, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_missing_document_is_found() {
        let passage = |path| Passage { path, render: || "| word | 8 |\n".to_owned() };
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
