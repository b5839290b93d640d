//! TCPRoute and TLSRoute.

use super::{BackendRef, ParentReference};
use crate::wire::{Str, message};

message! {
    /// `gateway.networking.k8s.io` TCPRoute.
    struct TcpRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: Str,
        rules: Vec<L4RouteRule>,
    }

    /// `gateway.networking.k8s.io` TLSRoute.
    struct TlsRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: Str,
        /// As the client's SNI has them.
        hostnames: Vec<Str>,
        rules: Vec<L4RouteRule>,
    }

    struct L4RouteRule {
        name: Option<Str>,
        backend_refs: Vec<BackendRef>,
    }
}
