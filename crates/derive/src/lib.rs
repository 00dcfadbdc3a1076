//! The derive of pmalloc's trait `Persistent`; see there.
//!
//! What the trait asks for is checked where the type is compiled: that it is a struct with a fixed layout by this crate,
//! that its fields are persistent, that there is no padding and no `Drop` by assertions in the code that this crate
//! writes. Nothing here is persistent or runs with the program.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Index, LitInt, LitStr, Member, Result,
    parse_macro_input, spanned::Spanned,
};

/// Implements `Persistent` for a struct.
///
/// The struct is `#[repr(C)]` or `#[repr(transparent)]` and has no type, lifetime or const parameters; its fields are
/// `Persistent`, fill it without padding, and it has no `Drop`. What is refused does not compile.
///
/// | attribute | on | meaning |
/// |---|---|---|
/// | `#[persistent(tag = 7)]` | the struct | the tag of its blocks, 0 to 255 |
/// | `#[persistent(name = "old")]` | a field | the name that goes into the layout hash: a field that was renamed |
#[proc_macro_derive(Persistent, attributes(persistent))]
pub fn derive_persistent(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// A field as the layout has it.
struct Field {
    member: Member,
    ty: syn::Type,
    name: String,
}

fn implement(input: &DeriveInput) -> Result<TokenStream> {
    let fields = fields(input)?;
    check_generics(input)?;
    check_repr(input)?;
    let tag = tag(&input.attrs)?;
    let name = &input.ident;
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = fields.iter().map(|field| &field.member).collect();
    let names: Vec<_> = fields.iter().map(|field| &field.name).collect();
    Ok(quote! {
        // The constant is looked at here, whether or not anything else does.
        const _: ::pmalloc::LayoutHash = <#name as ::pmalloc::Persistent>::LAYOUT;
        // SAFETY:
        // 1. `repr(C)` or `repr(transparent)`; every field is `Persistent`, by the uses of its constants below, and there
        //    is no padding, by the assertion below: so every bit pattern is valid, and what can change is in the fields'
        //    cells;
        // 2. no `Drop`, by the assertion below;
        // 3. offsets are the compiler's, slots those of the fields.
        #[automatically_derived]
        unsafe impl ::pmalloc::Persistent for #name {
            const LAYOUT: ::pmalloc::LayoutHash = {
                ::core::assert!(
                    0 #(+ ::core::mem::size_of::<#types>())* == ::core::mem::size_of::<Self>(),
                    "a persistent type has no padding: order its fields by alignment, or fill the gaps"
                );
                ::core::assert!(
                    !::core::mem::needs_drop::<Self>(),
                    "a persistent type has no Drop: nothing drops what lies in a heap"
                );
                ::pmalloc::LayoutHash::of_struct::<Self>()
                    #(.field(
                        #names,
                        ::core::mem::offset_of!(Self, #members),
                        <#types as ::pmalloc::Persistent>::LAYOUT,
                    ))*
            };
            const SLOTS: ::pmalloc::SlotMap = ::pmalloc::SlotMap::Fields(&[
                #((
                    ::core::mem::offset_of!(Self, #members),
                    <#types as ::pmalloc::Persistent>::SLOTS,
                )),*
            ]);
            const TAG: u8 = #tag;

            fn reach(graph: &mut ::pmalloc::TypeGraph) {
                #(<#types as ::pmalloc::Persistent>::reach(graph);)*
            }
        }
    })
}

fn fields(input: &DeriveInput) -> Result<Vec<Field>> {
    let Data::Struct(data) = &input.data else {
        let why = "only structs are persistent: not every bit pattern is a value of an enum, and nothing tells which \
                   field of a union holds slots";
        return Err(Error::new_spanned(&input.ident, why));
    };
    let of = |(at, field): (usize, &syn::Field)| {
        let index = Index { index: u32::try_from(at).expect("few fields"), span: field.span() };
        let member = field.ident.clone().map_or(Member::Unnamed(index), Member::Named);
        let name = renamed(&field.attrs)?.unwrap_or_else(|| match &member {
            Member::Named(name) => name.to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        });
        Ok(Field { member, ty: field.ty.clone(), name })
    };
    match &data.fields {
        Fields::Named(fields) => fields.named.iter().enumerate().map(of).collect(),
        Fields::Unnamed(fields) => fields.unnamed.iter().enumerate().map(of).collect(),
        Fields::Unit => Err(Error::new_spanned(&input.ident, "a persistent type has a field")),
    }
}

fn check_generics(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    let why = "a persistent type has no parameters: padding can be excluded for one type only, and nothing borrowed \
               outlives the program";
    Err(Error::new_spanned(&input.generics, why))
}

/// Sees that the struct is `repr(C)` or `repr(transparent)`, perhaps with an alignment, and not packed.
fn check_repr(input: &DeriveInput) -> Result<()> {
    let mut is_c = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("packed") {
                return Err(meta.error("a persistent type is not packed: its cells are aligned"));
            }
            is_c |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                content.parse::<LitInt>()?;
            }
            Ok(())
        })?;
    }
    if is_c {
        return Ok(());
    }
    let why = "a persistent type is #[repr(C)] or #[repr(transparent)]: another compiler may order its fields otherwise";
    Err(Error::new_spanned(&input.ident, why))
}

fn tag(attributes: &[Attribute]) -> Result<u8> {
    let mut tag = 0;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("persistent")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("tag") {
                return Err(meta.error("the attribute of a persistent struct is `tag = N`"));
            }
            tag = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            Ok(())
        })?;
    }
    Ok(tag)
}

fn renamed(attributes: &[Attribute]) -> Result<Option<String>> {
    let mut name = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("persistent")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("the attribute of a persistent field is `name = \"..\"`"));
            }
            name = Some(meta.value()?.parse::<LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(name)
}
