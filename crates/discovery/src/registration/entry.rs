//! The WorkloadEntry of a registered workload, as istiod makes it.

use std::collections::BTreeMap;

use meltemi_config::networking::{WorkloadEntry, WorkloadGroup};
use meltemi_config::{Key, Kind, Meta, Object, OwnerReference, Spec, Str};
use meltemi_model::Node;
use meltemi_tls::SpiffeId;
use serde_json::Value;
use tonic::Status;

/// Names of Kubernetes' objects are no longer.
const MAX_NAME: usize = 253;
const GROUP: &str = "istio.io/autoRegistrationGroup";
const HEALTH_CHECKED: &str = "proxy.istio.io/health-checks-enabled";
const LOCALITY: &str = "istio-locality";

/// `<group>-<address>`, with `-<network>` where the node names one; too long a name loses its beginning.
pub(super) fn key(node: &Node, group: &str) -> Key {
    let address = node.ip_addresses.first().map_or("", |address| &**address).replace(':', "-");
    let mut name = format!("{group}-{address}");
    if !node.network().is_empty() {
        name = format!("{name}-{}", node.network());
    }
    let start = name.len().saturating_sub(MAX_NAME);
    let start = (start..=name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    Key::new(Kind::WorkloadEntry, &node.namespace, &name[start..])
}

/// Whether the proxy probes its application and reports on it (`readinessProbe` of its ProxyConfig).
pub(super) fn has_probe(node: &Node) -> bool {
    node.metadata.get("PROXY_CONFIG").and_then(|config| config.get("readinessProbe")).is_some_and(Value::is_object)
}

/// The group's template at the node's address. Labels of the node win over those of the group's metadata, and these over
/// the template's.
pub(super) fn of_group(key: &Key, node: &Node, group: &Object) -> Object {
    let spec = group.spec_as::<WorkloadGroup>().cloned().unwrap_or_default();
    let metadata = spec.metadata.clone().unwrap_or_default();
    let mut entry: WorkloadEntry = spec.template.clone().unwrap_or_default();
    entry.address = node.ip_addresses.first().cloned().unwrap_or_default();
    entry.labels.extend(metadata.labels);
    entry.labels.extend(labels(node));
    // Said in the entry's own field; a label cannot hold its slashes.
    entry.labels.remove(LOCALITY);
    if !node.network().is_empty() {
        entry.network = node.network().into();
    }
    if !node.locality.is_empty() {
        entry.locality = node.locality.to_string().into();
    }
    let mut annotations: BTreeMap<Str, Str> = [(GROUP.into(), group.meta.name.clone())].into();
    annotations.extend(metadata.annotations);
    if has_probe(node) {
        annotations.insert(HEALTH_CHECKED.into(), "true".into());
    }
    let owner = OwnerReference { kind: group.kind().as_str().into(), name: group.meta.name.clone(), controller: true };
    let meta = Meta {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        labels: entry.labels.clone(),
        annotations,
        owner_references: vec![owner],
        ..Meta::default()
    };
    Object::new(meta, Spec::WorkloadEntry(entry.into()))
}

fn labels(node: &Node) -> impl Iterator<Item = (Str, Str)> {
    let labels = node.metadata.get("LABELS").and_then(Value::as_object);
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
}

/// Only a workload of the entry's namespace and, where the entry says one, of its service account may be behind it.
pub(super) fn check(entry: &Object, identity: Option<&SpiffeId>) -> Result<(), Status> {
    let Some(identity) = identity else {
        return Err(Status::permission_denied("registration of a WorkloadEntry requires a verified identity"));
    };
    if *identity.namespace != *entry.meta.namespace {
        let text = format!("registration of {} by {identity}: another namespace", entry.key());
        return Err(Status::permission_denied(text));
    }
    let account = entry.spec_as::<WorkloadEntry>().map(|spec| &*spec.service_account).unwrap_or_default();
    if !account.is_empty() && *identity.service_account != *account {
        let text = format!("registration of {} by {identity}: the service account is to be {account:?}", entry.key());
        return Err(Status::permission_denied(text));
    }
    Ok(())
}
