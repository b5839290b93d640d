//! Route configurations.

pub mod find;
mod pick;
mod table;

pub use table::Routes;

use bytes::Bytes;

use crate::anomaly::Watch;
use crate::common::{Fraction, Metadata, Value};
use crate::filter::PerFilter;
use crate::format::Format;
use crate::hcm::BodyFormat;
use crate::header::{HeaderKey, HeaderLookup, HeaderMatcher, HeaderRules};
use crate::on_demand::Usage;
use crate::rate_limit::RateLimitPolicy;
use meltemi_base::intern::Shared;
use meltemi_matchers::{DomainTrie, FullRegex, RegexRewrite, StringMatcher};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct RouteConfiguration {
    pub name: Arc<str>,
    pub hosts: DomainTrie<Arc<VirtualHost>>,
    /// In configuration order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    /// Header rules run configuration → host → route, so that the route's win. Default is the other way round.
    pub most_specific_header_mutations_wins: bool,
    pub max_direct_response_body: usize,
    pub mirrors: Vec<Arc<MirrorPolicy>>,
    pub ignore_port: bool,
    /// Hosts that are not here are asked for by themselves (VHDS).
    pub on_demand: bool,
    /// The header that names the host instead of `:authority`.
    pub vhost_header: Option<HeaderKey>,
    pub ignore_path_parameters: bool,
    /// Refuse the resource when it names an unknown cluster.
    pub validate_clusters: Option<bool>,
    pub per_filter: PerFilter,
    pub metadata: Option<Arc<Metadata>>,
    /// Of the encoded resource: equal plans have equal fingerprints.
    pub fingerprint: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsRequirement {
    None,
    ExternalOnly,
    All,
}

/// What is a virtual host's own, and the settings that it has in common with many.
#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    pub routes: Routes,
    pub settings: Shared<HostSettings>,
    /// Of a host on demand, which leaves when nobody needs it any more.
    pub usage: Option<Usage>,
}

impl Deref for VirtualHost {
    type Target = HostSettings;

    fn deref(&self) -> &HostSettings {
        &self.settings
    }
}

#[derive(Debug, Clone)]
pub struct HostSettings {
    pub require_tls: TlsRequirement,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub retry_policy: Option<Arc<RetryPolicy>>,
    pub mirrors: Vec<Arc<MirrorPolicy>>,
    pub rate_limits: Vec<RateLimitPolicy>,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub retry_buffer_limit: Option<u64>,
    pub virtual_clusters: Vec<VirtualCluster>,
    pub per_filter: PerFilter,
    pub metadata: Option<Arc<Metadata>>,
}

#[derive(Debug, Clone)]
pub struct VirtualCluster {
    pub name: Arc<str>,
    pub headers: Vec<HeaderMatcher>,
}

/// What is a route's own, and what it has in common with many.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Arc<str>,
    pub matcher: Shared<RouteMatch>,
    pub action: RouteAction,
    pub metadata: Option<Arc<Metadata>>,
    /// Counts requests, where the metadata asks for anomaly detection.
    pub watch: Option<Arc<Watch>>,
    pub decorator: Option<Decorator>,
    pub settings: Shared<RouteSettings>,
}

impl Deref for Route {
    type Target = RouteSettings;

    fn deref(&self) -> &RouteSettings {
        &self.settings
    }
}

