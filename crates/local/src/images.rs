//! Which program on this machine stands for a container image.
//!
//! Owns the table that `--image NAME=PATH` extends. Never downloads nor unpacks anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// What a container's `image`, `command` and `args` come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Images {
    table: BTreeMap<String, PathBuf>,
    own: PathBuf,
    envoy: Option<PathBuf>,
}

/// The name of our own image, whatever its registry and tag.
const OWN: &str = "meltemi";

/// `registry:5000/team/app:1.2@sha256:…` without tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

impl Images {
    /// `own` is the running program: it stands for the image `meltemi`.
    pub fn new(table: BTreeMap<String, PathBuf>, own: PathBuf) -> Self {
        Images { table, own, envoy: None }
    }

    /// The Envoy that is every proxy whose pod names no other; our own otherwise.
    pub fn with_envoy(self, envoy: Option<PathBuf>) -> Self {
        Images { envoy, ..self }
    }

    /// The Envoy that a pod's proxy is to be; none for our own. `image` is the pod's `sidecar.istio.io/proxyImage`; an error
    /// where nothing stands for it, and then the pod gets what others get.
    pub fn envoy(&self, image: Option<&str>) -> Result<Option<PathBuf>, String> {
        let Some(image) = image else { return Ok(self.envoy.clone()) };
        match self.program(image) {
            Some(program) if program == self.own => Ok(None),
            Some(program) => Ok(Some(program.to_owned())),
            None => Err(format!(
                "`{image}` is unknown on this machine; `--image {}=PATH` names an Envoy",
                repository(image)
            )),
        }
    }

    /// The Envoy of pods that name none.
    pub fn default_envoy(&self) -> Option<PathBuf> {
        self.envoy.clone()
    }

    /// Whether it is the running program.
    pub fn is_own(&self, program: &Path) -> bool {
        program == self.own
    }

    /// The program behind an image: the full name wins over the one without a tag, and that over the last word alone.
    fn program(&self, image: &str) -> Option<&Path> {
        let repository = repository(image);
        let last = repository.rsplit('/').next().unwrap_or(repository);
        let named = [image, repository, last].into_iter().find_map(|name| self.table.get(name));
        named.map(PathBuf::as_path).or_else(|| (last == OWN).then_some(self.own.as_path()))
    }

    /// As a container runtime has it: `command` replaces the image's program, `args` are its arguments.
    pub fn invocation(&self, image: &str, command: &[String], arguments: &[String]) -> Result<Invocation, String> {
        let program = self.program(image);
        let Some((first, rest)) = command.split_first() else {
            let program = program.ok_or_else(|| {
                format!(
                    "image `{image}` is unknown on this machine: give the program that stands for it with \
                     `--image {}=PATH`, or a `command`",
                    repository(image)
                )
            })?;
            return Ok(Invocation { program: program.to_owned(), arguments: arguments.to_vec() });
        };
        // A command that names the image's own program means that very program, in PATH or not.
        let named = Path::new(first).file_name();
        let own = program.filter(|program| {
            named == program.file_name() || (program == &self.own && named.is_some_and(|name| name == OWN))
        });
        let program = own.map_or_else(|| PathBuf::from(first), Path::to_owned);
        Ok(Invocation { program, arguments: rest.iter().chain(arguments).cloned().collect() })
    }
}
