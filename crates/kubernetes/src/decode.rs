//! An object of the API server as a typed object, or what is wrong with it.
//!
//! Owns nothing. What is wrong with one object concerns that object alone.

use kube::core::DynamicObject;
use meltemi_config::{Key, Kind, Object, Problem, Severity, Source, Str, parse_value};
use serde_json::Value;

use crate::revision::{Names, REVISION};
use crate::trim::trimmed;
use crate::watched;

/// Objects come from no file.
const SOURCE: &str = "cluster";

/// Whose configuration is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Of this control plane; objects that are labelled with another (`istio.io/rev`), or a tag of it, are not read.
    pub revision: String,
    /// The namespace with the mesh configuration.
    pub namespace: String,
}

/// What became of an object.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// In order, perhaps with warnings.
    Taken(Box<Object>, Vec<Problem>),
    /// Wrong: what was in force under its key stays. With its uid.
    Refused((Key, Str), Vec<Problem>),
    /// For another revision.
    Foreign(Key),
}

impl Decoded {
    pub fn key(&self) -> Key {
        match self {
            Self::Taken(object, _) => object.key(),
            Self::Refused((key, _), _) | Self::Foreign(key) => key.clone(),
        }
    }
}

impl Reader {
    /// The name of the ConfigMap with this revision's mesh configuration: `istio`, or `istio-<revision>`.
    fn mesh_map(&self) -> String {
        match self.revision.as_str() {
            "" | "default" => "istio".to_owned(),
            revision => format!("istio-{revision}"),
        }
    }

    /// Everybody else knows the mesh configuration in force under one key, and no other.
    fn known_as(&self, kind: Kind, namespace: &str, name: &str) -> Option<Key> {
        let mesh = Key::mesh_config_map();
        if kind == Kind::ConfigMap && namespace == self.namespace && name == self.mesh_map() {
            return Some(mesh);
        }
        let key = Key::new(kind, namespace, name);
        (key != mesh).then_some(key)
    }

    /// The key under which the object is known here; none for another revision's mesh configuration.
    pub(crate) fn key(&self, kind: Kind, object: &DynamicObject) -> Option<Key> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        self.known_as(kind, namespace, object.metadata.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn decode(
        &self,
        (kind, version): (Kind, &str),
        names: &Names,
        mut object: DynamicObject,
    ) -> Option<Decoded> {
        let key = self.key(kind, &object)?;
        let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION));
        if watched::is_revisioned(kind) && !names.read(label.map(String::as_str)) {
            return Some(Decoded::Foreign(key));
        }
        object.metadata.name = Some(key.name.to_string());
        object.metadata.namespace = Some(key.namespace.to_string()).filter(|namespace| !namespace.is_empty());
        object.metadata.managed_fields = None;
        let uid: Str = object.metadata.uid.as_deref().unwrap_or_default().into();
        let metadata = match serde_json::to_value(&object.metadata) {
            Ok(metadata) => metadata,
            Err(error) => {
                let problems = vec![problem(&key, error.to_string())];
                return Some(Decoded::Refused((key, uid), problems));
            }
        };
        let document = trimmed(kind, version, metadata, object.data);
        Some(read((key, uid), document))
    }
}

fn read(named: (Key, Str), document: Value) -> Decoded {
    let Some(document) = parse_value(SOURCE, document).into_iter().next() else {
        let problems = vec![problem(&named.0, "nothing in it".to_owned())];
        return Decoded::Refused(named, problems);
    };
    let problems = document.check_stored();
    match document.object {
        Some(object) if problems.iter().all(|problem| problem.severity < Severity::Error) => {
            Decoded::Taken(Box::new(object), problems)
        }
        _ => Decoded::Refused(named, problems),
    }
}

fn problem(key: &Key, message: String) -> Problem {
    let source = Source { file: Str::from(SOURCE), line: 1 };
    Problem {
        severity: Severity::Error,
        source,
        object: Some(key.clone()),
        path: String::new(),
        message,
        suggestion: None,
    }
}

#[cfg(test)]
mod tests;
