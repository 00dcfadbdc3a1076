//! The interface as the Rust sources have it, written as C: a text that compiles if the header says the same.

use syn::{
    Expr, Field, Fields, Item, ItemFn, PointerMutability, ReturnType, Type, punctuated::Punctuated,
    token::Comma,
};

/// Rust's interface in C.
pub(crate) struct Mirror {
    /// Includes the header, and declares all again.
    pub(crate) text: String,
    /// Names of the functions.
    pub(crate) functions: Vec<String>,
    /// Names of the constants.
    pub(crate) constants: Vec<String>,
}

/// Reads the interface from source files.
pub(crate) fn of(files: &[String]) -> Mirror {
    let text = "#include <stddef.h>\n#include <pmalloc.h>\n".to_owned();
    let mut mirror = Mirror { text, functions: Vec::new(), constants: Vec::new() };
    let files = files.iter().map(|file| syn::parse_file(file).expect("Rust"));
    let items: Vec<Item> = files.flat_map(|file| file.items).collect();
    // Types first: C wants them declared before they are used.
    items.iter().for_each(|item| mirror.add_type(item));
    items.iter().for_each(|item| mirror.add_other(item));
    mirror
}

impl Mirror {
    fn add_type(&mut self, item: &Item) {
        match item {
            Item::Type(alias) if alias.ident.to_string().starts_with("pma_") => {
                let name = alias.ident.to_string();
                self.text += &format!("typedef {};\n", declare(&alias.ty, &name, ""));
            }
            Item::Struct(item) if item.attrs.iter().any(|attr| attr.path().is_ident("repr")) => {
                self.add_struct(&item.ident.to_string(), &item.fields);
            }
            _ => {}
        }
    }

    /// A structure of its own with the same members, each at the same place and of the same type as the header's.
    fn add_struct(&mut self, name: &str, fields: &Fields) {
        let fields: Vec<(String, &Field)> = fields
            .iter()
            .filter_map(|field| Some((field.ident.as_ref()?.to_string(), field)))
            .filter(|(name, _)| !name.starts_with('_'))
            .collect();
        if fields.is_empty() {
            return;
        }
        let members = fields.iter().map(|(name, field)| declare(&field.ty, name, "") + "; ");
        self.text += &format!("struct of_{name} {{ {}}};\n", members.collect::<String>());
        self.assert(&format!("sizeof(struct of_{name}) == sizeof({name})"));
        for (field, _) in &fields {
            self.assert(&format!(
                "offsetof(struct of_{name}, {field}) == offsetof({name}, {field})"
            ));
            self.text += &format!(
                "const void *{name}_{field}(struct of_{name} *a, {name} *b, int i);\n\
                 const void *{name}_{field}(struct of_{name} *a, {name} *b, int i) {{ return i ? &a->{field} : &b->{field}; }}\n"
            );
        }
    }

    fn add_other(&mut self, item: &Item) {
        match item {
            Item::Const(item) if item.ident.to_string().starts_with("PMA_") => {
                let Expr::Lit(value) = &*item.expr else { panic!("{} is no literal", item.ident) };
                let syn::Lit::Int(value) = &value.lit else {
                    panic!("{} is no number", item.ident)
                };
                let value: u64 = value.base10_parse().expect("a number");
                self.assert(&format!("{} == {value}", item.ident));
                self.constants.push(item.ident.to_string());
            }
            Item::Fn(item) if item.sig.abi.is_some() => {
                self.text += &format!("{};\n", prototype(item));
                self.functions.push(item.sig.ident.to_string());
            }
            _ => {}
        }
    }

    fn assert(&mut self, condition: &str) {
        self.text += &format!("_Static_assert({condition}, \"{condition}\");\n");
    }
}

fn prototype(item: &ItemFn) -> String {
    let arguments = item.sig.inputs.iter().map(|argument| match argument {
        syn::FnArg::Typed(argument) => declare(&argument.ty, "", ""),
        syn::FnArg::Receiver(_) => panic!("a function of C"),
    });
    returning(&item.sig.output, &format!("{}({})", item.sig.ident, list(arguments)))
}

fn returning(output: &ReturnType, declarator: &str) -> String {
    match output {
        ReturnType::Default => format!("void {declarator}"),
        ReturnType::Type(_, output) => declare(output, declarator, ""),
    }
}

fn list(arguments: impl Iterator<Item = String>) -> String {
    let arguments: Vec<String> = arguments.collect();
    if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") }
}

/// Declares `declarator` as a value of the type, `qualifier` (`const ` or nothing) of which is the pointer's to it.
fn declare(ty: &Type, declarator: &str, qualifier: &str) -> String {
    match ty {
        Type::Ptr(pointer) => {
            let inner = match pointer.mutability {
                PointerMutability::Const(_) => "const ",
                PointerMutability::Mut(_) => "",
            };
            declare(&pointer.elem, &format!("*{qualifier}{declarator}"), inner)
        }
        Type::Array(array) => {
            let Expr::Lit(len) = &array.len else { panic!("a length") };
            let syn::Lit::Int(len) = &len.lit else { panic!("a length") };
            declare(&array.elem, &format!("{declarator}[{}]", len.base10_digits()), qualifier)
        }
        Type::Path(path) => {
            let last = path.path.segments.last().expect("a name");
            if let syn::PathArguments::AngleBracketed(of) = &last.arguments {
                return declare_callback(&of.args, declarator);
            }
            format!("{qualifier}{} {declarator}", c_name(&last.ident.to_string()))
        }
        _ => panic!("a type that C has not"),
    }
}

/// Declares a pointer to a function: of the type `Option<extern "C" fn ..>`.
fn declare_callback(of: &Punctuated<syn::GenericArgument, Comma>, declarator: &str) -> String {
    let Some(syn::GenericArgument::Type(Type::FnPtr(function))) = of.first() else {
        panic!("an optional function")
    };
    let arguments = function.inputs.iter().map(|argument| declare(&argument.ty, "", ""));
    returning(&function.output, &format!("(*{declarator})({})", list(arguments)))
}

fn c_name(name: &str) -> &str {
    match name {
        "c_char" => "char",
        "c_int" | "i32" => "int",
        "c_void" => "void",
        "u8" => "uint8_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "usize" => "size_t",
        "pma_visitor" => "struct pma_visitor",
        other => other,
    }
}
