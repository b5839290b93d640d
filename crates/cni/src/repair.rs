//! Pods that started before the plugin was there, and whose traffic goes past their proxy.
//!
//! Owns: how such a pod is known (its validating init container fails, with an exit code of its own) and what becomes of it:
//! its rules are made from outside, or it is deleted so that its owner makes another, or it is labelled for somebody to
//! find. Cost: one watch of the node's pods; to find a pod's namespace, two small files for each process of the node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meltemi_kubernetes::nodes::{Change, Failure, Pod, Selectors};
use meltemi_netfilter::Backend;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::decide::{Decision, decide};
use crate::plugin::Kernel;
use crate::serve::Stats;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's rules from here.
    Mend,
    Delete,
    Label {
        key: String,
        value: String,
    },
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Action::Mend => "repair",
            Action::Delete => "delete",
            Action::Label { .. } => "label",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub action: Action,
    /// Pods without this annotation are left; empty for all.
    pub sidecar_annotation: String,
    /// The init container that fails; empty for any.
    pub init_container: String,
    /// 0 for any.
    pub exit_code: i32,
    /// Empty for any.
    pub message: String,
    pub selectors: Selectors,
    /// The node's processes, usually `/host/proc`.
    pub processes: PathBuf,
    /// What makes rules.
    pub backend: Backend,
}

/// Tries for one pod before its next change.
const ATTEMPTS: u32 = 5;
/// Before the second try; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Pods that wait for another try; the node has fewer pods than this.
const MAX_WAITING: usize = 1024;
const MAX_CHANGES: usize = 256;

/// Whether a pod came before its node's plugin.
pub fn is_broken(pod: &Pod, settings: &Settings) -> bool {
    let message = settings.message.trim();
    let fails = |failure: &Failure| {
        (settings.init_container.is_empty() || failure.container == settings.init_container)
            && (settings.exit_code == 0 || failure.exit_code == settings.exit_code)
            && (message.is_empty() || failure.message.trim() == message)
    };
    let annotated =
        settings.sidecar_annotation.is_empty() || pod.annotations.contains_key(&settings.sidecar_annotation);
    annotated && pod.failures.iter().any(fails)
}

/// Addresses of this host in a `fib_trie` of `/proc`.
fn local_v4(trie: &str) -> HashSet<IpAddr> {
    let mut last: Option<IpAddr> = None;
    let mut found = HashSet::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found
}

/// Addresses in an `if_inet6` of `/proc`: 32 digits without colons, first in each line.
fn local_v6(table: &str) -> HashSet<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split(' ').next()?, 16).ok();
    table.lines().filter_map(address).map(|bits| IpAddr::V6(bits.into())).collect()
}

/// The network namespace that has one of the addresses, by the oldest process in it.
pub fn namespace_of(processes: &Path, addresses: &[String]) -> Option<PathBuf> {
    let wanted: HashSet<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    let entries = std::fs::read_dir(processes).ok()?;
    let mut numbers: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut seen = HashSet::new();
    numbers.into_iter().find_map(|number| {
        let process = processes.join(number.to_string());
        let namespace = process.join("ns/net");
        // A process that has ended meanwhile has no namespace.
        if !seen.insert(std::fs::read_link(&namespace).ok()?) {
            return None;
        }
        let read = |name: &str| std::fs::read_to_string(process.join("net").join(name)).unwrap_or_default();
        let mut local = local_v4(&read("fib_trie"));
        local.extend(local_v6(&read("if_inet6")));
        (!local.is_disjoint(&wanted)).then_some(namespace)
    })
}

/// A pod that is to be tried again.
struct Waiting {
    due: Instant,
    pod: Box<Pod>,
    attempt: u32,
}

/// Follows the node's pods.
pub(crate) struct Repair<C, K> {
    pub cluster: Arc<C>,
    pub kernel: Arc<K>,
    pub settings: Settings,
    pub stats: Arc<Stats>,
    /// Pods that need nothing more, with their ids.
    pub done: HashMap<(String, String), String>,
}

