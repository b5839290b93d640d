//! The cluster, as far as a node's daemon needs it.
//!
//! Owns: the interface, so that the daemon is tested without an API server. [`NodeClient`] is the real one.

use std::future::Future;

use meltemi_kubernetes::nodes::{Change, NodeClient, NodeError, Pod, Selectors};
use tokio::sync::mpsc::Sender;

pub trait Cluster: Send + Sync + 'static {
    fn pod(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Pod>, NodeError>> + Send;

    /// Sends this node's pods, and each as it changes, until nobody listens.
    fn watch(&self, selectors: &Selectors, changes: Sender<Change>) -> impl Future<Output = ()> + Send;

    /// Deletes the pod if it still is the one that was looked at.
    fn delete(&self, pod: &Pod) -> impl Future<Output = Result<(), NodeError>> + Send;

    fn label(&self, pod: &Pod, key: &str, value: &str) -> impl Future<Output = Result<(), NodeError>> + Send;

    /// Writes a warning about a pod, for people to find.
    fn warn(&self, pod: &Pod, reason: &str, note: &str) -> impl Future<Output = Result<(), NodeError>> + Send;

    /// Takes a taint off this node; true where there was one.
    fn remove_taint(&self, key: &str) -> impl Future<Output = Result<bool, NodeError>> + Send;
}

impl Cluster for NodeClient {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, NodeError> {
        NodeClient::pod(self, namespace, name).await
    }

    async fn watch(&self, selectors: &Selectors, changes: Sender<Change>) {
        NodeClient::watch(self, selectors, changes).await;
    }

    async fn delete(&self, pod: &Pod) -> Result<(), NodeError> {
        NodeClient::delete(self, pod).await
    }

    async fn label(&self, pod: &Pod, key: &str, value: &str) -> Result<(), NodeError> {
        NodeClient::label(self, pod, key, value).await
    }

    async fn warn(&self, pod: &Pod, reason: &str, note: &str) -> Result<(), NodeError> {
        NodeClient::warn(self, pod, reason, note).await
    }

    async fn remove_taint(&self, key: &str) -> Result<bool, NodeError> {
        NodeClient::remove_taint(self, key).await
    }
}

#[cfg(test)]
pub(crate) mod fake;
