//! GRPCRoute.

use super::{
    BackendRef, HttpHeaderFilter, HttpRequestMirrorFilter, ParentReference, SessionPersistence, ValueMatchType,
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
        headers: Vec<GrpcHeaderMatch>,
    }

    /// At least one of service and method.
    struct GrpcMethodMatch {
        #[serde(rename = "type")]
        match_type: ValueMatchType,
        service: Option<Str>,
        method: Option<Str>,
    }

    struct GrpcHeaderMatch {
        #[serde(rename = "type")]
        match_type: ValueMatchType,
        name: Str,
        value: Str,
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

    /// A [`BackendRef`] with filters of its own.
    struct GrpcBackendRef {
        group: Option<Str>,
        kind: Option<Str>,
        name: Str,
        namespace: Option<Str>,
        port: Option<u32>,
        weight: Option<i32>,
        filters: Vec<GrpcRouteFilter>,
    }
}

impl GrpcBackendRef {
    /// What it names, without the filters.
    pub fn backend(&self) -> BackendRef {
        BackendRef {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            port: self.port,
            weight: self.weight,
        }
    }
}

enumeration! {
    enum GrpcRouteFilterType {
        #[default]
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestMirror = "RequestMirror",
        ExtensionRef = "ExtensionRef",
    }
}
