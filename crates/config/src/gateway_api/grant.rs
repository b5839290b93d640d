//! ReferenceGrant: who may name objects of another namespace.

use crate::wire::{Str, message};

message! {
    /// `gateway.networking.k8s.io` ReferenceGrant, in the namespace of what is named.
    struct ReferenceGrant {
        from: Vec<ReferenceGrantFrom>,
        to: Vec<ReferenceGrantTo>,
    }

    struct ReferenceGrantFrom {
        group: Str,
        kind: Str,
        namespace: Str,
    }

    struct ReferenceGrantTo {
        /// Empty: the core group.
        group: Str,
        kind: Str,
        /// Default: every object of the kind.
        name: Option<Str>,
    }
}
