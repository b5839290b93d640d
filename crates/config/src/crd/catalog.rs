//! What a cluster shows of each kind: short names, columns of `kubectl get`, and the version that it stores.

use serde_json::{Value, json};

use crate::kind::Kind;

/// A kind with a definition. Group, names and versions are the table of kinds'.
pub(super) struct Served {
    pub kind: Kind,
    pub short: &'static [&'static str],
    /// What etcd holds. Istio's, so that a cluster which had Istio needs no migration.
    pub storage: &'static str,
    /// A document without `spec` is refused.
    pub needs_spec: bool,
    pub columns: &'static [Column],
    pub description: &'static str,
}

/// A column of `kubectl get`.
pub(super) struct Column {
    name: &'static str,
    path: &'static str,
    of: &'static str,
}

impl Column {
    pub fn json(&self) -> Value {
        json!({"name": self.name, "jsonPath": self.path, "type": self.of})
    }
}

const fn text(name: &'static str, path: &'static str) -> Column {
    Column { name, path, of: "string" }
}

const AGE: Column = Column { name: "Age", path: ".metadata.creationTimestamp", of: "date" };

const fn served(kind: Kind, storage: &'static str, description: &'static str) -> Served {
    Served { kind, short: &[], storage, needs_spec: false, columns: &[], description }
}

/// All of a group, and all of Istio's or of ours: `kubectl get istio-io`.
pub(super) fn categories(group: &str) -> Vec<String> {
    let family = group.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    family.into_iter().chain([group]).map(|name| name.replace('.', "-")).collect()
}

pub(super) static SERVED: &[Served] = &[
    Served {
        short: &["vs"],
        columns: &[text("Gateways", ".spec.gateways"), text("Hosts", ".spec.hosts"), AGE],
        ..served(Kind::VirtualService, "v1", "Where requests and connections to a host are sent.")
    },
    Served {
        short: &["dr"],
        columns: &[text("Host", ".spec.host"), AGE],
        ..served(Kind::DestinationRule, "v1", "How a destination is called once a route has chosen it.")
    },
    Served { short: &["gw"], ..served(Kind::Gateway, "v1", "What proxies at the edge of the mesh listen on.") },
    Served {
        short: &["se"],
        needs_spec: true,
        columns: &[
            text("Hosts", ".spec.hosts"),
            text("Location", ".spec.location"),
            text("Resolution", ".spec.resolution"),
            AGE,
        ],
        ..served(Kind::ServiceEntry, "v1", "A service that no Service of the cluster describes.")
    },
    Served {
        short: &["we"],
        needs_spec: true,
        columns: &[AGE, text("Address", ".spec.address")],
        ..served(Kind::WorkloadEntry, "v1", "A workload that is not a pod.")
    },
    Served {
        short: &["wg"],
        needs_spec: true,
        columns: &[AGE],
        ..served(Kind::WorkloadGroup, "v1", "What workloads that register themselves have in common.")
    },
    served(Kind::Sidecar, "v1", "What the proxy of a workload listens on and which services it sees."),
    served(Kind::EnvoyFilter, "v1alpha3", "Patches of the configuration that proxies get."),
    served(Kind::ProxyConfig, "v1beta1", "Settings of proxies."),
    Served {
        short: &["pa"],
        columns: &[text("Mode", ".spec.mtls.mode"), AGE],
        ..served(Kind::PeerAuthentication, "v1", "Whether a workload takes connections without mutual TLS.")
    },
    Served { short: &["ra"], ..served(Kind::RequestAuthentication, "v1", "Which tokens of requests are accepted.") },
    Served {
        short: &["ap"],
        columns: &[text("Action", ".spec.action"), AGE],
        ..served(Kind::AuthorizationPolicy, "v1", "Who may do what with a workload.")
    },
    Served {
        short: &["telemetry"],
        columns: &[AGE],
        ..served(Kind::Telemetry, "v1alpha1", "Metrics, traces and access logs of workloads.")
    },
    Served {
        needs_spec: true,
        columns: &[AGE],
        ..served(Kind::WasmPlugin, "v1alpha1", "A WebAssembly filter of proxies.")
    },
    Served {
        needs_spec: true,
        columns: &[AGE],
        ..served(Kind::TrafficExtension, "v1alpha1", "A WebAssembly or Lua filter of proxies.")
    },
    Served {
        needs_spec: true,
        columns: &[AGE],
        ..served(Kind::ResiliencePolicy, "v1alpha1", "What clients do by themselves about slow and failing endpoints.")
    },
    Served {
        short: &["rlp"],
        needs_spec: true,
        columns: &[AGE],
        ..served(Kind::RateLimitPolicy, "v1alpha1", "How many requests a workload or a gateway takes.")
    },
];
