//! `cargo xtask format`: the tables of `docs/format.md`, rendered from the declarations in the allocator's `layout/`.
//!
//! A structure is what `on_media!` declares; offsets follow from the sizes of its fields, meanings from its comments.
//! Tidy compares, this command writes.

use std::{collections::BTreeMap, fmt::Write};

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, Ident, Item, LitInt, Token, Type, Visibility, braced,
    parse::{Parse, ParseStream},
};

use super::source::{self, Repository};

/// The document that holds the tables.
pub(super) const DOCUMENT: &str = "docs/format.md";

/// The files that declare the format, in the order of the document.
const FILES: [&str; 7] = ["superblock", "state", "book", "root", "lane", "slab", "geometry"];

const DIRECTORY: &str = "crates/pmalloc/src/layout";
const BEGIN: &str =
    "<!-- begin: written by `cargo xtask format` from crates/pmalloc/src/layout -->";
const END: &str = "<!-- end: written by `cargo xtask format` -->";

/// Writes the tables into the document.
///
/// # Errors
///
/// What could not be read or written, or that the document lacks its markers.
pub(crate) fn run() -> Result<(), String> {
    let repository = Repository::read()?;
    let path = source::root()?.join(DOCUMENT);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let parts = text.split_once(BEGIN).zip(text.split_once(END));
    let ((before, _), (_, behind)) = parts.ok_or(format!("{DOCUMENT} lacks the markers"))?;
    let text = format!("{before}{}{behind}", render(&repository));
    std::fs::write(&path, text).map_err(|error| format!("{DOCUMENT}: {error}"))
}

/// The tables with their markers.
pub(super) fn render(repository: &Repository) -> String {
    let files: Vec<(&str, &syn::File)> = FILES
        .iter()
        .filter_map(|name| {
            let file = repository.find(&format!("{DIRECTORY}/{name}.rs"))?;
            Some((file.text.as_str(), file.syntax.as_ref()?))
        })
        .collect();
    let structures: Vec<Structure> = files.iter().flat_map(|(_, file)| structures(file)).collect();
    let sizes: BTreeMap<String, u64> =
        structures.iter().map(|found| (found.name.to_string(), found.size)).collect();
    let mut text = format!("{BEGIN}\n");
    for structure in &structures {
        structure.render(&sizes, &mut text);
    }
    text += "\n### Constants\n\n| name | value | meaning |\n|---|---|---|\n";
    for (source, file) in &files {
        render_constants(source, file, &mut text);
    }
    text + "\n" + END
}

/// A structure on media.
struct Structure {
    docs: String,
    name: Ident,
    size: u64,
    fields: Vec<Field>,
}

struct Field {
    docs: String,
    name: Ident,
    ty: Type,
}

impl Parse for Structure {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let docs = docs(&input.call(Attribute::parse_outer)?);
        input.parse::<Visibility>()?;
        input.parse::<Token![struct]>()?;
        let name = input.parse()?;
        input.parse::<Token![:]>()?;
        let size = input.parse::<LitInt>()?.base10_parse()?;
        let body;
        braced!(body in input);
        let mut fields = Vec::new();
        while !body.is_empty() {
            let docs = self::docs(&body.call(Attribute::parse_outer)?);
            body.parse::<Visibility>()?;
            let name = body.parse()?;
            body.parse::<Token![:]>()?;
            fields.push(Field { docs, name, ty: body.parse()? });
            body.parse::<Option<Token![,]>>()?;
        }
        Ok(Self { docs, name, size, fields })
    }
}

