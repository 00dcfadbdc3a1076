//! Copies of media files: what holds data is copied, holes stay holes.

use std::{io, ops::ControlFlow, path::Path, sync::Arc};

use super::{MapError, MapOptions, Mapped, MediaFile, error::is_out_of_space, grow};
use crate::{Access, Span};

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Bytes that are copied.
    pub copied_bytes: u64,
    /// Bytes that are to be copied in all: those of the file that hold data.
    pub data_bytes: u64,
}

/// Bytes that are copied between two words to the caller.
const STEP_BYTES: u64 = 4 << 20;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;

impl MediaFile {
    /// Creates a copy that gets the name `path` when it is [published](Self::publish), readable and writable only by its
    /// owner. Holes stay holes. `tell` hears how far it is, and may end it.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create); [`MapError::NoSpace`] if there is no room for the copy; [`MapError::Io`] of the kind
    /// [`Interrupted`](io::ErrorKind::Interrupted) if `tell` ended it. Nothing is left then.
    ///
    /// # Crash consistency
    ///
    /// As for [`create`](Self::create).
    pub fn copy_to(
        &self,
        path: &Path,
        tell: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
    ) -> Result<Self, MapError> {
        let copy = Self::create(path)?;
        self.copy_into(&copy, u64::MAX, tell)?;
        Ok(copy)
    }

    /// Copies the first `len` bytes into the empty file `copy`.
    pub(super) fn copy_into(
        &self,
        copy: &Self,
        len: u64,
        tell: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
    ) -> Result<(), MapError> {
        let len = len.min(self.len()?);
        let looking =
            |source| MapError::of_system("look for the data of", self.path().to_owned(), source);
        let mut data = self.data_spans().map_err(looking)?;
        // Reading and writing fail alike: only want of room is surely that of the copy.
        let error = |source| {
            let path = if is_out_of_space(&source) { copy.path() } else { self.path() };
            MapError::of_system("copy", path.to_owned(), source)
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        for span in &mut data {
            span.len = span.end().min(len).saturating_sub(span.start);
        }
        let mut progress =
            CopyProgress { copied_bytes: 0, data_bytes: data.iter().map(|span| span.len).sum() };
        for piece in data.into_iter().flat_map(pieces) {
            if tell(progress).is_break() {
                return Err(error(io::ErrorKind::Interrupted.into()));
            }
            grow::copy(&self.file, &copy.file, piece, &mut buffer).map_err(error)?;
            progress.copied_bytes += piece.len;
        }
        // The last one comes too late to end anything.
        let _ = tell(progress);
        grow::set_len(&copy.file, len).map_err(error)
    }
}

/// The pieces that `span` is copied in.
fn pieces(span: Span) -> impl Iterator<Item = Span> {
    (0..span.len.div_ceil(STEP_BYTES)).map(move |nth| {
        let start = span.start + nth * STEP_BYTES;
        Span::new(start, STEP_BYTES.min(span.end() - start))
    })
}

impl Mapped {
    /// Maps the same file once more, as a private copy, which can't change it and can't be claimed.
    ///
    /// # Errors
    ///
    /// As for [`MediaFile::map`].
    pub fn private_copy(&self, reserve_len_bytes: u64) -> Result<Self, MapError> {
        let options = MapOptions::new(reserve_len_bytes).access(Access::PrivateCopy);
        Arc::clone(self.file()).map_shared(&options)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{FileExt, MetadataExt},
    };

    use super::*;

    /// A file of two steps and a bit of data, with holes around it.
    fn source(path: &Path) -> MediaFile {
        let file = File::create_new(path).expect("a new file");
        let data: Vec<u8> = (0..2 * STEP_BYTES + 5000).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&data, 3 << 20).expect("room");
        file.set_len(64 << 20).expect("a length");
        MediaFile::open(path, Access::PrivateCopy).expect("free")
    }

    #[test]
    fn a_copy_has_the_bytes_and_the_holes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        let file = source(&from);
        let mut told = Vec::new();
        let copy = file.copy_to(&to, &mut |progress| {
            told.push(progress);
            ControlFlow::Continue(())
        });
        assert!(!to.exists(), "it has no name yet");
        copy.expect("room").publish().expect("a free name");
        assert!(fs::read(&from).expect("ours") == fs::read(&to).expect("ours"));
        let blocks = |path: &Path| fs::metadata(path).expect("ours").blocks();
        assert!(blocks(&to) <= blocks(&from) + 16, "{} and {}", blocks(&to), blocks(&from));
        let all = told[0].data_bytes;
        assert!((2 * STEP_BYTES + 5000..32 << 20).contains(&all), "{all}");
        assert!(told.len() >= 4 && told.is_sorted_by(|a, b| a.copied_bytes < b.copied_bytes));
        assert_eq!(told.last().map(|last| last.copied_bytes), Some(all));
    }

    #[test]
    fn a_copy_that_is_ended_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        let file = source(&from);
        let ended = file.copy_to(&to, &mut |progress| match progress.copied_bytes {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        let error = ended.expect_err("it was ended");
        let MapError::Io { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::Interrupted);
        assert_eq!(fs::read_dir(directory.path()).expect("ours").count(), 1);
    }
}
