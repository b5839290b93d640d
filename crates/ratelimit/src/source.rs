//! The configuration's files: what they say, and whether they differ from what was read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use meltemi_config::rate_limit::{RateLimitConfiguration, RateLimitPolicy};
use meltemi_config::{Kind, Problem, Settings, Severity, decode, parse_documents, parse_rate_limit_configuration};
use meltemi_model::{ObjectKey, rate_limit};

/// A larger file is no configuration of limits.
const MAX_FILE_BYTES: u64 = 8 << 20;
const MAX_FILES: usize = 1_000;
/// Folders inside each other.
const MAX_DEPTH: usize = 16;

/// Where limits are written.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Files and folders with documents in the reference server's format, one a file. Of a folder all `.yaml`, `.yml` and
    /// `.json` files, not those of folders in it.
    pub paths: Vec<PathBuf>,
    /// Files and folders of a mesh's documents, whose RateLimitPolicies have global rules; folders in them included.
    pub policies: Vec<PathBuf>,
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
        let files = all_files(&self.paths, 0)?.into_iter().chain(all_files(&self.policies, MAX_DEPTH)?);
        let stamp = |file: PathBuf| {
            let meta = std::fs::metadata(&file)?;
            anyhow::ensure!(meta.len() <= MAX_FILE_BYTES, "{}: larger than {MAX_FILE_BYTES} bytes", file.display());
            Ok(Stamp { path: file, length: meta.len(), modified: meta.modified().ok() })
        };
        let stamps = files.map(stamp).collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(stamps.len() <= MAX_FILES, "more than {MAX_FILES} files");
        Ok(stamps)
    }

    /// What the files say; everything that is wrong, if anything is.
    pub(crate) fn read(&self) -> anyhow::Result<Documents> {
        self.stamps()?;
        let mut documents = Documents::default();
        let mut wrong: Vec<String> = Vec::new();
        for file in all_files(&self.paths, 0)? {
            match configuration(&file)? {
                Ok(settings) => {
                    documents.warnings.extend(settings.warnings);
                    documents.add(settings.value, &file.display().to_string(), &mut wrong);
                }
                Err(problems) => wrong.extend(errors(&problems)),
            }
        }
        let mut policies: Vec<(ObjectKey, Arc<RateLimitPolicy>)> = Vec::new();
        for file in all_files(&self.policies, MAX_DEPTH)? {
            match policies_in(&file)? {
                Ok(found) => policies.extend(found),
                Err(problems) => wrong.extend(errors(&problems)),
            }
        }
        let own = rate_limit::server_configurations(policies.iter().map(|(key, policy)| (key.clone(), &**policy)));
        for configuration in own {
            documents.add(configuration, "RateLimitPolicies", &mut wrong);
        }
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(documents)
    }
}

impl Documents {
    fn add(&mut self, configuration: RateLimitConfiguration, from: &str, wrong: &mut Vec<String>) {
        let domain = &configuration.domain;
        if self.configurations.iter().any(|known| known.domain == *domain) {
            wrong.push(format!("{from}: domain: another file has the domain {domain:?}"));
        }
        self.configurations.push(configuration);
    }
}

fn errors(problems: &[Problem]) -> impl Iterator<Item = String> {
    problems.iter().filter(|problem| problem.severity == Severity::Error).map(Problem::to_string)
}

fn text(file: &Path) -> anyhow::Result<Result<String, Vec<Problem>>> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    Ok(decode(&name, bytes).map_err(|problem| vec![*problem]))
}

fn configuration(file: &Path) -> anyhow::Result<Result<Settings<RateLimitConfiguration>, Vec<Problem>>> {
    let name = file.display().to_string();
    Ok(text(file)?.and_then(|text| parse_rate_limit_configuration(&name, &text)))
}

type Policies = Vec<(ObjectKey, Arc<RateLimitPolicy>)>;

/// The RateLimitPolicies of a file. Documents of other kinds may be wrong; one that is not even a document may not.
fn policies_in(file: &Path) -> anyhow::Result<Result<Policies, Vec<Problem>>> {
    let name = file.display().to_string();
    let documents = match text(file)? {
        Ok(text) => parse_documents(&name, &text),
        Err(problems) => return Ok(Err(problems)),
    };
    let ours = documents.iter().filter(|one| one.key.as_ref().is_none_or(|key| key.kind == Kind::RateLimitPolicy));
    let (mut policies, mut problems) = (Vec::new(), Vec::new());
    for document in ours {
        problems.extend(document.check());
        let policy = document.object.as_ref().and_then(|object| object.spec_as::<RateLimitPolicy>().cloned());
        let key = document.key.as_ref().map(|key| ObjectKey::new(key.namespace.clone(), key.name.clone()));
        policies.extend(key.zip(policy));
    }
    let wrong = problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if wrong { Err(problems) } else { Ok(policies) })
}

/// The files themselves, and the documents of folders by name.
fn all_files(paths: &[PathBuf], depth: usize) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let unreadable = |error| anyhow::anyhow!("{}: {error}", path.display());
        if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            found.extend(files_below(path, depth).map_err(unreadable)?);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn files_below(folder: &Path, depth: usize) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let is_document = entry.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if entry.is_dir() && depth > 0 {
            found.extend(files_below(&entry, depth - 1)?);
        } else if is_document && entry.is_file() {
            found.push(entry);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
