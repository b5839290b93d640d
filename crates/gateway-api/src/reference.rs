//! Group and kind, as references name them.

use meltemi_config::Str;
use meltemi_config::gateway_api::{EXPERIMENTAL_GROUP, GROUP, INFERENCE_GROUP};
use std::fmt;

/// A kind that a reference can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKind<'a> {
    pub group: &'a str,
    pub kind: &'a str,
}

pub const GATEWAY: GroupKind<'static> = GroupKind { group: GROUP, kind: "Gateway" };
pub const HTTP_ROUTE: GroupKind<'static> = GroupKind { group: GROUP, kind: "HTTPRoute" };
pub const GRPC_ROUTE: GroupKind<'static> = GroupKind { group: GROUP, kind: "GRPCRoute" };
pub const TCP_ROUTE: GroupKind<'static> = GroupKind { group: GROUP, kind: "TCPRoute" };
pub const TLS_ROUTE: GroupKind<'static> = GroupKind { group: GROUP, kind: "TLSRoute" };
pub const LISTENER_SET: GroupKind<'static> = GroupKind { group: GROUP, kind: "ListenerSet" };
pub const BACKEND: GroupKind<'static> = GroupKind { group: EXPERIMENTAL_GROUP, kind: "XBackend" };
pub const INFERENCE_POOL: GroupKind<'static> = GroupKind { group: INFERENCE_GROUP, kind: "InferencePool" };
pub const SECRET: GroupKind<'static> = GroupKind { group: "", kind: "Secret" };
pub const CONFIG_MAP: GroupKind<'static> = GroupKind { group: "", kind: "ConfigMap" };
pub const SERVICE: GroupKind<'static> = GroupKind { group: "", kind: "Service" };
pub const SERVICE_ENTRY: GroupKind<'static> = GroupKind { group: "networking.istio.io", kind: "ServiceEntry" };
/// Any host of the registry, by its name.
pub const HOSTNAME: GroupKind<'static> = GroupKind { group: "networking.istio.io", kind: "Hostname" };
pub const SERVICE_IMPORT: GroupKind<'static> = GroupKind { group: "multicluster.x-k8s.io", kind: "ServiceImport" };

impl<'a> GroupKind<'a> {
    /// What a reference names, with the default of its field.
    pub fn of(group: Option<&'a Str>, kind: Option<&'a Str>, default: GroupKind<'a>) -> Self {
        Self { group: group.map_or(default.group, |group| group), kind: kind.map_or(default.kind, |kind| kind) }
    }
}

/// As istiod's messages write a kind.
impl fmt::Display for GroupKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { self.group };
        write!(f, "{group}/v1/{}", self.kind)
    }
}