#[derive(Debug, Clone)]
pub struct RouteSettings {
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub per_filter: PerFilter,
    pub tracing: Option<RouteTracing>,
    pub retry_buffer_limit: Option<u64>,
    pub stat_prefix: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decorator {
    pub operation: Arc<str>,
    pub propagate: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RouteTracing {
    pub client_sampling: Option<Fraction>,
    pub random_sampling: Option<Fraction>,
    pub overall_sampling: Option<Fraction>,
    pub custom_tags: Vec<crate::tracing::CustomTag>,
}

#[derive(Debug, Clone)]
pub enum PathRule {
    Prefix {
        prefix: Arc<str>,
        ignore_case: bool,
    },
    Exact {
        path: Arc<str>,
        ignore_case: bool,
    },
    /// The path itself or followed by `/`.
    SeparatedPrefix {
        prefix: Arc<str>,
        ignore_case: bool,
    },
    Regex(FullRegex),
    /// CONNECT requests only.
    Connect,
}

#[derive(Debug, Clone)]
pub struct RouteMatch {
    pub path: PathRule,
    pub headers: Vec<HeaderMatcher>,
    pub query: Vec<QueryMatcher>,
    pub cookies: Vec<CookieMatcher>,
    pub fraction: Option<Fraction>,
    pub grpc: bool,
    pub tls_presented: Option<bool>,
    pub tls_validated: Option<bool>,
    pub dynamic_metadata: Vec<crate::rbac::MetadataMatcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatcher {
    pub name: Arc<str>,
    /// `None`: present with any value.
    pub value: Option<StringMatcher>,
    /// Must be absent.
    pub absent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMatcher {
    pub name: Arc<str>,
    pub value: StringMatcher,
    pub invert: bool,
}

#[derive(Debug, Clone)]
pub enum RouteAction {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    DirectResponse(Box<DirectResponse>),
    /// Matches, but nothing is forwarded (proxyless gRPC servers).
    NonForwarding,
}

/// Where a request goes, and how, which many routes have in common.
#[derive(Debug, Clone)]
pub struct Forward {
    pub cluster: ClusterSpec,
    pub settings: Shared<ForwardSettings>,
}

impl Deref for Forward {
    type Target = ForwardSettings;

    fn deref(&self) -> &ForwardSettings {
        &self.settings
    }
}

#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// Status when the cluster is unknown: 503, 404 or 500.
    pub cluster_not_found_status: u16,
    /// Wanted endpoint metadata under `envoy.lb`.
    pub metadata_match: Option<Value>,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    pub append_x_forwarded_host: bool,
    /// `None`: no limit. Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// Unset: the connection manager's stream idle timeout. Zero: none.
    pub idle_timeout: Option<Duration>,
    pub flush_timeout: Option<Duration>,
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// `None`: the virtual host's.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    pub mirrors: Vec<Arc<MirrorPolicy>>,
    pub hash_policy: Vec<HashPolicy>,
    pub rate_limits: Vec<RateLimitPolicy>,
    /// Those of the virtual host count as well.
    pub include_host_rate_limits: bool,
    pub high_priority: bool,
    pub upgrades: Vec<RouteUpgrade>,
    /// `None`: `grpc-timeout` is not looked at.
    pub max_grpc_timeout: Option<Duration>,
    pub grpc_timeout_offset: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// `None`: the connection manager's. Zero: none.
    pub duration: Option<Duration>,
    /// Zero: `grpc-timeout` unlimited. `None`: not looked at.
    pub grpc_timeout_max: Option<Duration>,
    pub grpc_timeout_offset: Option<Duration>,
}

#[derive(Debug, Clone)]
pub enum ClusterSpec {
    Named(Arc<str>),
    Header(HeaderKey),
    Weighted(Arc<WeightedClusters>),
}

#[derive(Debug, Clone)]
pub struct WeightedClusters {
    pub clusters: Vec<WeightedCluster>,
    pub total: u64,
    pub random: WeightRandom,
}

/// Where the choice's number comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightRandom {
    Stream,
    /// A decimal number in this header, else the stream's.
    Header(HeaderKey),
    /// The hash policy's result, else the stream's.
    HashPolicy,
}

#[derive(Debug, Clone)]
pub struct WeightedCluster {
    pub cluster: WeightedName,
    pub weight: u32,
    pub metadata_match: Option<Value>,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub per_filter: PerFilter,
    pub host_rewrite: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub enum WeightedName {
    Named(Arc<str>),
    Header(HeaderKey),
}

#[derive(Debug, Clone)]
pub enum PathRewrite {
    None,
    /// The matched prefix or path becomes this.
    Prefix(Arc<str>),
    Regex(RegexRewrite),
    /// The whole path.
    Format(Format),
}

#[derive(Debug, Clone)]
pub enum HostRewrite {
    None,
    Literal(Format),
    /// The chosen endpoint's host name.
    Auto,
    Header(HeaderKey),
    /// Of the path without its query.
    PathRegex(RegexRewrite),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// Lower case.
    pub kind: Arc<str>,
    pub enabled: bool,
    /// CONNECT is terminated here: its payload goes to the endpoint as plain TCP.
    pub terminate_connect: bool,
}

#[derive(Debug, Clone)]
pub struct MirrorPolicy {
    pub cluster: MirrorCluster,
    pub fraction: Fraction,
    /// Appends `-shadow` to the host.
    pub shadow_suffix: bool,
    pub trace_sampled: Option<bool>,
    pub host_rewrite: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub enum MirrorCluster {
    Named(Arc<str>),
    Header(HeaderKey),
}

#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    pub by: HashBy,
    /// Stop here if this one gave a hash.
    pub terminal: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HashBy {
    Header {
        key: HeaderKey,
        rewrite: Option<RegexRewrite>,
    },
    /// `ttl` set: the cookie is made when absent; zero makes it a session cookie.
    Cookie {
        name: Arc<str>,
        ttl: Option<Duration>,
        path: Arc<str>,
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    SourceIp,
    QueryParameter(Arc<str>),
    FilterState(Arc<str>),
}

/// What is retried: a set of conditions from `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RetryOn(pub u32);

#[rustfmt::skip]
impl RetryOn {
    pub const SERVER_ERROR: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const RESET: Self = Self(1 << 2);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    pub const ENVOY_RATE_LIMITED: Self = Self(1 << 5);
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 8);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 9);
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 10);
    pub const GRPC_CANCELLED: Self = Self(1 << 11);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 12);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);
    pub const GRPC_INTERNAL: Self = Self(1 << 15);

    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::ENVOY_RATE_LIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("internal", Self::GRPC_INTERNAL),
    ];
}

