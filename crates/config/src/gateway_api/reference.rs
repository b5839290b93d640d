//! How objects of the Gateway API name each other. What is `None` has the default that the field's document says.

use crate::wire::{Str, message};

message! {
    /// What a route is attached to.
    struct ParentReference {
        /// Default: `gateway.networking.k8s.io`. Empty: the core group.
        group: Option<Str>,
        /// Default: `Gateway`.
        kind: Option<Str>,
        /// Default: the route's own.
        namespace: Option<Str>,
        name: Str,
        /// A listener's name; of a Service nothing.
        section_name: Option<Str>,
        /// A listener's port, or a Service's.
        port: Option<u32>,
    }

    /// Where requests of a TCPRoute or TLSRoute go, or (without a weight) those that are mirrored.
    struct BackendRef {
        /// Default: the core group.
        group: Option<Str>,
        /// Default: `Service`.
        kind: Option<Str>,
        name: Str,
        /// Default: the route's own; another needs a ReferenceGrant.
        namespace: Option<Str>,
        port: Option<u32>,
        /// Default: 1.
        weight: Option<i32>,
    }
}

impl BackendRef {
    /// The weight, with its default.
    pub fn weight(&self) -> i32 {
        self.weight.unwrap_or(1)
    }
}
