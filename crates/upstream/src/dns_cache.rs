//! Names that requests to dynamic forward proxy clusters ask for, and the addresses that they had.
//!
//! Owns one cache for each name of a cache in the process, shared by its clusters. Asks when a name is first needed, and
//! again in the background when an answer is older than the refresh rate; a name that nobody used for its time to live is
//! forgotten when its place is wanted. Bounded in names and in requests that wait; a look-up takes one short lock, a
//! request that has to wait one task for the question.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use meltemi_plan::dynamic_forward::DnsCache as Settings;
use meltemi_telemetry::metrics::{Prefix, Scope};
use meltemi_telemetry::{Registry, Spec, stats};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::dns::{self, DnsError, Name};

/// How often a full cache is searched for names that may go.
const SWEEP: Duration = Duration::from_secs(1);

stats! {
    /// Envoy's `dns_cache.<name>.*`.
    pub struct DnsCacheStats {
        dns_query_attempt: Spec::counter("dns_query_attempt"),
        dns_query_success: Spec::counter("dns_query_success"),
        dns_query_failure: Spec::counter("dns_query_failure"),
        dns_query_timeout: Spec::counter("dns_query_timeout"),
        host_address_changed: Spec::counter("host_address_changed"),
        host_added: Spec::counter("host_added"),
        host_removed: Spec::counter("host_removed"),
        host_overflow: Spec::counter("host_overflow"),
        dns_rq_pending_overflow: Spec::counter("dns_rq_pending_overflow"),
        num_hosts: Spec::gauge("num_hosts"),
    }
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The cache holds as many names as it may.
    Full,
    /// As many requests wait as may.
    Pending,
    /// The question failed, for this reason.
    Failed(Arc<str>),
}

/// What is known of a name.
#[derive(Clone, Debug)]
struct Answer {
    addresses: Result<Arc<[SocketAddr]>, Arc<str>>,
    /// When to ask again.
    until: Instant,
}

#[derive(Debug)]
struct Host {
    used: Instant,
    answer: watch::Sender<Option<Answer>>,
    asking: bool,
    failures: u32,
}

#[derive(Debug, Default)]
struct Hosts {
    by_name: HashMap<Name, Host>,
    swept: Option<Instant>,
}

#[derive(Debug)]
pub struct DnsCache {
    settings: Arc<Settings>,
    hosts: Mutex<Hosts>,
    waiting: AtomicU32,
    stats: DnsCacheStats,
}

/// The caches of the process by their names.
static CACHES: Mutex<BTreeMap<Arc<str>, Weak<DnsCache>>> = Mutex::new(BTreeMap::new());

/// The cache of these settings. One of the same name with other settings is left to the clusters that have it.
pub(crate) fn shared(settings: &Arc<Settings>, registry: &Registry) -> Arc<DnsCache> {
    let mut caches = CACHES.lock();
    caches.retain(|_, cache| cache.strong_count() > 0);
    if let Some(known) = caches.get(&settings.name).and_then(Weak::upgrade)
        && known.settings == *settings
    {
        return known;
    }
    let cache = Arc::new(DnsCache::new(settings.clone(), registry));
    caches.insert(settings.name.clone(), Arc::downgrade(&cache));
    cache
}

enum Found {
    Now(Answer),
    Later(watch::Receiver<Option<Answer>>),
    Full,
}

