//! The faults that no set finds, each with the reason why that is as it should be: `survivors.txt`.
//!
//! A line at the margin names the place of a fault; the indented lines below it are the reason. Lines that begin with `#`
//! are comments.

use std::{collections::HashSet, fs, io, path::Path};

use crate::{
    place::Place,
    power::{Mutant, Verdict},
};

/// A fault that is known to survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Where.
    pub place: Place,
    /// Why nothing can notice it.
    pub reason: String,
}

/// The survivors of `survivors.txt`.
///
/// # Errors
///
/// If the file can't be read or is not written as it should be.
pub fn known() -> io::Result<Vec<Survivor>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("survivors.txt");
    parse(&fs::read_to_string(path)?).map_err(io::Error::other)
}

fn parse(text: &str) -> Result<Vec<Survivor>, String> {
    let mut survivors: Vec<Survivor> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let survivor = survivors.last_mut().ok_or("a reason before the first place")?;
            survivor.reason.push_str(line.trim());
            survivor.reason.push('\n');
        } else {
            survivors.push(Survivor { place: line.parse()?, reason: String::new() });
        }
    }
    if let Some(bare) = survivors.iter().find(|survivor| survivor.reason.is_empty()) {
        return Err(format!("no reason is given for {}", bare.place));
    }
    let mut seen = HashSet::new();
    match survivors.iter().find(|survivor| !seen.insert(&survivor.place)) {
        Some(twice) => Err(format!("listed twice: {}", twice.place)),
        None => Ok(survivors),
    }
}

/// How a campaign differs from the list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Survived or are not reached, and are not listed.
    pub unknown: Vec<Place>,
    /// Are listed, and were killed or are no place of a fault.
    pub stale: Vec<Place>,
    /// Neither died nor were run to the end, and are not listed.
    pub undecided: Vec<Place>,
}

/// Compares what was found with what is `listed`. `places` are all where a fault can be planted, judged or not.
#[must_use]
pub fn compare(listed: &[Survivor], places: &[Place], mutants: &[Mutant]) -> Differences {
    let is_listed = |place: &Place| listed.iter().any(|survivor| survivor.place == *place);
    let gone = listed.iter().map(|survivor| &survivor.place);
    let gone = gone.filter(|place| !places.contains(place)).cloned();
    let mut differences = Differences { stale: gone.collect(), ..Differences::default() };
    for mutant in mutants {
        let place = mutant.place.clone();
        match (&mutant.verdict, is_listed(&place)) {
            (Verdict::Killed(_), true) => differences.stale.push(place),
            (Verdict::Survived | Verdict::Unreached, false) => differences.unknown.push(place),
            (Verdict::Undecided(_), false) => differences.undecided.push(place),
            (Verdict::Killed(_), false) | (_, true) => {}
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "fence root/entry.rs write_name 1: m.fence();";
    const OTHER: &str = "flush root/entry.rs write_name 1: m.flush_of(entry);";

    #[test]
    fn every_survivor_still_has_its_place() {
        for survivor in known().expect("well-formed") {
            let exists = survivor.place.exists().expect("its file");
            assert!(exists, "no such line any more: {}", survivor.place);
        }
    }

    #[test]
    fn a_survivor_needs_a_reason_and_is_listed_once() {
        let text = format!("# why\n{ONE}\n    Because\n    of this.\n\n{OTHER}\n    As above.\n");
        let survivors = parse(&text).expect("well-formed");
        assert_eq!(survivors.len(), 2);
        assert_eq!(survivors[0].reason, "Because\nof this.\n");
        for wrong in [format!("{ONE}\n"), format!("  reason\n{ONE}\n  x\n"), text.repeat(2)] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }

    fn mutant(place: &str, verdict: Verdict) -> Mutant {
        Mutant { place: place.parse().expect("a place"), verdict, elapsed_s: 0.0 }
    }

    #[test]
    fn what_the_list_does_not_say_is_a_difference() {
        let (one, other): (Place, Place) =
            (ONE.parse().expect("a place"), OTHER.parse().expect("a place"));
        let listed = [Survivor { place: one.clone(), reason: "so".into() }];
        let places = [one.clone(), other.clone()];
        let unknown = Differences { unknown: vec![other.clone()], ..Differences::default() };
        for verdict in [|| Verdict::Survived, || Verdict::Unreached] {
            let survived = [mutant(ONE, verdict()), mutant(OTHER, verdict())];
            assert_eq!(compare(&listed, &places, &survived), unknown);
        }
        let killed = [mutant(ONE, Verdict::Killed("a case".into()))];
        let stale = Differences { stale: vec![one], ..Differences::default() };
        assert_eq!(compare(&listed, &places, &killed), stale);
        assert_eq!(compare(&listed, &places[1..], &[]), stale, "the place is gone");
        let undecided = [mutant(ONE, Verdict::Undecided(1)), mutant(OTHER, Verdict::Undecided(1))];
        let open = Differences { undecided: vec![other], ..Differences::default() };
        assert_eq!(compare(&listed, &places, &undecided), open);
        assert_eq!(compare(&listed, &places, &[]), Differences::default());
    }
}