impl<C: Cluster, K: Kernel + Send + Sync + 'static> Repair<C, K> {
    /// Repairs for ever.
    pub async fn run(mut self) {
        let (sender, mut changes) = mpsc::channel(MAX_CHANGES);
        let (cluster, selectors) = (self.cluster.clone(), self.settings.selectors.clone());
        let watching = cluster.watch(&selectors, sender);
        let repairing = async {
            let mut waiting: VecDeque<Waiting> = VecDeque::new();
            loop {
                let due = waiting.iter().map(|waiting| waiting.due).min();
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = sleep_until(due) => Some(self.take_due(&mut waiting)),
                };
                let Some(change) = change else { return };
                self.follow(change, &mut waiting).await;
            }
        };
        tokio::join!(watching, repairing);
    }

    /// A change that says again what is to be tried again.
    fn take_due(&self, waiting: &mut VecDeque<Waiting>) -> Change {
        let first = waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.due).map_or(0, |(i, _)| i);
        waiting.rotate_left(first);
        match waiting.front() {
            Some(next) => Change::Seen(next.pod.clone()),
            None => Change::Gone { namespace: String::new(), name: String::new() },
        }
    }

    async fn follow(&mut self, change: Change, waiting: &mut VecDeque<Waiting>) {
        let pod = match change {
            Change::Gone { namespace, name } => {
                waiting.retain(|waiting| waiting.pod.namespace != namespace || waiting.pod.name != name);
                self.done.remove(&(namespace, name));
                return;
            }
            Change::Seen(pod) => pod,
        };
        let same = |waiting: &Waiting| waiting.pod.uid == pod.uid;
        let attempt = waiting.iter().find(|waiting| same(waiting)).map_or(0, |waiting| waiting.attempt);
        waiting.retain(|waiting| !same(waiting));
        let key = (pod.namespace.clone(), pod.name.clone());
        if !is_broken(&pod, &self.settings) || self.done.get(&key) == Some(&pod.uid) {
            return;
        }
        let result = self.repair(&pod).await;
        let kind = self.settings.action.name();
        self.stats.repaired(kind, result.is_ok());
        let who = format!("{}/{}", pod.namespace, pod.name);
        let Err(reason) = result else {
            tracing::info!(pod = who, "came before its node was ready: {kind} is done");
            self.done.insert(key, pod.uid.clone());
            return;
        };
        tracing::warn!(pod = who, "came before its node was ready, and {kind} failed: {reason}");
        if attempt + 1 < ATTEMPTS && waiting.len() < MAX_WAITING {
            let due = Instant::now() + FIRST_PAUSE * 2u32.pow(attempt);
            waiting.push_back(Waiting { due, pod, attempt: attempt + 1 });
        }
    }

    async fn repair(&self, pod: &Pod) -> Result<(), String> {
        let (done, reason, what) = match &self.settings.action {
            Action::Mend => return self.mend(pod).await,
            Action::Delete => (self.cluster.delete(pod).await, "DeleteBrokenPod", "deleted"),
            Action::Label { key, .. } if pod.labels.contains_key(key) => return Ok(()),
            Action::Label { key, value } => (self.cluster.label(pod, key, value).await, "LabelBrokenPod", "labelled"),
        };
        let note = match &done {
            Ok(()) => format!("started before the node could capture its traffic: {what}"),
            Err(error) => format!("started before the node could capture its traffic, and cannot be {what}: {error}"),
        };
        if let Err(error) = self.cluster.warn(pod, reason, &note).await {
            tracing::debug!(%error, "writing an event");
        }
        done.map_err(|error| error.to_string())
    }

    async fn mend(&self, pod: &Pod) -> Result<(), String> {
        let settings = match decide(pod).map_err(|error| error.to_string())? {
            Decision::Capture(settings) => settings,
            Decision::Leave(reason) => return Err(format!("it is not to be captured: {reason}")),
        };
        let (kernel, processes) = (self.kernel.clone(), self.settings.processes.clone());
        let (addresses, backend) = (pod.addresses.clone(), self.settings.backend.clone());
        let applied = tokio::task::spawn_blocking(move || {
            let namespace = namespace_of(&processes, &addresses)
                .ok_or_else(|| format!("no process of the node has the address {}", addresses.join(" or ")))?;
            kernel.apply(&namespace, &settings, &backend)
        });
        applied.await.map_err(|error| error.to_string())?
    }
}

/// Never, where there is nothing to wait for.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
