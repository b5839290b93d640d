//! Label sets that come from traffic: bounded, expiring, with a counter for what did not fit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Counter, Group, Prefix, Registry, Scope, Spec};

/// Ordered label pairs, shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    pub fn new<K: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A handle to one label set; while one is held outside, the set does not expire.
pub type Series = Arc<Group>;

struct Entry {
    series: Series,
    used: Instant,
}

/// Groups of the same metrics under labels that traffic decides.
///
/// At most `limit` label sets live at once. One that nobody holds and nobody asked for since `idle` is dropped to make room,
/// and by [`SeriesSet::expire`]. When none can be dropped, callers share one set whose every label reads `overflow`, and the
/// overflow counter says how often.
pub struct SeriesSet {
    registry: Registry,
    prefix: Cow<'static, str>,
    specs: Cow<'static, [Spec]>,
    limit: usize,
    idle: Duration,
    overflow: Counter,
    entries: Mutex<HashMap<Labels, Entry>>,
}

impl SeriesSet {
    pub fn new(registry: &Registry, specs: impl Into<Cow<'static, [Spec]>>, limit: usize, idle: Duration) -> Self {
        let specs = specs.into();
        let name = specs.first().map_or(String::new(), |s| s.name.to_string());
        Self {
            registry: registry.clone(),
            prefix: Cow::Borrowed(""),
            specs,
            limit,
            idle,
            overflow: registry.counter("meltemi_metric_series_overflow_total", Labels::new([("metric", name)])),
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The series of these labels, made if new. Takes a lock: callers keep the handle.
    pub fn series(&self, labels: &Labels) -> Series {
        self.series_at(labels, Instant::now())
    }

    pub fn series_at(&self, labels: &Labels, now: Instant) -> Series {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(labels) {
            entry.used = now;
            return entry.series.clone();
        }
        if entries.len() >= self.limit {
            Self::drop_idle(&mut entries, self.idle, now);
        }
        let labels = if entries.len() >= self.limit {
            self.overflow.inc();
            Labels::new(labels.iter().map(|(k, _)| (k, "overflow")))
        } else {
            labels.clone()
        };
        let entry = entries.entry(labels).or_insert_with_key(|labels| {
            let prefix = Prefix::Plain(self.prefix.clone());
            let scope = Scope { prefix, prometheus: self.prefix.clone(), labels: labels.clone() };
            Entry { series: Arc::new(self.registry.group(scope, self.specs.clone())), used: now }
        });
        entry.used = now;
        entry.series.clone()
    }

    /// Drops label sets idle since before `now - idle` that nobody holds.
    pub fn expire(&self, now: Instant) {
        Self::drop_idle(&mut self.entries.lock(), self.idle, now);
    }

    fn drop_idle(entries: &mut HashMap<Labels, Entry>, idle: Duration, now: Instant) {
        entries.retain(|_, e| Arc::strong_count(&e.series) > 1 || now.duration_since(e.used) < idle);
    }

    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
