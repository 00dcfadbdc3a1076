//! Places in the sources, named so that edits elsewhere leave the name as it is.
//!
//! A line number moves with every line added above it. A place is named by what stands there instead: what is done, the
//! file, the function, and the line's text; a number tells lines of one text in one function apart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use pmalloc::persist::sim::{SiteCount, SiteKind};

/// The sources of the heap, as a location names them.
const SOURCES: &str = "crates/pmalloc/src/";

/// A store, flush, fence or sync of the heap, as in `flush root/entry.rs write_words 1: m.flush_of(entry);`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// What is done there.
    pub kind: SiteKind,
    /// Path of the source file under `crates/pmalloc/src`.
    pub file: String,
    /// The function.
    pub function: String,
    /// Which of the function's lines with that text, from 1 on.
    pub nth: usize,
    /// The line's text.
    pub text: String,
}

impl Place {
    /// The place of `site`; `None` if it is not in the heap's sources.
    ///
    /// # Errors
    ///
    /// If the sources can't be read, or are others than those that were compiled.
    pub fn of(site: &SiteCount) -> io::Result<Option<Self>> {
        let Some(file) = site.location.file().strip_prefix(SOURCES) else { return Ok(None) };
        let lines = Lines::read(file)?;
        let at = site.location.line() as usize - 1;
        let line = lines.0.get(at).ok_or_else(|| {
            io::Error::other(format!("{} lies behind the end of its file", site.location))
        })?;
        Ok(Some(Self::at(site.kind, file, line, lines.nth(at))))
    }

    fn at(kind: SiteKind, file: &str, line: &Line, nth: usize) -> Self {
        let Line { function, text, .. } = line.clone();
        Self { kind, file: file.into(), function, nth, text }
    }

    /// Every flush and fence that is written in the sources, whether anything reaches it or not, but for those inside
    /// functions that count as a part of their callers.
    ///
    /// # Errors
    ///
    /// If the sources can't be read.
    pub fn persists() -> io::Result<Vec<Self>> {
        let mut places = Vec::new();
        for file in files(Path::new(""))? {
            places.extend(Lines::read(&file)?.persists(&file));
        }
        Ok(places)
    }

    /// Whether the sources still have such a line.
    ///
    /// # Errors
    ///
    /// If its file can't be read.
    pub fn exists(&self) -> io::Result<bool> {
        let lines = Lines::read(&self.file)?;
        let same = |line: &&Line| line.function == self.function && line.text == self.text;
        Ok(lines.0.iter().filter(same).count() >= self.nth)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, file, function, nth, text } = self;
        write!(f, "{} {file} {function} {nth}: {text}", word_of(*kind))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let parse = || {
            let (name, text) = line.split_once(": ")?;
            let [kind, file, function, nth] =
                name.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let kinds = [SiteKind::Store, SiteKind::Flush, SiteKind::Fence, SiteKind::Sync];
            let kind = kinds.into_iter().find(|known| word_of(*known) == kind)?;
            let nth = nth.parse().ok()?;
            Some(Self {
                kind,
                file: file.into(),
                function: function.into(),
                nth,
                text: text.into(),
            })
        };
        parse().ok_or_else(|| format!("{line:?} is not `KIND FILE FUNCTION NUMBER: TEXT`"))
    }
}

fn word_of(kind: SiteKind) -> &'static str {
    match kind {
        SiteKind::Store => "store",
        SiteKind::Flush => "flush",
        SiteKind::Fence => "fence",
        SiteKind::Sync => "sync",
    }
}

/// Paths of the source files in `directory`, tests excepted.
fn files(directory: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(sources().join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&path)?);
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files.sort();
    Ok(files)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(SOURCES)
}

/// A line of a file, and the function that it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    function: String,
    /// Whether what the function does is taken for done by its caller.
    is_callers: bool,
    text: String,
}

/// The lines of a file.
struct Lines(Vec<Line>);

impl Lines {
    fn read(file: &str) -> io::Result<Self> {
        Ok(Self::of(&fs::read_to_string(sources().join(file))?))
    }

    fn of(text: &str) -> Self {
        let (mut function, mut is_callers, mut is_marked) = ("", false, false);
        let lines = text.lines().map(|line| {
            is_marked |= line.trim() == "#[track_caller]";
            if let Some(name) = declared(line) {
                (function, is_callers, is_marked) = (name, is_marked, false);
            }
            Line { function: function.to_owned(), is_callers, text: line.trim().to_owned() }
        });
        Self(lines.collect())
    }

