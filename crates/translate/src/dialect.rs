//! Which extensions the configuration of a proxy may use.
//!
//! Owns the choice only; what each dialect leaves out is decided where the extension is emitted. Never guessed from the
//! proxy's version.

use meltemi_model::Node;

/// A data plane's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Our proxy and Istio's build of Envoy: metadata exchange, `istio.stats`, `istio.alpn`.
    IstioProxy,
    /// Envoy as released: the same routing, security and tracing without Istio's extensions.
    Envoy,
    /// A gRPC library that is its own proxy: API listeners and plain routes.
    Grpc,
}

/// Any of these names, of an extension or of its configuration's type, is only in Istio's builds.
const ISTIO_EXTENSIONS: [&str; 4] =
    ["istio.stats", "istio.alpn", "envoy.filters.http.peer_metadata", "stats.PluginConfig"];

impl Dialect {
    pub fn of(node: &Node) -> Self {
        match node.text("DIALECT") {
            Some("istio-proxy") => return Self::IstioProxy,
            Some("envoy") => return Self::Envoy,
            Some("grpc") => return Self::Grpc,
            _ => {}
        }
        if node.is_grpc() || node.user_agent.starts_with("gRPC") || node.user_agent.starts_with("grpc") {
            return Self::Grpc;
        }
        if ISTIO_EXTENSIONS.iter().any(|name| node.extensions.contains(*name)) { Self::IstioProxy } else { Self::Envoy }
    }

    pub fn has_istio_filters(self) -> bool {
        self == Self::IstioProxy
    }
}

#[cfg(test)]
mod tests;
