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
            for word in words.iter().filter(|word| line.contains(**word)) {
                violations.push(Violation::new(&file.path, index + 1, format!("`{word}`")));
            }
        }
    }
    violations
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
            ("b.rs", "// somewhere\n"),
        ]);
        assert_eq!(check(&repository), [Violation::new("a.md", 2, "`/nowhere/`")]);
    }

    #[test]
    fn a_missing_list_is_not_taken_for_an_empty_one() {
        assert_eq!(check(&Repository::of(&[])).len(), 1);
    }
}
