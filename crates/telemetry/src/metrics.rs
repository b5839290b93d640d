//! Metrics: groups of cells that share labels, and the registry that renders them.
//!
//! A [`Group`] is what one thing (a cluster, a listener, one Istio label set) counts: a static list of [`Spec`]s over one
//! contiguous range of cells. Handles are resolved when configuration is built; counting is one thread-local add. A group
//! leaves the registry with its last handle. [`SeriesSet`] is for labels that come from traffic: bounded, expiring, with a
//! counter for what did not fit.

mod cells;
mod quantiles;
mod render;
mod series;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub use quantiles::Buckets;
pub use render::{Filter, KindName};
pub use series::{Labels, Series, SeriesSet};

/// Upper bounds in thousandths of the unit: Istio's and Envoy's default histogram buckets.
pub const BUCKETS: &[u64] = &[
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds in thousandths of the unit, ascending; `+Inf` is implied.
    Histogram(&'static [u64]),
}

impl Kind {
    const fn cells(self) -> u32 {
        match self {
            Self::Counter | Self::Gauge => 1,
            // Each bucket, the one above all bounds, and the sum.
            Self::Histogram(bounds) => bounds.len() as u32 + 2,
        }
    }
}

/// One metric of a group.
#[derive(Clone, Debug)]
pub struct Spec {
    /// As `/stats` shows it after the group's prefix.
    pub name: Cow<'static, str>,
    pub kind: Kind,
    /// The name and label that Prometheus shows where Envoy extracts a tag from the name
    /// (`upstream_rq_2xx` → `upstream_rq_xx{envoy_response_code_class="2"}`).
    pub tag: Option<Tag>,
}

#[derive(Clone, Debug)]
pub struct Tag {
    pub metric: Cow<'static, str>,
    pub label: &'static str,
    pub value: Cow<'static, str>,
}

impl Spec {
    pub const fn counter(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind: Kind::Counter, tag: None }
    }

    pub const fn gauge(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind: Kind::Gauge, tag: None }
    }

    pub const fn histogram(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind: Kind::Histogram(BUCKETS), tag: None }
    }

    /// A counter of one response class, `prefix_Nxx`.
    pub const fn class(name: &'static str, metric: &'static str, class: &'static str) -> Self {
        let tag =
            Tag { metric: Cow::Borrowed(metric), label: "envoy_response_code_class", value: Cow::Borrowed(class) };
        Self { name: Cow::Borrowed(name), kind: Kind::Counter, tag: Some(tag) }
    }

    /// A counter of one response code, `prefix_NNN`; not shown until it counted, as Envoy makes them.
    pub const fn code(name: &'static str, metric: &'static str, code: &'static str) -> Self {
        let tag = Tag { metric: Cow::Borrowed(metric), label: RESPONSE_CODE, value: Cow::Borrowed(code) };
        Self { name: Cow::Borrowed(name), kind: Kind::Counter, tag: Some(tag) }
    }

    fn hides_zero(&self) -> bool {
        self.tag.as_ref().is_some_and(|t| t.label == RESPONSE_CODE)
    }
}

const RESPONSE_CODE: &str = "envoy_response_code";

/// What stands before each name of a group in `/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// `server.`
    Plain(Cow<'static, str>),
    /// The kind, the value of the group's first label and a part, which may be empty or ends in a dot:
    /// `cluster.outbound|80||a.b.svc.cluster.local.outlier_detection.` Holds no text of its own.
    Tagged { kind: &'static str, part: &'static str },
}

impl Default for Prefix {
    fn default() -> Self {
        Self::Plain(Cow::Borrowed(""))
    }
}

/// How a group is named in the two texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub prefix: Prefix,
    /// Before each name in Prometheus: `envoy_cluster_`.
    pub prometheus: Cow<'static, str>,
    pub labels: Labels,
}

impl Scope {
    /// Names and tag as Envoy's: `("http", "envoy_http_conn_manager_prefix", stat_prefix)`.
    pub fn envoy(kind: &'static str, label: &str, name: &str) -> Self {
        Self {
            prefix: Prefix::Tagged { kind, part: "" },
            prometheus: format!("envoy_{}_", kind.replace(['.', '-'], "_")).into(),
            labels: Labels::new([(label, name)]),
        }
    }

