//! `envoy.filters.http.jwt_authn`: which tokens a request must bring, where it brings them, and whose keys they are signed with.

use crate::common::DataSource;
use crate::route::{RouteMatch, RouteRequest};
use http::HeaderName;
use meltemi_matchers::StringMatcher;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `JwtAuthentication`.
#[derive(Debug)]
pub struct JwtAuthn {
    /// In order of name; others say which by its place.
    pub providers: Vec<Arc<JwtProvider>>,
    /// The first that matches counts.
    pub rules: Vec<JwtRule>,
    /// `requirement_map`, for overrides.
    pub named: BTreeMap<Arc<str>, Requirement>,
    pub bypass_cors_preflight: bool,
    /// Refusals have neither body nor `www-authenticate`.
    pub strip_failure_response: bool,
    pub stat_prefix: Arc<str>,
}

impl JwtAuthn {
    /// What a request must bring; `None`: nothing.
    pub fn requirement(&self, request: &RouteRequest<'_>) -> Option<&Requirement> {
        self.rules.iter().find(|rule| rule.matcher.holds(request))?.requirement.as_ref()
    }
}

/// `RequirementRule`.
#[derive(Debug)]
pub struct JwtRule {
    pub matcher: RouteMatch,
    /// `None`: nothing is asked of what matches.
    pub requirement: Option<Requirement>,
}

/// `JwtRequirement`. Providers by their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Provider {
        provider: usize,
        /// Instead of the provider's, unless empty.
        audiences: Vec<Arc<str>>,
    },
    Any {
        of: Vec<Requirement>,
        leniency: Leniency,
    },
    All(Vec<Requirement>),
    /// Whatever token there is, of any provider.
    Lenient(Leniency),
    /// Always holds.
    Nothing,
}

/// What a requirement overlooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leniency {
    None,
    /// `allow_missing`.
    Missing,
    /// `allow_missing_or_failed`.
    MissingOrFailed,
}

/// `JwtProvider`.
#[derive(Debug)]
pub struct JwtProvider {
    pub name: Arc<str>,
    /// Empty: any.
    pub issuer: Arc<str>,
    /// Empty: any.
    pub audiences: Vec<Arc<str>>,
    pub subjects: Option<StringMatcher>,
    pub expiry: Expiry,
    /// The token stays in the request.
    pub forward: bool,
    pub locations: Vec<TokenLocation>,
    pub forward_payload_header: Option<HeaderName>,
    pub pad_forward_payload_header: bool,
    pub payload_in_metadata: Option<Arc<str>>,
    /// Claims that become lists in metadata.
    pub space_delimited_claims: Vec<Arc<str>>,
    pub header_in_metadata: Option<Arc<str>>,
    pub failed_status_in_metadata: Option<Arc<str>>,
    pub clock_skew: Duration,
    pub cache: Option<JwtCache>,
    pub claim_to_headers: Vec<ClaimToHeader>,
    pub clear_route_cache: bool,
    pub keys: KeySource,
}

/// What is asked of `exp`, beyond that it is not past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Optional,
    /// `require_expiration`.
    Required,
    /// `max_lifetime`, from now.
    Within(Duration),
}

/// Where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    Header { name: HeaderName, value_prefix: Arc<str> },
    Param(Arc<str>),
    Cookie(Arc<str>),
}

/// `JwtCacheConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JwtCache {
    pub entries: usize,
    /// Longer tokens are verified each time.
    pub max_token_bytes: usize,
}

/// `JwtClaimToHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimToHeader {
    pub header: HeaderName,
    /// The claim, and keys within it.
    pub path: Vec<Arc<str>>,
}

#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set.
    Local(DataSource),
    Remote(RemoteKeys),
}

/// `RemoteJwks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    pub cluster: Arc<str>,
    pub https: bool,
    pub authority: Arc<str>,
    pub path: Arc<str>,
    /// Of one try.
    pub timeout: Duration,
    pub cache_duration: Duration,
    /// `async_fetch`: before a request needs them, and again before they expire. How long after a failure.
    pub ahead: Option<Duration>,
    pub retries: u32,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
}

/// `PerRouteConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtPerRoute {
    Disabled,
    /// A requirement of the filter's `requirement_map`.
    Named(Arc<str>),
}