impl Structure {
    fn render(&self, sizes: &BTreeMap<String, u64>, text: &mut String) {
        let Self { docs, name, size, fields } = self;
        let _ = write!(text, "\n### `{name}`: {size} bytes\n\n{docs}\n\n");
        *text += "| offset | bytes | field | meaning |\n|---:|---:|---|---|\n";
        let mut offset = 0;
        for Field { docs, name, ty } in fields {
            let bytes = size_of(ty, sizes).unwrap_or(0);
            let _ = writeln!(text, "| {offset} | {bytes} | `{name}` | {docs} |");
            offset += bytes;
        }
        if offset != *size {
            let _ = writeln!(text, "| {offset} | ? | | the sizes of the fields are not known |");
        }
    }
}

/// Bytes of a field: a word, an array of words, or another structure.
fn size_of(ty: &Type, sizes: &BTreeMap<String, u64>) -> Option<u64> {
    match ty {
        Type::Path(path) => {
            let name = path.path.get_ident()?.to_string();
            if name == "Word" { Some(8) } else { sizes.get(&name).copied() }
        }
        Type::Array(array) => {
            let Expr::Lit(literal) = &array.len else { return None };
            let syn::Lit::Int(count) = &literal.lit else { return None };
            Some(size_of(&array.elem, sizes)? * count.base10_parse::<u64>().ok()?)
        }
        _ => None,
    }
}

fn structures(file: &syn::File) -> Vec<Structure> {
    let macros = file.items.iter().filter_map(|item| match item {
        Item::Macro(found) if found.mac.path.is_ident("on_media") => Some(&found.mac.tokens),
        _ => None,
    });
    macros.filter_map(|tokens: &TokenStream| syn::parse2(tokens.clone()).ok()).collect()
}

fn render_constants(source: &str, file: &syn::File, text: &mut String) {
    for item in &file.items {
        let Item::Const(found) = item else { continue };
        if matches!(found.vis, Visibility::Inherited) {
            continue;
        }
        let value = found.eq_token.span.byte_range().end..found.semi_token.span.byte_range().start;
        let value: Vec<&str> = source[value].split_whitespace().collect();
        let (name, value) = (&found.ident, value.join(" "));
        let _ = writeln!(text, "| `{name}` | `{value}` | {} |", docs(&found.attrs));
    }
}

/// The documentation of an item, as one line of text.
fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &pair.value else { return None };
        let syn::Lit::Str(line) = &literal.lit else { return None };
        pair.path.is_ident("doc").then(|| line.value().trim().to_owned())
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("Persistent: ").unwrap_or(&text);
    // Links into the crate mean nothing in a document.
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_is_a_table_with_offsets() {
        let text = "on_media! {\n/// A pair.\npub(crate) struct Pair: 24 {\n\
                    /// Persistent: see [`Other`].\n pub(crate) a: Word,\n\
                    /// Unused.\n pub(crate) b: [Word; 2],\n}\n}\n\
                    /// As many as fit.\npub(crate) const MANY: u64 = 4 * LINE;\n";
        let repository = Repository::of(&[("crates/pmalloc/src/layout/state.rs", text)]);
        let rendered = render(&repository);
        for expected in [
            "### `Pair`: 24 bytes\n\nA pair.",
            "| 0 | 8 | `a` | see `Other`. |",
            "| 8 | 16 | `b` | Unused. |",
            "| `MANY` | `4 * LINE` | As many as fit. |",
        ] {
            assert!(rendered.contains(expected), "{rendered}");
        }
    }

    #[test]
    fn every_structure_of_the_layout_is_found_and_adds_up() {
        let repository = Repository::read().expect("the tests run inside the repository");
        let rendered = render(&repository);
        for name in ["Superblock", "State", "OwnerRecord", "LogRoot", "EntryWords", "RecordWords"] {
            assert!(rendered.contains(&format!("### `{name}`: ")), "{name}");
        }
        assert!(!rendered.contains("not known"), "{rendered}");
        let declared = repository.all().filter(|file| file.path.starts_with(DIRECTORY));
        let declared: usize = declared.map(|file| file.text.matches("on_media! {").count()).sum();
        assert_eq!(rendered.matches("### `").count(), declared);
    }
}
