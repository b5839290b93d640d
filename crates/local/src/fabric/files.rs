//! What is said of the manifests while the mesh runs: each problem once, and each file that an edit put in force or
//! right again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use meltemi_config::{Object, Problem, Severity, Str};
use meltemi_store::{ChangeSet, ConfigSet};

#[cfg(test)]
mod tests;

/// What is in force and what is wrong come one after the other: of one edit the first that says so is enough.
const ONE_EDIT: Duration = Duration::from_secs(1);

/// What was said last.
#[derive(Default)]
pub(super) struct Files {
    problems: BTreeSet<String>,
    /// Files with an error.
    broken: BTreeSet<Str>,
    /// When a file was said to be in force.
    said: BTreeMap<Str, Instant>,
}

impl Files {
    /// The lines to say, now that these are the problems and the objects of the touched files have changed.
    pub fn news(&mut self, problems: &[Problem], touched: BTreeSet<Str>, root: &Path) -> Vec<String> {
        let shown = problems.iter().filter(|problem| problem.severity > Severity::Notice);
        let now: BTreeSet<String> = shown.map(ToString::to_string).collect();
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let broken: BTreeSet<Str> = errors.map(|problem| problem.source.file.clone()).collect();
        let mut lines: Vec<String> = now.difference(&self.problems).cloned().collect();
        self.said.retain(|_, said| said.elapsed() < ONE_EDIT);
        for file in self.broken.union(&touched).filter(|file| !broken.contains(*file)) {
            if self.said.insert(file.clone(), Instant::now()).is_none() {
                lines.push(in_force(file, root));
            }
        }
        (self.problems, self.broken) = (now, broken);
        lines
    }
}

fn in_force(file: &str, root: &Path) -> String {
    let path = Path::new(file);
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    let name = below.or(path.file_name().map(Path::new)).unwrap_or(path).display();
    if path.exists() { format!("{name}: in force") } else { format!("{name}: gone, and what it held with it") }
}

/// The files in which what changed is written, or was.
pub(super) fn touched(before: &[Object], set: &ConfigSet, changed: &ChangeSet) -> BTreeSet<Str> {
    let source = |object: &Object| object.meta.source.as_ref().map(|source| source.file.clone());
    let now = changed.upserted.iter().filter_map(|key| set.get(key).and_then(source));
    let gone = before.iter().filter(|object| changed.removed.contains(&object.key())).filter_map(source);
    now.chain(gone).collect()
}
