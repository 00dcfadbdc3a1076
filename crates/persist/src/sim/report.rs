//! What an exploration found, in values and in words.

use core::{
    fmt,
    hash::{Hash, Hasher},
    panic::Location,
    str::FromStr,
};
use std::{collections::HashSet, hash::DefaultHasher};

/// A recovered state, reduced to a number: the explorer counts how many different ones there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of `state`; the same in every process.
    #[must_use]
    pub fn of<T: Hash + ?Sized>(state: &T) -> Self {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Why a moment is a crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PointKind {
    /// Before a fence that makes something durable.
    Fence,
    /// After a store, where each is durable at once.
    Store,
    /// Before pages get memory.
    Back,
    /// Before pages lose their memory.
    Punch,
    /// Before everything is made durable.
    Sync,
    /// Named by the driver or by the check.
    Named(&'static str),
}

impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence => f.write_str("before the fence"),
            Self::Store => f.write_str("after the store"),
            Self::Back => f.write_str("before the backing"),
            Self::Punch => f.write_str("before the punch"),
            Self::Sync => f.write_str("before the sync"),
            Self::Named(name) => write!(f, "\"{name}\""),
        }
    }
}

/// A power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Number of the crash point since the exploration, or the run of recovery, began.
    pub point: u64,
    /// Why it is one.
    pub kind: PointKind,
    /// Where in the source.
    pub site: &'static Location<'static>,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash at point {} {} at {}", self.point, self.kind, self.site)
    }
}

/// What became of a store that a crash left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It became durable.
    Kept,
    /// It was lost.
    Lost,
    /// Either: what was read does not depend on it.
    Open,
}

/// A store that a crash left open in a unit that recovery or the oracle looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFate {
    /// Offset of the word in bytes.
    pub at: u64,
    /// The value stored.
    pub value: u64,
    /// Where in the source.
    pub site: &'static Location<'static>,
    /// What became of it.
    pub fate: Fate,
}

impl fmt::Display for StoreFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self.fate {
            Fate::Kept => "kept",
            Fate::Lost => "lost",
            Fate::Open => "open",
        };
        write!(f, "{fate} [{:#x}] = {:#x} from {}", self.at, self.value, self.site)
    }
}

/// The name of one image of one exploration: enough to run exactly it again.
///
/// Its text is one line, for example `point=17 image=0.2.1 nested=2:1/0:-`: the crash point, which of the
/// possible contents each undecided read found, and the same for each crash during recovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageId {
    /// Crash points and choices, the first crash first.
    pub(super) crashes: Vec<(u64, Vec<usize>)>,
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, (point, image)) in self.crashes.iter().enumerate() {
            let image: Vec<String> = image.iter().map(ToString::to_string).collect();
            let image = if image.is_empty() { "-".into() } else { image.join(".") };
            match level {
                0 => write!(f, "point={point} image={image}")?,
                1 => write!(f, " nested={point}:{image}")?,
                _ => write!(f, "/{point}:{image}")?,
            }
        }
        Ok(())
    }
}

/// Text that is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an image: expected `point=N image=N.N nested=N:N.N/N:N`")]
pub struct ImageIdError(String);

impl FromStr for ImageId {
    type Err = ImageIdError;

    fn from_str(text: &str) -> Result<Self, ImageIdError> {
        parse(text).ok_or_else(|| ImageIdError(text.into()))
    }
}

fn parse(text: &str) -> Option<ImageId> {
    let mut parts = text.split_whitespace();
    let point = parts.next()?.strip_prefix("point=")?.parse().ok()?;
    let image = parse_choices(parts.next()?.strip_prefix("image=")?)?;
    let mut crashes = vec![(point, image)];
    if let Some(nested) = parts.next() {
        for level in nested.strip_prefix("nested=")?.split('/') {
            let (point, image) = level.split_once(':')?;
            crashes.push((point.parse().ok()?, parse_choices(image)?));
        }
    }
    parts.next().is_none().then_some(ImageId { crashes })
}

fn parse_choices(text: &str) -> Option<Vec<usize>> {
    if text == "-" {
        return Some(Vec::new());
    }
    text.split('.').map(|choice| choice.parse().ok()).collect()
}

/// A content that a power failure can leave and that the check rejects.
#[derive(Debug, Clone)]
pub struct Violation {
    /// What the check, a panic or the simulator said.
    pub message: String,
    /// Which image it was; [`ExploreOptions::replay`](super::ExploreOptions::replay) takes it.
    pub image: ImageId,
    /// The crashes, the first one first, each with the fates of the stores that mattered.
    pub crashes: Vec<(Crash, Vec<StoreFate>)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "violation: {}", self.message)?;
        writeln!(f, "  replay: {}", self.image)?;
        for (crash, fates) in &self.crashes {
            writeln!(f, "  {crash}")?;
            for fate in fates {
                writeln!(f, "    {fate}")?;
            }
        }
        Ok(())
    }
}

/// The outcome of an exploration.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Crash points reached.
    pub points: u64,
    /// Of those, how many were skipped because the same images had been judged by the same oracle before.
    pub repeated_points: u64,
    /// Runs of the check: classes of images that it can tell apart.
    pub classes: u64,
    /// The largest number of classes of one point.
    pub max_classes: u64,
    /// Points that had more classes than the budget allows: of these a sample was run.
    pub sampled_points: u64,
    /// Crash points explored inside recoveries.
    pub nested_points: u64,
    /// Runs of the check after a crash inside a recovery.
    pub nested_classes: u64,
    /// Points inside recoveries of which only a sample was run.
    pub nested_sampled_points: u64,
    /// Words that were found written at a flush without an announcement by
    /// [`Medium::stored`](crate::Medium::stored): crashes between were not explored for them.
    pub untold_words: u64,
    /// The different recovered states.
    pub states: HashSet<Digest>,
    /// What was found, in the order of discovery.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Panics unless the exploration reached a crash point and found nothing.
    ///
    /// # Panics
    ///
    /// If there is a violation, with all of them in the message, or if nothing was explored.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
        assert!(self.classes > 0, "no image was explored: {self}");
    }

    /// Whether all images of every crash point were judged, but for what a violation cut short.
    #[must_use]
    pub fn is_exhaustive(&self) -> bool {
        self.sampled_points == 0 && self.nested_sampled_points == 0
    }

    /// Adds the counts and findings of `other`.
    pub fn merge(&mut self, other: Self) {
        self.points += other.points;
        self.repeated_points += other.repeated_points;
        self.classes += other.classes;
        self.max_classes = self.max_classes.max(other.max_classes);
        self.sampled_points += other.sampled_points;
        self.nested_points += other.nested_points;
        self.nested_classes += other.nested_classes;
        self.nested_sampled_points += other.nested_sampled_points;
        self.untold_words += other.untold_words;
        self.states.extend(other.states);
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} points ({} repeated, {} sampled), {} classes (at most {} of one point); \
             in recovery {} points ({} sampled), {} classes; {} states; {} violations",
            self.points,
            self.repeated_points,
            self.sampled_points,
            self.classes,
            self.max_classes,
            self.nested_points,
            self.nested_sampled_points,
            self.nested_classes,
            self.states.len(),
            self.violations.len()
        )?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        Ok(())
    }
}
