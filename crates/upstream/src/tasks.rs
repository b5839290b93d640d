//! What a cluster does on its own: outlier sweeps, original-destination clean-up, health checks, DNS.
//!
//! Runs on the main runtime. Sweeps cost one task an interval, however many clusters have it; each other task holds its cluster
//! weakly and ends with it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meltemi_plan::ClusterKind;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::zone::Local;
use crate::{dns, health};

type Entry = (Weak<Cluster>, fn(&Cluster));
type Lists = Mutex<BTreeMap<Duration, Vec<Entry>>>;

/// What the clusters of a process share: sweeps by how often they are due, and who waits for them to warm. The tasks of the
/// sweeps end when this is dropped.
#[derive(Debug, Default)]
pub struct Background {
    sweeps: Arc<Lists>,
    warmed: Arc<Notify>,
    local: Option<Local>,
}

impl Background {
    /// For a proxy that is itself part of a cluster, so that the others are routed by zone.
    pub fn with_local(local: Option<Local>) -> Self {
        Self { local, ..Self::default() }
    }

    /// Told, for one who waits, when some cluster has become warm.
    pub fn warmed(&self) -> Arc<Notify> {
        self.warmed.clone()
    }

    fn sweep(&self, interval: Duration, cluster: &Arc<Cluster>, work: fn(&Cluster)) {
        // A zero interval would spin.
        let interval = interval.max(Duration::from_millis(1));
        let mut lists = self.sweeps.lock();
        let list = lists.entry(interval).or_insert_with(|| {
            tokio::spawn(sweep(interval, Arc::downgrade(&self.sweeps)));
            Vec::new()
        });
        list.push((Arc::downgrade(cluster), work));
    }
}

/// Works off one list at each tick until it is empty.
async fn sweep(interval: Duration, lists: Weak<Lists>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(lists) = lists.upgrade() else { return };
        let mut lists = lists.lock();
        let Some(list) = lists.get_mut(&interval) else { return };
        list.retain(|(cluster, work)| cluster.upgrade().map(|cluster| work(&cluster)).is_some());
        if list.is_empty() {
            lists.remove(&interval);
            return;
        }
    }
}

/// A cluster's own tasks, which end with it. Most clusters have none.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<Option<Box<JoinSet<()>>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().get_or_insert_default().spawn(task);
    }
}

impl Cluster {
    /// Starts what the cluster does on its own, on the current runtime. It ends when the cluster is dropped.
    pub fn start(self: &Arc<Self>, background: &Background) {
        self.announce_to(background.warmed());
        if let Some(detector) = self.detector() {
            background.sweep(detector.config.interval, self, Cluster::sweep_outliers);
        }
        match &self.plan.kind {
            ClusterKind::OriginalDst(_) => {
                background.sweep(self.plan.cleanup_interval, self, Cluster::sweep_original_dst);
            }
            ClusterKind::DynamicForward(cache) => background.sweep(cache.host_ttl, self, Cluster::sweep_original_dst),
            ClusterKind::StrictDns | ClusterKind::LogicalDns => self.tasks.spawn(dns::run(Arc::downgrade(self))),
            ClusterKind::Static | ClusterKind::Eds => {}
        }
        if let Some(mut origin) = background.local.as_ref().and_then(|local| self.take_part(local)) {
            let cluster = Arc::downgrade(self);
            self.tasks.spawn(async move {
                while origin.changed().await.is_ok() {
                    let Some(cluster) = cluster.upgrade() else { return };
                    cluster.rebuild();
                }
            });
        }
        if !self.plan.health_checks.is_empty() {
            self.tasks.spawn(health::run(Arc::downgrade(self)));
        }
    }
}
