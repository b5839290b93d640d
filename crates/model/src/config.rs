//! A configuration object as the snapshot keeps it: identity, age, annotations and typed spec.

use crate::labels::Labels;
use crate::service::Creation;
use crate::shared::Shared;
use meltemi_config::Meta;
use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// Names an object within its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config<T> {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub labels: Labels,
    pub annotations: Labels,
    pub creation: Creation,
    pub spec: Arc<T>,
}

pub type ConfigRef<T> = Shared<Config<T>>;

impl<T: Hash> Config<T> {
    pub fn shared(meta: &Meta, spec: &Arc<T>) -> ConfigRef<T> {
        Shared::new(Self {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            creation: creation(meta),
            spec: spec.clone(),
        })
    }
}

impl<T> Config<T> {
    pub fn key(&self) -> ObjectKey {
        ObjectKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The older first, then by name and namespace: the order in which conflicts are settled.
    pub fn by_age(&self, other: &Self) -> Ordering {
        (&self.creation, &self.name, &self.namespace).cmp(&(&other.creation, &other.name, &other.namespace))
    }

    pub fn with_spec<U>(&self, spec: U) -> Config<U> {
        Config {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            creation: self.creation,
            spec: Arc::new(spec),
        }
    }
}

pub fn creation(meta: &Meta) -> Creation {
    meta.creation_timestamp.as_ref().map(|time| (time.as_second(), time.subsec_nanosecond()))
}
