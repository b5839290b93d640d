use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meltemi_model::{Node, NodeDescription, ServiceKey};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_telemetry::Registry;
use meltemi_xds::Variant;
use meltemi_xds::client::{Outcome, Request, Session};
use meltemi_xds::types::{self, LISTENER, ROUTE};

use super::*;

/// A world of resources by short type name and name; counts what it is asked for.
#[derive(Default)]
struct Fake {
    world: Mutex<BTreeMap<(&'static str, String), u32>>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    fn set(&self, kind: &'static str, name: &str, version: u32) {
        self.world.lock().insert((kind, name.to_owned()), version);
    }

    fn remove(&self, kind: &'static str, name: &str) {
        self.world.lock().remove(&(kind, name.to_owned()));
    }

    fn take_asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock());
        asked.sort();
        asked
    }
}

impl Source for Fake {
    fn generate(&self, _: &Snapshot, node: &Node, type_url: &str, names: Option<&[Arc<str>]>) -> Vec<Resource> {
        let kind = types::short_name(type_url);
        if node.on_demand() && names.is_none() {
            // Of a proxy that asks for each by itself, everything is what it has unasked.
            return self.generate(&Snapshot::default(), node, type_url, Some(&["own".into()]));
        }
        self.asked.lock().push(format!(
            "{} {kind} {}",
            node.name,
            names.map_or("*".to_owned(), |names| names.join(","))
        ));
        let world = self.world.lock();
        let wanted = |name: &str| names.is_none_or(|names| names.iter().any(|wanted| **wanted == *name));
        let found = world.iter().filter(|((found, name), _)| *found == kind && wanted(name));
        let resources = found.map(|((_, name), version)| Resource {
            name: name.as_str().into(),
            version: version.to_string().into(),
            body: Arc::new(Any {
                type_url: type_url.to_owned(),
                ..Any::pack(&Cluster { name: name.clone(), ..Default::default() })
            }),
        });
        resources.collect()
    }

    fn reach(&self, _: &Snapshot, change: &Change) -> Reach {
        if change.is_endpoints_only() {
            let hosts = change.endpoints.iter().map(|key| key.hostname.clone()).collect();
            return Reach::Some { hosts, addresses: change.addresses.clone() };
        }
        Reach::Everyone
    }

    fn affected(&self, _: &Snapshot, change: &Change, _: &Node, type_url: &str) -> Affected {
        match type_url {
            _ if change.full => Affected::Everything,
            ENDPOINT | CLUSTER => Affected::Hosts(change.endpoints.iter().map(|key| key.hostname.clone()).collect()),
            _ => Affected::Nothing,
        }
    }

    fn names_of(&self, _: &Snapshot, _: &Node, _: &str, hosts: &BTreeSet<Arc<str>>) -> Option<BTreeSet<Arc<str>>> {
        Some(hosts.iter().map(|host| format!("outbound|80||{host}").into()).collect())
    }
}

struct World {
    fake: Arc<Fake>,
    pusher: Pusher,
    registry: Registry,
}

fn world() -> World {
    let (fake, registry) = (Arc::new(Fake::default()), Registry::new());
    let options = PusherOptions { identifier: "test".into(), stats: Stats::new(&registry) };
    World { pusher: Pusher::new(fake.clone(), Arc::new(Snapshot::default()), options), fake, registry }
}

impl World {
    fn change(&self, change: Change) {
        self.pusher.push(self.pusher.snapshot(), change, Instant::now());
    }

    /// A change that reaches all, such as of a service, though only of one host.
    fn endpoints_change_for_everyone(&self, host: &str) {
        let key = ServiceKey::new("default", host);
        self.change(Change { endpoints: [key.clone()].into(), services: [key].into(), ..Change::default() });
    }

    fn endpoints_change(&self, host: &str) {
        self.change(Change { endpoints: [ServiceKey::new("default", host)].into(), ..Change::default() });
    }
}

