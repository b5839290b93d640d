//! GRPCRoute.

use super::rule::{RouteRule, RuledRoute, filtered_backend, ruled_route};
use super::{
    HttpHeaderFilter, HttpHeaderMatch, HttpRequestMirrorFilter, ParentReference, SessionPersistence, ValueMatchType,
};
use crate::wire::{Ignored, Str, enumeration, message};

message! {
    /// `gateway.networking.k8s.io` GRPCRoute.
    struct GrpcRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: Str,
        /// Empty: those of the parent.
        hostnames: Vec<Str>,
        rules: Vec<GrpcRouteRule>,
    }

    struct GrpcRouteRule {
        name: Option<Str>,
        /// Empty: every call.
        matches: Vec<GrpcRouteMatch>,
        filters: Vec<GrpcRouteFilter>,
        backend_refs: Vec<GrpcBackendRef>,
        session_persistence: Option<SessionPersistence>,
    }

    /// All of it must hold.
    struct GrpcRouteMatch {
        method: Option<GrpcMethodMatch>,
        headers: Vec<HttpHeaderMatch>,
    }

    /// At least one of service and method.
    struct GrpcMethodMatch {
        #[serde(rename = "type")]
        match_type: ValueMatchType,
        service: Option<Str>,
        method: Option<Str>,
    }

    /// One of the fields, which `filter_type` names.
    struct GrpcRouteFilter {
        #[serde(rename = "type")]
        filter_type: Option<GrpcRouteFilterType>,
        request_header_modifier: Option<HttpHeaderFilter>,
        response_header_modifier: Option<HttpHeaderFilter>,
        request_mirror: Option<HttpRequestMirrorFilter>,
        extension_ref: Option<Ignored>,
    }
}

filtered_backend!(GrpcBackendRef, GrpcRouteFilter);
ruled_route!(GrpcRoute, GrpcRouteRule, GrpcRouteMatch, GrpcBackendRef);

enumeration! {
    enum GrpcRouteFilterType {
        #[default]
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestMirror = "RequestMirror",
        ExtensionRef = "ExtensionRef",
    }
}
