//! A connection manager's HTTP filters, built once, and their state on one stream.
//!
//! Requests run through the filters in order, responses in reverse. The router, always last, is not here: what follows a
//! [`Flow::Continue`] is the caller's.

use std::sync::{Arc, Weak};

use meltemi_http::{RequestHead, ResponseHead};
use meltemi_plan::dynamic_forward::DnsCache;
use meltemi_plan::{ClusterKind, FilterOverride, HttpFilter, HttpFilterConfig};
use meltemi_telemetry::metrics::{Prefix, Scope};

use crate::call::Around;
use crate::context::Context;
use crate::edit::ResponseEdits;
use crate::http::{
    AlpnOverrides, Cors, ExtAuthz, Fault, GrpcCounter, HeaderMutation, HealthCheck, JwtAuthn, LocalRateLimit,
    PeerExchange, RateLimit, Rbac, StatefulSession,
};
use crate::info::{Direction, StreamInfo};
use crate::reply::Flow;
use crate::stats::StatsFilter;

/// Where a chain serves, as far as filters care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainScope {
    pub stat_prefix: Arc<str>,
    pub direction: Direction,
}

impl ChainScope {
    /// How a filter's statistics are named: `http.<stat_prefix>.<part><own>`, with the part in both texts.
    pub(crate) fn metrics(&self, (part, prometheus): (&'static str, &'static str), own: &str) -> Scope {
        let mut metrics = Scope::envoy("http", "envoy_http_conn_manager_prefix", &self.stat_prefix);
        metrics.prefix = match own {
            "" => Prefix::Tagged { kind: "http", part },
            own => Prefix::Plain(format!("{}{part}{own}", metrics.text()).into()),
        };
        metrics.prometheus = prometheus.into();
        metrics
    }
}

/// A filter's own stat prefix as a part of a name.
pub(crate) fn dotted(stat_prefix: &str) -> String {
    if stat_prefix.is_empty() { String::new() } else { format!("{stat_prefix}.") }
}

enum Filter {
    Fault(Fault),
    Cors(Cors),
    Stats(StatsFilter),
    Alpn(Arc<AlpnOverrides>),
    PeerMetadata(PeerExchange),
    GrpcStats,
    Rbac(Rbac),
    HeaderMutation(HeaderMutation),
    LocalRateLimit(LocalRateLimit),
    HealthCheck(HealthCheck),
    StatefulSession(StatefulSession),
    JwtAuthn(Box<JwtAuthn>),
    ExtAuthz(Box<ExtAuthz>),
    RateLimit(Box<RateLimit>),
    DynamicForward(Arc<DnsCache>),
}

struct Named {
    name: Arc<str>,
    disabled: bool,
    filter: Filter,
}

/// The filters of a connection manager or an upgrade. Shared by workers.
pub struct FilterChain {
    filters: Vec<Named>,
    /// What it was built from.
    plan: Vec<HttpFilter>,
    scope: ChainScope,
    counts_messages: bool,
}

impl std::fmt::Debug for FilterChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.filters.iter().map(|n| &n.name)).finish()
    }
}

impl FilterChain {
    /// The chain of these filters. Workers that build the same one while it lives share it, and with it what it counts and
    /// limits.
    pub fn new(plan: &[HttpFilter], scope: &ChainScope, context: &Arc<Context>) -> Arc<Self> {
        let mut chains = context.chains.lock();
        chains.retain(|chain| chain.strong_count() > 0);
        let same = |chain: &Arc<Self>| chain.scope == *scope && is_same(&chain.plan, plan);
        if let Some(known) = chains.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let filters: Vec<Named> = plan
            .iter()
            .filter_map(|f| {
                let filter = build(&f.config, scope, context)?;
                Some(Named { name: f.name.clone(), disabled: f.disabled, filter })
            })
            .collect();
        let counts_messages = filters.iter().any(|f| matches!(f.filter, Filter::Stats(_) | Filter::GrpcStats));
        let chain = Arc::new(Self { filters, plan: plan.to_vec(), scope: scope.clone(), counts_messages });
        chains.push(Arc::downgrade(&chain));
        chain
    }

    /// The state of a new stream.
    pub fn stream(self: &Arc<Self>) -> StreamFilters {
        StreamFilters { chain: self.clone(), next: 0, cors: None, delay: None, edits: None, messages: None }
    }
}

