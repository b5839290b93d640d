//! Files that somebody else writes and replaces: read anew when they look otherwise, and again until they can be used.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How files look: inode, length and time of modification in seconds and nanoseconds of each, or that it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLooks(Vec<Option<(u64, u64, i64, i64)>>);

impl FileLooks {
    pub fn of<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let look = |path: P| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        Self(paths.into_iter().map(look).collect())
    }
}

/// What became of a look at files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// They are as they were, or cannot be used for a reason that was told.
    Same,
    Taken,
    /// They cannot be used, for this reason; what was in force stays.
    Refused(String),
}

/// Files of which the last good content is in force.
#[derive(Debug, Default)]
pub struct FollowedFiles {
    known: Option<FileLooks>,
    told: String,
}

impl FollowedFiles {
    /// Of files that have been taken as they are now.
    pub fn taken<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { known: Some(FileLooks::of(paths)), told: String::new() }
    }

    /// Takes them where they look otherwise than when they were taken. What failed may have been half written, and is tried again
    /// with each look.
    pub fn look<P: AsRef<Path>, E: Display>(
        &mut self,
        paths: impl IntoIterator<Item = P>,
        take: impl FnOnce() -> Result<(), E>,
    ) -> Look {
        let now = FileLooks::of(paths);
        if self.told.is_empty() && self.known.as_ref() == Some(&now) {
            return Look::Same;
        }
        self.known = Some(now);
        match take().map_err(|error| error.to_string()) {
            Ok(()) => {
                self.told.clear();
                Look::Taken
            }
            Err(reason) if reason == self.told => Look::Same,
            Err(reason) => {
                self.told.clone_from(&reason);
                Look::Refused(reason)
            }
        }
    }
}
