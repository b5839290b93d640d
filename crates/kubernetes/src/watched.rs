//! Which kinds are watched, and which of their objects.

use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use meltemi_config::{Kind, Shape};

/// Groups that every API server has; all others are there if their CRDs are.
const BUILT_IN: [&str; 6] = ["", "apps", "batch", "discovery.k8s.io", "networking.k8s.io", "coordination.k8s.io"];

/// What nothing is derived from: endpoints are known by slices, and workloads by their pods.
const UNWATCHED: [Kind; 7] = [
    Kind::Endpoints,
    Kind::ServiceAccount,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::ReplicaSet,
    Kind::DaemonSet,
    Kind::Job,
];

/// Objects that the server gives in one answer: what is in memory as JSON while it is read.
pub(crate) const PAGE: u32 = 100;

/// Seconds. A connection that died in silence is noticed after it; a watch that ends is resumed where it was.
const WATCH_SECONDS: u32 = 60;

/// Every kind that is watched where the server has it.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| !UNWATCHED.contains(kind))
}

/// Whether the kind is there only with its CRD.
pub(crate) fn has_definition(kind: Kind) -> bool {
    !BUILT_IN.contains(&kind.info().group)
}

/// As its definition is named: `gateways.networking.istio.io`.
pub(crate) fn name(kind: Kind) -> String {
    let info = kind.info();
    if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) }
}

/// The kind at a version that it is served in.
pub(crate) fn resource(kind: Kind, version: &str) -> ApiResource {
    let info = kind.info();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(info.group, version, info.name), info.plural)
}

/// Objects that are many or large and mean nothing to a mesh stay with the server.
fn fields(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Secret => {
            Some("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=istio.io/ca-root")
        }
        Kind::ConfigMap => Some("metadata.name!=kube-root-ca.crt,metadata.name!=istio-ca-root-cert"),
        // Those that have ended are endpoints of nothing.
        Kind::Pod => Some("status.phase!=Succeeded,status.phase!=Failed"),
        _ => None,
    }
}

pub(crate) fn config(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    fields(kind).map_or(config.clone(), |fields| config.fields(fields))
}

/// Whether objects of the kind may be for one revision alone (`istio.io/rev`).
pub(crate) fn is_revisioned(kind: Kind) -> bool {
    kind.info().shape == Shape::Spec
}