/// A proxy over channels.
struct Proxy {
    session: Session,
    requests: mpsc::Sender<Result<Incoming, ()>>,
    responses: mpsc::Receiver<Response>,
    /// Types that the proxy refuses.
    refuses: Option<&'static str>,
}

impl Proxy {
    fn connect(world: &World, name: &str, variant: Variant) -> Self {
        Self::connect_as(world, name, variant, "")
    }

    /// One that asks for clusters when traffic first needs them.
    fn connect_on_demand(world: &World, name: &str) -> Self {
        let metadata = [("ON_DEMAND".to_owned(), true.into())].into_iter().collect();
        let description = NodeDescription { metadata, ..Self::description(name) };
        Self::connect_node(world, Node::new(description).unwrap(), Variant::Delta)
    }

    fn connect_as(world: &World, name: &str, variant: Variant, user_agent: &str) -> Self {
        let description = NodeDescription { user_agent: user_agent.to_owned(), ..Self::description(name) };
        Self::connect_node(world, Node::new(description).unwrap(), variant)
    }

    fn description(name: &str) -> NodeDescription {
        let id = format!("sidecar~10.0.0.1~{name}.default~default.svc.cluster.local");
        NodeDescription { id, ..Default::default() }
    }

    fn connect_node(world: &World, node: Node, variant: Variant) -> Self {
        let (requests, mut incoming) = mpsc::channel(64);
        let (sender, responses) = mpsc::channel(64);
        let peer = Peer { node: Arc::new(node), variant, address: String::new(), identity: None };
        let pusher = world.pusher.clone();
        tokio::spawn(async move {
            let stream = futures_util::stream::poll_fn(move |context| incoming.poll_recv(context));
            pusher.serve(peer, stream, sender).await.unwrap();
        });
        let mut session = Session::new(variant, Default::default());
        session.connected();
        Self { session, requests, responses, refuses: None }
    }

    fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        self.session.subscribe(type_url, names.iter().map(|name| Arc::from(*name)));
    }

    async fn send(&mut self) {
        while let Some(request) = self.session.next_request() {
            let request = match request {
                Request::Delta(request) => Incoming::Delta(request),
                Request::StateOfTheWorld(request) => Incoming::StateOfTheWorld(request),
            };
            self.requests.send(Ok(request)).await.unwrap();
        }
    }

    /// The next response as `cds a b -c`, not answered.
    async fn read(&mut self) -> Option<(String, String, String)> {
        self.send().await;
        let response = tokio::time::timeout(Duration::from_secs(1), self.responses.recv()).await.ok()??;
        let batch = match response.variant {
            Variant::Delta => self.session.on_delta(response.to_delta()).unwrap(),
            Variant::StateOfTheWorld => self.session.on_sotw(response.to_state_of_the_world()).unwrap(),
        };
        let mut words = vec![types::short_name(&batch.type_url).to_owned()];
        words.extend(batch.resources.iter().map(|resource| resource.name.to_string()));
        words.extend(batch.removed.iter().map(|name| format!("-{name}")));
        Some((words.join(" "), batch.type_url.to_string(), batch.nonce))
    }

    /// Reads and answers until it is quiet.
    async fn settle(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some((words, type_url, nonce)) = self.read().await {
            let refused = self.refuses.is_some_and(|refused| refused == type_url);
            let outcome = if refused { Outcome::Rejected("no".to_owned()) } else { Outcome::Accepted };
            self.session.settle(&type_url, &nonce, &outcome);
            said.push(words);
        }
        said
    }
}

const A: &str = "outbound|80||a.default.svc.cluster.local";
const B: &str = "outbound|80||b.default.svc.cluster.local";
const HOST_A: &str = "a.default.svc.cluster.local";

