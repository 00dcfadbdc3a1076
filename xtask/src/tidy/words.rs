//! Words that belong to one developer's machine or to unfinished work, in any text file.

use super::{Violation, source::Repository};

/// The list: one word a line, `#` for comments. It is the only file in which the words may stand.
const LIST: &str = "xtask/stray-words.txt";

/// Finds words of the list.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let Some(list) = repository.find(LIST) else {
        return vec![Violation::new(LIST, 1, "the list of stray words is missing")];
    };
    let words: Vec<&str> = list.text.lines().filter_map(word).collect();
    let mut violations = Vec::new();
    for file in repository.all().filter(|file| file.path != LIST) {
        for (index, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| stands_in(line, word)) {
                violations.push(Violation::new(&file.path, index + 1, format!("`{word}`")));
            }
        }
    }
    violations
}

/// Whether a line has the word; a path from the root of a machine is none inside of another path.
fn stands_in(line: &str, word: &str) -> bool {
    let is_inside = |at: usize| {
        let before = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        word.starts_with('/') && line[..at].ends_with(before)
    };
    line.match_indices(word).any(|(at, _)| !is_inside(at))
}

fn word(line: &str) -> Option<&str> {
    let line = line.trim();
    (!line.is_empty() && !line.starts_with('#')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_word_is_found_in_any_file_but_the_list() {
        let repository = Repository::of(&[
            (LIST, "# paths\n/nowhere/\n"),
            ("a.md", "fine\nsee /nowhere/else\n"),
            ("b.rs", "// somewhere, and src/nowhere/else\n"),
            ("c.rs", "//nowhere/ src/nowhere/ (/nowhere/)\n"),
        ]);
        let found = |path, line| Violation::new(path, line, "`/nowhere/`");
        assert_eq!(check(&repository), [found("a.md", 2), found("c.rs", 1)]);
    }

    #[test]
    fn a_missing_list_is_not_taken_for_an_empty_one() {
        assert_eq!(check(&Repository::of(&[])).len(), 1);
    }
}
