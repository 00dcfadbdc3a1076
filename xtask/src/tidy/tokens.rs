//! Rules about single tokens: where `unsafe` may stand, and that nothing is left unfinished.
//!
//! They read tokens and not the syntax tree, because a tree does not look into macros. Comments and
//! strings are no tokens, so speaking of these words is free.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{Violation, source::Repository};

/// Where unsafe code may stand: a folder, or a file.
const UNSAFE_ALLOWED: &[&str] = &[
    "crates/persist/",
    "crates/capi/",
    "crates/bench-peers/",
    "crates/derive/",
    "crates/pmalloc/src/heap/entrusted.rs",
    "crates/pmalloc/src/value/own_types.rs",
    "crates/pmalloc/src/value/persistent.rs",
    "crates/pmalloc/src/value/raw.rs",
    "crates/pmalloc/src/extent/tests/",
    "crates/pmalloc/src/op/gate/tests.rs",
    "crates/pmalloc/tests/",
    // Those who explore, measure or damage heaps, and for that have handles of their media.
    "crates/bench/src/alloc/bare.rs",
    "crates/cli/src/replay/audit/tests.rs",
    "crates/guide/src/explore.rs",
    "crates/schedules/src/",
    "crates/verify/src/world.rs",
];

/// Finds `unsafe` outside the places that are reviewed for it.
pub(super) fn check_unsafe(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in repository.rust() {
        if UNSAFE_ALLOWED.iter().any(|allowed| file.path.starts_with(allowed)) {
            continue;
        }
        for_each_window(&file.text, &mut |window| {
            if is_ident(&window[0], "unsafe") {
                let line = window[0].span().start().line;
                violations.push(Violation::new(&file.path, line, "`unsafe` has no place here"));
            }
        });
    }
    violations
}

/// Finds code that is not written yet and tests that do not run.
///
/// `#[cfg_attr(miri, ignore)]` is no such test: it runs everywhere but under miri.
pub(super) fn check_unfinished(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in repository.rust() {
        for_each_window(&file.text, &mut |window| {
            if let Some(what) = unfinished(window) {
                let line = window[0].span().start().line;
                violations.push(Violation::new(&file.path, line, what));
            }
        });
    }
    violations
}

/// What is unfinished about the code that starts with `window`, one or two tokens.
fn unfinished(window: &[TokenTree]) -> Option<&'static str> {
    let [first, second] = window else { return None };
    if is_punct(second, '!') {
        let macros = [("todo", "`todo!`"), ("unimplemented", "`unimplemented!`")];
        let named = macros.into_iter().find(|(name, _)| is_ident(first, name));
        return named.map(|(_, what)| what);
    }
    let TokenTree::Group(group) = second else { return None };
    let is_attribute = is_punct(first, '#') && group.delimiter() == Delimiter::Bracket;
    let head = group.stream().into_iter().next()?;
    (is_attribute && is_ident(&head, "ignore")).then_some("`#[ignore]`")
}

/// Calls `visit` with each token and its successor in the same group, groups included.
fn for_each_window(text: &str, visit: &mut dyn FnMut(&[TokenTree])) {
    // What does not parse is reported once, by the syntax check.
    if let Ok(stream) = text.parse::<TokenStream>() {
        walk(stream, visit);
    }
}

fn walk(stream: TokenStream, visit: &mut dyn FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    for start in 0..tokens.len() {
        visit(&tokens[start..tokens.len().min(start + 2)]);
        if let TokenTree::Group(group) = &tokens[start] {
            walk(group.stream(), visit);
        }
    }
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<usize> {
        violations.iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn stray_unsafe_is_found_also_inside_a_macro() {
        let text = "fn f() { unsafe { g() } }\nm! { unsafe {} }\nunsafe impl Send for A {}\n";
        let found = check_unsafe(&Repository::of(&[("crates/pmalloc/src/slab/mod.rs", text)]));
        assert_eq!(lines(&found), [1, 2, 3]);
    }

    #[test]
    fn speaking_of_unsafe_is_free() {
        let text = "#![deny(unsafe_code)]\n// unsafe\n/* unsafe */ const A: &str = \"unsafe\";\n";
        assert_eq!(check_unsafe(&Repository::of(&[("a.rs", text)])), []);
    }

    #[test]
    fn unsafe_is_allowed_where_it_is_reviewed() {
        let text = "fn f() { unsafe { g() } }";
        for path in UNSAFE_ALLOWED {
            let path = if path.ends_with('/') { format!("{path}src/a.rs") } else { (*path).into() };
            assert_eq!(check_unsafe(&Repository::of(&[(&path, text)])), []);
        }
    }

    #[test]
    fn unfinished_code_and_ignored_tests_are_found() {
        let text = "fn f() { todo!() }\nfn g() { if a { unimplemented!(\"later\") } }\n\
                    #[test]\n#[ignore]\nfn t() {}\n#[ignore = \"slow\"]\nfn u() {}\n";
        let found = check_unfinished(&Repository::of(&[("crates/a/tests/t.rs", text)]));
        assert_eq!(lines(&found), [1, 2, 4, 6]);
    }

    #[test]
    fn finished_code_is_left_alone() {
        let text = "// todo!()\n#[cfg_attr(miri, ignore)]\nfn t() { let todo = 1; f([ignore]); }\n";
        assert_eq!(check_unfinished(&Repository::of(&[("a.rs", text)])), []);
    }
}