    /// Which of the lines of its function with its text the line at `index` is, from 1 on.
    fn nth(&self, index: usize) -> usize {
        self.0[..=index].iter().filter(|other| **other == self.0[index]).count()
    }

    fn persists(&self, file: &str) -> Vec<Place> {
        let product = self.0.iter().take_while(|line| line.text != "mod tests {");
        let mut places = Vec::new();
        for (index, line) in product.enumerate().filter(|(_, line)| !line.is_callers) {
            let kinds = kinds_on(&line.text);
            places.extend(kinds.map(|kind| Place::at(kind, file, line, self.nth(index))));
        }
        places
    }
}

/// The kinds of persists that a line of code makes by itself.
fn kinds_on(code: &str) -> impl Iterator<Item = SiteKind> {
    const CALLS: [(&str, &[SiteKind]); 4] = [
        (".flush(", &[SiteKind::Flush]),
        (".flush_of(", &[SiteKind::Flush]),
        (".fence()", &[SiteKind::Fence]),
        (".persist(", &[SiteKind::Flush, SiteKind::Fence]),
    ];
    let code = if code.starts_with("//") { "" } else { code };
    CALLS
        .into_iter()
        .filter(move |(call, _)| code.contains(call))
        .flat_map(|(_, kinds)| kinds)
        .copied()
}

/// The name of the function whose declaration begins on `line`.
fn declared(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_qualifier = |word: &str| word == "const" || word == "unsafe" || word.starts_with("pub");
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    before.split_whitespace().all(is_qualifier).then_some(&after[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
impl A {
    /// A fn in words.
    pub(crate) const fn first(&self) {
        m.fence();
    }
    // #[inline] as well.
    #[track_caller]
    fn second<T>(call: impl Fn()) {
        m.flush_of(x);
        let with: fn () = third;
        m.fence();
    }
    fn third() {
        m.fence(); // In words.
        // Not m.fence();
        m.fence();
        m.fence();
        m.persist(x);
    }
}
mod tests {
    fn fourth() {
        m.fence();
    }
}
";

    #[test]
    fn a_line_belongs_to_the_function_declared_last() {
        let lines = Lines::of(SOURCE).0;
        let of = |text| {
            let named = lines.iter().filter(|line| line.text == text);
            named.map(|line| (&*line.function, line.is_callers)).collect::<Vec<_>>()
        };
        assert_eq!(of("m.flush_of(x);"), [("second", true)]);
        assert_eq!(of("let with: fn () = third;"), [("second", true)]);
        assert_eq!(of("m.persist(x);"), [("third", false)]);
    }

    #[test]
    fn persists_are_found_in_the_product_but_for_those_of_callers() {
        let places = Lines::of(SOURCE).persists("a.rs");
        let names: Vec<String> = places.iter().map(ToString::to_string).collect();
        let expected = [
            "fence a.rs first 1: m.fence();",
            "fence a.rs third 1: m.fence(); // In words.",
            "fence a.rs third 1: m.fence();",
            "fence a.rs third 2: m.fence();",
            "flush a.rs third 1: m.persist(x);",
            "fence a.rs third 1: m.persist(x);",
        ];
        assert_eq!(names, expected);
        let places = Place::persists().expect("the sources");
        assert!(places.iter().all(|place| place.exists().expect("its file")));
        let known =
            "flush root/entry.rs write_words 1: m.flush_of(entry);".parse().expect("a place");
        assert!(places.contains(&known));
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let text = "flush root/entry.rs write_words 1: m.flush_of(entry);";
        let place: Place = text.parse().expect("well-formed");
        assert_eq!(
            (&*place.function, place.nth, &*place.text),
            ("write_words", 1, "m.flush_of(entry);")
        );
        assert_eq!(place.to_string(), text);
        for wrong in ["flush root/entry.rs write: m.flush_of(entry);", "crash a b 1: c", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_exists_as_often_as_its_line_does() {
        let place: Place =
            "flush root/entry.rs write_words 1: m.flush_of(entry);".parse().expect("a place");
        assert!(place.exists().expect("the sources"));
        assert!(!Place { nth: 2, ..place.clone() }.exists().expect("the sources"));
        assert!(!Place { function: "read".into(), ..place }.exists().expect("the sources"));
    }
}
