//! `pmalloc info`: what a heap's file says about itself. Volatile.

use std::path::Path;

use pmalloc::persist::Warning;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    args::{HeapArgs, OutputFlags},
    exit::Failure,
    output::{bytes, print_either, print_rows},
};

/// What is shown of a heap.
#[derive(Debug, Serialize)]
struct Shown {
    format: u64,
    uuid: String,
    layout: String,
    model: String,
    policy: Option<String>,
    durability: &'static str,
    survives: &'static str,
    capacity_bytes: u64,
    heap_bytes: u64,
    stripes: u32,
    arenas: u32,
    nodes: u32,
    clean: Option<bool>,
    features: Vec<&'static str>,
    owner: Option<Owner>,
    warnings: Vec<Warned>,
    created_s: u64,
}

/// The process that has a heap open.
#[derive(Debug, Serialize)]
struct Owner {
    pid: u64,
}

/// Something that is not promised, and what to do about it.
#[derive(Debug, Serialize)]
struct Warned {
    kind: &'static str,
    text: String,
}

/// Shows the heap that `args` name.
pub(super) fn run(args: &HeapArgs) -> Result<(), Failure> {
    show(&args.path, args.output)
}

/// Shows the heap in the file `path`.
pub(super) fn show(path: &Path, output: OutputFlags) -> Result<(), Failure> {
    let info = pmalloc::info(path).map_err(Failure::heap(path))?;
    let shown = Shown {
        format: info.format,
        uuid: Uuid::from_u128(info.uuid).to_string(),
        layout: info.layout,
        model: name(info.model),
        policy: info.policy.map(|policy| policy.name().to_owned()),
        durability: info.durability.name(),
        survives: info.durability.survives(),
        capacity_bytes: info.capacity_bytes,
        heap_bytes: info.heap_bytes,
        stripes: info.stripes,
        arenas: info.arenas,
        nodes: info.nodes,
        clean: info.clean,
        // The format has no optional feature yet; a required one that is unknown is an error.
        features: Vec::new(),
        owner: info.owner_pid.map(|pid| Owner { pid }),
        warnings: info.warnings.iter().map(warned).chain(info.owner_pid.map(open_in)).collect(),
        created_s: info.created_s,
    };
    print_either(output, &shown, |shown| print_rows(&rows(shown)))
}

fn warned(warning: &Warning) -> Warned {
    Warned { kind: warning.name(), text: warning.to_string() }
}

/// A warning for a heap that process `pid` has open.
fn open_in(pid: u64) -> Warned {
    let text = format!(
        "process {pid} has the heap open, and a copy that other programs make of its file now opens with wrong contents: \
         close it there before you copy the file"
    );
    Warned { kind: "open", text }
}

/// Says what the file system of the heap at `path` does not promise.
pub(super) fn warn(path: &Path) {
    for warning in pmalloc::info(path).map(|info| info.warnings).unwrap_or_default() {
        eprintln!("pmalloc: warning: {warning}");
    }
}

fn rows(shown: &Shown) -> Vec<(&'static str, String)> {
    let unknown = || "unknown: the state page is damaged".to_owned();
    let clean = match shown.clean {
        Some(true) => "yes".to_owned(),
        Some(false) => "no: it is open, or the next open recovers it".to_owned(),
        None => unknown(),
    };
    let owner = shown.owner.as_ref();
    let warnings = shown.warnings.iter().map(|warned| ("warning", warned.text.clone()));
    let rows = vec![
        ("format", shown.format.to_string()),
        ("uuid", shown.uuid.clone()),
        ("layout", if shown.layout.is_empty() { "-".to_owned() } else { shown.layout.clone() }),
        ("model", shown.model.clone()),
        ("policy", shown.policy.clone().unwrap_or_else(unknown)),
        ("durability", shown.durability.to_owned()),
        ("survives", shown.survives.to_owned()),
        ("capacity", bytes(shown.capacity_bytes)),
        ("size", bytes(shown.heap_bytes)),
        ("stripes", shown.stripes.to_string()),
        ("arenas", shown.arenas.to_string()),
        ("nodes", shown.nodes.to_string()),
        ("clean", clean),
        (
            "opened by",
            owner.map_or_else(|| "-".to_owned(), |owner| format!("process {}", owner.pid)),
        ),
    ];
    rows.into_iter().chain(warnings).collect()
}

/// The name that the command line has for a choice of the library.
fn name(choice: impl std::fmt::Debug) -> String {
    format!("{choice:?}").to_lowercase()
}
