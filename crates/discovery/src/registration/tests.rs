use meltemi_config::Spec;
use meltemi_config::networking::WorkloadEntry;
use meltemi_model::NodeDescription;
use meltemi_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use meltemi_proto::google::rpc::Status as RpcStatus;
use meltemi_store::{ConfigStore as _, MemoryStore};
use serde_json::{Value, json};
use tonic::Code;

use super::*;

const GRACE: Duration = Duration::from_secs(10);
const GROUP: &str = "
metadata: {labels: {class: vm, version: v1}, annotations: {note: seen}}
template:
  ports: {http: 8080}
  labels: {app: shop, class: template}
  serviceAccount: shop
  weight: 3
";

fn group(spec: &str) -> Object {
    let document = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: vm, namespace: app}}\nspec:{}",
        spec.replace('\n', "\n  ")
    );
    meltemi_config::objects("group.yaml", &document).expect("a group").remove(0)
}

fn node(address: &str, metadata: Value) -> Arc<Node> {
    let Value::Object(metadata) = metadata else { panic!("an object") };
    let id = format!("sidecar~{address}~vm-1.app~app.svc.cluster.local");
    Arc::new(Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap())
}

fn identity(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local".parse().unwrap(), namespace, account).unwrap()
}

struct World {
    store: Arc<OverlayStore>,
    below: Arc<MemoryStore>,
    registrations: Arc<Registrations>,
}

impl World {
    fn new(most: usize) -> Self {
        let below = Arc::new(MemoryStore::new(ConfigSet::from_objects([group(GROUP)])));
        let store = Arc::new(OverlayStore::new(below.clone()));
        let stats = RegistrationStats::new(&Registry::new());
        let registrations = Arc::new(Registrations::new(store.clone(), GRACE, most, stats));
        Self { store, below, registrations }
    }

    fn connect(&self, node: &Arc<Node>, identity: Option<&SpiffeId>) -> Result<Registration, Status> {
        self.registrations.connect(&self.store.snapshot(), node, identity)
    }

    fn names(&self) -> Vec<String> {
        self.store.snapshot().list::<WorkloadEntry>().map(|(meta, _)| meta.name.to_string()).collect()
    }
}

fn health(message: Option<&str>, delta: bool) -> Incoming {
    let type_url = HEALTH_INFORMATION.to_owned();
    let error_detail = message.map(|text| RpcStatus { code: 500, message: text.to_owned(), details: Vec::new() });
    if delta {
        Incoming::Delta(DeltaDiscoveryRequest { type_url, error_detail, ..Default::default() })
    } else {
        Incoming::StateOfTheWorld(DiscoveryRequest { type_url, error_detail, ..Default::default() })
    }
}

