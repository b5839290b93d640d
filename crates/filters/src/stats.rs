//! `istio.stats`: Istio's standard metrics.
//!
//! The labels of a stream follow from its peers, its cluster and a few small values. Each worker keeps the metric handles of
//! the combinations it has seen, so that a repeated one costs one look-up by pointers and numbers; label text is built once.

mod labels;
mod tcp;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use meltemi_http::RequestHead;
use meltemi_plan::filter::IstioStats as Config;
use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Gauge, Registry, Series, SeriesSet, Spec};

use crate::context::Context;
use crate::flags::ResponseFlags;
use crate::info::{Direction, StreamInfo, TlsInfo};
use crate::peer::Peer;
use labels::LabelRules;

pub use tcp::{TcpReport, TcpStats};

/// Label sets of one metric at once; more share one named `overflow`.
const SERIES: usize = 20_000;
/// A label set nobody used for this long makes room.
const IDLE: Duration = Duration::from_secs(900);
/// Combinations each worker remembers for each filter.
const CACHE: usize = 1024;
/// After this a worker lets go of all its handles, so that idle ones can expire.
const CACHE_AGE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Metric {
    Requests,
    Duration,
    RequestBytes,
    ResponseBytes,
    RequestMessages,
    ResponseMessages,
    TcpOpened,
    TcpClosed,
    TcpSent,
    TcpReceived,
}

impl Metric {
    const HTTP: [Self; 4] = [Self::Requests, Self::Duration, Self::RequestBytes, Self::ResponseBytes];
    const GRPC: [Self; 6] = [
        Self::Requests,
        Self::Duration,
        Self::RequestBytes,
        Self::ResponseBytes,
        Self::RequestMessages,
        Self::ResponseMessages,
    ];
    const TCP: [Self; 4] = [Self::TcpOpened, Self::TcpClosed, Self::TcpSent, Self::TcpReceived];
    const ALL: [(Self, &'static str, bool); 10] = [
        (Self::Requests, "istio_requests_total", false),
        (Self::Duration, "istio_request_duration_milliseconds", true),
        (Self::RequestBytes, "istio_request_bytes", true),
        (Self::ResponseBytes, "istio_response_bytes", true),
        (Self::RequestMessages, "istio_request_messages_total", false),
        (Self::ResponseMessages, "istio_response_messages_total", false),
        (Self::TcpOpened, "istio_tcp_connections_opened_total", false),
        (Self::TcpClosed, "istio_tcp_connections_closed_total", false),
        (Self::TcpSent, "istio_tcp_sent_bytes_total", false),
        (Self::TcpReceived, "istio_tcp_received_bytes_total", false),
    ];

    /// As `istio.stats` configuration names it: without `istio_`.
    fn config_name(self) -> &'static str {
        Self::ALL[self as usize].1.trim_start_matches("istio_")
    }
}

/// The process's Istio metrics, shared by all filters.
pub struct IstioMetrics {
    sets: Vec<SeriesSet>,
    /// `istio_build`, always 1; shown as long as it is held.
    _build: Gauge,
}

impl fmt::Debug for IstioMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sets.iter().map(SeriesSet::len)).finish()
    }
}

impl IstioMetrics {
    pub fn new(registry: &Registry, version: &str) -> Self {
        let set = |(_, name, histogram): &(Metric, &'static str, bool)| {
            let spec = if *histogram { Spec::histogram(name) } else { Spec::counter(name) };
            SeriesSet::new(registry, vec![spec], SERIES, IDLE)
        };
        let build = registry.gauge("istio_build", Labels::new([("component", "proxy"), ("tag", version)]));
        build.set(1);
        Self { sets: Metric::ALL.iter().map(set).collect(), _build: build }
    }

    /// Lets go of label sets that nobody used for a while; call now and then.
    pub fn expire(&self, now: Instant) {
        self.sets.iter().for_each(|set| set.expire(now));
    }

    fn series(&self, metric: Metric, labels: &Labels) -> Series {
        self.sets[metric as usize].series(labels)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    Source,
    Destination,
    Waypoint,
}

/// What distinguishes label sets. Pointers stand for values that their owner, kept in [`Cached`], holds alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    filter: u64,
    downstream: *const Peer,
    upstream: *const Peer,
    endpoint: *const meltemi_plan::Metadata,
    cluster: *const meltemi_plan::Cluster,
    /// A keyed hash of the names in all certificates seen; each connection has its own copy of these.
    principals: u64,
    mutual_tls: bool,
    code: u16,
    grpc: Option<u32>,
    is_grpc: bool,
    flags: ResponseFlags,
    /// Only where the cluster does not name its service.
    host: Option<Box<str>>,
}

/// Handles of one combination, and what its key points to.
struct Cached {
    /// `None`: the host of the request matters too; look again with it.
    handles: Option<Handles>,
    _owners: Owners,
}

type Handles = Arc<[Option<Series>]>;

type Owners =
    (Option<Arc<Peer>>, Option<Arc<Peer>>, Option<Arc<meltemi_plan::Metadata>>, Option<Arc<meltemi_plan::Cluster>>);

struct Cache {
    entries: HashMap<Key, Cached>,
    since: Instant,
}

thread_local! {
    static CACHES: RefCell<Option<Cache>> = const { RefCell::new(None) };
}

/// Names in certificates, hashed with a key of this process.
fn hash_principals(info: &StreamInfo) -> u64 {
    static KEY: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    fn names(tls: &TlsInfo) -> (Option<&String>, Option<&String>) {
        (tls.peer.as_ref().and_then(|p| p.uri_sans.first()), tls.local_uri_sans.first())
    }
    let (near, far) = (info.connection.tls.as_ref(), info.upstream.tls.as_ref());
    if near.is_none() && far.is_none() {
        return 0;
    }
    KEY.get_or_init(RandomState::new).hash_one((near.map(names), far.map(names)))
}

