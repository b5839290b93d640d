//! Rate limits: what requests are counted by, and the filters that count, here or with a service.

use crate::common::Fraction;
use crate::ext_authz::GrpcTarget;
use crate::filter::TokenBucket;
use crate::header::{HeaderAdd, HeaderKey, HeaderMatcher};
use crate::route::QueryMatcher;
use std::sync::Arc;

/// `envoy.config.route.v3.RateLimit`: one descriptor, unless one of its actions finds nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitPolicy {
    /// Filters of this stage look at it.
    pub stage: u32,
    pub actions: Vec<DescriptorAction>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, PartialEq)]
pub enum DescriptorAction {
    SourceCluster,
    DestinationCluster,
    RequestHeader {
        header: HeaderKey,
        key: Arc<str>,
        skip_if_absent: bool,
    },
    QueryParameter {
        name: Arc<str>,
        key: Arc<str>,
        skip_if_absent: bool,
    },
    RemoteAddress,
    /// Lengths of the networks that count as one.
    MaskedRemoteAddress {
        v4: u8,
        v6: u8,
    },
    GenericKey {
        key: Arc<str>,
        value: Arc<str>,
    },
    HeaderMatch {
        key: Arc<str>,
        value: Arc<str>,
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryMatch {
        key: Arc<str>,
        value: Arc<str>,
        expect: bool,
        parameters: Vec<QueryMatcher>,
    },
    Metadata {
        key: Arc<str>,
        /// Of the route; else dynamic.
        of_route: bool,
        namespace: Arc<str>,
        path: Vec<Arc<str>>,
        default: Arc<str>,
        skip_if_absent: bool,
    },
}

/// What becomes of a virtual host's policies beside those of the route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostPolicies {
    /// They count where the route has none.
    #[default]
    Override,
    Include,
    Ignore,
}

/// A bucket of `LocalRateLimit` for requests with this descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDescriptor {
    /// Keys and values; an empty value stands for each.
    pub entries: Vec<(Arc<str>, Arc<str>)>,
    pub bucket: TokenBucket,
}

/// `envoy.filters.http.ratelimit`.
#[derive(Debug)]
pub struct RateLimit {
    pub domain: Arc<str>,
    pub stage: u32,
    pub requests: RequestKind,
    pub service: GrpcTarget,
    pub failure_mode_deny: bool,
    pub resource_exhausted: bool,
    /// `x-ratelimit-limit` and its kin.
    pub quota_headers: bool,
    /// `x-envoy-ratelimited`.
    pub marks_limited: bool,
    pub status: u16,
    pub status_on_error: u16,
    pub response_headers: Vec<HeaderAdd>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    pub stat_prefix: Arc<str>,
}

/// `request_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Internal,
    External,
    Both,
}

/// `RateLimitPerRoute`.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitPerRoute {
    pub host_policies: HostPolicies,
    /// Instead of the route's, unless empty.
    pub policies: Vec<RateLimitPolicy>,
    /// Instead of the filter's, unless empty.
    pub domain: Arc<str>,
}
