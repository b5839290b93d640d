//! HTTPRoute, and the filters that GRPCRoute shares with it.

use std::time::Duration;

use super::rule::{RouteRule, RuledRoute, filtered_backend, ruled_route};
use super::{BackendRef, ParentReference};
use crate::wire::{Ignored, Str, enumeration, message};

message! {
    /// `gateway.networking.k8s.io` HTTPRoute.
    struct HttpRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: Str,
        /// Empty: those of the parent.
        hostnames: Vec<Str>,
        rules: Vec<HttpRouteRule>,
    }

    struct HttpRouteRule {
        name: Option<Str>,
        /// Empty: every request.
        matches: Vec<HttpRouteMatch>,
        filters: Vec<HttpRouteFilter>,
        backend_refs: Vec<HttpBackendRef>,
        timeouts: Option<HttpRouteTimeouts>,
        retry: Option<HttpRouteRetry>,
        session_persistence: Option<SessionPersistence>,
    }

    /// All of it must hold.
    struct HttpRouteMatch {
        path: Option<HttpPathMatch>,
        headers: Vec<HttpHeaderMatch>,
        query_params: Vec<HttpQueryParamMatch>,
        method: Option<HttpMethod>,
    }

    struct HttpPathMatch {
        #[serde(rename = "type")]
        match_type: PathMatchType,
        /// Default: `/`.
        value: Option<Str>,
    }

    struct HttpHeaderMatch {
        #[serde(rename = "type")]
        match_type: ValueMatchType,
        name: Str,
        value: Str,
    }

    struct HttpQueryParamMatch {
        #[serde(rename = "type")]
        match_type: ValueMatchType,
        name: Str,
        value: Str,
    }

    /// One of the fields, which `filter_type` names.
    struct HttpRouteFilter {
        #[serde(rename = "type")]
        filter_type: Option<HttpRouteFilterType>,
        request_header_modifier: Option<HttpHeaderFilter>,
        response_header_modifier: Option<HttpHeaderFilter>,
        request_mirror: Option<HttpRequestMirrorFilter>,
        request_redirect: Option<HttpRequestRedirectFilter>,
        url_rewrite: Option<HttpUrlRewriteFilter>,
        cors: Option<HttpCorsFilter>,
        external_auth: Option<Ignored>,
        extension_ref: Option<Ignored>,
    }

    struct HttpHeaderFilter {
        set: Vec<HttpHeader>,
        add: Vec<HttpHeader>,
        remove: Vec<Str>,
    }

    struct HttpHeader {
        name: Str,
        value: Str,
    }

    struct HttpRequestMirrorFilter {
        backend_ref: BackendRef,
        /// 0 to 100. Without this and `fraction`, all.
        percent: Option<i32>,
        fraction: Option<Fraction>,
    }

    struct Fraction {
        numerator: i32,
        /// Default: 100.
        denominator: Option<i32>,
    }

    struct HttpRequestRedirectFilter {
        scheme: Option<RedirectScheme>,
        hostname: Option<Str>,
        path: Option<HttpPathModifier>,
        port: Option<u32>,
        /// Default: 302.
        status_code: Option<u32>,
    }

    struct HttpUrlRewriteFilter {
        hostname: Option<Str>,
        path: Option<HttpPathModifier>,
    }

    /// One of the two others, which `modifier_type` names.
    struct HttpPathModifier {
        #[serde(rename = "type")]
        modifier_type: Option<HttpPathModifierType>,
        replace_full_path: Option<Str>,
        replace_prefix_match: Option<Str>,
    }

    struct HttpCorsFilter {
        allow_origins: Vec<Str>,
        allow_credentials: Option<bool>,
        allow_methods: Vec<Str>,
        allow_headers: Vec<Str>,
        expose_headers: Vec<Str>,
        /// Seconds; default 5.
        max_age: Option<i32>,
    }

    /// Zero: none.
    struct HttpRouteTimeouts {
        #[serde(with = "crate::wire::gateway_duration")]
        request: Option<Duration>,
        /// Of one attempt.
        #[serde(with = "crate::wire::gateway_duration")]
        backend_request: Option<Duration>,
    }

    struct HttpRouteRetry {
        /// Statuses that are tried again.
        codes: Vec<u32>,
        /// Retries; default 2.
        attempts: Option<i32>,
        #[serde(with = "crate::wire::gateway_duration")]
        backoff: Option<Duration>,
    }

    struct SessionPersistence {
        session_name: Str,
        #[serde(with = "crate::wire::gateway_duration")]
        absolute_timeout: Option<Duration>,
        #[serde(with = "crate::wire::gateway_duration")]
        idle_timeout: Option<Duration>,
        #[serde(rename = "type")]
        persistence_type: Str,
        cookie_config: Option<CookieConfig>,
    }

    struct CookieConfig {
        lifetime_type: Str,
    }
}

filtered_backend!(HttpBackendRef, HttpRouteFilter);
ruled_route!(HttpRoute, HttpRouteRule, HttpRouteMatch, HttpBackendRef);

enumeration! {
    enum PathMatchType {
        Exact = "Exact",
        #[default]
        PathPrefix = "PathPrefix",
        RegularExpression = "RegularExpression",
    }

    enum ValueMatchType {
        #[default]
        Exact = "Exact",
        RegularExpression = "RegularExpression",
    }

    enum HttpMethod {
        #[default]
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Delete = "DELETE",
        Connect = "CONNECT",
        Options = "OPTIONS",
        Trace = "TRACE",
        Patch = "PATCH",
    }

    enum HttpRouteFilterType {
        #[default]
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestMirror = "RequestMirror",
        RequestRedirect = "RequestRedirect",
        UrlRewrite = "URLRewrite",
        Cors = "CORS",
        ExternalAuth = "ExternalAuth",
        ExtensionRef = "ExtensionRef",
    }

    enum RedirectScheme {
        #[default]
        Http = "http",
        Https = "https",
    }

    enum HttpPathModifierType {
        #[default]
        ReplaceFullPath = "ReplaceFullPath",
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}