/// One configured `istio.stats`.
#[derive(Debug)]
pub(crate) struct StatsFilter {
    id: u64,
    reporter: Reporter,
    rules: Vec<LabelRules>,
    host_fallback: bool,
    context: Arc<Context>,
}

impl StatsFilter {
    pub fn new(config: &Config, direction: Direction, context: &Arc<Context>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let reporter = match (config.server_gateway, direction) {
            (true, _) => Reporter::Waypoint,
            (false, Direction::Inbound) => Reporter::Destination,
            (false, Direction::Outbound | Direction::Unspecified) => Reporter::Source,
        };
        let rules = |(metric, ..): &(Metric, &str, bool)| LabelRules::new(&config.metrics, metric.config_name());
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            reporter,
            rules: Metric::ALL.iter().map(rules).collect(),
            host_fallback: !config.disable_host_header_fallback,
            context: context.clone(),
        }
    }

    /// Records one finished HTTP stream.
    pub fn on_end(&self, request: &RequestHead, info: &StreamInfo) {
        let metrics: &[Metric] = if info.is_grpc { &Metric::GRPC } else { &Metric::HTTP };
        let handles = self.handles(metrics, Some(request), info);
        let record = |metric: Metric, record: &dyn Fn(&Series)| {
            if let Some(series) = &handles[metric as usize] {
                record(series);
            }
        };
        record(Metric::Requests, &|s| s.add(0, 1));
        // Histograms count thousandths: microseconds of milliseconds, and a thousand for a byte.
        record(Metric::Duration, &|s| s.record(0, info.elapsed().as_micros() as u64));
        let received = info.bytes_received + info.request_header_bytes;
        let sent = info.bytes_sent + info.response_header_bytes;
        record(Metric::RequestBytes, &|s| s.record(0, received.saturating_mul(1000)));
        record(Metric::ResponseBytes, &|s| s.record(0, sent.saturating_mul(1000)));
        if info.is_grpc {
            record(Metric::RequestMessages, &|s| s.add(0, info.request_messages));
            record(Metric::ResponseMessages, &|s| s.add(0, info.response_messages));
        }
    }

    fn handles(&self, metrics: &[Metric], request: Option<&RequestHead>, info: &StreamInfo) -> Handles {
        CACHES.with_borrow_mut(|cache| {
            let cache = cache.get_or_insert_with(|| Cache { entries: HashMap::new(), since: Instant::now() });
            let mut key = self.key(info);
            match cache.entries.get(&key) {
                Some(Cached { handles: Some(known), .. }) => return known.clone(),
                Some(Cached { handles: None, .. }) => {
                    key.host = request.map(|r| r.authority.as_str().into());
                    if let Some(Cached { handles: Some(known), .. }) = cache.entries.get(&key) {
                        return known.clone();
                    }
                }
                None => {}
            }
            if cache.entries.len() + 2 > CACHE || cache.since.elapsed() > CACHE_AGE {
                cache.entries.clear();
                cache.since = Instant::now();
            }
            let upstream = &info.upstream;
            let owners: Owners = (
                info.downstream_peer().cloned(),
                upstream.peer.clone(),
                upstream.metadata.clone(),
                upstream.cluster.clone(),
            );
            let named = upstream.cluster.as_ref().is_some_and(|c| labels::names_service(c));
            if let Some(request) = request.filter(|_| self.host_fallback && !named) {
                let again = Cached { handles: None, _owners: owners.clone() };
                cache.entries.insert(Key { host: None, ..key.clone() }, again);
                key.host = Some(request.authority.as_str().into());
            }
            let handles = self.resolve(metrics, request, info);
            cache.entries.insert(key, Cached { handles: Some(handles.clone()), _owners: owners });
            handles
        })
    }

    /// The key without the host.
    fn key(&self, info: &StreamInfo) -> Key {
        fn at<T>(value: Option<&Arc<T>>) -> *const T {
            value.map_or(std::ptr::null(), Arc::as_ptr)
        }
        let upstream = &info.upstream;
        Key {
            filter: self.id,
            downstream: at(info.downstream_peer()),
            upstream: at(upstream.peer.as_ref()),
            endpoint: at(upstream.metadata.as_ref()),
            cluster: at(upstream.cluster.as_ref()),
            principals: hash_principals(info),
            mutual_tls: info.connection.is_mutual_tls(),
            code: info.response_code.unwrap_or(0),
            grpc: info.grpc_status,
            is_grpc: info.is_grpc,
            flags: info.flags,
            host: None,
        }
    }

    fn resolve(&self, metrics: &[Metric], request: Option<&RequestHead>, info: &StreamInfo) -> Handles {
        let facts = labels::Facts {
            reporter: self.reporter,
            local: &self.context.node.peer,
            info,
            request: request.filter(|_| self.host_fallback),
            is_http: request.is_some(),
        };
        let standard = labels::standard(&facts);
        let plain = Labels::new(standard.iter().map(|(k, v)| (*k, v.as_str())));
        let mut handles: Vec<Option<Series>> = vec![None; Metric::ALL.len()];
        for metric in metrics {
            handles[*metric as usize] = match &self.rules[*metric as usize] {
                LabelRules::Drop => None,
                LabelRules::Standard => Some(self.context.istio.series(*metric, &plain)),
                rules => Some(self.context.istio.series(*metric, &rules.apply(&standard))),
            };
        }
        handles.into()
    }
}
