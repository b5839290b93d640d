//! STRICT_DNS and LOGICAL_DNS: names of a cluster's endpoints, resolved again and again.
//!
//! Resolution is the system's (`getaddrinfo`, so `/etc/hosts` and search domains count), a bounded number at once in the
//! process, each with a deadline. An answer that fails keeps the hosts of the last one that did not.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meltemi_net::Address;
use meltemi_plan::cluster::{DnsFamily, DnsSettings};
use meltemi_plan::{ClusterKind, LoadAssignment};
use rand::Rng;
use tokio::sync::Semaphore;

use crate::adapt;
use crate::cluster::Cluster;

/// Names being resolved at once; each may hold a blocking thread.
const CONCURRENT: usize = 32;
const DEADLINE: Duration = Duration::from_secs(5);
/// Addresses of one name; more are cut off.
const ADDRESSES: usize = 1024;

static SLOTS: Semaphore = Semaphore::const_new(CONCURRENT);

pub(crate) type Name = (Arc<str>, u16);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("timed out")]
    Timeout,
    #[error("{0}")]
    Failed(String),
}

/// What is known of each name.
#[derive(Debug, Default)]
struct Answers(BTreeMap<Name, Vec<SocketAddr>>);

/// Resolves until the cluster is gone.
pub(crate) async fn run(cluster: Weak<Cluster>) {
    let mut answers = Answers::default();
    let mut failures = 0;
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let settings = strong.plan.dns.clone();
        let Some(assignment) = strong.plan.load_assignment.clone() else { return };
        let logical = strong.plan.kind == ClusterKind::LogicalDns;
        strong.stats.membership.update_attempt().inc();
        drop(strong);

        let failed = answers.refresh(&assignment, &settings).await;

        let Some(strong) = cluster.upgrade() else { return };
        let stats = &strong.stats.membership;
        if failed == 0 {
            stats.update_success().inc();
            failures = 0;
        } else {
            stats.update_failure().inc();
            failures += 1;
        }
        let groups = adapt::resolved(&strong.plan, &assignment, |endpoint| answers.addresses(endpoint, logical));
        strong.set_members(&assignment, &groups);
        drop(strong);
        tokio::time::sleep(delay(&settings, failures)).await;
    }
}

impl Answers {
    /// Asks for every name of the assignment. Returns how many failed.
    async fn refresh(&mut self, assignment: &LoadAssignment, settings: &DnsSettings) -> usize {
        let mut tasks = tokio::task::JoinSet::new();
        let endpoints = assignment.localities.iter().flat_map(|l| &l.endpoints);
        let names: std::collections::BTreeSet<Name> = endpoints.filter_map(|e| name(&e.address)).collect();
        for name in names {
            let family = settings.family;
            tasks.spawn(async move {
                let answer = resolve(&name, family, DEADLINE).await;
                (name, answer)
            });
        }
        let mut failed = 0;
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok((name, Ok(addresses))) => {
                    self.0.insert(name, addresses);
                }
                Ok((name, Err(reason))) => {
                    tracing::debug!(name = %name.0, %reason, "name not resolved");
                    failed += 1;
                }
                Err(_) => failed += 1,
            }
        }
        failed
    }

    fn addresses(&self, endpoint: &meltemi_plan::Endpoint, logical: bool) -> Vec<Address> {
        let Some(name) = name(&endpoint.address) else {
            return adapt::address(&endpoint.address).into_iter().collect();
        };
        let known = self.0.get(&name).map_or(&[][..], Vec::as_slice);
        let known = if logical { &known[..known.len().min(1)] } else { known };
        known.iter().map(|a| Address::Socket(*a)).collect()
    }
}

fn name(address: &meltemi_plan::Address) -> Option<Name> {
    match address {
        meltemi_plan::Address::Name { host, port } => Some((host.clone(), *port)),
        meltemi_plan::Address::Socket(_)
        | meltemi_plan::Address::Pipe { .. }
        | meltemi_plan::Address::Internal { .. } => None,
    }
}

/// Asks the system's resolver, once it is this question's turn.
pub(crate) async fn resolve(name: &Name, family: DnsFamily, deadline: Duration) -> Result<Vec<SocketAddr>, DnsError> {
    let failed = |reason: &dyn std::fmt::Display| DnsError::Failed(reason.to_string());
    let _slot = SLOTS.acquire().await.map_err(|e| failed(&e))?;
    let lookup = tokio::net::lookup_host((&*name.0, name.1));
    let answer = tokio::time::timeout(deadline, lookup).await.map_err(|_| DnsError::Timeout)?;
    let found = choose(answer.map_err(|e| failed(&e))?, family);
    if found.is_empty() { Err(failed(&"no address of the wanted family")) } else { Ok(found) }
}

/// The addresses of the wanted family, each once, in the resolver's order.
fn choose(found: impl Iterator<Item = SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in found.take(ADDRESSES) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    let (v4, v6): (Vec<_>, Vec<_>) = all.iter().partition(|a| a.is_ipv4());
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred if !v4.is_empty() => v4,
        DnsFamily::V4Preferred => v6,
        // Envoy's AUTO asks for IPv6 first and takes IPv4 if there is none.
        DnsFamily::Auto if !v6.is_empty() => v6,
        DnsFamily::Auto => v4,
        DnsFamily::All => all,
    }
}

/// The refresh rate with its jitter, or the failure back-off: between the base and the base times two to the failures.
fn delay(settings: &DnsSettings, failures: u32) -> Duration {
    if failures > 0 {
        return backoff(settings.failure_base, settings.failure_max, failures);
    }
    settings.refresh_rate.max(Duration::from_millis(1)) + random(settings.jitter)
}

/// Between the base and the base times two to the failures, but at most the longest.
pub(crate) fn backoff(base: Duration, longest: Duration, failures: u32) -> Duration {
    let base = base.max(Duration::from_millis(1));
    let cap = base.saturating_mul(1 << failures.min(16)).min(longest.max(base));
    base + random(cap.saturating_sub(base))
}

fn random(limit: Duration) -> Duration {
    let millis = limit.as_millis() as u64;
    if millis == 0 { Duration::ZERO } else { Duration::from_millis(rand::rng().next_u64() % (millis + 1)) }
}