#[tokio::test(start_paused = true)]
async fn endpoint_change_costs_one_assignment_for_each_proxy_that_watches_it() {
    let world = world();
    world.fake.set("eds", A, 1);
    world.fake.set("eds", B, 1);
    let mut proxies = Vec::new();
    for (name, watches) in [("one", &[A, B][..]), ("two", &[A]), ("three", &[B])] {
        let mut proxy = Proxy::connect(&world, name, Variant::Delta);
        proxy.subscribe(types::CLUSTER, &["*"]);
        proxy.subscribe(ENDPOINT, watches);
        assert_eq!(proxy.settle().await.len(), 2, "{name}");
        proxies.push(proxy);
    }
    world.fake.take_asked();
    world.fake.set("eds", A, 2);
    world.endpoints_change(HOST_A);
    let said = [proxies[0].settle().await, proxies[1].settle().await, proxies[2].settle().await];
    assert_eq!(said, [vec![format!("eds {A}")], vec![format!("eds {A}")], vec![]]);
    let asked = ["one", "two"].map(|proxy| ["cds", "eds"].map(|kind| format!("{proxy}.default {kind} {A}")));
    assert_eq!(world.fake.take_asked(), asked.concat());
    // Nobody watches this one.
    world.endpoints_change("c.default.svc.cluster.local");
    assert_eq!(proxies[0].settle().await, [""; 0]);
    assert_eq!(world.fake.take_asked(), [""; 0]);
    // Unsubscribed: no longer visited.
    proxies[0].session.unsubscribe(ENDPOINT, [Arc::from(A)]);
    proxies[0].settle().await;
    world.endpoints_change(HOST_A);
    proxies[1].settle().await;
    assert_eq!(world.fake.take_asked(), ["cds", "eds"].map(|kind| format!("two.default {kind} {A}")));
    drop(proxies);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.pusher.0.index.lock().is_empty() && world.pusher.clients().is_empty());
    assert_eq!(world.pusher.stats().connected(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_to_first_requests_are_timed_as_pushes_are() {
    let world = world();
    world.fake.set("cds", A, 1);
    let mut proxy = Proxy::connect(&world, "one", Variant::Delta);
    proxy.subscribe(types::CLUSTER, &["*"]);
    proxy.settle().await;
    assert_eq!(world.registry.total("pilot_xds_push_time", &[("type", "cds")]), 1);
    assert_eq!(world.registry.total("pilot_xds_send_time", &[]), 1);
    world.fake.set("cds", A, 2);
    world.change(Change { full: true, ..Change::default() });
    proxy.settle().await;
    assert_eq!(world.registry.total("pilot_xds_push_time", &[("type", "cds")]), 2);
}

#[tokio::test(start_paused = true)]
async fn clusters_of_one_host_come_and_go_without_looking_at_others() {
    let world = world();
    world.fake.set("cds", A, 1);
    world.fake.set("cds", B, 1);
    let mut proxy = Proxy::connect(&world, "one", Variant::Delta);
    proxy.subscribe(CLUSTER, &["*"]);
    proxy.settle().await;
    world.fake.take_asked();
    for (version, expected) in
        [(Some(2), format!("cds {A}")), (None, format!("cds -{A}")), (Some(3), format!("cds {A}"))]
    {
        match version {
            Some(version) => world.fake.set("cds", A, version),
            None => world.fake.remove("cds", A),
        }
        world.endpoints_change_for_everyone(HOST_A);
        assert_eq!(proxy.settle().await, [expected]);
        let asked = world.fake.take_asked();
        assert!(!asked.iter().any(|asked| asked.contains('*')) || version.is_none(), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unchanged_resources_are_not_sent() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let world = world();
        world.fake.set("cds", A, 1);
        world.fake.set("eds", A, 1);
        let mut proxy = Proxy::connect(&world, "one", variant);
        proxy.subscribe(CLUSTER, &["*"]);
        proxy.subscribe(ENDPOINT, &[A]);
        assert_eq!(proxy.settle().await, [format!("cds {A}"), format!("eds {A}")]);
        world.change(Change::everything());
        assert_eq!(proxy.settle().await, [""; 0]);
        assert_eq!(world.pusher.stats().pushes("cds"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_merge_while_a_push_is_unanswered() {
    let world = world();
    world.fake.set("eds", A, 1);
    world.fake.set("eds", B, 1);
    let mut proxy = Proxy::connect(&world, "one", Variant::Delta);
    proxy.subscribe(ENDPOINT, &[A, B]);
    proxy.settle().await;
    world.fake.set("eds", A, 2);
    world.endpoints_change(HOST_A);
    let (words, type_url, nonce) = proxy.read().await.unwrap();
    assert_eq!(words, format!("eds {A}"));
    for version in 3..10 {
        world.fake.set("eds", A, version);
        world.fake.set("eds", B, version);
        world.endpoints_change(HOST_A);
        world.endpoints_change("b.default.svc.cluster.local");
    }
    assert_eq!(proxy.read().await, None, "nothing is sent before the answer");
    assert!(world.pusher.clients()[0].types[ENDPOINT].outstanding);
    proxy.session.settle(&type_url, &nonce, &Outcome::Accepted);
    assert_eq!(proxy.settle().await, [format!("eds {A} {B}")]);
}

#[tokio::test(start_paused = true)]
async fn clusters_come_before_and_go_after_the_routes_that_name_them() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let world = world();
        world.fake.set("cds", "old", 1);
        world.fake.set("lds", "l", 1);
        world.fake.set("rds", "r", 1);
        let mut proxy = Proxy::connect(&world, "one", variant);
        proxy.subscribe(CLUSTER, &["*"]);
        proxy.subscribe(LISTENER, &["*"]);
        proxy.subscribe(ROUTE, &["r"]);
        assert_eq!(proxy.settle().await, ["cds old", "lds l", "rds r"]);
        world.fake.remove("cds", "old");
        world.fake.set("cds", "new", 1);
        world.fake.set("rds", "r", 2);
        world.change(Change::everything());
        let expected: &[&str] = match variant {
            Variant::Delta => &["cds new", "rds r", "cds -old"],
            // The old cluster's body would come from the last snapshot, which the fake does not look at.
            Variant::StateOfTheWorld => &["cds new -old", "rds r"],
        };
        assert_eq!(proxy.settle().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_stay_while_the_routes_without_them_are_refused() {
    let world = world();
    world.fake.set("cds", "old", 1);
    world.fake.set("rds", "r", 1);
    let mut proxy = Proxy::connect(&world, "one", Variant::Delta);
    proxy.subscribe(CLUSTER, &["*"]);
    proxy.subscribe(ROUTE, &["r"]);
    proxy.settle().await;
    proxy.refuses = Some(ROUTE);
    world.fake.remove("cds", "old");
    world.fake.set("rds", "r", 2);
    world.change(Change::everything());
    assert_eq!(proxy.settle().await, ["rds r"]);
    let status = &world.pusher.clients()[0].types[ROUTE];
    assert_eq!(status.rejection.as_deref(), Some("no"));
    assert_eq!(world.pusher.stats().rejects(), 1);
    proxy.refuses = None;
    world.fake.set("rds", "r", 3);
    world.change(Change::everything());
    assert_eq!(proxy.settle().await, ["rds r", "cds -old"]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_a_changed_cluster() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let world = world();
        for name in [A, B] {
            world.fake.set("cds", name, 1);
            world.fake.set("eds", name, 1);
        }
        let mut proxy = Proxy::connect(&world, "one", variant);
        proxy.subscribe(CLUSTER, &["*"]);
        proxy.subscribe(ENDPOINT, &[A, B]);
        proxy.settle().await;
        world.fake.set("cds", A, 2);
        world.change(Change::everything());
        let said = proxy.settle().await;
        assert_eq!(said[1], format!("eds {A}"), "{variant:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_reader_holds_up_nobody_else() {
    let world = world();
    world.fake.set("eds", A, 1);
    let mut slow = Proxy::connect(&world, "slow", Variant::Delta);
    slow.subscribe(ENDPOINT, &[A]);
    slow.send().await;
    let mut quick = Proxy::connect(&world, "quick", Variant::Delta);
    quick.subscribe(ENDPOINT, &[A]);
    quick.settle().await;
    for version in 2..50 {
        world.fake.set("eds", A, version);
        world.endpoints_change(HOST_A);
        assert_eq!(quick.settle().await, [format!("eds {A}")]);
    }
    assert_eq!(slow.settle().await.len(), 2, "the first, and all later ones in one");
}

#[tokio::test(start_paused = true)]
async fn resumed_proxy_gets_endpoints_of_clusters_that_changed_meanwhile() {
    let world = world();
    for name in [A, B] {
        world.fake.set("cds", name, 1);
        world.fake.set("eds", name, 1);
    }
    let mut first = Proxy::connect(&world, "one", Variant::Delta);
    first.subscribe(CLUSTER, &["*"]);
    first.subscribe(ENDPOINT, &[A, B]);
    first.settle().await;
    let mut second = Proxy::connect(&world, "one", Variant::Delta);
    std::mem::swap(&mut first.session, &mut second.session);
    drop(first);
    world.fake.set("cds", A, 2);
    second.session.connected();
    assert_eq!(second.settle().await, [format!("cds {A}"), format!("eds {A}")]);
}

#[tokio::test(start_paused = true)]
async fn resumed_envoy_gets_all_endpoints_since_it_may_be_warming() {
    for (user_agent, expected) in [("envoy", vec![format!("eds {A}")]), ("meltemi", vec![])] {
        let world = world();
        world.fake.set("cds", A, 1);
        world.fake.set("eds", A, 1);
        let mut first = Proxy::connect_as(&world, "one", Variant::Delta, user_agent);
        first.subscribe(CLUSTER, &["*"]);
        first.subscribe(ENDPOINT, &[A]);
        first.settle().await;
        let mut second = Proxy::connect_as(&world, "one", Variant::Delta, user_agent);
        std::mem::swap(&mut first.session, &mut second.session);
        second.session.connected();
        assert_eq!(second.settle().await, expected, "{user_agent}");
    }
}

#[tokio::test(start_paused = true)]
async fn resumed_proxy_keeps_gone_clusters_until_its_routes_do_without_them() {
    let world = world();
    world.fake.set("cds", "old", 1);
    world.fake.set("rds", "r", 1);
    let mut first = Proxy::connect(&world, "one", Variant::Delta);
    first.subscribe(CLUSTER, &["*"]);
    first.subscribe(ROUTE, &["r"]);
    first.settle().await;
    let mut second = Proxy::connect(&world, "one", Variant::Delta);
    std::mem::swap(&mut first.session, &mut second.session);
    drop(first);
    world.fake.remove("cds", "old");
    world.fake.set("cds", "new", 1);
    world.fake.set("rds", "r", 2);
    second.session.connected();
    assert_eq!(second.settle().await, ["cds new", "rds r", "cds -old"]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_asks_for_clusters_gets_no_others() {
    let world = world();
    for name in [A, B, "own"] {
        world.fake.set("cds", name, 1);
    }
    let mut proxy = Proxy::connect_on_demand(&world, "x");
    proxy.subscribe(CLUSTER, &["*"]);
    assert_eq!(proxy.settle().await, ["cds own"]);
    proxy.subscribe(CLUSTER, &[A, "nobody"]);
    assert_eq!(proxy.settle().await, [format!("cds {A} -nobody")]);

    // Of changes it is told where it asked.
    world.fake.set("cds", A, 2);
    world.fake.set("cds", B, 2);
    world.endpoints_change_for_everyone(HOST_A);
    world.endpoints_change_for_everyone("b.default.svc.cluster.local");
    assert_eq!(proxy.settle().await, [format!("cds {A}")]);
    world.fake.set("cds", "own", 2);
    world.change(Change { full: true, ..Change::default() });
    assert_eq!(proxy.settle().await, ["cds own"]);

    // What it gives up is gone, although it asked for everything too.
    proxy.session.unsubscribe(CLUSTER, [Arc::from(A)]);
    assert_eq!(proxy.settle().await, [format!("cds -{A}")]);
    world.fake.set("cds", A, 3);
    world.endpoints_change_for_everyone(HOST_A);
    assert!(proxy.settle().await.is_empty());
}
