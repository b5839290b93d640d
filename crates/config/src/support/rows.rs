//! The rows of the support table. A row that no field matches is a test failure.

use crate::kind::Kind;

/// A field, or some values of it, that are not enforced yet.
pub(super) struct Row {
    pub kinds: &'static [Kind],
    /// As in `Field::path`; everything below it is covered. Empty: the whole kind.
    pub path: &'static str,
    /// Empty: whatever the value.
    pub values: &'static [&'static str],
    pub note: &'static str,
}

const fn kind(kinds: &'static [Kind], note: &'static str) -> Row {
    Row { kinds, path: "", values: &[], note }
}

const fn field(kinds: &'static [Kind], path: &'static str) -> Row {
    Row { kinds, path, values: &[], note: "" }
}

const fn values(kinds: &'static [Kind], path: &'static str, values: &'static [&'static str]) -> Row {
    Row { kinds, path, values, note: "" }
}

const fn mesh(path: &'static str) -> Row {
    Row { kinds: &[], path, values: &[], note: "" }
}

const VS: &[Kind] = &[Kind::VirtualService];
const DR: &[Kind] = &[Kind::DestinationRule];
const GW: &[Kind] = &[Kind::Gateway];
const SE: &[Kind] = &[Kind::ServiceEntry];
const SC: &[Kind] = &[Kind::Sidecar];

pub(super) static ROWS: &[Row] = &[
    kind(&[Kind::AuthorizationPolicy], "requests that it would deny are let through"),
    kind(&[Kind::RequestAuthentication], "tokens are neither checked nor read"),
    kind(&[Kind::Telemetry], "MeshConfig's defaults apply"),
    kind(&[Kind::EnvoyFilter], ""),
    kind(&[Kind::ProxyConfig], "MeshConfig's defaultConfig applies"),
    kind(&[Kind::WorkloadGroup], "workloads do not register themselves; write a WorkloadEntry"),
    field(VS, "spec.http[].match[].statPrefix"),
    field(VS, "spec.tcp[].match[].sourceSubnet"),
    field(DR, "spec.workloadSelector"),
    field(DR, "spec.trafficPolicy.tunnel"),
    field(DR, "spec.trafficPolicy.proxyProtocol"),
    field(DR, "spec.trafficPolicy.retryBudget"),
    field(DR, "spec.subsets[].trafficPolicy.tunnel"),
    field(DR, "spec.subsets[].trafficPolicy.proxyProtocol"),
    field(DR, "spec.subsets[].trafficPolicy.retryBudget"),
    values(GW, "spec.servers[].tls.mode", &["AUTO_PASSTHROUGH", "OPTIONAL_MUTUAL"]),
    values(SE, "spec.resolution", &["DYNAMIC_DNS"]),
    field(SC, "spec.outboundTrafficPolicy.egressProxy"),
];

pub(super) static MESH_ROWS: &[Row] = &[
    mesh("configSources"),
    mesh("ingressClass"),
    mesh("ingressService"),
    mesh("ingressControllerMode"),
    mesh("ingressSelector"),
    mesh("certificates"),
    mesh("caCertificates"),
    mesh("ca"),
    mesh("serviceScopeConfigs"),
    mesh("serviceEntryVisibility"),
    mesh("hboneIdleTimeout"),
    mesh("verifyCertificateAtClient"),
    mesh("zoneAwareLbSetting"),
];
