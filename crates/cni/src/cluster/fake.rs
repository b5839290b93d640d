//! A cluster in memory, which writes down what is done to it.

use std::sync::Mutex;

use meltemi_kubernetes::nodes::{Change, NodeError, Pod, Selectors};
use tokio::sync::mpsc::Sender;

use super::Cluster;

#[derive(Default)]
pub(crate) struct Fake {
    pub pods: Vec<Pod>,
    pub done: Mutex<Vec<String>>,
    /// How many calls that change something fail before one succeeds.
    pub failures: Mutex<usize>,
    pub tainted: bool,
}

impl Fake {
    fn note(&self, what: String) -> Result<(), NodeError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(NodeError::new("not now"));
        }
        self.done.lock().unwrap().push(what);
        Ok(())
    }

    pub fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }
}

impl Cluster for Fake {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, NodeError> {
        if namespace == "unreachable" {
            return Err(NodeError::new("no connection"));
        }
        Ok(self.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name).cloned())
    }

    async fn watch(&self, _: &Selectors, changes: Sender<Change>) {
        for pod in &self.pods {
            if changes.send(Change::Seen(Box::new(pod.clone()))).await.is_err() {
                return;
            }
        }
        changes.closed().await;
    }

    async fn delete(&self, pod: &Pod) -> Result<(), NodeError> {
        self.note(format!("delete {}", pod.name))
    }

    async fn label(&self, pod: &Pod, key: &str, value: &str) -> Result<(), NodeError> {
        self.note(format!("label {} {key}={value}", pod.name))
    }

    async fn warn(&self, pod: &Pod, reason: &str, _: &str) -> Result<(), NodeError> {
        self.done.lock().unwrap().push(format!("warn {} {reason}", pod.name));
        Ok(())
    }

    async fn remove_taint(&self, key: &str) -> Result<bool, NodeError> {
        self.note(format!("untaint {key}")).map(|()| self.tainted)
    }
}
