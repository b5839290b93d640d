//! Workloads that register themselves, and what becomes of their entries.

use meltemi_proto::json::struct_from_value;
use meltemi_tls::Identity;
use meltemi_xds::WILDCARD;
use meltemi_xds::types::CLUSTER;
use serde_json::json;

use crate::client::{Proxy, block_on, certificate, node, secure};
use crate::documents::ours;
use crate::kubernetes::{Kubernetes, until};
use crate::leadership::led_by;
use crate::process::Discovery;
use crate::trust::roots;

const GROUP: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: machines, namespace: vms}\n\
    spec: {metadata: {labels: {app: machine}}, template: {serviceAccount: machine}}\n";
const ENTRIES: &str = "workloadentries.networking.istio.io";
/// Of the machine that registers itself.
const ENTRY: &str = "machines-127.0.9.9";
const GRACE: [&str; 2] = ["--workloadEntryGracePeriod", "1s"];

/// A namespace with a group of machines, and an account for them.
fn prepare(cluster: &Kubernetes) {
    cluster.namespace("vms");
    let _ = cluster.try_ctl(&["create", "serviceaccount", "machine", "-n", "vms"], "");
    cluster.apply(&ours("workloadgroups.networking.istio.io"));
    cluster.apply(&ours(ENTRIES));
    until("the definitions", || cluster.try_ctl(&["apply", "-f", "-"], GROUP).status.success().then_some(()));
}

/// A machine of the group, connected and registered.
async fn machine(cluster: &Kubernetes, discovery: &Discovery) -> Proxy {
    let roots = roots(cluster, "vms");
    let token = cluster.token("vms", "machine", "istio-ca");
    let (identity, _): (Identity, String) =
        certificate(discovery.secure, &roots, ("vms", "machine"), &token).await.expect("a certificate");
    let target = secure(discovery.secure, &roots, identity).await;
    let mut node = node("sidecar", "vms", "machine");
    let group = struct_from_value(&json!({ "AUTO_REGISTER_GROUP": "machines" }));
    node.metadata.get_or_insert_default().fields.extend(group.into_iter().flat_map(|group| group.fields));
    let mut proxy = Proxy::connect(target, node);
    proxy.subscribe(CLUSTER, &[WILDCARD]);
    proxy.until("anything", |proxy| proxy.has(CLUSTER, "PassthroughCluster")).await;
    until("the entry", || cluster.get(ENTRIES, "vms", ENTRY));
    proxy
}

fn is_gone(cluster: &Kubernetes, name: &str) -> Option<()> {
    cluster.get(ENTRIES, "vms", name).is_none().then_some(())
}

pub fn registered(cluster: &Kubernetes) {
    prepare(cluster);
    let discovery = Discovery::start(cluster, &GRACE);
    block_on(async {
        let machine = machine(cluster, &discovery).await;
        let entry = cluster.get(ENTRIES, "vms", ENTRY).expect("the entry");
        assert_eq!(entry["spec"]["address"], "127.0.9.9");
        assert_eq!(entry["metadata"]["labels"]["app"], "machine");
        let writer = entry["metadata"]["annotations"]["istio.io/workloadController"].as_str().expect("who wrote it");
        assert!(writer.starts_with("istiod_"), "{writer}");
        // Taken away by somebody else while the machine is there.
        cluster.ctl(&["delete", ENTRIES, ENTRY, "-n", "vms"]);
        until("the entry again", || cluster.get(ENTRIES, "vms", ENTRY));
        drop(machine);
    });
    until("its end", || is_gone(cluster, ENTRY));
}

pub fn orphaned(cluster: &Kubernetes) {
    prepare(cluster);
    let survivor = Discovery::start(cluster, &[&GRACE[..], &["--podName", "istiod-survivor"]].concat());
    led_by(cluster, "istiod-survivor_");
    let dying = Discovery::start(cluster, &[&GRACE[..], &["--podName", "istiod-dying"]].concat());
    block_on(async {
        let first = machine(cluster, &dying).await;
        dying.kill();
        drop(first);
        until("the entry of the replica that died", || is_gone(cluster, ENTRY));
        // One that lives keeps its own.
        let _second = machine(cluster, &survivor).await;
        // What istiod noted down, and what a user wrote.
        let entry = |name: &str, annotations: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: {name}\n  namespace: vms\n  \
                 annotations: {{{annotations}}}\nspec: {{address: 127.0.9.8}}\n"
            )
        };
        let left = "istio.io/autoRegistrationGroup: machines, istio.io/workloadController: istiod-old, \
             istio.io/disconnectedAt: \"2026-01-01T00:00:00Z\"";
        cluster.apply(&entry("own", "note: \"2026-01-01T00:00:00Z\""));
        cluster.apply(&entry("left", left));
        until("the entry that istiod left", || is_gone(cluster, "left"));
        for name in ["own", ENTRY] {
            assert!(cluster.get(ENTRIES, "vms", name).is_some(), "{name} stays");
        }
    });
}
