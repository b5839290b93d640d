//! What the operating system told of a watched folder since it was last read.
//!
//! Owns the decision whether looking at single files is enough. Bounded: beyond [`MAX_PATHS`] the whole folder is looked
//! through, as it is whenever a folder, a link of Kubernetes' volumes or anything else that is no plain document was touched.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::folder::{MAX_DEPTH, is_document};

/// With more files than this a listing of the folder is as cheap.
const MAX_PATHS: usize = 1_000;

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    Everywhere,
    Files(BTreeSet<PathBuf>),
}

/// Shared by the watcher's thread, which adds, and the reader's, which takes.
#[derive(Debug)]
pub(super) struct Notices(Mutex<Look>);

impl Default for Notices {
    fn default() -> Self {
        Self(Mutex::new(Look::Files(BTreeSet::new())))
    }
}

impl Notices {
    /// Notes an event; a watcher that fails may have missed any.
    pub fn add(&self, event: notify::Result<notify::Event>) {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = match event {
            Ok(event) if !event.need_rescan() && !event.paths.is_empty() => match &mut *look {
                Look::Files(files) => {
                    files.extend(event.paths);
                    files.len() > MAX_PATHS
                }
                Look::Everywhere => false,
            },
            _ => true,
        };
        if whole {
            *look = Look::Everywhere;
        }
    }

    /// What to look at below `root`, a folder, since the last call.
    pub fn take(&self, root: &Path) -> Look {
        let taken = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            Look::Files(BTreeSet::new()),
        );
        let Look::Files(paths) = taken else { return Look::Everywhere };
        let mut files = BTreeSet::new();
        for path in paths {
            match touches(root, &path) {
                Touch::Nothing => {}
                Touch::File => {
                    files.insert(path);
                }
                Touch::Anything => return Look::Everywhere,
            }
        }
        Look::Files(files)
    }
}

enum Touch {
    Nothing,
    File,
    Anything,
}

fn touches(root: &Path, path: &Path) -> Touch {
    let Some(below) = path.strip_prefix(root).ok().filter(|_| root.is_dir()) else { return Touch::Anything };
    let mut folders: Vec<&OsStr> = below.iter().collect();
    let Some(name) = folders.pop() else { return Touch::Anything };
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    if folders.len() > MAX_DEPTH || folders.iter().any(|folder| hidden(folder)) {
        return Touch::Anything;
    }
    let metadata = std::fs::symlink_metadata(path);
    match metadata {
        // A temporary file of an editor, most likely; `..data` is how Kubernetes changes all files of a volume at once.
        Ok(found) if found.is_file() && hidden(name) => Touch::Nothing,
        Ok(found) if found.is_file() && is_document(path) => Touch::File,
        Ok(found) if found.is_file() => Touch::Nothing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match () {
            () if name.as_encoded_bytes().starts_with(b"..") => Touch::Anything,
            // Moved to its place by now.
            () if hidden(name) => Touch::Nothing,
            () if is_document(path) => Touch::File,
            () => Touch::Anything,
        },
        _ => Touch::Anything,
    }
}

#[cfg(test)]
mod tests;
