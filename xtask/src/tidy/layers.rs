//! The order of modules: a module uses only what stands to its right.
//!
//! Of the allocator: `heap -> inspect -> root -> core -> op -> value -> recovery, tcache -> arena -> slab -> extent -> lane,
//! book -> page_map -> size_class -> layout`, then the crate `pmalloc-persist`, where the compiler keeps the order. Other
//! crates, and modules of many files, have an order of their own; the root of each may use all. Modules of one step do not know each other. Code under
//! `#[cfg(test)]` may build what it tests from above. Paths inside a macro's arguments are not seen.

use std::collections::BTreeMap;

use proc_macro2::Span;
use syn::{
    UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

use super::{Violation, source::Repository};

/// A crate, or a module with modules of its own, whose modules have an order.
struct Order {
    /// Where its files are.
    folder: &'static str,
    /// The file that is its root, which may use all and re-export it.
    root: &'static str,
    /// The path of the root in its crate.
    module: &'static [&'static str],
    /// Its modules, from the one that may use all to the one that may use none.
    layers: &'static [&'static [&'static str]],
}

const ORDERS: &[Order] = &[
    Order {
        folder: "crates/pmalloc/src/",
        root: "crates/pmalloc/src/lib.rs",
        module: &[],
        layers: &[
            &["heap"],
            &["inspect"],
            &["root"],
            &["core"],
            &["op"],
            &["value"],
            &["recovery", "tcache"],
            &["arena"],
            &["slab"],
            &["extent"],
            &["lane", "book"],
            &["page_map"],
            &["size_class"],
            &["layout"],
            // Every module reports errors; this one uses no other.
            &["error"],
        ],
    },
    Order {
        folder: "crates/pmalloc/src/heap/",
        root: "crates/pmalloc/src/heap/mod.rs",
        module: &["heap"],
        layers: &[
            &["entrusted", "publish", "roots", "slot", "typed"],
            &["reserve"],
            &[
                "cells",
                "declare",
                "guard",
                "inspection",
                "media",
                "operations",
                "options",
                "orphans",
                "session",
                "slot_ref",
            ],
            &["handle"],
        ],
    },
    Order {
        folder: "crates/pmalloc/src/inspect/",
        root: "crates/pmalloc/src/inspect/mod.rs",
        module: &["inspect"],
        layers: &[
            &["copy", "recover", "salvage"],
            &["check", "map", "orphans", "serve", "stats"],
            &["owners", "refusal"],
            &["blocks", "notes", "owner", "root_table"],
            &["info", "problem"],
        ],
    },
    Order {
        folder: "crates/pmalloc/src/root/",
        root: "crates/pmalloc/src/root/mod.rs",
        module: &["root"],
        layers: &[
            &["remove"],
            &["typed"],
            &["declarations"],
            &["own", "untyped"],
            &["close", "obtain"],
            &["table"],
            &["entry", "name"],
        ],
    },
    Order {
        folder: "crates/pmalloc/src/core/",
        root: "crates/pmalloc/src/core/mod.rs",
        module: &["core"],
        layers: &[
            &["transaction"],
            &["change", "in_place"],
            &["pending"],
            &["own_thread", "thread"],
            &["open_heap"],
            &["format", "header"],
        ],
    },
    Order {
        folder: "crates/pmalloc/src/value/",
        root: "crates/pmalloc/src/value/mod.rs",
        module: &["value"],
        layers: &[
            &["declared", "own_types", "raw"],
            &["pcell"],
            &["persistent"],
            &["block_layout", "pptr", "slot", "slot_map", "versioned_cell"],
        ],
    },
    Order {
        folder: "crates/bench/src/",
        root: "crates/bench/src/lib.rs",
        module: &[],
        layers: &[
            &["run", "child"],
            &["bench"],
            &["measure"],
            &["context", "crew", "relay"],
            &["launcher", "table"],
            &["compare"],
            &["report"],
            &["machine", "cell"],
            &["alloc"],
            &["clock", "stats", "error"],
        ],
    },
    Order {
        folder: "crates/bench/src/alloc/",
        root: "crates/bench/src/alloc/mod.rs",
        module: &["alloc"],
        layers: &[&["heap", "pointer"], &["bare"], &["subject", "worker"]],
    },
    Order {
        folder: "crates/bench/src/bench/",
        root: "crates/bench/src/bench/mod.rs",
        module: &["bench"],
        layers: &[
            &[
                "heap_size",
                "large",
                "larson",
                "prodcon",
                "reopen",
                "shbench",
                "small",
                "speedup",
                "threadtest",
            ],
            &["pairs"],
            &["benchmark"],
        ],
    },
    Order {
        folder: "crates/cli/src/",
        root: "crates/cli/src/main.rs",
        module: &[],
        layers: &[
            &["cmd"],
            &["replay", "map"],
            &["interrupt", "output"],
            &["args", "exit"],
            &["trace"],
        ],
    },
    Order {
        folder: "crates/cli/src/args/",
        root: "crates/cli/src/args.rs",
        module: &["args"],
        layers: &[&["bench"], &["flags"]],
    },
    Order {
        folder: "crates/cli/src/cmd/",
        root: "crates/cli/src/cmd/mod.rs",
        module: &["cmd"],
        layers: &[
            &["bench", "copy", "create", "documents", "map", "recover", "replay", "stats", "trim"],
            &["check", "destroy", "exposition", "info"],
            &["figures", "notes"],
        ],
    },
    Order {
        folder: "crates/cli/src/map/",
        root: "crates/cli/src/map/mod.rs",
        module: &["map"],
        layers: &[&["svg", "text"], &["grid"], &["summary"]],
    },
    Order {
        folder: "crates/cli/src/replay/",
        root: "crates/cli/src/replay/mod.rs",
        module: &["replay"],
        layers: &[
            &["supervisor"],
            &["audit", "progress", "report", "setup", "worker"],
            &["resolve", "run"],
            &["actor"],
            &["caller", "compose"],
            &["engine"],
            &["cells", "heap", "journal"],
            &["medium", "mix", "plan", "request"],
            &["content", "probe", "scratch", "slots", "usage"],
        ],
    },
];

/// Finds uses of a module by one that stands beside it or to its right.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    ORDERS.iter().flat_map(|order| order.check(repository)).collect()
}