#[test]
fn an_entry_is_the_groups_template_with_what_the_node_says() {
    let metadata = json!({ "LABELS": { "version": "v2", "istio-locality": "r.z" }, "NETWORK": "east",
        "PROXY_CONFIG": { "readinessProbe": { "tcpSocket": { "port": 8080 } } } });
    let node = node("10.0.0.7", metadata);
    let entry = entry::of_group(&entry::key(&node, "vm"), &node, &group(GROUP));
    assert_eq!((&*entry.meta.name, &*entry.meta.namespace), ("vm-10.0.0.7-east", "app"));
    let labels =
        |map: &BTreeMap<_, _>| map.iter().map(|(k, v): (&Arc<str>, &Arc<str>)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(labels(&entry.meta.labels), ["app=shop", "class=vm", "version=v2"]);
    assert_eq!(
        labels(&entry.meta.annotations),
        ["istio.io/autoRegistrationGroup=vm", "note=seen", "proxy.istio.io/health-checks-enabled=true"]
    );
    let Spec::WorkloadEntry(spec) = &entry.spec else { panic!("{entry:?}") };
    assert_eq!((&*spec.address, &*spec.network, &*spec.locality), ("10.0.0.7", "east", "r/z"));
    assert_eq!((spec.weight, &*spec.service_account, spec.ports.len()), (3, "shop", 1));
    assert_eq!(labels(&spec.labels), labels(&entry.meta.labels));
}

#[test]
fn names_are_istiods() {
    let long = "g".repeat(260);
    for (group, address, network, expected) in [
        ("vm", "10.0.0.7", "", "vm-10.0.0.7".to_owned()),
        ("vm", "fd00::7", "east", "vm-fd00--7-east".to_owned()),
        (&long, "10.0.0.7", "", format!("{}-10.0.0.7", "g".repeat(253 - 9))),
    ] {
        let key = entry::key(&node(address, json!({ "NETWORK": network })), group);
        assert_eq!(*key.name, *expected);
    }
}

#[test]
fn only_the_groups_own_identity_registers() {
    let world = World::new(10);
    let vm = |group: &str| node("10.0.0.7", json!({ "AUTO_REGISTER_GROUP": group, "NAMESPACE": "app" }));
    for (group, identity, expected) in [
        ("vm", Some(identity("app", "shop")), None),
        ("vm", Some(identity("app", "other")), Some(Code::PermissionDenied)),
        ("vm", Some(identity("else", "shop")), Some(Code::PermissionDenied)),
        ("vm", None, Some(Code::PermissionDenied)),
        ("nobody", Some(identity("app", "shop")), Some(Code::FailedPrecondition)),
        // Names no group: nothing to prove.
        ("", None, None),
    ] {
        let refused = world.connect(&vm(group), identity.as_ref()).err().map(|status| status.code());
        assert_eq!(refused, expected, "{group} {identity:?}");
    }
}

#[test]
fn an_entry_lives_as_long_as_a_stream_and_the_grace() {
    let world = World::new(10);
    let (vm, id) = (node("10.0.0.7", json!({ "AUTO_REGISTER_GROUP": "vm" })), identity("app", "shop"));
    let one = world.connect(&vm, Some(&id)).unwrap();
    let two = world.connect(&vm, Some(&id)).unwrap();
    let (now, long) = (Instant::now(), 100 * GRACE);
    drop(one);
    assert_eq!(world.registrations.expire(now + long), None, "another stream is there");
    drop(two);
    let deadline = world.registrations.expire(now + GRACE / 2).expect("somebody to wait for");
    assert!(deadline >= now + GRACE);
    assert_eq!(world.names(), ["vm-10.0.0.7"], "within the grace");
    let again = world.connect(&vm, Some(&id)).unwrap();
    assert_eq!(world.registrations.expire(now + long), None, "connected again");
    drop(again);
    assert_eq!(world.registrations.expire(now + long), None);
    assert!(world.names().is_empty());
}

#[test]
fn a_probed_workload_is_there_while_it_says_that_it_is_healthy() {
    let world = World::new(10);
    let probe = json!({ "readinessProbe": { "tcpSocket": { "port": 8080 } } });
    let vm = node("10.0.0.7", json!({ "AUTO_REGISTER_GROUP": "vm", "PROXY_CONFIG": probe }));
    let stream = world.connect(&vm, Some(&identity("app", "shop"))).unwrap();
    assert!(world.names().is_empty(), "not before its first report");
    for (message, delta, there) in
        [(None, false, true), (Some("refused"), true, false), (Some("refused"), false, false), (None, true, true)]
    {
        assert!(stream.intercept(health(message, delta)).is_none(), "a report is no subscription");
        assert_eq!(!world.names().is_empty(), there, "{message:?}");
    }
    let other = DiscoveryRequest { type_url: meltemi_xds::types::CLUSTER.to_owned(), ..Default::default() };
    assert!(stream.intercept(Incoming::StateOfTheWorld(other)).is_some());
}

#[test]
fn entries_go_with_their_group_and_come_again_with_it() {
    let world = World::new(10);
    let vm = node("10.0.0.7", json!({ "AUTO_REGISTER_GROUP": "vm" }));
    let _stream = world.connect(&vm, Some(&identity("app", "shop"))).unwrap();
    let before = world.below.snapshot();
    world.below.remove([&group(GROUP).key()]);
    let after = world.below.snapshot();
    world.registrations.follow(&after, &before.diff(&after));
    assert!(world.names().is_empty());
    let changed = ConfigSet::from_objects([group(&GROUP.replace("weight: 3", "weight: 5"))]);
    world.registrations.follow(&changed, &after.diff(&changed));
    let weights: Vec<u32> = world.store.snapshot().list::<WorkloadEntry>().map(|(_, spec)| spec.weight).collect();
    assert_eq!(weights, [5]);
}

#[test]
fn an_entry_that_somebody_takes_away_is_there_again_while_its_workload_is() {
    let world = World::new(10);
    let vm = node("10.0.0.7", json!({ "AUTO_REGISTER_GROUP": "vm" }));
    let stream = world.connect(&vm, Some(&identity("app", "shop"))).unwrap();
    let lose = || {
        let before = world.store.snapshot();
        before.list::<WorkloadEntry>().for_each(|(meta, _)| {
            world.store.remove(&Key::new(Kind::WorkloadEntry, &meta.namespace, &meta.name));
        });
        let after = world.store.snapshot();
        assert!(world.names().is_empty());
        world.registrations.follow(&after, &before.diff(&after));
    };
    lose();
    assert_eq!(world.names(), ["vm-10.0.0.7"]);
    drop(stream);
    world.registrations.expire(Instant::now() + 100 * GRACE);
    assert!(world.names().is_empty());
    lose();
    assert!(world.names().is_empty(), "nobody is there");
}

#[test]
fn registrations_are_bounded() {
    let world = World::new(1);
    let vm = |address: &str| node(address, json!({ "AUTO_REGISTER_GROUP": "vm" }));
    let id = identity("app", "shop");
    let _one = world.connect(&vm("10.0.0.7"), Some(&id)).unwrap();
    let refused = world.connect(&vm("10.0.0.8"), Some(&id)).err().map(|status| status.code());
    assert_eq!(refused, Some(Code::ResourceExhausted));
}
