//! External authorization: `envoy.filters.http.ext_authz` and `envoy.filters.network.ext_authz`.

use crate::common::Fraction;
use crate::rbac::MetadataMatcher;
use http::{HeaderName, HeaderValue};
use meltemi_matchers::StringMatcher;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `ExtAuthz` of HTTP.
#[derive(Debug)]
pub struct ExtAuthz {
    pub service: AuthzService,
    pub failure_mode_allow: bool,
    pub failure_mode_allow_header_add: bool,
    pub body: Option<AuthzBody>,
    pub clear_route_cache: bool,
    pub status_on_error: u16,
    /// Namespaces of dynamic metadata that the service is told.
    pub metadata_namespaces: Vec<Arc<str>>,
    pub enabled: Fraction,
    pub enabled_metadata: Option<MetadataMatcher>,
    /// Requests for which the filter is off are refused.
    pub deny_at_disable: bool,
    pub include_peer_certificate: bool,
    pub include_tls_session: bool,
    pub encode_raw_headers: bool,
    /// Headers that the service sees. `None`: what it sees without being told so.
    pub allowed_headers: Option<Vec<StringMatcher>>,
    pub disallowed_headers: Vec<StringMatcher>,
    pub takes_dynamic_metadata: bool,
    /// Of a refusal's body, in bytes; `None`: as much as is read.
    pub max_denied_body: Option<usize>,
    pub stat_prefix: Arc<str>,
}

#[derive(Debug)]
pub enum AuthzService {
    Grpc(GrpcTarget),
    Http(HttpAuthz),
}

/// A `GrpcService` with what it takes to call it.
#[derive(Debug, Clone)]
pub struct GrpcTarget {
    pub cluster: Arc<str>,
    /// The cluster's name if empty.
    pub authority: Arc<str>,
    pub timeout: Duration,
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// `HttpService`.
#[derive(Debug)]
pub struct HttpAuthz {
    pub cluster: Arc<str>,
    pub timeout: Duration,
    pub path_prefix: Arc<str>,
    /// Instead of the request's own.
    pub path_override: Option<Arc<str>>,
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    pub upstream_headers: Vec<StringMatcher>,
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// `None`: all.
    pub client_headers: Option<Vec<StringMatcher>>,
    pub client_headers_on_success: Vec<StringMatcher>,
    pub metadata_from_headers: Vec<StringMatcher>,
}

/// `BufferSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthzBody {
    pub max_bytes: usize,
    /// A longer body is cut; else its request is refused.
    pub allow_partial: bool,
    pub pack_as_bytes: bool,
}

/// `CheckSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthzPerRoute {
    pub context_extensions: BTreeMap<String, String>,
    pub body: AuthzBodyOverride,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthzBodyOverride {
    /// As the filter says.
    #[default]
    Inherit,
    Never,
    Own(AuthzBody),
}

/// `ExtAuthz` of TCP.
#[derive(Debug)]
pub struct NetworkExtAuthz {
    pub service: GrpcTarget,
    pub failure_mode_allow: bool,
    pub include_peer_certificate: bool,
    pub include_tls_session: bool,
    pub enabled_metadata: Option<MetadataMatcher>,
    pub metadata_namespaces: Vec<Arc<str>>,
    pub stat_prefix: Arc<str>,
}