impl Order {
    fn check(&self, repository: &Repository) -> Vec<Violation> {
        let exports = self.exports(repository);
        let mut violations = Vec::new();
        for (file, syntax) in repository.parsed() {
            let Some(module) = self.module_of(&file.path) else { continue };
            let Some(layer) = module.first().filter(|name| self.rank(name).is_some()) else {
                let what = "the module has no place in the layer order: xtask/src/tidy/layers.rs";
                violations.push(Violation::new(&file.path, 1, what));
                continue;
            };
            let layer = layer.clone();
            let module = self.module.iter().map(|&name| name.to_owned()).chain(module).collect();
            let (order, path, exports) = (self, &file.path, &exports);
            let mut uses =
                Uses { order, path, layer, module, exports, violations: &mut violations };
            uses.visit_file(syntax);
        }
        violations
    }

    /// How far right a module stands, `None` if it has no place.
    fn rank(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.contains(&module))
    }

    /// The module that a file is, from the root on, or `None` for the root, for tests and for other files.
    fn module_of(&self, path: &str) -> Option<Vec<String>> {
        let inner = path.strip_prefix(self.folder)?.strip_suffix(".rs")?;
        let mut names: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        let is_code = path != self.root && !names.iter().any(|name| name == "tests");
        is_code.then_some(names)
    }

    /// What the root re-exports: the name there, and the module or crate that it comes from.
    fn exports(&self, repository: &Repository) -> BTreeMap<String, String> {
        let root = repository.find(self.root).and_then(|file| file.syntax.as_ref());
        let mut exports = BTreeMap::new();
        for item in root.iter().flat_map(|root| &root.items) {
            let syn::Item::Use(item) = item else { continue };
            for mut path in flatten(&item.tree) {
                let from = path.iter().map(String::as_str).find(|name| *name != "self");
                if from == Some("crate") {
                    let Some(inner) = self.inside(&path[1..]) else { continue };
                    path = inner.to_vec();
                }
                let from = path.iter().find(|name| *name != "self");
                if let (Some(from), Some(name)) = (from, path.last()) {
                    exports.insert(name.clone(), from.clone());
                }
            }
        }
        exports
    }

    /// What remains of a path of the crate inside the root, or `None` if it leads elsewhere.
    fn inside<'p>(&self, path: &'p [String]) -> Option<&'p [String]> {
        let (outer, inner) = path.split_at_checked(self.module.len())?;
        (outer == self.module).then_some(inner)
    }
}

/// The paths that a `use` names; a renamed one ends with its new name.
fn flatten(tree: &UseTree) -> Vec<Vec<String>> {
    match tree {
        UseTree::Path(path) => {
            let mut paths = flatten(&path.tree);
            paths.iter_mut().for_each(|tail| tail.insert(0, path.ident.to_string()));
            paths
        }
        UseTree::Name(name) => vec![vec![name.ident.to_string()]],
        UseTree::Rename(name) => vec![vec![name.ident.to_string(), name.rename.to_string()]],
        UseTree::Glob(_) => vec![Vec::new()],
        UseTree::Group(group) => group.items.iter().flat_map(flatten).collect(),
    }
}

