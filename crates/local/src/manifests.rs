//! Reading the manifests once: for the check before anything starts, and to tell on which line something stands.
//!
//! Owns which files count (`.yaml`, `.yml`, `.json`, in subfolders too). Never watches; that is the store's part.

use std::fs;
use std::path::{Path, PathBuf};

use meltemi_config::{Object, Problem, Severity, decode, parse_documents};

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
        let name = file.display().to_string();
        match decode(&name, fs::read(&file).map_err(LocalError::io(name.clone()))?) {
            Ok(text) => read(&name, &text, &mut loaded),
            Err(problem) => loaded.errors.push(problem.to_string()),
        }
    }
    Ok(loaded)
}

/// A problem of an object at the line of its field, where its file can still be read; objects know but the line of
/// their document.
pub(crate) fn placed(mut problem: Problem) -> Problem {
    let text = fs::read_to_string(&*problem.source.file).unwrap_or_default();
    let documents = parse_documents(&problem.source.file, &text);
    let of_object = |document: &&meltemi_config::Document| document.key.is_some() && document.key == problem.object;
    if let Some(document) = documents.iter().find(of_object) {
        problem.source.line = document.line_of(&problem.path);
    }
    problem
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

#[cfg(test)]
mod tests {
    use meltemi_config::{Key, Kind, Source};

    use super::*;

    #[test]
    fn a_problem_is_placed_at_its_field() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("m.yaml");
        let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    image: x\n";
        fs::write(&file, format!("# first\n---\n{pod}")).expect("write");
        let problem = |path: &str| Problem {
            severity: Severity::Error,
            source: Source { file: file.display().to_string().into(), line: 3 },
            object: Some(Key::new(Kind::Pod, "default", "a")),
            path: path.to_owned(),
            message: String::new(),
            suggestion: None,
        };
        assert_eq!(placed(problem("spec.containers[0].image")).source.line, 10);
        assert_eq!(placed(problem("spec.containers[0].env[3]")).source.line, 9);
        fs::remove_file(&file).expect("remove");
        assert_eq!(placed(problem("spec.containers[0].image")).source.line, 3);
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("m.yaml"), b"# one\n# \xe9t\xe9\n").expect("write");
        let errors = load(dir.path()).expect("read").errors;
        assert!(errors.len() == 1 && errors[0].ends_with("m.yaml:2: error: not UTF-8: a byte 0xe9"), "{errors:?}");
    }
}
