//! One translation, for `bench/instructions.py`: `meltemi-translation first|equal|endpoint` does it several times inside
//! [`measured`] and prints how often.
//!
//! The mesh has 100 services of two endpoints, every tenth with subsets and a rule that splits between them.

use std::fmt::Write as _;
use std::sync::Arc;

use meltemi_model::{Node, NodeDescription, Options, ServiceKey, Snapshot};
use meltemi_registry::Registry;
use meltemi_translate::{Cache, generate, type_urls};
use serde_json::json;

const SERVICES: usize = 100;

fn documents() -> String {
    let mut text = String::new();
    for i in 0..SERVICES {
        let ns = i / 10;
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{i}, namespace: ns-{ns}}}\n\
             spec: {{clusterIP: 10.96.0.{i}, ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: grpc, port: 9000}}, {{name: tcp, port: 7000}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: svc-{i}-1, namespace: ns-{ns}, labels: {{kubernetes.io/service-name: svc-{i}}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080}}, {{name: grpc, port: 9000}}, {{name: tcp, port: 7000}}]\n\
             endpoints: [{{addresses: [172.16.0.{i}], conditions: {{ready: true}}}}, {{addresses: [172.17.0.{i}], conditions: {{ready: true}}}}]\n"
        );
        if i % 10 == 0 {
            let _ = write!(
                text,
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: svc-{i}, namespace: ns-{ns}}}\n\
                 spec: {{host: svc-{i}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n\
                 ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: svc-{i}, namespace: ns-{ns}}}\n\
                 spec: {{hosts: [svc-{i}], http: [{{match: [{{uri: {{prefix: /v2}}}}], route: [{{destination: {{host: svc-{i}, subset: v2}}}}]}}, \
                 {{route: [{{destination: {{host: svc-{i}, subset: v1}}, weight: 90}}, {{destination: {{host: svc-{i}, subset: v2}}, weight: 10}}]}}]}}\n"
            );
        }
    }
    text
}

fn mesh(text: &str) -> Snapshot {
    let objects = meltemi_config::objects("mesh.yaml", text).expect("the documents are right");
    let mut registry = Registry::default();
    let update = registry.load(&objects);
    Snapshot::build(Options::default(), &update)
}

fn sidecar(number: usize) -> Node {
    let metadata =
        json!({"NAMESPACE": "ns-0", "DIALECT": "istio-proxy", "LABELS": {"app": "client"}, "WORKLOAD_NAME": "client"});
    let id = format!("sidecar~10.0.0.{number}~client-{number}.ns-0~ns-0.svc.cluster.local");
    let metadata = metadata.as_object().cloned().expect("an object");
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).expect("a node id")
}

/// Everything that a sidecar subscribes to; gives the bytes, so that nothing is left out by the compiler.
fn everything(snapshot: &Snapshot, node: &Node, cache: &Cache) -> usize {
    let bytes = |resource: &meltemi_translate::Resource| resource.body.value.len();
    let clusters = generate(snapshot, node, type_urls::CLUSTER, None, cache);
    let outbound = clusters.iter().map(|cluster| cluster.name.clone()).filter(|name| name.starts_with("outbound|"));
    let endpoints = generate(snapshot, node, type_urls::ENDPOINT, Some(&outbound.collect::<Vec<_>>()), cache);
    let listeners = generate(snapshot, node, type_urls::LISTENER, None, cache);
    let routes = generate(snapshot, node, type_urls::ROUTE, Some(&["80".into(), "9000".into()]), cache);
    assert!(clusters.len() > 3 * SERVICES && endpoints.len() >= 3 * SERVICES && routes.len() == 2);
    [clusters, endpoints, listeners, routes].iter().flatten().map(bytes).sum()
}

fn endpoint(snapshot: &Snapshot, node: &Node, cache: &Cache) -> usize {
    let name: Arc<str> = "outbound|80||svc-0.ns-0.svc.cluster.local".into();
    let found = generate(snapshot, node, type_urls::ENDPOINT, Some(&[name]), cache);
    found.iter().map(|resource| resource.body.value.len()).sum()
}

/// What valgrind counts.
#[inline(never)]
fn measured(work: &mut dyn FnMut() -> usize) -> usize {
    work()
}

/// Several meshes, since one remembers what was asked of it; gives how often it measured.
fn first_or_equal(text: &str, equal: bool) -> usize {
    const ROUNDS: usize = 5;
    for _ in 0..ROUNDS {
        let (snapshot, cache) = (mesh(text), Cache::default());
        if equal {
            everything(&snapshot, &sidecar(1), &cache);
        }
        assert!(measured(&mut || everything(&snapshot, &sidecar(if equal { 2 } else { 1 }), &cache)) > 0);
    }
    ROUNDS
}

/// One mesh whose endpoint moves again and again. The first moves are not counted: the allocator sorts what building the mesh
/// left behind, at one move or another.
fn endpoint_moves(text: &str) -> usize {
    const MOVES: usize = 50;
    const WARMUP: usize = 10;
    let key = ServiceKey::new("ns-0", "svc-0.ns-0.svc.cluster.local");
    let shards: Vec<_> = (0..MOVES + WARMUP)
        .map(|i| mesh(&text.replace("172.16.0.0]", &format!("172.18.0.{i}]"))).endpoints.get(&key).cloned())
        .collect();
    let (mut snapshot, cache) = (mesh(text), Cache::default());
    everything(&snapshot, &sidecar(1), &cache);
    for (i, shard) in shards.into_iter().enumerate() {
        let update = meltemi_model::Update { endpoints: [(key.clone(), shard)].into(), ..Default::default() };
        let mut next = || {
            snapshot = snapshot.next(&update).0;
            endpoint(&snapshot, &sidecar(1), &cache)
        };
        assert!(if i < WARMUP { next() } else { measured(&mut next) } > 0);
    }
    MOVES
}

fn main() {
    let text = documents();
    let what = std::env::args().nth(1).unwrap_or_default();
    let times = match &*what {
        "first" => first_or_equal(&text, false),
        "equal" => first_or_equal(&text, true),
        "endpoint" => endpoint_moves(&text),
        _ => {
            eprintln!("usage: meltemi-translation first|equal|endpoint");
            std::process::exit(2);
        }
    };
    println!("{times}");
}
