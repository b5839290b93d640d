//! The mesh configuration, as far as the fabric itself follows it.
//!
//! Owns which text is in force: the file that was named, else the ConfigMap among the manifests, else Istio's defaults,
//! as discovery has it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Object, Problem, decode, parse_mesh_config};

/// How often the file is looked at; discovery does it as often.
const POLL: Duration = Duration::from_secs(1);

/// What is in force at the start, and what is worth saying about it.
#[derive(Default)]
pub(crate) struct Mesh {
    pub config: MeshConfig,
    pub warnings: Vec<String>,
}

/// Reads the mesh configuration; an error has file, line and field.
pub(crate) fn load(file: Option<&Path>, objects: &[Object]) -> Result<Mesh, Vec<String>> {
    let map = objects.iter().find(|object| object.key() == Key::mesh_config_map());
    match (file, map.and_then(Object::mesh_config)) {
        (Some(file), map) => {
            let mut mesh = of_file(file)?;
            if map.is_some() {
                mesh.warnings.push(unused(file));
            }
            Ok(mesh)
        }
        // It was validated with its document.
        (None, Some(text)) => of_text("istio", text),
        (None, None) => Ok(Mesh::default()),
    }
}

/// That the ConfigMap has no effect beside a file.
pub(crate) fn unused(file: &Path) -> String {
    format!("warning: {} is not used: the mesh configuration is {}", Key::mesh_config_map(), file.display())
}

/// That another trust domain has no effect yet, if this is one.
pub(crate) fn other_trust_domain(config: &MeshConfig, in_force: &str) -> Option<String> {
    let now = &config.trust_domain;
    let text = format!("warning: trustDomain is now {now}, which takes a restart; until then it is {in_force}");
    (**now != *in_force).then_some(text)
}

/// A file that discovery follows too, for what is to be said of an edit.
pub(crate) struct Followed {
    file: PathBuf,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl Followed {
    pub fn new(file: PathBuf) -> Self {
        Self { modified: modified(&file), file, looked: Instant::now() }
    }

    /// The lines to say; none if it is as it was.
    pub fn news(&mut self, trust_domain: &str) -> Vec<String> {
        if self.looked.elapsed() < POLL {
            return Vec::new();
        }
        self.looked = Instant::now();
        let now = modified(&self.file);
        if now == self.modified {
            return Vec::new();
        }
        self.modified = now;
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).display();
        if now.is_none() {
            return vec![format!("{name}: gone; the mesh configuration in force stays")];
        }
        match of_file(&self.file) {
            Ok(mesh) => {
                let other = other_trust_domain(&mesh.config, trust_domain);
                mesh.warnings.into_iter().chain(other).chain([format!("{name}: in force")]).collect()
            }
            Err(mut problems) => {
                problems.push("the mesh configuration in force stays".to_owned());
                problems
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn of_file(file: &Path) -> Result<Mesh, Vec<String>> {
    let name = file.display().to_string();
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = decode(&name, bytes).map_err(|problem| vec![problem.to_string()])?;
            of_text(&name, &text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Mesh {
            warnings: vec![format!("warning: {name}: no such file; Istio's defaults are in force until there is one")],
            ..Mesh::default()
        }),
        Err(error) => Err(vec![format!("{name}: error: {error}")]),
    }
}

fn of_text(name: &str, text: &str) -> Result<Mesh, Vec<String>> {
    let lines = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
    let settings = parse_mesh_config(name, text).map_err(lines)?;
    Ok(Mesh { config: settings.value, warnings: lines(settings.warnings) })
}

#[cfg(test)]
mod tests;
