//! From the files of a folder to the set in force: what changed is read again, what broke keeps its last good version.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meltemi_config::{
    Document, Key, MAX_DOCUMENTS, Object, Problem, Severity, Source, decode, parse_part, split_documents,
};

use super::FileStoreOptions;
use super::compose::{Composer, Files};
use super::folder::{self, Stamp};
use super::notice::Look;
use crate::set::ConfigSet;

/// Reads a folder again and again.
pub(super) struct Loader {
    root: PathBuf,
    options: FileStoreOptions,
    files: Files,
    composer: Composer,
    /// About the folder and its files as such, not about documents.
    folder_problems: Vec<Problem>,
    set: Arc<ConfigSet>,
    problems: Arc<[Problem]>,
}

/// What one file contributes.
#[derive(Default)]
pub(super) struct FileState {
    stamp: Option<Stamp>,
    /// Hash of the text; `None` when the file could not be read.
    content: Option<u64>,
    /// What came of each part of the text, by hash of its place and content: a part that stays is not parsed again.
    parts: HashMap<u64, Arc<[Outcome]>>,
    /// In the order of the file. Includes last good versions of what is broken now.
    objects: Vec<Object>,
    problems: Vec<Problem>,
}

/// What came of one document.
struct Outcome {
    key: Option<Key>,
    /// `None`: broken, or skipped.
    object: Option<Object>,
    broken: bool,
    problems: Vec<Problem>,
}

impl From<Document> for Outcome {
    fn from(document: Document) -> Self {
        let problems = document.check();
        let broken = problems.iter().any(|p| p.severity == Severity::Error);
        Self { key: document.key, object: document.object.filter(|_| !broken), broken, problems }
    }
}

