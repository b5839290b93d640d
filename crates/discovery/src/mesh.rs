//! The MeshConfig: from a file, or from the ConfigMap `istio` among the documents, as Istio keeps it in a cluster.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result, anyhow};
use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Problem, decode, parse_mesh_config};
use meltemi_model::Shared;
use meltemi_store::{ChangeSet, ConfigSet};
use meltemi_tls::TrustDomain;

use crate::options::Options;

/// Where istiod's image has it mounted.
const DEFAULT_FILE: &str = "./etc/istio/config/mesh";

/// The file to read: the one named, there or not yet; else the default one, where it is there.
pub(crate) fn file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
}

/// What a new root is named after. A file that cannot be read becomes an error where it is put in force.
pub(crate) fn trust_domain_of(file: Option<&Path>) -> Option<TrustDomain> {
    let text = std::fs::read_to_string(file?).ok()?;
    parse_mesh_config("", &text).ok()?.value.trust_domain.parse().ok()
}

/// The mesh configuration to start with: that of the file, where one is to be read.
pub(crate) fn initial(file: Option<&Path>, set: &ConfigSet) -> Result<MeshConfig> {
    let Some(path) = file else { return of_set(set) };
    if set.get(&Key::mesh_config_map()).is_some() {
        tracing::warn!("{}", unused(path));
    }
    match load(path)? {
        Some(mesh) => Ok(mesh),
        None => {
            tracing::warn!("{}: no such file; Istio's defaults are in force until there is one", path.display());
            Ok(MeshConfig::default())
        }
    }
}

fn unused(file: &Path) -> String {
    format!("{} is not used: the mesh configuration is {}", Key::mesh_config_map(), file.display())
}

/// The mesh configuration in a file, if it is there.
fn load(path: &Path) -> Result<Option<MeshConfig>> {
    let name = path.display().to_string();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(name),
    };
    let read = decode(&name, bytes).map_err(|problem| wrong(&[*problem])).and_then(|text| parse(&name, &text));
    read.map(Some)
}

/// The mesh configuration in the ConfigMap; Istio's defaults without one.
fn of_set(set: &ConfigSet) -> Result<MeshConfig> {
    let Some(object) = set.get(&Key::mesh_config_map()) else { return Ok(MeshConfig::default()) };
    match object.mesh_config() {
        Some(text) => parse(&object.key().to_string(), text),
        None => Ok(MeshConfig::default()),
    }
}

fn parse(name: &str, text: &str) -> Result<MeshConfig> {
    match parse_mesh_config(name, text) {
        Ok(settings) => {
            for warning in &settings.warnings {
                tracing::warn!("{warning}");
            }
            Ok(settings.value)
        }
        Err(problems) => Err(wrong(&problems)),
    }
}

fn wrong(problems: &[Problem]) -> Error {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    anyhow!("the mesh configuration is wrong:{}", lines.concat())
}

/// What has come to be the mesh configuration while this control plane runs. What is wrong with it is logged, and what
/// was in force stays.
pub(crate) struct Watch {
    file: Option<(PathBuf, Option<SystemTime>)>,
    trust_domain: TrustDomain,
    /// The flag wins over the mesh's, whatever that comes to be.
    is_given: bool,
}

impl Watch {
    pub(crate) fn new(options: &Options, trust_domain: TrustDomain) -> Self {
        let file = options.mesh_config.clone().map(|path| {
            let time = modified(&path);
            (path, time)
        });
        Self { file, trust_domain, is_given: options.trust_domain.is_some() }
    }

    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Looks at the file.
    pub(crate) fn look(&mut self) -> Option<Shared<MeshConfig>> {
        let (path, known) = self.file.as_mut()?;
        let time = modified(path);
        if time == *known {
            return None;
        }
        *known = time;
        match load(path) {
            Ok(Some(mesh)) => Some(self.adopt(mesh)),
            Ok(None) => {
                tracing::warn!("{} is gone; the mesh configuration in force stays", path.display());
                None
            }
            Err(error) => refused(&error),
        }
    }

    /// Looks at what changed in the store.
    pub(crate) fn follow(&self, set: &ConfigSet, changes: &ChangeSet) -> Option<Shared<MeshConfig>> {
        let key = Key::mesh_config_map();
        if !changes.keys().any(|changed| *changed == key) {
            return None;
        }
        match (&self.file, of_set(set)) {
            (Some((path, _)), _) if changes.upserted.contains(&key) => {
                tracing::warn!("{}", unused(path));
                None
            }
            (Some(_), _) => None,
            (None, Ok(mesh)) => Some(self.adopt(mesh)),
            (None, Err(error)) => refused(&error),
        }
    }

    /// Identities are of the trust domain that was in force at the start; another takes a restart.
    pub(crate) fn adopt(&self, mut mesh: MeshConfig) -> Shared<MeshConfig> {
        if *mesh.trust_domain != *self.trust_domain.as_str() {
            if !self.is_given {
                tracing::warn!(
                    "trustDomain is now {}, which takes effect when discovery starts again; until then it is {}",
                    mesh.trust_domain,
                    self.trust_domain
                );
            }
            mesh.trust_domain = self.trust_domain.as_str().into();
        }
        Shared::new(mesh)
    }
}

fn refused(error: &Error) -> Option<Shared<MeshConfig>> {
    tracing::warn!("{error:#}\nthe mesh configuration in force stays");
    None
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}
