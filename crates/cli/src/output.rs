//! Results: one JSON object on standard output, or aligned lines for people. Volatile.

use std::io::{self, Write};

use bytesize::ByteSize;
use pmalloc_persist::MediaInfo;
use serde::{
    Serialize,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

use crate::{args::OutputFlags, exit::Failure};

/// Version of the JSON that all commands print.
const SCHEMA: u32 = 1;

/// A result with the schema's version in front.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    result: &'a T,
}

/// `result` as one JSON object and a line's end.
pub(crate) fn json_text(result: &impl Serialize) -> String {
    let versioned = Versioned { schema: SCHEMA, result };
    let text = serde_json::to_string_pretty(&versioned).expect("results have string keys");
    format!("{text}\n")
}

/// Reads a result that [`json_text`] wrote.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let value: Value = serde_json::from_str(text)?;
    if value["schema"] != SCHEMA {
        return Err(serde_json::Error::custom(format!("the schema is not {SCHEMA}")));
    }
    serde_json::from_value(value)
}

/// Prints `result` as one JSON object if that was asked for, else what `print` prints.
pub(crate) fn print_either<T: Serialize>(
    flags: OutputFlags,
    result: &T,
    print: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if flags.json { print_text(&json_text(result)) } else { print(result) }
}

/// Prints `rows` of name and value, aligned.
pub(crate) fn print_rows(rows: &[(&str, String)]) -> Result<(), Failure> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n"));
    print_text(&lines.collect::<String>())
}

/// Prints `text` on standard output. A reader that has gone away is no error.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Warns that what lies there does not survive what it was asked to.
pub(crate) fn warn_if_forced(media: &MediaInfo<'_>) {
    let (Some(storage), Some(durability)) = (media.storage, media.durability) else { return };
    if media.durability_is_forced {
        eprintln!(
            "pmalloc: warning: this memory ({storage}) is not {durability}-safe: flushes cost what they cost, and a loss of \
             power destroys the heap"
        );
    }
}

/// A number of bytes for people, in powers of 1024; the command reads it, too.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// A duration for people.
pub(crate) fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", as_f64(ns) / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", as_f64(ns) / 1e6),
        _ => format!("{:.2} s", as_f64(ns) / 1e9),
    }
}

/// `numerator / denominator`, or zero of nothing.
pub(crate) fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 { 0.0 } else { as_f64(numerator) / as_f64(denominator) }
}

/// The nearest floating-point number: figures for people need no more than its 53 bits.
#[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500_000), "1.5 ms");
    }

    #[test]
    fn a_ratio_to_nothing_is_zero() {
        assert!(ratio(5, 0).abs() < f64::EPSILON);
        assert!((ratio(3, 2) - 1.5).abs() < f64::EPSILON);
    }
}