    /// Without a tag: `server.`, `listener_manager.`.
    pub fn plain(kind: &str) -> Self {
        Self {
            prefix: Prefix::Plain(format!("{kind}.").into()),
            prometheus: format!("envoy_{}_", kind.replace(['.', '-'], "_")).into(),
            labels: Labels::default(),
        }
    }

    /// Before each name in `/stats`.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.prefix {
            Prefix::Plain(text) => Cow::Borrowed(text),
            Prefix::Tagged { kind, part } => {
                let value = self.labels.iter().next().map_or("", |(_, value)| value);
                Cow::Owned(format!("{kind}.{value}.{part}"))
            }
        }
    }
}

struct GroupCells {
    scope: Scope,
    list: Arc<List>,
    /// `None` when all cells were taken at creation: it then counts nothing.
    range: Option<cells::Range>,
    /// One bit for each spec that was ever set, which is in use even at zero; made with the first.
    set: OnceLock<Box<[AtomicU64]>>,
}

impl GroupCells {
    fn mark_set(&self, index: usize) {
        let words = self.set.get_or_init(|| (0..=self.list.specs.len() / 64).map(|_| AtomicU64::new(0)).collect());
        words[index / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
    }

    fn was_set(&self, index: usize) -> bool {
        self.set.get().is_some_and(|words| words[index / 64].load(Ordering::Relaxed) & (1 << (index % 64)) != 0)
    }
}

/// What a group counts.
struct List {
    specs: Cow<'static, [Spec]>,
    /// Offset of each spec's first cell from the range's base.
    offsets: Box<[u32]>,
}

impl List {
    fn new(specs: Cow<'static, [Spec]>) -> Self {
        let mut next = 0;
        let one = |s: &Spec| {
            next += s.kind.cells();
            next - s.kind.cells()
        };
        Self { offsets: specs.iter().map(one).collect(), specs }
    }

    /// Of specs that live in the program, such as a cluster's: one however many groups there are of it.
    fn shared(specs: &'static [Spec]) -> Arc<Self> {
        static SHARED: Mutex<Vec<Arc<List>>> = Mutex::new(Vec::new());
        let mut shared = SHARED.lock();
        if let Some(known) = shared.iter().find(|known| std::ptr::eq(&*known.specs, specs)) {
            return known.clone();
        }
        let list = Arc::new(Self::new(Cow::Borrowed(specs)));
        shared.push(list.clone());
        list
    }
}

/// Metrics that share a scope. Cheap to clone.
#[derive(Clone)]
pub struct Group(Arc<GroupCells>);

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Group").field(&self.0.scope.text()).finish()
    }
}

impl Group {
    fn new(scope: Scope, specs: Cow<'static, [Spec]>) -> Self {
        let range = cells::Range::new(specs.iter().map(|s| s.kind.cells()).sum());
        let list = match specs {
            Cow::Borrowed(specs) => List::shared(specs),
            Cow::Owned(_) => Arc::new(List::new(specs)),
        };
        Self(Arc::new(GroupCells { scope, list, range, set: OnceLock::new() }))
    }

    fn is(&self, scope: &Scope, specs: &[Spec]) -> bool {
        self.0.scope == *scope
            && self.0.list.specs.len() == specs.len()
            && self.0.list.specs.iter().zip(specs).all(|(a, b)| a.name == b.name && a.kind == b.kind)
    }

    fn cell(&self, index: usize) -> u32 {
        self.0.range.as_ref().map_or(0, |r| r.base + self.0.list.offsets[index])
    }

    /// Adds to the counter or gauge at `index` of the group's specs.
    pub fn add(&self, index: usize, n: u64) {
        cells::add(self.cell(index), n);
    }

    pub fn sub(&self, index: usize, n: u64) {
        cells::add(self.cell(index), n.wrapping_neg());
    }

    /// Current sum over all threads of a counter or gauge.
    pub fn value(&self, index: usize) -> u64 {
        self.0.range.as_ref().map_or(0, |r| cells::sum(r.base + self.0.list.offsets[index]))
    }

    /// Sets a gauge. Takes a process-wide lock: not for the request path.
    pub fn set(&self, index: usize, value: u64) {
        if let Some(range) = &self.0.range {
            self.0.mark_set(index);
            cells::set(range.base + self.0.list.offsets[index], value);
        }
    }

