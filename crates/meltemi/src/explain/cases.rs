//! The files of `--case`: those that were named, and of a folder those that are cases.

use std::path::{Path, PathBuf};

use anyhow::Context;

const MAX_DEPTH: usize = 8;

/// A file that may be a case.
pub(crate) struct File {
    pub name: String,
    path: PathBuf,
    /// Found in a folder, where other files may lie too.
    found: bool,
}

impl File {
    /// Its text; none where it was found in a folder and does not look like a case.
    pub fn text(&self) -> anyhow::Result<Option<String>> {
        let text = std::fs::read_to_string(&self.path).with_context(|| self.name.clone())?;
        let begins = ["kind:", "- function:", "_err:", "{"];
        let is_case = |text: &String| text.lines().any(|line| begins.iter().any(|begin| line.starts_with(begin)));
        Ok(Some(text).filter(|text| !self.found || is_case(text)))
    }
}

/// All files at these paths, those of a folder in order of their names.
pub(crate) fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            collect(path, 0, &mut files)?;
        } else {
            files.push(File { name: path.display().to_string(), path: path.clone(), found: false });
        }
    }
    Ok(files)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<File>) -> anyhow::Result<()> {
    let name = || folder.display().to_string();
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(name)? {
        entries.push(entry.with_context(name)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(File { name: path.display().to_string(), path, found: true });
        }
    }
    Ok(())
}
