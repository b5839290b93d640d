//! VirtualService: routing of HTTP, TLS (by SNI) and TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::{Base64Bytes, Double, Str, enumeration, message};

message! {
    /// `networking.istio.io` VirtualService.
    struct VirtualService {
        /// Empty only for a delegate.
        hosts: Vec<Str>,
        /// Empty means `mesh`.
        gateways: Vec<Str>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<Str>,
    }

    struct HttpRoute {
        name: Str,
        #[serde(rename = "match")]
        matches: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated; `mirror_percentage` wins.
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }

    struct Delegate {
        name: Str,
        namespace: Str,
    }

    struct HttpMatchRequest {
        name: Str,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        /// An empty `StringMatch` means that the header must be present.
        headers: BTreeMap<Str, StringMatch>,
        without_headers: BTreeMap<Str, StringMatch>,
        query_params: BTreeMap<Str, StringMatch>,
        ignore_uri_case: bool,
        port: u32,
        source_labels: BTreeMap<Str, Str>,
        source_namespace: Str,
        gateways: Vec<Str>,
        stat_prefix: Str,
    }

    struct HttpRouteDestination {
        destination: Destination,
        weight: i32,
        headers: Option<Headers>,
    }

    struct RouteDestination {
        destination: Destination,
        weight: i32,
    }

    struct Destination {
        host: Str,
        subset: Str,
        port: Option<PortSelector>,
    }

    struct PortSelector {
        number: u32,
    }

    struct HttpRedirect {
        uri: Str,
        authority: Str,
        port: Option<u32>,
        derive_port: Option<RedirectPort>,
        scheme: Str,
        /// 0 is 301.
        redirect_code: u32,
        prefix_rewrite: Str,
    }

    struct HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }

    /// At most one of the two.
    struct HttpBody {
        string: Option<Str>,
        bytes: Option<Base64Bytes>,
    }

    struct HttpRewrite {
        uri: Str,
        authority: Str,
        uri_regex_rewrite: Option<RegexRewrite>,
    }

    struct RegexRewrite {
        #[serde(rename = "match")]
        pattern: Str,
        rewrite: Str,
    }

    struct HttpRetry {
        attempts: i32,
        #[serde(with = "crate::wire::duration")]
        per_try_timeout: Option<Duration>,
        retry_on: Str,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        #[serde(with = "crate::wire::duration")]
        backoff: Option<Duration>,
    }

    struct HttpFaultInjection {
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    }

    struct FaultDelay {
        /// Deprecated; `percentage` wins.
        percent: i32,
        percentage: Option<Percent>,
        #[serde(with = "crate::wire::duration")]
        fixed_delay: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        exponential_delay: Option<Duration>,
    }

    struct FaultAbort {
        percentage: Option<Percent>,
        http_status: Option<i32>,
        grpc_status: Option<Str>,
        http2_error: Option<Str>,
    }

    /// 0 to 100, with fractions.
    struct Percent {
        value: Double,
    }

    struct HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }

    struct CorsPolicy {
        /// Deprecated; exact origins.
        allow_origin: Vec<Str>,
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<Str>,
        allow_headers: Vec<Str>,
        expose_headers: Vec<Str>,
        #[serde(with = "crate::wire::duration")]
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: UnmatchedPreflights,
    }

    struct Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }

    struct HeaderOperations {
        set: BTreeMap<Str, Str>,
        add: BTreeMap<Str, Str>,
        remove: Vec<Str>,
    }

    struct TlsRoute {
        #[serde(rename = "match")]
        matches: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }

    struct TlsMatchAttributes {
        sni_hosts: Vec<Str>,
        destination_subnets: Vec<Str>,
        port: u32,
        source_labels: BTreeMap<Str, Str>,
        gateways: Vec<Str>,
        source_namespace: Str,
    }

    struct TcpRoute {
        #[serde(rename = "match")]
        matches: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }

    struct L4MatchAttributes {
        destination_subnets: Vec<Str>,
        port: u32,
        /// Hidden in Istio's documents; never had an effect there.
        source_subnet: Str,
        source_labels: BTreeMap<Str, Str>,
        gateways: Vec<Str>,
        source_namespace: Str,
    }

    /// The wire form of `StringMatch`: at most one of the three.
    struct StringMatch {
        exact: Option<Str>,
        prefix: Option<Str>,
        regex: Option<Str>,
    }
}

/// What a `StringMatch` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StringMatchType<'a> {
    /// No variant set: for a header or query parameter, that it is present.
    Present,
    Exact(&'a Str),
    Prefix(&'a Str),
    /// RE2, full match.
    Regex(&'a Str),
}

impl StringMatch {
    /// The variant that is set.
    pub fn kind(&self) -> StringMatchType<'_> {
        if let Some(text) = &self.exact {
            StringMatchType::Exact(text)
        } else if let Some(text) = &self.prefix {
            StringMatchType::Prefix(text)
        } else if let Some(text) = &self.regex {
            StringMatchType::Regex(text)
        } else {
            StringMatchType::Present
        }
    }

    /// An exact match, for tests and defaults.
    pub fn exact(text: &str) -> Self {
        Self { exact: Some(text.into()), ..Self::default() }
    }

    /// A prefix match.
    pub fn prefix(text: &str) -> Self {
        Self { prefix: Some(text.into()), ..Self::default() }
    }

    /// A regular expression.
    pub fn regex(text: &str) -> Self {
        Self { regex: Some(text.into()), ..Self::default() }
    }
}

enumeration! {
    enum RedirectPort {
        #[default]
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = "FROM_REQUEST_PORT",
    }

    enum UnmatchedPreflights {
        #[default]
        Unspecified = "UNSPECIFIED",
        Forward = "FORWARD",
        Ignore = "IGNORE",
    }
}