    /// Records into the histogram at `index`, in thousandths of its unit.
    pub fn record(&self, index: usize, thousandths: u64) {
        let (Kind::Histogram(bounds), Some(range)) = (self.0.list.specs[index].kind, &self.0.range) else {
            debug_assert!(self.0.range.is_none(), "record on {}, not a histogram", self.0.list.specs[index].name);
            return;
        };
        let first = range.base + self.0.list.offsets[index];
        let bucket = bounds.partition_point(|b| *b < thousandths) as u32;
        cells::add(first + bucket, 1);
        cells::add(first + bounds.len() as u32 + 1, thousandths);
    }

    /// How many values a histogram holds.
    pub fn samples(&self, index: usize) -> u64 {
        match (self.0.list.specs[index].kind, &self.0.range) {
            (Kind::Histogram(bounds), Some(range)) => {
                let first = range.base + self.0.list.offsets[index];
                cells::sum_range(first, bounds.len() as u32 + 1).iter().sum()
            }
            (_, Some(_)) => self.value(index),
            (_, None) => 0,
        }
    }

    pub fn counter(&self, index: usize) -> Counter {
        Counter { group: self.clone(), cell: self.cell(index) }
    }

    pub fn gauge(&self, index: usize) -> Gauge {
        Gauge { group: self.clone(), index }
    }

    pub fn histogram(&self, index: usize) -> Histogram {
        Histogram { group: self.clone(), index }
    }

    /// Position of a metric by its `/stats` name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.0.list.specs.iter().position(|s| s.name == name)
    }

    pub fn labels(&self) -> &Labels {
        &self.0.scope.labels
    }
}

#[derive(Clone, Debug)]
pub struct Counter {
    group: Group,
    cell: u32,
}

impl Counter {
    pub fn inc(&self) {
        cells::add(self.cell, 1);
    }

    pub fn add(&self, n: u64) {
        cells::add(self.cell, n);
    }

    pub fn value(&self) -> u64 {
        if self.group.0.range.is_some() { cells::sum(self.cell) } else { 0 }
    }
}

#[derive(Clone, Debug)]
pub struct Gauge {
    group: Group,
    index: usize,
}

impl Gauge {
    pub fn inc(&self) {
        self.group.add(self.index, 1);
    }

    pub fn dec(&self) {
        self.group.sub(self.index, 1);
    }

    pub fn add(&self, n: u64) {
        self.group.add(self.index, n);
    }

    pub fn sub(&self, n: u64) {
        self.group.sub(self.index, n);
    }

    /// Takes a process-wide lock: not for the request path.
    pub fn set(&self, value: u64) {
        self.group.set(self.index, value);
    }

    pub fn value(&self) -> u64 {
        self.group.value(self.index)
    }
}

#[derive(Clone, Debug)]
pub struct Histogram {
    group: Group,
    index: usize,
}

impl Histogram {
    /// Into a histogram of milliseconds.
    pub fn record_ms(&self, elapsed: Duration) {
        self.group.record(self.index, elapsed.as_micros().min(u128::from(u64::MAX)) as u64);
    }

    /// Whole units (bytes, counts).
    pub fn record(&self, value: u64) {
        self.group.record(self.index, value.saturating_mul(1000));
    }

    pub fn samples(&self) -> u64 {
        self.group.samples(self.index)
    }
}

/// Every metric of a process; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Groups>>);

