//! The golden ranges: how many instructions each operation may run.
//!
//! Fewer than the range is a complaint as well: what was won is written down, or it is lost again unseen.

use std::{
    fmt::{self, Write},
    ops::RangeInclusive,
};

use super::Count;

const HEAD: &str = "\
# Instructions that an operation runs, in steady state, on x86-64: at least and at most.
# Counted, compared and written by `cargo xtask instructions`; what is counted: examples/instructions.rs and .c.
";

/// How far from what was counted a range reaches, in percent, and in instructions at least. The same code in another folder
/// differs by as much as 16 percent, where the compiler inlines a function or does not.
const MARGIN_PERCENT: u64 = 20;
const MARGIN_LEAST: u64 = 5;

/// Columns of an operation's name.
const NAME_COLUMNS: usize = 34;

/// The ranges of all operations.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Golden(Vec<(String, RangeInclusive<u64>)>);

impl Golden {
    /// Ranges around what was counted.
    pub(super) fn around(counts: &[Count]) -> Self {
        let range = |count: &Count| {
            let margin = (count.instructions * MARGIN_PERCENT / 100).max(MARGIN_LEAST);
            let least = count.instructions.saturating_sub(margin);
            (count.operation.clone(), least..=count.instructions + margin)
        };
        Self(counts.iter().map(range).collect())
    }

    /// The ranges of a file's text, or the number of the line that is none.
    pub(super) fn read(text: &str) -> Result<Self, usize> {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#'));
        lines.map(|(at, line)| range(line).ok_or(at)).collect::<Result<_, _>>().map(Self)
    }

    fn of(&self, operation: &str) -> Option<&RangeInclusive<u64>> {
        self.0.iter().find(|(name, _)| name == operation).map(|(_, range)| range)
    }

    /// What was counted beside what is expected.
    pub(super) fn table(&self, counts: &[Count]) -> String {
        let mut text = format!("{:<NAME_COLUMNS$} {:>12}  expected\n", "operation", "instructions");
        for Count { operation, instructions } in counts {
            let range = self
                .of(operation)
                .map_or("-".to_owned(), |range| format!("{} to {}", range.start(), range.end()));
            writeln!(text, "{operation:<NAME_COLUMNS$} {instructions:>12}  {range}")
                .expect("a string takes all");
        }
        text
    }

    /// What is wrong with `counts`.
    pub(super) fn complaints(&self, counts: &[Count]) -> Vec<String> {
        let complaint = |count: &Count| {
            let Count { operation, instructions } = count;
            let Some(range) = self.of(operation) else {
                return Some(format!("{operation}: no range"));
            };
            let (least, most) = range.clone().into_inner();
            let what = if *instructions < least {
                format!("{instructions} instructions, less than {least}: better than expected")
            } else if *instructions > most {
                format!("{instructions} instructions, more than {most}")
            } else {
                return None;
            };
            Some(format!("{operation}: {what}"))
        };
        let is_counted = |name: &String| counts.iter().any(|count| count.operation == *name);
        let missing = self.0.iter().filter(|(name, _)| !is_counted(name));
        let missing = missing.map(|(name, _)| format!("{name}: a range, and it was not counted"));
        counts.iter().filter_map(complaint).chain(missing).collect()
    }
}

impl fmt::Display for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        for (name, range) in &self.0 {
            writeln!(f, "{name:<NAME_COLUMNS$} {:>6} {:>6}", range.start(), range.end())?;
        }
        Ok(())
    }
}

/// A line of the file: a name, of several words perhaps, and two numbers.
fn range(line: &str) -> Option<(String, RangeInclusive<u64>)> {
    let (line, most) = line.trim_end().rsplit_once(' ')?;
    let (name, least) = line.trim_end().rsplit_once(' ')?;
    let (least, most) = (least.parse().ok()?, most.parse().ok()?);
    (least <= most).then(|| (name.trim_end().to_owned(), least..=most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(operation: &str, instructions: u64) -> Count {
        Count { operation: operation.into(), instructions }
    }

    #[test]
    fn ranges_are_read_as_they_were_written() {
        let golden = Golden::around(&[count("alloc_to 64 B", 1000), count("pin", 12)]);
        let text = golden.to_string();
        assert!(
            text.ends_with("    800   1200\npin                                     7     17\n")
        );
        assert_eq!(Golden::read(&text), Ok(golden));
        for line in ["pin", "pin 7", "pin 9 7", "pin a 7", ""] {
            assert_eq!(Golden::read(&format!("{text}{line}\n")), Err(5), "{line}");
        }
    }

    #[test]
    fn more_and_less_than_the_range_are_complaints() {
        let golden = Golden::around(&[count("alloc", 1000)]);
        for instructions in [800, 1000, 1200] {
            assert_eq!(golden.complaints(&[count("alloc", instructions)]), [""; 0]);
        }
        for (instructions, part) in [(799, "less than 800"), (1201, "more than 1200")] {
            let said = golden.complaints(&[count("alloc", instructions)]);
            assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
        }
    }

    #[test]
    fn a_range_without_a_count_and_a_count_without_a_range_are_complaints() {
        let golden = Golden::around(&[count("alloc", 1000)]);
        let said = golden.complaints(&[count("free", 1000)]);
        assert_eq!(said, ["free: no range", "alloc: a range, and it was not counted"]);
    }
}