impl DnsCache {
    fn new(settings: Arc<Settings>, registry: &Registry) -> Self {
        let scope = Scope {
            prefix: Prefix::Plain(format!("dns_cache.{}.", settings.name).into()),
            prometheus: format!("envoy_dns_cache_{}_", settings.name).into(),
            ..Scope::default()
        };
        let stats = DnsCacheStats::new(registry, scope);
        Self { settings, hosts: Mutex::default(), waiting: AtomicU32::new(0), stats }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of a name, after asking for it where it is not known.
    pub async fn address(self: &Arc<Self>, host: &str, port: u16) -> Result<SocketAddr, Unresolved> {
        let name = key(host, port);
        let mut answer = match self.find(&name, Instant::now()) {
            Found::Now(answer) => return first(&answer),
            Found::Full => {
                self.stats.host_overflow().inc();
                return Err(Unresolved::Full);
            }
            Found::Later(answer) => answer,
        };
        let Some(_waits) = Waits::begin(self) else {
            self.stats.dns_rq_pending_overflow().inc();
            return Err(Unresolved::Pending);
        };
        // The question itself has a limit; it may have to wait for its turn as long again.
        let limit = self.settings.query_timeout.saturating_mul(2);
        let answered = async { answer.changed().await.is_ok().then(|| answer.borrow_and_update().clone()).flatten() };
        match tokio::time::timeout(limit, answered).await {
            Ok(Some(answer)) => first(&answer),
            Ok(None) | Err(_) => Err(Unresolved::Failed("timed out".into())),
        }
    }

    fn find(self: &Arc<Self>, name: &Name, now: Instant) -> Found {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.by_name.get_mut(name) {
            let forgotten = now.saturating_duration_since(host.used) > self.settings.host_ttl;
            host.used = now;
            let known = host.answer.borrow().clone();
            let Some(answer) = known else { return Found::Later(host.answer.subscribe()) };
            let due = answer.until <= now;
            let receiver = host.answer.subscribe();
            if due && !std::mem::replace(&mut host.asking, true) {
                self.ask(name);
            }
            // What was long unused, or bad, is not served while better may come.
            return if due && (forgotten || answer.addresses.is_err()) {
                Found::Later(receiver)
            } else {
                Found::Now(answer)
            };
        }
        if hosts.by_name.len() >= self.settings.max_hosts as usize && !self.make_room(&mut hosts, now) {
            return Found::Full;
        }
        let (answer, receiver) = watch::channel(None);
        hosts.by_name.insert(name.clone(), Host { used: now, answer, asking: true, failures: 0 });
        self.stats.host_added().inc();
        self.stats.num_hosts().inc();
        self.ask(name);
        Found::Later(receiver)
    }

    /// Drops names that nobody used for their time to live; says whether there is room then.
    fn make_room(&self, hosts: &mut Hosts, now: Instant) -> bool {
        if hosts.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return false;
        }
        hosts.swept = Some(now);
        let before = hosts.by_name.len();
        let ttl = self.settings.host_ttl;
        hosts.by_name.retain(|_, host| host.asking || now.saturating_duration_since(host.used) <= ttl);
        let removed = before - hosts.by_name.len();
        self.stats.host_removed().add(removed as u64);
        self.stats.num_hosts().sub(removed as u64);
        removed > 0
    }

    /// Asks in a task of its own, so that a request that ends does not take the question with it.
    fn ask(self: &Arc<Self>, name: &Name) {
        let (cache, name) = (self.clone(), name.clone());
        self.stats.dns_query_attempt().inc();
        tokio::spawn(async move {
            let answer = dns::resolve(&name, cache.settings.family, cache.settings.query_timeout).await;
            cache.take(&name, answer, Instant::now());
        });
    }

    fn take(&self, name: &Name, answer: Result<Vec<SocketAddr>, DnsError>, now: Instant) {
        match &answer {
            Ok(_) => self.stats.dns_query_success().inc(),
            Err(DnsError::Timeout) => self.stats.dns_query_timeout().inc(),
            Err(DnsError::Failed(_)) => self.stats.dns_query_failure().inc(),
        }
        let mut hosts = self.hosts.lock();
        let Some(host) = hosts.by_name.get_mut(name) else { return };
        host.asking = false;
        let before = host.answer.borrow().clone().and_then(|answer| answer.addresses.ok());
        let next = match (answer, before) {
            (Ok(addresses), before) => {
                host.failures = 0;
                if before.as_deref() != Some(&addresses) {
                    self.stats.host_address_changed().inc();
                }
                Answer { addresses: Ok(addresses.into()), until: now + self.settings.refresh_rate }
            }
            (Err(error), before) => {
                tracing::debug!(name = %name.0, %error, "name not resolved");
                host.failures = host.failures.saturating_add(1);
                // An address stays the name's until there is another.
                let addresses = before.ok_or_else(|| error.to_string().into());
                Answer { addresses, until: now + self.failure_delay(host.failures) }
            }
        };
        host.answer.send_replace(Some(next));
    }

    fn failure_delay(&self, failures: u32) -> Duration {
        if self.settings.forget_failures {
            return Duration::ZERO;
        }
        dns::backoff(self.settings.failure_base, self.settings.failure_max, failures)
    }
}

/// Names are the same in either case.
fn key(host: &str, port: u16) -> Name {
    (host.to_ascii_lowercase().into(), port)
}

fn first(answer: &Answer) -> Result<SocketAddr, Unresolved> {
    let addresses = answer.addresses.as_ref().map_err(|reason| Unresolved::Failed(reason.clone()))?;
    addresses.first().copied().ok_or_else(|| Unresolved::Failed("no address".into()))
}

/// One request that waits.
struct Waits<'a>(&'a AtomicU32);

impl<'a> Waits<'a> {
    fn begin(cache: &'a DnsCache) -> Option<Self> {
        let before = cache.waiting.fetch_add(1, Relaxed);
        let waits = Self(&cache.waiting);
        (before < cache.settings.max_pending).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
