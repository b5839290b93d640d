//! A mesh from documents, for tests of the generators.

use crate::generator::Generator;
use crate::{Assignments, Clusters};
use meltemi_model::{Node, NodeDescription, Options, Snapshot};
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_registry::Registry;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub fn mesh(yaml: &str) -> Snapshot {
    with_mesh_config(yaml, "{}")
}

pub fn with_mesh_config(yaml: &str, mesh: &str) -> Snapshot {
    let settings =
        meltemi_config::parse_mesh_config("mesh.yaml", mesh).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut registry = Registry::default();
    let defaults = registry.set_mesh(&meltemi_model::Shared::new(settings.value));
    let objects = meltemi_config::objects("test.yaml", yaml).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut update = registry.load(&objects);
    update.mesh = defaults.mesh;
    Snapshot::build(Options::default(), &update)
}

/// A node of `namespace` with more metadata: `kind` is `sidecar` or `router`.
pub fn node(kind: &str, ip: &str, namespace: &str, metadata: Value) -> Node {
    let Value::Object(mut own) = metadata else { panic!("metadata is an object") };
    own.entry("DIALECT").or_insert(json!("istio-proxy"));
    let id = format!("{kind}~{ip}~pod.{namespace}~{namespace}.svc.cluster.local");
    Node::new(NodeDescription { id, metadata: Map::from_iter(own), ..NodeDescription::default() }).unwrap()
}

pub fn sidecar(ip: &str, namespace: &str) -> Node {
    node("sidecar", ip, namespace, json!({}))
}

pub fn clusters(snapshot: &Snapshot, node: &Node) -> BTreeMap<String, Cluster> {
    let built = Clusters::all(snapshot, node).into_iter().map(|(name, input)| {
        let cluster = meltemi_proto::unpack_cluster(&Clusters::build(&input)).unwrap();
        assert_eq!(cluster.name, *name);
        // What gRPC gets is not for our proxy.
        if crate::Dialect::of(node) != crate::Dialect::Grpc {
            meltemi_plan::cluster(&cluster).unwrap_or_else(|error| panic!("our proxy refuses {name}: {error}"));
        }
        (name.to_string(), cluster)
    });
    built.collect()
}

pub fn assignment(snapshot: &Snapshot, node: &Node, name: &str) -> ClusterLoadAssignment {
    let input = Assignments::inputs(snapshot, node, name).unwrap();
    let assignment = meltemi_proto::unpack_load_assignment(&Assignments::build(&input)).unwrap();
    meltemi_plan::load_assignment(&assignment).unwrap_or_else(|error| panic!("our proxy refuses {name}: {error}"));
    assignment
}