impl Loader {
    pub fn new(root: &Path, options: FileStoreOptions) -> Self {
        Self {
            root: root.to_owned(),
            options,
            files: BTreeMap::new(),
            composer: Composer::default(),
            folder_problems: Vec::new(),
            set: Arc::default(),
            problems: Arc::from(Vec::new()),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn set(&self) -> &Arc<ConfigSet> {
        &self.set
    }

    pub fn problems(&self) -> &Arc<[Problem]> {
        &self.problems
    }

    /// Looks where something may have changed. True if a file, or what is wrong with one, may have. `set` stays the same
    /// `Arc` when nothing in force changed.
    pub fn look(&mut self, look: &Look) -> bool {
        match look {
            Look::Everywhere => self.reload(),
            Look::Files(files) => self.reload_files(files),
        }
    }

    /// Looks at single files.
    fn reload_files(&mut self, paths: &BTreeSet<PathBuf>) -> bool {
        let (mut stamps, mut gone) = (BTreeMap::new(), Vec::new());
        for path in paths {
            match std::fs::metadata(path) {
                Ok(found) if found.is_file() => drop(stamps.insert(path.clone(), Stamp::of(&found))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => gone.push(Arc::from(path.as_path())),
                _ => return self.reload(),
            }
        }
        let new = stamps.keys().filter(|path| !self.files.contains_key(path.as_path())).count();
        if self.files.len() + new > self.options.max_files {
            return self.reload();
        }
        let mut touched = BTreeSet::new();
        let changed = self.forget(gone, &mut touched) | self.read(stamps, &mut touched);
        if changed {
            self.compose(&touched);
        }
        changed
    }

    /// Looks through the folder.
    pub fn reload(&mut self) -> bool {
        let listing = folder::list(&self.root, self.options.max_files);
        let mut problems = Vec::new();
        for unreadable in &listing.unreadable {
            problems.push(file_problem(&unreadable.path, unreadable.error.clone()));
        }
        if listing.truncated {
            problems.push(file_problem(
                &self.root,
                format!("more than {} files; the rest is not read", self.options.max_files),
            ));
        }
        // What lies in a folder that cannot be read now is still there as far as anybody knows.
        let is_gone = |path: &&Arc<Path>| {
            !listing.files.contains_key(&***path) && !listing.unreadable.iter().any(|u| path.starts_with(&u.path))
        };
        let gone: Vec<Arc<Path>> = self.files.keys().filter(is_gone).cloned().collect();
        let mut touched = BTreeSet::new();
        let mut changed = problems != self.folder_problems;
        changed |= self.forget(gone, &mut touched);
        changed |= self.read(listing.files, &mut touched);
        if changed {
            self.folder_problems = problems;
            self.compose(&touched);
        }
        changed
    }

    fn forget(&mut self, gone: Vec<Arc<Path>>, touched: &mut BTreeSet<Key>) -> bool {
        let mut changed = false;
        for path in gone {
            if let Some(state) = self.files.remove(&path) {
                touched.extend(self.composer.moved(&path, &state.objects, &[]));
                changed = true;
            }
        }
        changed
    }

    /// Reads those of the files that are not certainly as they were.
    fn read(&mut self, stamps: BTreeMap<PathBuf, Stamp>, touched: &mut BTreeSet<Key>) -> bool {
        let mut changed = false;
        for (path, stamp) in stamps {
            let known = self.files.get(path.as_path()).and_then(|state| state.stamp);
            if known.is_some_and(|old| old.is_unchanged(&stamp)) {
                continue;
            }
            let path: Arc<Path> = path.into();
            let state = self.files.entry(path.clone()).or_default();
            let before = state.objects.clone();
            if state.read(&path, stamp, &self.options) {
                touched.extend(self.composer.moved(&path, &before, &state.objects));
                changed = true;
            }
        }
        changed
    }

    fn compose(&mut self, touched: &BTreeSet<Key>) {
        self.composer.settle(touched, &self.files, &mut self.set);
        let mut problems = self.folder_problems.clone();
        problems.extend(self.files.values().flat_map(|state| &state.problems).cloned());
        problems.extend(self.composer.duplicates(&self.files));
        problems.sort_by(|a, b| (&a.source.file, a.source.line).cmp(&(&b.source.file, b.source.line)));
        self.problems = problems.into();
    }
}

impl FileState {
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Reads the file; true if it differs from what was read last.
    fn read(&mut self, path: &Path, stamp: Stamp, options: &FileStoreOptions) -> bool {
        let text = if stamp.bytes() > options.max_file_bytes {
            Err(Box::new(file_problem(path, format!("larger than {} bytes", options.max_file_bytes))))
        } else {
            let bytes = std::fs::read(path).map_err(|error| Box::new(file_problem(path, error.to_string())));
            bytes.and_then(|bytes| decode(&path.to_string_lossy(), bytes))
        };
        self.stamp = Some(stamp);
        match text {
            // Most likely a write that has only truncated so far: looked at again when it is no longer young.
            Ok(text) if text.is_empty() && !self.objects.is_empty() && stamp.is_young() => false,
            Ok(text) => {
                let content = Some(hash(0, &text));
                let changed = content != self.content;
                if changed {
                    self.content = content;
                    let outcomes = self.parse(&path.to_string_lossy(), &text);
                    self.take(&outcomes);
                }
                changed
            }
            Err(problem) => {
                let problems = vec![*problem];
                let changed = problems != self.problems;
                (self.content, self.problems) = (None, problems);
                changed
            }
        }
    }

    /// Reads the parts that are new; the others are as they were.
    fn parse(&mut self, file: &str, text: &str) -> Vec<Arc<[Outcome]>> {
        let mut before = std::mem::take(&mut self.parts);
        let (mut outcomes, mut count) = (Vec::new(), 0);
        for (line, part) in split_documents(text) {
            let place = hash(line, part);
            let parse = || parse_part(file, line, part).into_iter().map(Outcome::from).collect();
            let outcome: Arc<[Outcome]> = before.remove(&place).unwrap_or_else(parse);
            count += outcome.len();
            self.parts.insert(place, outcome.clone());
            outcomes.push(outcome);
            if count > MAX_DOCUMENTS {
                let problem =
                    file_problem(Path::new(file), format!("more than {MAX_DOCUMENTS} documents; the rest is not read"));
                outcomes.push([Outcome { key: None, object: None, broken: true, problems: vec![problem] }].into());
                break;
            }
        }
        outcomes
    }

    /// Takes the documents of the file's new version over what it held.
    fn take(&mut self, parts: &[Arc<[Outcome]>]) {
        let before = std::mem::take(&mut self.objects);
        let mut before: BTreeMap<Key, Object> = before.into_iter().map(|o| (o.key(), o)).collect();
        self.problems.clear();
        let mut written = BTreeSet::new();
        let mut nameless = false;
        for outcome in parts.iter().flat_map(|p| p.iter()) {
            self.problems.extend(outcome.problems.iter().cloned());
            written.extend(outcome.key.clone());
            let object = match (outcome.broken, &outcome.key) {
                (false, _) => outcome.object.clone(),
                (true, Some(key)) => before.remove(key),
                (true, None) => {
                    nameless = true;
                    None
                }
            };
            self.objects.extend(object);
        }
        if nameless {
            // A document whose name cannot be read may be any of those that are missing.
            self.objects.extend(before.into_iter().filter(|(key, _)| !written.contains(key)).map(|(_, object)| object));
        }
    }
}

fn hash(line: u32, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (line, text).hash(&mut hasher);
    hasher.finish()
}

/// A problem with a file as a whole: it has no line.
fn file_problem(path: &Path, message: String) -> Problem {
    Problem {
        severity: Severity::Error,
        source: Source { file: path.to_string_lossy().into(), line: 0 },
        object: None,
        path: String::new(),
        message,
        suggestion: None,
    }
}

#[cfg(test)]
mod tests;
