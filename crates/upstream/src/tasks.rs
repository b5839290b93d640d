//! What a cluster does on its own: outlier sweeps, original-destination clean-up, health checks, DNS.
//!
//! Runs on the main runtime; each task holds the cluster weakly and ends with it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use meltemi_plan::ClusterKind;

use crate::cluster::Cluster;
use crate::{dns, health};

impl Cluster {
    /// Starts the cluster's tasks on the current runtime. They end when the cluster is dropped.
    pub fn start(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        let weak = Arc::downgrade(self);
        if let Some(detector) = self.detector() {
            tasks.spawn(every(detector.config.interval, weak.clone(), Cluster::sweep_outliers));
        }
        match &self.plan.kind {
            ClusterKind::OriginalDst(_) => {
                tasks.spawn(every(self.plan.cleanup_interval, weak.clone(), Cluster::sweep_original_dst));
            }
            ClusterKind::StrictDns | ClusterKind::LogicalDns => {
                tasks.spawn(dns::run(weak.clone()));
            }
            ClusterKind::Static | ClusterKind::Eds { .. } => {}
        }
        if !self.plan.health_checks.is_empty() {
            tasks.spawn(health::run(weak));
        }
    }
}

async fn every(interval: Duration, cluster: Weak<Cluster>, work: fn(&Cluster)) {
    // A zero interval would spin.
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(cluster) = cluster.upgrade() else { return };
        work(&cluster);
    }
}
