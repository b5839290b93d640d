//! Keys that verify tokens, for RequestAuthentications that say only where the keys are.
//!
//! Owns when a source is asked: at once when a policy first names it, on an interval after that, and after a failure with a
//! growing wait. The last good keys stay in force meanwhile, so that an issuer that is away for a while loses nobody, and none
//! touches another's. Never decides what a source is asked with; that is a [`Fetch`]. Costs one entry a source, and at most
//! [`MAX_RUNNING`] fetches at once.

mod fetch;
mod guard;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use meltemi_base::Backoff;
use meltemi_config::Str;
use meltemi_model::{KeyFetch, KeySource, Snapshot};
use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Counter, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use fetch::{DISCOVERY_PATH, HttpFetch};
pub use guard::ForbiddenAddresses;

/// Istio's `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`.
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(20 * 60);

/// How long a fetch may take, where the rule does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a rule may make it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The first wait after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Keys that could not be fetched anew for this long are given up.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Sources looked after; policies that name more of them get no keys for those.
const MAX_SOURCES: usize = 4096;

/// Fetches at once.
const MAX_RUNNING: usize = 16;

/// Where keys come from.
pub(crate) trait Fetch: Send + Sync + 'static {
    /// The key set, in a form that is the same for the same keys.
    fn fetch(&self, source: &KeySource) -> impl Future<Output = anyhow::Result<Str>> + Send;
}

/// What is to be looked after, with the time that a fetch may take.
pub(crate) type Wanted = BTreeMap<KeySource, Duration>;

/// Key sets that are new, or gone.
pub(crate) type KeyChanges = Vec<(KeySource, Option<Str>)>;

/// The sources that the mesh's policies name. A proxy that fetches for itself needs only those that OpenID discovery must find;
/// under [`KeyFetch::Hybrid`] which ones it can reach is its own matter.
pub(crate) fn wanted(snapshot: &Snapshot) -> Wanted {
    let mode = snapshot.options.key_fetch;
    let mut wanted = Wanted::new();
    for rule in snapshot.request_authentication.iter().flat_map(|policy| &policy.spec.jwt_rules) {
        let Some(source) = KeySource::of(rule) else { continue };
        let by_proxy = mode == KeyFetch::Proxy && !source.uri.is_empty();
        let full = wanted.len() >= MAX_SOURCES && !wanted.contains_key(&source);
        if by_proxy || full {
            continue;
        }
        let timeout = rule.timeout.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST_TIMEOUT);
        let known = wanted.entry(source).or_insert(timeout);
        *known = timeout.max(*known);
    }
    wanted
}

/// Under istiod's names.
#[derive(Clone)]
pub(crate) struct KeyStats {
    fetched: Counter,
    failed: Counter,
}

impl KeyStats {
    pub fn new(registry: &Registry) -> Self {
        Self {
            fetched: registry.counter("pilot_jwks_resolver_network_fetch_success_total", Labels::default()),
            failed: registry.counter("pilot_jwks_resolver_network_fetch_fail_total", Labels::default()),
        }
    }
}

/// One source.
struct Entry {
    timeout: Duration,
    keys: Option<Str>,
    /// `None` while a fetch runs.
    due: Option<Instant>,
    backoff: Backoff,
    /// The last success, or when the source was first named.
    good: Instant,
}

pub(crate) struct Resolver<F> {
    fetch: Arc<F>,
    interval: Duration,
    stats: KeyStats,
    found: mpsc::Sender<KeyChanges>,
    sources: BTreeMap<KeySource, Entry>,
    running: JoinSet<(KeySource, anyhow::Result<Str>)>,
}

impl<F: Fetch> Resolver<F> {
    pub fn new(fetch: F, interval: Duration, stats: KeyStats, found: mpsc::Sender<KeyChanges>) -> Self {
        let fetch = Arc::new(fetch);
        Self { fetch, interval, stats, found, sources: BTreeMap::new(), running: JoinSet::new() }
    }

    /// Until nobody wants keys any more, or nobody takes them.
    pub async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        wanted.mark_changed();
        loop {
            self.start();
            let next = self.next_due();
            let changes = tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => self.want(&wanted.borrow_and_update()),
                    Err(_) => return,
                },
                Some(ended) = self.running.join_next() => match ended {
                    Ok((source, result)) => self.take(source, result),
                    Err(panicked) => {
                        tracing::error!("a fetch of keys ended: {panicked}");
                        continue;
                    }
                },
                () = sleep_until(next) => continue,
            };
            if !changes.is_empty() && self.found.send(changes).await.is_err() {
                return;
            }
        }
    }

    /// Starts what is due, as long as there is room.
    fn start(&mut self) {
        let now = Instant::now();
        for (source, entry) in &mut self.sources {
            if self.running.len() >= MAX_RUNNING {
                return;
            }
            if entry.due.is_some_and(|due| due <= now) {
                entry.due = None;
                let (fetch, source, timeout) = (self.fetch.clone(), source.clone(), entry.timeout);
                self.running.spawn(async move {
                    let fetched = tokio::time::timeout(timeout, fetch.fetch(&source)).await;
                    let fetched = fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {timeout:?}")));
                    (source, fetched)
                });
            }
        }
    }

    /// `None` while there is no room for another fetch.
    fn next_due(&self) -> Option<Instant> {
        let room = self.running.len() < MAX_RUNNING;
        self.sources.values().filter_map(|entry| entry.due).min().filter(|_| room)
    }

    fn want(&mut self, wanted: &Wanted) -> KeyChanges {
        let now = Instant::now();
        let gone = self.sources.extract_if(.., |source, _| !wanted.contains_key(source));
        let changes = gone.filter(|(_, entry)| entry.keys.is_some()).map(|(source, _)| (source, None)).collect();
        for (source, timeout) in wanted {
            let new = || Entry {
                timeout: *timeout,
                keys: None,
                due: Some(now),
                backoff: Backoff::new(FIRST_RETRY, self.interval),
                good: now,
            };
            self.sources.entry(source.clone()).or_insert_with(new).timeout = *timeout;
        }
        changes
    }

    fn take(&mut self, source: KeySource, result: anyhow::Result<Str>) -> KeyChanges {
        let now = Instant::now();
        // No policy names it any more.
        let Some(entry) = self.sources.get_mut(&source) else { return Vec::new() };
        match result {
            Ok(keys) => {
                self.stats.fetched.inc();
                entry.backoff.reset();
                (entry.due, entry.good) = (Some(now + self.interval), now);
                if entry.keys.as_ref() == Some(&keys) {
                    return Vec::new();
                }
                tracing::info!(issuer = &*source.issuer, "new keys");
                entry.keys = Some(keys.clone());
                vec![(source, Some(keys))]
            }
            Err(error) => {
                self.stats.failed.inc();
                entry.due = Some(now + entry.backoff.next());
                tracing::warn!(issuer = &*source.issuer, "keys: {error:#}");
                let too_old = now.duration_since(entry.good) >= LIFETIME;
                match entry.keys.take_if(|_| too_old) {
                    Some(_) => vec![(source, None)],
                    None => Vec::new(),
                }
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
