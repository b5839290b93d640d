//! Which files a folder holds, and whether one has changed since it was read.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Deeper folders are not entered; also what ends a circle of links.
pub(super) const MAX_DEPTH: usize = 16;

/// A file younger than this when it was read may change again within one tick of the file system's clock.
const RACY: Duration = Duration::from_secs(2);

/// What identifies a version of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
    /// The file was too young for the stamp to be trusted.
    racy: bool,
}

impl Stamp {
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        let modified = metadata.modified().ok();
        let age = modified.and_then(|m| m.elapsed().ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified,
            racy: age.is_none_or(|a| a < RACY),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changed so recently that it may be changing still.
    pub fn is_young(&self) -> bool {
        self.racy
    }

    /// True if the file is certainly the one that was stamped.
    pub fn is_unchanged(&self, now: &Stamp) -> bool {
        !self.racy && Stamp { racy: false, ..*now } == *self
    }
}

/// Something that could not be looked at.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub path: PathBuf,
    pub error: String,
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub files: BTreeMap<PathBuf, Stamp>,
    pub unreadable: Vec<Unreadable>,
    /// There were more than allowed.
    pub truncated: bool,
}

/// Finds every `.yaml`, `.yml` and `.json` file below a folder; hidden entries (also Kubernetes' `..data`) are passed
/// over, links are followed. A path to a file yields that file, whatever its name.
pub(super) fn list(root: &Path, max_files: usize) -> Listing {
    let mut listing = Listing::default();
    match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => descend(root, 0, max_files, &mut listing),
        Ok(metadata) => {
            listing.files.insert(root.to_owned(), Stamp::of(&metadata));
        }
        Err(error) => listing.unreadable.push(Unreadable { path: root.to_owned(), error: error.to_string() }),
    }
    listing
}

fn descend(dir: &Path, depth: usize, max_files: usize, listing: &mut Listing) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            listing.unreadable.push(Unreadable { path: dir.to_owned(), error: error.to_string() });
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => descend(&path, depth + 1, max_files, listing),
            Ok(metadata) if metadata.is_file() && is_document(&path) => {
                if listing.files.len() >= max_files {
                    listing.truncated = true;
                    return;
                }
                listing.files.insert(path, Stamp::of(&metadata));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_document(&path) => listing.unreadable.push(Unreadable { path, error: error.to_string() }),
            Err(_) => {}
        }
    }
}

pub(super) fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}