/// Whether two lists name the very same configurations, not merely equal ones.
fn is_same(a: &[HttpFilter], b: &[HttpFilter]) -> bool {
    use HttpFilterConfig as C;
    let same = |(a, b): (&HttpFilter, &HttpFilter)| {
        let config = match (&a.config, &b.config) {
            (C::Router(a), C::Router(b)) => Arc::ptr_eq(a, b),
            (C::Fault(a), C::Fault(b)) => Arc::ptr_eq(a, b),
            (C::Cors, C::Cors) | (C::GrpcStats, C::GrpcStats) => true,
            (C::IstioStats(a), C::IstioStats(b)) => Arc::ptr_eq(a, b),
            (C::IstioAlpn(a), C::IstioAlpn(b)) => Arc::ptr_eq(a, b),
            (C::PeerMetadata(a), C::PeerMetadata(b)) => Arc::ptr_eq(a, b),
            (C::Rbac(a), C::Rbac(b)) => Arc::ptr_eq(a, b),
            (C::HeaderMutation(a), C::HeaderMutation(b)) => Arc::ptr_eq(a, b),
            (C::LocalRateLimit(a), C::LocalRateLimit(b)) => Arc::ptr_eq(a, b),
            (C::HealthCheck(a), C::HealthCheck(b)) => Arc::ptr_eq(a, b),
            (C::StatefulSession(a), C::StatefulSession(b)) => Arc::ptr_eq(a, b),
            (C::JwtAuthn(a), C::JwtAuthn(b)) => Arc::ptr_eq(a, b),
            (C::ExtAuthz(a), C::ExtAuthz(b)) => Arc::ptr_eq(a, b),
            (C::RateLimit(a), C::RateLimit(b)) => Arc::ptr_eq(a, b),
            (C::DynamicForward(a), C::DynamicForward(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        config && a.name == b.name && a.disabled == b.disabled
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

fn build(config: &HttpFilterConfig, scope: &ChainScope, context: &Arc<Context>) -> Option<Filter> {
    Some(match config {
        HttpFilterConfig::Router(_) => return None,
        HttpFilterConfig::Fault(fault) => Filter::Fault(Fault::new(fault.clone(), scope, context)),
        HttpFilterConfig::Cors => Filter::Cors(Cors::new(scope, context)),
        HttpFilterConfig::IstioStats(config) => Filter::Stats(StatsFilter::new(config, scope.direction, context)),
        HttpFilterConfig::IstioAlpn(config) => Filter::Alpn(Arc::new(AlpnOverrides::new(config))),
        HttpFilterConfig::PeerMetadata(config) => {
            Filter::PeerMetadata(PeerExchange::new(config.clone(), scope.direction, context.clone()))
        }
        HttpFilterConfig::GrpcStats => Filter::GrpcStats,
        HttpFilterConfig::Rbac(config) => Filter::Rbac(Rbac::new(config.clone(), scope, context)),
        HttpFilterConfig::HeaderMutation(config) => Filter::HeaderMutation(HeaderMutation::new(config.clone())),
        HttpFilterConfig::LocalRateLimit(config) => {
            Filter::LocalRateLimit(LocalRateLimit::new(config.clone(), context))
        }
        HttpFilterConfig::HealthCheck(config) => Filter::HealthCheck(HealthCheck(config.clone())),
        HttpFilterConfig::StatefulSession(config) => Filter::StatefulSession(StatefulSession::new(config.clone())),
        HttpFilterConfig::JwtAuthn(config) => Filter::JwtAuthn(Box::new(JwtAuthn::new(config.clone(), scope, context))),
        HttpFilterConfig::ExtAuthz(config) => Filter::ExtAuthz(Box::new(ExtAuthz::new(config.clone(), scope, context))),
        HttpFilterConfig::RateLimit(config) => {
            Filter::RateLimit(Box::new(RateLimit::new(config.clone(), scope, context)))
        }
        HttpFilterConfig::DynamicForward(cache) => Filter::DynamicForward(cache.clone()),
    })
}

/// Changes of a response that is yet to come, and behind which filter.
#[derive(Debug, Default)]
struct Kept(Vec<(usize, ResponseEdits)>);

/// One stream's way through a [`FilterChain`].
#[derive(Debug)]
pub struct StreamFilters {
    chain: Arc<FilterChain>,
    /// The filter that sees the request next.
    next: usize,
    cors: Option<crate::http::CorsMatch>,
    delay: Option<crate::http::ActiveFault>,
    /// What services want done to the response, and behind which filter.
    edits: Option<Box<Kept>>,
    messages: Option<Box<(GrpcCounter, GrpcCounter)>>,
}

impl StreamFilters {
    /// Runs the request filters, or goes on where they stopped for [`Flow::Reroute`] or [`Flow::Body`]. The route must be in
    /// `info`. Waits only for an injected delay or an answer; dropping the future then ends it.
    pub async fn on_request(&mut self, head: &mut RequestHead, info: &mut StreamInfo, around: Around<'_>) -> Flow {
        let chain = self.chain.clone();
        if chain.counts_messages && info.is_grpc {
            self.messages = Some(Box::default());
        }
        while let Some(named) = chain.filters.get(self.next) {
            self.next += 1;
            if !named.is_on(info) {
                continue;
            }
            let flow = match &named.filter {
                Filter::Fault(fault) => fault.on_request(&named.name, head, info, &mut self.delay).await,
                Filter::Cors(cors) => cors.on_request(&named.name, head, info, &mut self.cors),
                Filter::Rbac(rbac) => rbac.on_request(&named.name, head, info),
                Filter::LocalRateLimit(limit) => limit.on_request(&named.name, head, info),
                Filter::HealthCheck(check) => check.on_request(head, info),
                // Boxed: only requests that bring tokens pay for what it takes to verify them.
                Filter::JwtAuthn(tokens) => Box::pin(tokens.on_request(&named.name, head, info)).await,
                Filter::ExtAuthz(authz) => {
                    let mut edits = Vec::new();
                    let flow = Box::pin(authz.on_request(&named.name, (head, info), around, &mut edits)).await;
                    self.remember(edits);
                    flow
                }
                Filter::RateLimit(limit) => {
                    let mut edits = Vec::new();
                    let flow = Box::pin(limit.on_request(&named.name, (head, info), around, &mut edits)).await;
                    self.remember(edits);
                    flow
                }
                Filter::Alpn(overrides) => {
                    info.upstream.alpn = Some(overrides.clone());
                    Flow::Continue
                }
                Filter::PeerMetadata(exchange) => {
                    exchange.on_request(head, info);
                    Flow::Continue
                }
                Filter::HeaderMutation(mutation) => {
                    mutation.on_request(&named.name, head, info);
                    Flow::Continue
                }
                Filter::StatefulSession(sessions) => {
                    sessions.on_request(&named.name, head, info);
                    Flow::Continue
                }
                Filter::DynamicForward(cache) => {
                    info.upstream.resolves |= is_of(cache, info);
                    Flow::Continue
                }
                Filter::Stats(_) | Filter::GrpcStats => Flow::Continue,
            };
            if !matches!(flow, Flow::Continue) {
                self.stopped(&flow, info);
                return flow;
            }
        }
        Flow::Continue
    }

    /// Takes note of why a filter holds the request up.
    fn stopped(&mut self, flow: &Flow, info: &mut StreamInfo) {
        match flow {
            Flow::Reply(reply) => {
                info.flags |= reply.flags;
                info.set_details(reply.details.clone());
            }
            Flow::Body(_) => self.next -= 1,
            Flow::Continue | Flow::Reroute => {}
        }
    }

    /// Keeps what a filter wants done to the response.
    fn remember(&mut self, edits: ResponseEdits) {
        if !edits.is_empty() {
            self.edits.get_or_insert_default().0.push((self.next, edits));
        }
    }

    /// Runs the response filters, over local replies too.
    pub fn on_response(&mut self, request: &RequestHead, head: &mut ResponseHead, info: &mut StreamInfo) {
        let chain = self.chain.clone();
        for (place, named) in chain.filters.iter().enumerate().rev() {
            if !named.is_on(info) {
                continue;
            }
            match &named.filter {
                Filter::Cors(_) => {
                    if let Some(matched) = &self.cors {
                        matched.on_response(head);
                    }
                }
                Filter::ExtAuthz(_) | Filter::RateLimit(_) => {
                    let edits = self.edits.iter().flat_map(|kept| &kept.0);
                    let own = edits.filter(|(behind, _)| *behind == place + 1);
                    own.flat_map(|(_, edits)| edits).for_each(|edit| edit.on_response(head));
                }
                Filter::PeerMetadata(exchange) => exchange.on_response(head, info),
                Filter::HeaderMutation(mutation) => mutation.on_response(&named.name, (request, head), info),
                Filter::StatefulSession(_) => StatefulSession::on_response(head, info),
                Filter::Fault(_)
                | Filter::Rbac(_)
                | Filter::LocalRateLimit(_)
                | Filter::HealthCheck(_)
                | Filter::Alpn(_)
                | Filter::JwtAuthn(_)
                | Filter::DynamicForward(_)
                | Filter::Stats(_)
                | Filter::GrpcStats => {}
            }
        }
    }

    /// Sees request body bytes. Nothing to do but for gRPC.
    pub fn on_request_data(&mut self, data: &[u8], info: &mut StreamInfo) {
        if let Some(counters) = &mut self.messages {
            info.request_messages += counters.0.count(data);
        }
    }

    /// Sees response body bytes. Nothing to do but for gRPC.
    pub fn on_response_data(&mut self, data: &[u8], info: &mut StreamInfo) {
        if let Some(counters) = &mut self.messages {
            info.response_messages += counters.1.count(data);
        }
    }

    /// Records metrics. Call once, when the stream is over and `info` is complete, before the access log.
    pub fn on_end(&mut self, request: &RequestHead, info: &mut StreamInfo) {
        info.finish();
        self.delay = None;
        for named in &self.chain.filters {
            if let Filter::Stats(stats) = &named.filter {
                stats.on_end(request, info);
            }
        }
    }
}

/// Whether the request goes to a cluster of this cache.
fn is_of(cache: &DnsCache, info: &StreamInfo) -> bool {
    let cluster = info.upstream.cluster.as_ref();
    cluster.is_some_and(|cluster| matches!(&cluster.kind, ClusterKind::DynamicForward(own) if own.name == cache.name))
}

impl Named {
    fn is_on(&self, info: &StreamInfo) -> bool {
        match info.filter_override(&self.name) {
            Some(FilterOverride::Disabled) => false,
            Some(_) => true,
            None => !self.disabled,
        }
    }
}
