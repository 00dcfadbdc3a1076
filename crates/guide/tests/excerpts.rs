//! Goal: what the guide quotes is what is compiled and explored.
//!
//! Method: each excerpt of `docs/guide.md` names its source in its first line, and must stand there line by line;
//! indentation and documentation comments do not count. Excerpts are blocks of `rs`, which a documentation test leaves alone;
//! the program at the beginning is a block of `rust`, and one.

use std::{fs, path::Path};

#[test]
fn every_excerpt_of_the_guide_stands_in_its_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("../../docs/guide.md")).expect("the guide");
    let mut count = 0;
    for excerpt in guide.split("```rs\n").skip(1) {
        let excerpt = excerpt.split("```").next().expect("the block ends");
        let (path, code) = excerpt.split_once('\n').expect("it has a first line");
        let path = path.strip_prefix("// ").expect("the first line names the source");
        let source = fs::read_to_string(root.join("src").join(path)).expect(path);
        let (wanted, lines) = (code_of(code), code_of(&source));
        let stands = lines.windows(wanted.len()).any(|window| window == wanted);
        assert!(stands, "{path} does not have this:\n{code}");
        count += 1;
    }
    assert!(count > 10, "only {count} excerpts were found");
}

/// The lines of `text` that are code.
fn code_of(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("///")).collect()
}