struct Uses<'a> {
    order: &'a Order,
    path: &'a str,
    layer: String,
    /// The module around the item being visited, inline modules included.
    module: Vec<String>,
    exports: &'a BTreeMap<String, String>,
    violations: &'a mut Vec<Violation>,
}

impl Uses<'_> {
    fn check(&mut self, names: &[String], span: Span) {
        let Some(absolute) = self.absolute(names) else { return };
        let Some(inside) = self.order.inside(&absolute) else { return };
        if let Some(what) = self.objection(inside.first()) {
            self.violations.push(Violation::new(self.path, span.start().line, what));
        }
    }

    /// The path from the crate's root, `None` if it names a child, a local or another crate.
    fn absolute(&self, names: &[String]) -> Option<Vec<String>> {
        let supers = names.iter().take_while(|name| *name == "super").count();
        let (base, tail) = match names.first()?.as_str() {
            "crate" => (&[][..], &names[1..]),
            "super" => (&self.module[..self.module.len().checked_sub(supers)?], &names[supers..]),
            _ => return None,
        };
        Some(base.iter().chain(tail).cloned().collect())
    }

    /// Why this layer may not use `name` of the crate's root.
    fn objection(&self, name: Option<&String>) -> Option<String> {
        let user = &self.layer;
        let Some(name) = name else {
            return Some(format!("`{user}` uses all that is beside it: name the module"));
        };
        let rank = |name: &str| self.order.rank(name);
        let used = if rank(name).is_some() { name } else { self.exports.get(name).unwrap_or(name) };
        match rank(used) {
            Some(_) if used == user => None,
            Some(right) if Some(right) > rank(user) => None,
            Some(_) => Some(format!("`{user}` uses `{used}`, which does not stand to its right")),
            None if self.exports.contains_key(name) => None, // Another crate's.
            None => {
                let path = [&["crate"], self.order.module, &[name]].concat().join("::");
                Some(format!("`{user}` uses `{path}`, which is in no layer"))
            }
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_test_only) {
            self.module.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !item.attrs.iter().any(is_test_only) {
            for path in flatten(&item.tree) {
                self.check(&path, item.use_token.span);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.check(&names, path.segments[0].ident.span());
        visit::visit_path(self, path);
    }

    // `pub(crate)` and `pub(super)` say who may look in, not what is used.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn is_test_only(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args().is_ok_and(|condition: syn::Meta| needs_test(&condition))
}

/// Whether a condition holds in tests only: it is `test`, or `all` with one that does.
fn needs_test(condition: &syn::Meta) -> bool {
    let all = |list: &syn::MetaList| {
        list.parse_args_with(Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
    };
    match condition {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            all(list).is_ok_and(|conditions| conditions.iter().any(needs_test))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: (&str, &str) = (
        "crates/pmalloc/src/lib.rs",
        "//! Root.\nmod heap; mod slab;\npub use heap::{Heap, raw::Raw as Bare};\n\
         pub use pmalloc_persist::Word;\n",
    );

    /// What is said of `text` as `crates/pmalloc/src/` + `name`.
    fn said(name: &str, text: &str) -> Vec<String> {
        let path = format!("crates/pmalloc/src/{name}");
        let found = check(&Repository::of(&[LIB, (&path, text)]));
        found.into_iter().map(|violation| violation.what).collect()
    }

    fn assert_rejected(name: &str, text: &str) {
        assert_eq!(said(name, text).len(), 1, "{name}: {text}");
    }

    fn assert_accepted(name: &str, text: &str) {
        assert_eq!(said(name, text), [""; 0], "{name}: {text}");
    }

    #[test]
    fn a_use_to_the_right_is_accepted() {
        assert_accepted("heap/mod.rs", "use crate::{arena::Arena, layout::Superblock};");
        assert_accepted("slab/mod.rs", "use crate::slab::bitmap::Bitmap; use super::error::Error;");
        assert_accepted(
            "slab/morph.rs",
            "use super::bitmap::Bitmap; use bitmap::Bit; use std::io;",
        );
        assert_accepted("layout/mod.rs", "pub(crate) use crate::{error::Corrupted, Word};");
        assert_accepted("slab/mod.rs", "pub(in crate::heap) fn f(self) -> u8 { local::f(self.0) }");
    }

    #[test]
    fn a_use_to_the_left_or_beside_is_found() {
        assert_rejected("slab/mod.rs", "use crate::arena::Arena;");
        assert_rejected("slab/bitmap.rs", "use crate::{layout::Bits, heap};");
        assert_rejected("lane/mod.rs", "use crate::book::Book;");
        assert_rejected("tcache.rs", "use crate::recovery::Mark;");
        assert_rejected("error.rs", "use crate::layout::Superblock;");
    }

    #[test]
    fn a_use_is_found_however_it_is_written() {
        assert_rejected("slab/mod.rs", "use super::arena::Arena;");
        assert_rejected("slab/bitmap.rs", "use super::super::arena::Arena;");
        assert_rejected("slab/mod.rs", "mod inner { use super::super::arena::Arena; }");
        assert_rejected("slab/mod.rs", "fn f() { crate::arena::g(); }");
        assert_rejected("slab/mod.rs", "fn f(a: &crate::arena::Arena) {}");
        assert_rejected("slab/mod.rs", "use crate::arena as below;");
    }

    #[test]
    fn a_re_export_is_traced_to_its_module() {
        assert_rejected("slab/mod.rs", "use crate::Heap;");
        assert_rejected("slab/mod.rs", "use crate::*;");
        assert_rejected("slab/mod.rs", "use crate::Unheard;");
        assert_eq!(said("slab/mod.rs", "use crate::Bare;").len(), 1);
    }

    #[test]
    fn tests_may_look_up() {
        assert_accepted("slab/mod.rs", "#[cfg(test)] mod tests { use crate::heap::Heap; }");
        assert_accepted("slab/tests.rs", "use crate::heap::Heap;");
        let with = |condition| format!("#[cfg({condition})] mod code {{ use crate::heap::Heap; }}");
        assert_accepted("slab/mod.rs", &with("all(test, not(shuttle))"));
        assert_rejected("slab/mod.rs", &with("all(unix, not(test))"));
        assert_rejected("slab/mod.rs", &with("any(test, unix)"));
        assert_rejected("slab/mod.rs", "#[cfg(unix)] mod code { use crate::heap::Heap; }");
    }

    #[test]
    fn a_module_without_a_place_is_found() {
        assert_rejected("util.rs", "//! Odds and ends.");
        let elsewhere = ("crates/verify/src/util.rs", "use crate::heap;");
        assert_eq!(check(&Repository::of(&[elsewhere])), []);
    }

    /// What is said of `text` as a module beside others of a module, whose root stands there too.
    fn said_inside(name: &str, text: &str) -> usize {
        let root = "mod bare; mod heap; mod worker; use crate::stats::Samples;\n\
                    pub use self::{bare::Bare, worker::Worker};\nstruct Own;\n";
        let path = format!("crates/bench/src/alloc/{name}");
        check(&Repository::of(&[("crates/bench/src/alloc/mod.rs", root), (&path, text)])).len()
    }

    #[test]
    fn the_modules_of_a_module_have_an_order_too() {
        assert_eq!(said_inside("heap.rs", "use super::worker::Worker;"), 0);
        assert_eq!(said_inside("heap.rs", "use crate::alloc::{Worker, bare::Bare};"), 0);
        assert_eq!(said_inside("bare.rs", "use crate::stats::Samples;"), 0);
        assert_eq!(said_inside("bare.rs", "use super::heap::HeapAlloc;"), 1);
        assert_eq!(said_inside("worker.rs", "use crate::alloc::Bare;"), 1);
        assert_eq!(said_inside("worker.rs", "use super::super::alloc::bare::Bare;"), 1);
        assert_eq!(said_inside("odds.rs", ""), 1);
    }

    #[test]
    fn what_is_of_the_root_itself_is_below_nobody() {
        assert_eq!(said_inside("heap.rs", "use super::Own;"), 1);
        assert_eq!(said_inside("heap.rs", "use super::Samples;"), 1);
        assert_eq!(said_inside("heap.rs", "use super::*;"), 1);
    }

    #[test]
    fn every_order_is_of_files_that_are_there() {
        let repository = Repository::read().expect("the repository");
        for order in ORDERS {
            assert!(repository.find(order.root).is_some(), "{}", order.root);
            for &name in order.layers.iter().copied().flatten() {
                let [file, folder] =
                    ["", "/mod"].map(|end| format!("{}{name}{end}.rs", order.folder));
                assert!(
                    repository.find(&file).or(repository.find(&folder)).is_some(),
                    "{}{name} is no module any more",
                    order.folder
                );
            }
        }
    }
}
