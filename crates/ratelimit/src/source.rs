//! The configuration's files: what they say, and whether they differ from what was read.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use meltemi_config::rate_limit::RateLimitConfiguration;
use meltemi_config::{Problem, Severity, decode, parse_rate_limit_configuration};

/// A larger file is no configuration of limits.
const MAX_FILE_BYTES: u64 = 8 << 20;
const MAX_FILES: usize = 1_000;

/// Files and folders with documents in the reference server's format, one a file. Of a folder all `.yaml`, `.yml` and `.json`
/// files, not those of folders in it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub paths: Vec<PathBuf>,
}

/// What tells whether a file has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub configurations: Vec<RateLimitConfiguration>,
    pub warnings: Vec<Problem>,
}

impl Source {
    /// All files as they are now. A folder that a mount replaces at once (Kubernetes' ConfigMaps) has other times then.
    pub(crate) fn stamps(&self) -> anyhow::Result<Vec<Stamp>> {
        let mut stamps = Vec::new();
        for path in &self.paths {
            for file in files(path)? {
                let meta = std::fs::metadata(&file)?;
                stamps.push(Stamp { path: file, length: meta.len(), modified: meta.modified().ok() });
            }
        }
        anyhow::ensure!(stamps.len() <= MAX_FILES, "more than {MAX_FILES} files");
        Ok(stamps)
    }

    /// What the files say; everything that is wrong, if anything is.
    pub(crate) fn read(&self) -> anyhow::Result<Documents> {
        let mut documents = Documents::default();
        let mut wrong: Vec<String> = Vec::new();
        for stamp in self.stamps()? {
            let name = stamp.path.display().to_string();
            anyhow::ensure!(stamp.length <= MAX_FILE_BYTES, "{name}: larger than {MAX_FILE_BYTES} bytes");
            let bytes = std::fs::read(&stamp.path)?;
            let parsed = decode(&name, bytes)
                .map_err(|problem| vec![*problem])
                .and_then(|text| parse_rate_limit_configuration(&name, &text));
            match parsed {
                Ok(settings) => {
                    let domain = &settings.value.domain;
                    if documents.configurations.iter().any(|known| known.domain == *domain) {
                        wrong.push(format!("{name}: domain: another file has the domain {domain:?}"));
                    }
                    documents.configurations.push(settings.value);
                    documents.warnings.extend(settings.warnings);
                }
                Err(problems) => {
                    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
                    wrong.extend(errors.map(Problem::to_string));
                }
            }
        }
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(documents)
    }
}

/// The file itself, or the documents of a folder by name.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = |error| anyhow::anyhow!("{}: {error}", path.display());
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry?.path();
        let is_document = file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if is_document && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
