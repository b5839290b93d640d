//! Installations in a cluster: made, waited for, pruned and taken away.
//!
//! Owns: what is done to a cluster, in which order, and what is said of it. What to do is decided by pure functions of the
//! modules below; the cluster is reached through `meltemi_kubernetes::apply` alone.

pub mod adopt;
pub mod apply;
pub mod ready;
pub mod remove;
pub mod verify;

use std::time::Duration;

use meltemi_kubernetes::apply::{Applied, Cluster, ClusterError, Resource};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::component::Component;
use crate::object::{Object, ObjectKey};

/// How an installation is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The API server checks everything, and keeps nothing.
    pub dry_run: bool,
    /// Objects of strangers are taken over.
    pub force: bool,
    /// How long each component may take until it is ready; absent: nobody waits.
    pub wait: Option<Duration>,
}

#[derive(Debug, Error)]
pub enum LifecycleError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{key}: {source}")]
    Object {
        key: Box<ObjectKey>,
        #[source]
        source: ClusterError,
    },
    #[error("{key} is not of a mesh, and {source}; --force takes it over")]
    Stranger {
        key: Box<ObjectKey>,
        #[source]
        source: ClusterError,
    },
    #[error("{key}: nobody knows how to reach a {}", .key.kind)]
    Kind { key: Box<ObjectKey> },
    #[error("not ready after {} s: {}", .0.as_secs(), .1.join("; "))]
    NotReady(Duration, Vec<String>),
}

/// What happens, as it happens.
#[derive(Debug, Clone)]
pub enum Event {
    Begun(Component),
    Applied(Change),
    /// What is still waited for.
    Waiting(Vec<String>),
    Removed(ObjectKey),
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    #[serde(serialize_with = "text")]
    pub object: ObjectKey,
    pub action: Action,
    /// Fields that another managed until now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken_over: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Created,
    Changed,
    Unchanged,
    Removed,
}

impl From<Applied> for Action {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Created => Self::Created,
            Applied::Changed => Self::Changed,
            Applied::Unchanged => Self::Unchanged,
        }
    }
}

fn text<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// Whoever wants to know.
pub type Listener<'a> = &'a mut (dyn FnMut(Event) + Send);

fn resource(key: &ObjectKey) -> Result<&'static Resource, LifecycleError> {
    Resource::of_kind(&key.kind).ok_or_else(|| LifecycleError::Kind { key: Box::new(key.clone()) })
}

async fn live(cluster: &Cluster, key: &ObjectKey) -> Result<Option<Value>, LifecycleError> {
    let found = cluster.get(resource(key)?, &key.namespace, &key.name).await;
    found.map_err(|source| LifecycleError::Object { key: Box::new(key.clone()), source })
}

/// Objects as lists have them; what has no name is left out.
fn objects(values: Vec<Value>) -> impl Iterator<Item = Object> {
    values.into_iter().filter_map(|value| Object::new(value).ok())
}