impl RetryOn {
    pub fn has(self, condition: Self) -> bool {
        self.0 & condition.0 != 0
    }

    pub fn with(self, condition: Self) -> Self {
        Self(self.0 | condition.0)
    }

    /// Conditions by name, separated by commas; unknown names count for nothing, as in `x-envoy-retry-on`.
    pub fn parse(text: &str) -> Self {
        text.split(',').map(str::trim).fold(Self::default(), |set, word| {
            Self::NAMES.iter().find(|(name, _)| *name == word).map_or(set, |(_, condition)| set.with(*condition))
        })
    }
}

#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<u16>,
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests with one of these are retried, if any is given.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Do not pick a host that was tried already.
    pub avoid_previous_hosts: bool,
    pub host_selection_attempts: u32,
    /// Every so many attempts, the priorities of all hosts so far are left out.
    pub avoid_previous_priorities: Option<NonZeroU32>,
}

#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `https` for `https_redirect`, which also drops a default port.
    pub scheme: Option<Arc<str>>,
    pub host: Option<Arc<str>>,
    pub port: Option<u16>,
    pub path: RedirectPath,
    pub strip_query: bool,
}

#[derive(Debug, Clone)]
pub enum RedirectPath {
    Keep,
    /// May bring its own query.
    Full(Format),
    Prefix(Arc<str>),
    Regex(RegexRewrite),
}

#[derive(Debug, Clone)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Option<Bytes>,
    pub body_format: Option<BodyFormat>,
}

/// What route selection reads of a request.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    /// `:authority`.
    pub host: &'a str,
    /// `:path` with query, after normalisation; empty for CONNECT without a path.
    pub path: &'a str,
    pub headers: &'a dyn HeaderLookup,
    /// One value for the whole stream, so that a repeated look-up agrees.
    pub random: u64,
    /// CONNECT, or an extended CONNECT of HTTP/2 that was not turned into an upgrade.
    pub is_connect: bool,
    pub tls_presented: bool,
    pub tls_validated: bool,
    /// Dynamic metadata that filters have set.
    pub metadata: Option<&'a Metadata>,
}

impl RouteConfiguration {
    /// With some hosts as they were.
    pub fn with_former(&self, former: impl Fn(&VirtualHost) -> Option<Arc<VirtualHost>>) -> Self {
        let mut all = self.clone();
        for host in all.hosts.values_mut().chain(&mut all.virtual_hosts) {
            if let Some(former) = former(host) {
                *host = former;
            }
        }
        all
    }
}

impl Route {
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::DirectResponse(_) | RouteAction::NonForwarding => None,
        }
    }
}