#[derive(Default)]
struct Groups {
    /// By a hash of what names a group; equal hashes of different groups go on to the next number.
    by_name: HashMap<u64, Weak<GroupCells>>,
    hasher: RandomState,
    /// Dead entries are dropped when there are this many.
    prune_at: usize,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} groups)", self.0.lock().by_name.len())
    }
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Metrics that leave with the last clone of the returned group. Who asks for the same scope and metrics while they live
    /// gets the same group, so that no series is shown twice.
    pub fn group(&self, scope: Scope, specs: impl Into<Cow<'static, [Spec]>>) -> Group {
        let specs = specs.into();
        let mut groups = self.0.lock();
        if groups.by_name.len() >= groups.prune_at {
            groups.by_name.retain(|_, g| g.strong_count() > 0);
            groups.prune_at = (groups.by_name.len() * 2).max(64);
        }
        let first = specs.first().map(|s| s.name.clone());
        let mut key = groups.hasher.hash_one((&scope.prefix, &scope.prometheus, &scope.labels, &first));
        loop {
            match groups.by_name.get(&key).and_then(Weak::upgrade).map(Group) {
                None => break,
                Some(known) if known.is(&scope, &specs) => return known,
                Some(_) => key = key.wrapping_add(1),
            }
        }
        let group = Group::new(scope, specs);
        groups.by_name.insert(key, Arc::downgrade(&group.0));
        group
    }

    /// One counter of its own, under the name Prometheus shows.
    pub fn counter(&self, name: &'static str, labels: Labels) -> Counter {
        self.single(Spec::counter(name), labels).counter(0)
    }

    pub fn gauge(&self, name: &'static str, labels: Labels) -> Gauge {
        self.single(Spec::gauge(name), labels).gauge(0)
    }

    pub fn histogram(&self, name: &'static str, labels: Labels) -> Histogram {
        self.single(Spec::histogram(name), labels).histogram(0)
    }

    fn single(&self, spec: Spec, labels: Labels) -> Group {
        self.group(Scope { labels, ..Scope::default() }, vec![spec])
    }

    fn live(&self) -> Vec<Group> {
        self.0.lock().by_name.values().filter_map(|g| g.upgrade().map(Group)).collect()
    }

    /// Sum of a metric by its Prometheus name over all groups whose labels contain `labels`; for tests and `/stats` queries.
    pub fn total(&self, prometheus_name: &str, labels: &[(&str, &str)]) -> u64 {
        let mut total = 0u64;
        for group in self.live() {
            if !labels.iter().all(|(k, v)| group.0.scope.labels.value(k) == Some(*v)) {
                continue;
            }
            for (i, spec) in group.0.list.specs.iter().enumerate() {
                let metric = spec.tag.as_ref().map_or(&spec.name, |t| &t.metric);
                if render::prometheus_name(&group, metric) == prometheus_name {
                    total = total.wrapping_add(group.samples(i));
                }
            }
        }
        total
    }
}

/// Declares a struct of named metrics over one [`Group`]: `stats.upstream_rq_total().inc()`.
///
/// Each metric is a method that returns a light handle borrowing the struct.
#[macro_export]
macro_rules! stats {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($field:ident : $spec:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        $vis struct $name($crate::Group);

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        const _: () = {
            #[derive(Clone, Copy)]
            enum Index { $($field),* }
            static SPECS: &[$crate::Spec] = &[$($spec),*];

            impl $name {
                pub fn new(registry: &$crate::Registry, scope: $crate::metrics::Scope) -> Self {
                    Self(registry.group(scope, SPECS))
                }

                #[allow(dead_code)]
                pub fn group(&self) -> &$crate::Group {
                    &self.0
                }

                $(
                    #[inline]
                    pub fn $field(&self) -> $crate::metrics::Cell<'_> {
                        $crate::metrics::Cell::new(&self.0, Index::$field as usize)
                    }
                )*
            }
        };
    };
}

/// One metric of a [`stats!`] struct, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    group: &'a Group,
    index: usize,
}

impl<'a> Cell<'a> {
    pub fn new(group: &'a Group, index: usize) -> Self {
        Self { group, index }
    }

    pub fn inc(self) {
        self.group.add(self.index, 1);
    }

    pub fn dec(self) {
        self.group.sub(self.index, 1);
    }

    pub fn add(self, n: u64) {
        self.group.add(self.index, n);
    }

    pub fn sub(self, n: u64) {
        self.group.sub(self.index, n);
    }

    /// Takes a process-wide lock: not for the request path.
    pub fn set(self, value: u64) {
        self.group.set(self.index, value);
    }

    pub fn record_ms(self, elapsed: Duration) {
        self.group.record(self.index, elapsed.as_micros().min(u128::from(u64::MAX)) as u64);
    }

    pub fn record(self, value: u64) {
        self.group.record(self.index, value.saturating_mul(1000));
    }

    pub fn value(self) -> u64 {
        self.group.value(self.index)
    }

    pub fn samples(self) -> u64 {
        self.group.samples(self.index)
    }
}
