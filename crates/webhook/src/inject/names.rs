//! Names of labels, annotations, containers and variables that injection reads and writes.

pub const PROXY_CONTAINER: &str = "istio-proxy";
pub const INIT_CONTAINER: &str = "istio-init";
pub const VALIDATION_CONTAINER: &str = "istio-validation";
pub const CORE_DUMP_CONTAINER: &str = "enable-core-dump";

pub const INJECT: &str = "sidecar.istio.io/inject";
pub const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
pub const MERGE_METRICS: &str = "prometheus.istio.io/merge-metrics";
pub const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
pub const NETWORK: &str = "topology.istio.io/network";
pub const OVERRIDES: &str = "proxy.istio.io/overrides";
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
pub const PROXY_IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
pub const REWRITE_PROBERS: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
pub const SECURE_PORT: &str = "prometheus.istio.io/secure-port";
pub const STATUS: &str = "sidecar.istio.io/status";
pub const STATUS_PORT: &str = "status.sidecar.istio.io/port";
pub const TEMPLATES: &str = "inject.istio.io/templates";

pub const CLUSTER_VARIABLE: &str = "ISTIO_META_CLUSTER_ID";
pub const NETWORK_VARIABLE: &str = "ISTIO_META_NETWORK";
