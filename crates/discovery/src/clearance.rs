//! Who may see what of debug output, as istiod has it (`ENABLE_DEBUG_ENDPOINT_AUTH`).
//!
//! Owns the decision alone: whether a caller is on this machine, or who its token or certificate says it is, others find out.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_model::Node;
use meltemi_tls::SpiffeId;

/// Pages about one proxy, which its own namespace may see.
const PAGES_OF_A_PROXY: [&str; 3] = ["config_dump", "edsz", "ndsz"];

/// What a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Clearance {
    Everything,
    /// The proxies of this namespace.
    Namespace(Arc<str>),
}

/// By which namespace a caller sees everything.
#[derive(Debug, Clone)]
pub(crate) struct Privileged<'a> {
    /// Of the control plane.
    pub own: &'a str,
    /// Of the mesh configuration.
    pub root: &'a str,
    /// `DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES`
    pub named: &'a BTreeSet<String>,
}

impl Clearance {
    /// Of a caller whose identity is proven.
    pub(crate) fn of(caller: &SpiffeId, privileged: &Privileged<'_>) -> Self {
        let namespace = &*caller.namespace;
        if namespace == privileged.own || namespace == privileged.root || privileged.named.contains(namespace) {
            Self::Everything
        } else {
            Self::Namespace(caller.namespace.clone())
        }
    }

    /// Whether a page, by its name below `/debug/`, may be seen at all.
    pub(crate) fn covers_page(&self, page: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespace(_) => PAGES_OF_A_PROXY.contains(&page),
        }
    }

    pub(crate) fn covers(&self, node: &Node) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespace(namespace) => node.namespace == *namespace,
        }
    }
}
