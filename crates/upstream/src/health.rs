//! Active health checks: HTTP, TCP and gRPC, one loop a host and check.
//!
//! Thresholds are a pure state machine ([`Verdict`]); probes open a connection each. Runs on the main runtime.

mod probe;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use meltemi_plan::cluster::HealthCheck;
use rand::Rng;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::endpoint::{Endpoint, Fault};
use crate::stats::{HealthCheckStats, Names};
pub(crate) use probe::{Answer, exchange_h2, parse_status};

/// Keeps one loop for each host that the cluster has.
pub(crate) async fn run(cluster: Weak<Cluster>) {
    let Some(strong) = cluster.upgrade() else { return };
    let Some(changed) = strong.changed.clone() else { return };
    let stats = HealthCheckStats::new(
        &strong.registry,
        Names::new(&strong.plan.stat_name).part("health_check.", "envoy_cluster_health_check_"),
    );
    drop(strong);
    let mut loops = JoinSet::new();
    let mut running: HashMap<u64, Vec<tokio::task::AbortHandle>> = HashMap::new();
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let hosts = strong.hosts();
        let ids: HashSet<u64> = hosts.iter().map(|h| h.id).collect();
        running.retain(|id, handles| {
            let stays = ids.contains(id);
            if !stays {
                handles.iter().for_each(tokio::task::AbortHandle::abort);
            }
            stays
        });
        for host in hosts.into_iter().filter(|h| !h.is_unchecked()) {
            running.entry(host.id).or_insert_with(|| {
                let start = |check: usize| loops.spawn(check_host(cluster.clone(), host.clone(), check, stats.clone()));
                (0..strong.plan.health_checks.len()).map(start).collect()
            });
        }
        drop(strong);
        while loops.try_join_next().is_some() {}
        // Ends with the cluster, whose tasks are dropped with it.
        changed.notified().await;
    }
}

async fn check_host(cluster: Weak<Cluster>, host: Arc<Endpoint>, index: usize, stats: HealthCheckStats) {
    let mut verdict = Verdict::new(!host.state.has(Fault::ActiveCheck));
    let mut first = true;
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let Some(check) = strong.plan.health_checks.get(index).cloned() else { return };
        if std::mem::take(&mut first) && !check.initial_jitter.is_zero() {
            drop(strong);
            tokio::time::sleep(jitter(check.initial_jitter)).await;
            continue;
        }
        let transport = strong.transport(&host).clone();
        let announced = strong.proxy_protocol(&host);
        let cluster_name = strong.plan.name.clone();
        drop(strong);
        stats.attempt().inc();
        let probe = probe::probe(&check, &host, (&transport, announced), &cluster_name);
        let answer = match tokio::time::timeout(check.timeout, probe).await {
            Ok(answer) => answer,
            Err(_) => Answer::Network("timed out".to_owned()),
        };
        count(&stats, &answer, &host, &cluster_name);
        let was = verdict.healthy;
        verdict.answered(&answer, &check);
        if verdict.healthy != was {
            if verdict.healthy { stats.healthy().inc() } else { stats.healthy().dec() }
        }
        let Some(strong) = cluster.upgrade() else { return };
        strong.checked(&host, verdict.healthy, matches!(answer, Answer::Degraded));
        let idle = strong.stats.traffic.upstream_cx_total().value() == 0;
        drop(strong);
        tokio::time::sleep(verdict.pause(&check, idle)).await;
    }
}

fn count(stats: &HealthCheckStats, answer: &Answer, host: &Endpoint, cluster: &str) {
    match answer {
        Answer::Healthy | Answer::Degraded => stats.success().inc(),
        Answer::Unhealthy(reason) | Answer::Retriable(reason) => {
            tracing::debug!(cluster, host = %host.address, reason, "health check failed");
            stats.failure().inc();
        }
        Answer::Network(reason) => {
            tracing::debug!(cluster, host = %host.address, reason, "health check failed");
            stats.failure().inc();
            stats.network_failure().inc();
        }
    }
}

/// A host's health by its answers and Envoy's thresholds.
#[derive(Debug)]
struct Verdict {
    healthy: bool,
    /// The first answer decides alone when it is good.
    first: bool,
    good: u32,
    bad: u32,
    /// The last answer changed the state, or is on the way to it.
    edge: bool,
}

impl Verdict {
    fn new(healthy: bool) -> Self {
        Self { healthy, first: true, good: 0, bad: 0, edge: false }
    }

    fn answered(&mut self, answer: &Answer, check: &HealthCheck) {
        let first = std::mem::take(&mut self.first);
        match answer {
            Answer::Healthy | Answer::Degraded => {
                self.bad = 0;
                self.good += 1;
                self.edge = !self.healthy;
                if !self.healthy && (first || self.good >= check.healthy_threshold) {
                    self.healthy = true;
                }
            }
            Answer::Unhealthy(_) | Answer::Retriable(_) | Answer::Network(_) => {
                self.good = 0;
                self.bad += 1;
                self.edge = self.healthy;
                // An answer that says unhealthy is believed at once; silence and retriable statuses need repetition.
                let enough = self.bad >= check.unhealthy_threshold || matches!(answer, Answer::Unhealthy(_));
                if first || enough {
                    self.healthy = false;
                }
            }
        }
    }

    fn pause(&self, check: &HealthCheck, idle: bool) -> Duration {
        let base = match (self.healthy, self.edge) {
            (true, true) => check.healthy_edge_interval,
            (false, true) => check.unhealthy_edge_interval,
            (true, false) if idle => check.no_traffic_healthy_interval,
            (false, false) if idle => check.no_traffic_interval,
            (true, false) => check.interval,
            (false, false) => check.unhealthy_interval,
        };
        let percent = base.saturating_mul(check.interval_jitter_percent) / 100;
        // Never a spin, whatever was configured.
        base.max(Duration::from_millis(10)) + jitter(check.interval_jitter) + jitter(percent)
    }
}

fn jitter(limit: Duration) -> Duration {
    let millis = limit.as_millis() as u64;
    if millis == 0 { Duration::ZERO } else { Duration::from_millis(rand::rng().next_u64() % (millis + 1)) }
}
