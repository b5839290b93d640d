//! Reading the manifests once: for the check before anything starts, and to tell on which line something stands.
//!
//! Owns which files count (`.yaml`, `.yml`, `.json`, in subfolders too). Never watches; that is the store's part.

use std::fs;
use std::path::{Path, PathBuf};

use meltemi_config::{Object, Severity, parse_documents};

use crate::error::LocalError;

/// Deeper folders are not manifests but a mistake, such as a home folder.
const MAX_DEPTH: usize = 8;
const MAX_FILES: usize = 10_000;

#[derive(Default)]
pub(crate) struct Loaded {
    pub objects: Vec<Object>,
    /// Each with file, line and field.
    pub errors: Vec<String>,
}

/// Reads every document in a folder, or in one file.
pub(crate) fn load(path: &Path) -> Result<Loaded, LocalError> {
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, 0, &mut files)?
    } else {
        files.push(path.to_owned())
    }
    files.sort();
    let mut loaded = Loaded::default();
    for file in files {
        let text = fs::read_to_string(&file).map_err(LocalError::io(file.display().to_string()))?;
        read(&file.display().to_string(), &text, &mut loaded);
    }
    Ok(loaded)
}

fn read(name: &str, text: &str, loaded: &mut Loaded) {
    for document in parse_documents(name, text) {
        let problems = document.check();
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        loaded.errors.extend(errors.map(ToString::to_string));
        loaded.objects.extend(document.object);
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LocalError> {
    let entries = fs::read_dir(folder).map_err(LocalError::io(folder.display().to_string()))?;
    for entry in entries {
        let path = entry.map_err(LocalError::io(folder.display().to_string()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let manifest =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e));
        if hidden {
            continue;
        }
        if path.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, files)?;
        } else if manifest && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(LocalError::Fabric(format!("more than {MAX_FILES} manifests in {}", folder.display())));
        }
    }
    Ok(())
}
