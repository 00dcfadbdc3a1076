//! The faults that no test notices, each with the reason why that is as it should be: `survivors.txt`.
//!
//! A line at the margin names a fault as `cargo xtask mutants --list` prints it; the indented lines below it are the
//! reason. Lines that begin with `#` are comments.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use super::{
    campaign::{Verdict, Verdicts},
    mutant::Mutant,
};

/// The file of the list, in this crate.
const LIST: &str = "survivors.txt";

/// The identities in the list.
pub(super) fn known() -> Result<Vec<String>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{LIST}: {e}"))
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut listed: Vec<String> = Vec::new();
    let mut bare = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            bare = None;
            if listed.is_empty() {
                return Err("a reason before the first fault".to_owned());
            }
        } else if let Some(bare) = bare.replace(line) {
            return Err(format!("no reason is given for {bare}"));
        } else {
            listed.push(line.to_owned());
        }
    }
    let mut seen = HashSet::new();
    match (bare, listed.iter().find(|fault| !seen.insert(*fault))) {
        (Some(bare), _) => Err(format!("no reason is given for {bare}")),
        (None, Some(twice)) => Err(format!("listed twice: {twice}")),
        (None, None) => Ok(listed),
    }
}

/// How a campaign differs from the list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    /// Survived, and are not listed.
    unknown: Vec<String>,
    /// Are listed, and were noticed, can't be compiled, or are not planted any more.
    stale: Vec<String>,
}

fn compare(listed: &[String], all: &[Mutant], verdicts: &Verdicts) -> Differences {
    let by_identity: HashMap<String, &Mutant> = all.iter().map(|m| (m.identity(), m)).collect();
    let verdict_of = |mutant: &Mutant| verdicts.get(&mutant.name).copied();
    let is_stale = |fault: &&String| match by_identity.get(*fault) {
        None => true,
        Some(mutant) => matches!(verdict_of(mutant), Some(Verdict::Noticed | Verdict::NoCode)),
    };
    let listed_set: HashSet<&String> = listed.iter().collect();
    let survived = all.iter().filter(|mutant| verdict_of(mutant) == Some(Verdict::Survived));
    let unknown = survived.map(Mutant::identity).filter(|fault| !listed_set.contains(fault));
    Differences {
        unknown: unknown.collect(),
        stale: listed.iter().filter(is_stale).cloned().collect(),
    }
}

/// Prints what was found and how it differs from the list.
pub(super) fn report(listed: &[String], all: &[Mutant], verdicts: &Verdicts) -> Result<(), String> {
    let count = |wanted| verdicts.values().filter(|&&verdict| verdict == wanted).count();
    println!(
        "{} noticed, {} never ended, {} survived, {} can't be compiled",
        count(Verdict::Noticed),
        count(Verdict::Endless),
        count(Verdict::Survived),
        count(Verdict::NoCode),
    );
    let Differences { unknown, stale } = compare(listed, all, verdicts);
    unknown.iter().for_each(|fault| println!("survived: {fault}"));
    stale.iter().for_each(|fault| println!("listed, but does not survive: {fault}"));
    if unknown.is_empty() && stale.is_empty() {
        return Ok(());
    }
    let (unknown, stale) = (unknown.len(), stale.len());
    Err(format!(
        "mutants: {unknown} survived and are not in xtask/{LIST}, {stale} are there and do not survive.\n\
         Write a test that fails with the fault, or list it with the reason why no test can."
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::mutant::tests::swaps, *};

    #[test]
    fn the_list_is_well_formed() {
        assert_ne!(known().expect("well-formed"), Vec::<String>::new());
    }

    #[test]
    fn a_survivor_needs_a_reason_and_is_listed_once() {
        let listed =
            parse("# why\na.rs 1: x\n    Because\n    of this.\n\nb.rs 1: x\n    As above.\n");
        assert_eq!(listed, Ok(vec!["a.rs 1: x".to_owned(), "b.rs 1: x".to_owned()]));
        let wrong = [
            "a 1: x\n",
            "  reason\na 1: x\n  y\n",
            "a 1: x\n  y\na 1: x\n  y\n",
            "a 1: x\nb 1: x\n y\n",
        ];
        for wrong in wrong {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_list_does_not_say_is_a_difference() {
        let all = swaps(&["1:1", "2:1"]);
        let [one, other] = [all[0].identity(), all[1].identity()];
        let found = |verdicts: [Verdict; 2]| {
            let verdicts = all.iter().map(|mutant| mutant.name.clone()).zip(verdicts).collect();
            compare(std::slice::from_ref(&one), &all, &verdicts)
        };
        let unknown = Differences { unknown: vec![other], ..Differences::default() };
        assert_eq!(found([Verdict::Survived, Verdict::Survived]), unknown);
        let stale = Differences { stale: vec![one.clone()], ..Differences::default() };
        assert_eq!(found([Verdict::Noticed, Verdict::Noticed]), stale);
        assert_eq!(found([Verdict::NoCode, Verdict::Noticed]), stale);
        // A machine that is slow for a moment makes no difference.
        assert_eq!(found([Verdict::Endless, Verdict::Endless]), Differences::default());
        assert_eq!(found([Verdict::Survived, Verdict::Noticed]), Differences::default());
        assert_eq!(compare(std::slice::from_ref(&one), &all[..0], &Verdicts::new()), stale, "gone");
        assert_eq!(compare(&[one], &all, &Verdicts::new()), Differences::default(), "not planted");
    }
}
