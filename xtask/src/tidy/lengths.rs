//! How long a function and a file may be, and how a file opens.

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::{Violation, source::Repository};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Every function, tests included, fits on a screen; its documentation does not count.
pub(super) fn check_functions(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, syntax) in repository.parsed() {
        let mut visitor = Functions { path: &file.path, violations: &mut violations };
        visitor.visit_file(syntax);
    }
    violations
}

/// Every Rust file ends before it holds a second idea.
pub(super) fn check_files(repository: &Repository) -> Vec<Violation> {
    let lengths = repository.rust().map(|file| (file, file.text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| {
            let what = format!("the file has {lines} lines, the stop is {FILE_LINES_MAX}");
            Violation::new(&file.path, FILE_LINES_MAX + 1, what)
        })
        .collect()
}

/// Every module says at its top what it is.
pub(super) fn check_module_docs(repository: &Repository) -> Vec<Violation> {
    let modules = repository.rust().filter(|file| !file.is_auxiliary());
    modules
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| Violation::new(&file.path, 1, "the file does not start with `//!`"))
        .collect()
}

struct Functions<'a> {
    path: &'a str,
    violations: &'a mut Vec<Violation>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let line = |span: Span| span.start().line;
        let first = line(signature.fn_token.span);
        let lines = line(body.brace_token.span.close()) - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let what = format!("`{name}` has {lines} lines, the stop is {FUNCTION_LINES_MAX}");
            self.violations.push(Violation::new(self.path, first, what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.measure(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fn f` of `lines` lines in all.
    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    fn long_functions(text: &str) -> usize {
        check_functions(&Repository::of(&[("a.rs", text)])).len()
    }

    #[test]
    fn a_function_may_have_as_many_lines_as_the_stop_and_no_more() {
        assert_eq!(long_functions(&function(FUNCTION_LINES_MAX)), 0);
        assert_eq!(long_functions(&function(FUNCTION_LINES_MAX + 1)), 1);
    }

    #[test]
    fn methods_trait_defaults_and_nested_functions_are_measured() {
        let long = function(FUNCTION_LINES_MAX + 1);
        assert_eq!(long_functions(&format!("impl A {{ {long} }}")), 1);
        assert_eq!(long_functions(&format!("trait A {{ {long} }}")), 1);
        assert_eq!(long_functions(&format!("mod m {{ {long} }}")), 1);
        // The inner one and the one around it.
        assert_eq!(long_functions(&format!("fn outer() {{ {long} }}")), 2);
    }

    #[test]
    fn documentation_does_not_lengthen_a_function() {
        let docs = "/// Line.\n".repeat(FUNCTION_LINES_MAX);
        assert_eq!(long_functions(&format!("{docs}{}", function(3))), 0);
    }

    #[test]
    fn a_file_may_have_as_many_lines_as_the_stop_and_no_more() {
        let fits = "//!\n".repeat(FILE_LINES_MAX);
        let over = format!("{fits}//!\n");
        let repository = Repository::of(&[("fits.rs", &fits), ("over.rs", &over), ("o.md", &over)]);
        let found: Vec<String> = check_files(&repository).into_iter().map(|v| v.path).collect();
        assert_eq!(found, ["over.rs"]);
    }

    #[test]
    fn a_module_opens_with_its_documentation_unless_it_is_auxiliary() {
        let repository = Repository::of(&[
            ("crates/a/src/said.rs", "//! What it is.\n"),
            ("crates/a/src/mute.rs", "use x;\n"),
            ("crates/a/tests/t.rs", "use x;\n"),
            ("crates/a/examples/e.rs", "use x;\n"),
            ("crates/a/build.rs", "fn main() {}\n"),
        ]);
        let found: Vec<String> =
            check_module_docs(&repository).into_iter().map(|v| v.path).collect();
        assert_eq!(found, ["crates/a/src/mute.rs"]);
    }
}
