//! What is kept of an object of the API server: of Kubernetes' own kinds the fields that mean something to a mesh, of all
//! others everything but what servers and clients note down for themselves.
//!
//! That bounds memory, keeps changes that mean nothing (a node's heartbeat) from becoming changes, and lets a server be
//! newer than we are.

use meltemi_config::{Kind, Shape};
use serde_json::{Map, Value};

/// A field to keep, with the fields to keep in it; none: all of it. Lists are gone through.
struct Field(&'static str, &'static [Field]);

const fn whole(name: &'static str) -> Field {
    Field(name, &[])
}

const PORT: &[Field] = &[whole("name"), whole("port"), whole("protocol"), whole("appProtocol"), whole("targetPort")];

const META: &[Field] = &[
    whole("name"),
    whole("namespace"),
    whole("labels"),
    whole("annotations"),
    whole("creationTimestamp"),
    whole("deletionTimestamp"),
    whole("uid"),
    whole("resourceVersion"),
    whole("generation"),
    Field("ownerReferences", &[whole("kind"), whole("name"), whole("controller")]),
];

const SERVICE: &[Field] = &[
    Field(
        "spec",
        &[
            whole("type"),
            Field("ports", PORT),
            whole("selector"),
            whole("clusterIP"),
            whole("clusterIPs"),
            whole("externalIPs"),
            whole("externalName"),
            whole("publishNotReadyAddresses"),
            whole("sessionAffinity"),
            whole("internalTrafficPolicy"),
            whole("trafficDistribution"),
        ],
    ),
    Field("status", &[Field("loadBalancer", &[Field("ingress", &[whole("ip"), whole("hostname")])])]),
];

const SLICE: &[Field] = &[
    whole("addressType"),
    Field("ports", PORT),
    Field(
        "endpoints",
        &[
            whole("addresses"),
            Field("conditions", &[whole("ready"), whole("serving"), whole("terminating")]),
            whole("hostname"),
            Field("targetRef", &[whole("kind"), whole("name"), whole("namespace")]),
            whole("nodeName"),
            whole("zone"),
        ],
    ),
];

const CONTAINER: &[Field] =
    &[whole("name"), Field("ports", &[whole("name"), whole("containerPort"), whole("protocol")])];

const POD: &[Field] = &[
    Field(
        "spec",
        &[
            Field("containers", CONTAINER),
            Field("initContainers", CONTAINER),
            whole("serviceAccountName"),
            whole("nodeName"),
            whole("hostname"),
            whole("subdomain"),
            whole("hostNetwork"),
        ],
    ),
    Field(
        "status",
        &[
            whole("phase"),
            whole("podIP"),
            Field("podIPs", &[whole("ip")]),
            whole("hostIP"),
            Field("conditions", &[whole("type"), whole("status")]),
        ],
    ),
];

const NODE: &[Field] = &[Field(
    "status",
    &[Field("addresses", &[whole("type"), whole("address")]), Field("nodeInfo", &[whole("kubeletVersion")])],
)];

/// The keys of `data` under which certificates and keys of gateways are looked for.
const SECRET_DATA: &[Field] = &[
    whole("tls.crt"),
    whole("tls.key"),
    whole("tls.ocsp-staple"),
    whole("ca.crt"),
    whole("ca.crl"),
    whole("cert"),
    whole("key"),
    whole("cacert"),
    whole("crl"),
];

/// Roots and revocation lists, the mesh configuration, and what a Gateway's `parametersRef` overlays.
const CONFIG_MAP_DATA: &[Field] = &[
    whole("ca.crt"),
    whole("cacert"),
    whole("ca.crl"),
    whole("crl"),
    whole("mesh"),
    whole("meshNetworks"),
    // Of the injector.
    whole("config"),
    whole("values"),
    whole("deployment"),
    whole("service"),
    whole("serviceAccount"),
    whole("horizontalPodAutoscaler"),
    whole("podDisruptionBudget"),
];

const SECRET: &[Field] = &[whole("type"), Field("data", SECRET_DATA)];
const CONFIG_MAP: &[Field] = &[Field("data", CONFIG_MAP_DATA)];

/// The parts of a kind that are kept; `None`: all.
fn kept(kind: Kind) -> Option<&'static [Field]> {
    match kind {
        Kind::Service => Some(SERVICE),
        Kind::EndpointSlice => Some(SLICE),
        Kind::Pod => Some(POD),
        Kind::Namespace => Some(&[]),
        Kind::Node => Some(NODE),
        Kind::Secret => Some(SECRET),
        Kind::ConfigMap => Some(CONFIG_MAP),
        _ => None,
    }
}

/// The object without what nobody reads, in the form of a document.
pub(crate) fn trimmed(kind: Kind, version: &str, metadata: Value, data: Value) -> Value {
    let info = kind.info();
    let mut document = Map::new();
    let api_version = if info.group.is_empty() { version.to_owned() } else { format!("{}/{version}", info.group) };
    document.insert("apiVersion".to_owned(), api_version.into());
    document.insert("kind".to_owned(), info.name.into());
    document.insert("metadata".to_owned(), meta(kind, metadata));
    let mut data = match (kept(kind), data) {
        (Some(fields), Value::Object(data)) => pick_map(data, fields),
        (None, Value::Object(data)) => data,
        _ => Map::new(),
    };
    if info.shape == Shape::Spec {
        data.remove("status");
    }
    if kind == Kind::Pod {
        keep_readiness(&mut data);
    }
    document.append(&mut data);
    document.into()
}

fn meta(kind: Kind, metadata: Value) -> Value {
    let Value::Object(metadata) = metadata else { return metadata };
    let mut meta = pick_map(metadata, META);
    if let Some(Value::Object(annotations)) = meta.get_mut("annotations") {
        // Of pods there are many, and nearly all of their annotations are for others.
        let wanted = |key: &str| match kind {
            Kind::Pod => key.contains("istio.io/") && key != "sidecar.istio.io/status",
            _ => key != "kubectl.kubernetes.io/last-applied-configuration",
        };
        annotations.retain(|key, _| wanted(key));
    }
    meta.into()
}

/// The other conditions of a pod change often and say nothing of its endpoints.
fn keep_readiness(pod: &mut Map<String, Value>) {
    let conditions = pod.get_mut("status").and_then(|status| status.get_mut("conditions"));
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"));
    }
}

fn pick_map(mut from: Map<String, Value>, fields: &[Field]) -> Map<String, Value> {
    let found =
        fields.iter().filter_map(|Field(name, inner)| Some(((*name).to_owned(), pick(from.remove(*name)?, inner))));
    found.collect()
}

fn pick(value: Value, fields: &[Field]) -> Value {
    match value {
        value if fields.is_empty() => value,
        Value::Object(map) => pick_map(map, fields).into(),
        Value::Array(items) => items.into_iter().map(|item| pick(item, fields)).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
