//! MeshNetworks: which endpoints are on which network, and the gateways between them.

use std::collections::BTreeMap;

use crate::wire::{Str, message};

message! {
    struct MeshNetworks {
        networks: BTreeMap<Str, Network>,
    }

    struct Network {
        endpoints: Vec<NetworkEndpoints>,
        gateways: Vec<IstioNetworkGateway>,
    }

    /// Exactly one of the two.
    struct NetworkEndpoints {
        from_cidr: Option<Str>,
        from_registry: Option<Str>,
    }

    /// Exactly one of `registry_service_name` and `address`.
    struct IstioNetworkGateway {
        registry_service_name: Option<Str>,
        address: Option<Str>,
        port: u32,
        locality: Str,
    }
}
