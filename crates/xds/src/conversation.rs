//! Client and server machines against each other, through any schedule of messages, changes and lost streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::core::v3::Node;
use proptest::prelude::*;

use crate::client::{Batch, Outcome, Request, Session as Client};
use crate::server::{Response, Scope, Session as Server, Want};
use crate::types::{CLUSTER, ENDPOINT};
use crate::{Resource, Variant};

#[derive(Debug, Clone)]
enum Step {
    Change { kind: usize, name: usize, version: Option<u32> },
    Subscribe { kind: usize, name: usize },
    Unsubscribe { kind: usize, name: usize },
    ClientSends,
    ServerReads,
    ServerPushes { kind: usize },
    ClientReads,
    ConsumerSettles,
    StreamIsLost,
}

const KINDS: [&str; 2] = [CLUSTER, ENDPOINT];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "*"];

fn step() -> impl Strategy<Value = Step> {
    let (kind, name) = (0..KINDS.len(), 0..NAMES.len());
    prop_oneof![
        4 => (kind.clone(), 0..NAMES.len() - 1, prop::option::weighted(0.75, 1..8u32))
            .prop_map(|(kind, name, version)| Step::Change { kind, name, version }),
        3 => (kind.clone(), name.clone()).prop_map(|(kind, name)| Step::Subscribe { kind, name }),
        2 => (kind.clone(), name).prop_map(|(kind, name)| Step::Unsubscribe { kind, name }),
        4 => Just(Step::ClientSends),
        4 => Just(Step::ServerReads),
        3 => kind.prop_map(|kind| Step::ServerPushes { kind }),
        4 => Just(Step::ClientReads),
        4 => Just(Step::ConsumerSettles),
        1 => Just(Step::StreamIsLost),
    ]
}

/// Versions that the consumer refuses.
fn is_bad(version: u32) -> bool {
    version.is_multiple_of(4)
}

struct World {
    variant: Variant,
    resources: [BTreeMap<&'static str, u32>; 2],
    client: Client,
    server: Server,
    streams: u64,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    handed: VecDeque<Batch>,
    /// What the consumer has applied.
    applied: [BTreeMap<String, u32>; 2],
}

impl World {
    fn new(variant: Variant) -> Self {
        Self {
            variant,
            resources: Default::default(),
            client: Client::new(variant, Node::default()),
            server: Server::new(variant, 0, "".into()),
            streams: 0,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            handed: VecDeque::new(),
            applied: Default::default(),
        }
    }

    fn current(&self, kind: usize) -> Vec<Resource> {
        let resources = self.resources[kind].iter().map(|(name, version)| Resource {
            name: (*name).into(),
            version: version.to_string().into(),
            // Field 1 of a cluster is its name, as of every named type; the version rides in another field.
            body: Arc::new(Any {
                type_url: KINDS[kind].to_owned(),
                ..Any::pack(&Cluster {
                    name: name.to_string(),
                    alt_stat_name: version.to_string(),
                    ..Default::default()
                })
            }),
        });
        resources.collect()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Change { kind, name, version: Some(version) } => {
                self.resources[kind].insert(NAMES[name], version);
            }
            Step::Change { kind, name, version: None } => {
                self.resources[kind].remove(NAMES[name]);
            }
            Step::Subscribe { kind, name } => self.client.subscribe(KINDS[kind], [Arc::from(NAMES[name])]),
            Step::Unsubscribe { kind, name } => self.unsubscribe(kind, name),
            Step::ClientSends => {
                let request = self.client.next_request();
                self.to_server.extend(request);
            }
            Step::ServerReads => self.server_reads(),
            Step::ServerPushes { kind } => {
                let response = self.server.push(KINDS[kind], &self.current(kind), Scope::Everything);
                self.to_client.extend(response);
            }
            Step::ClientReads => self.client_reads(),
            Step::ConsumerSettles => self.settle(),
            Step::StreamIsLost => {
                self.to_server.clear();
                self.to_client.clear();
                while !self.handed.is_empty() {
                    self.settle();
                }
                self.streams += 1;
                self.server = Server::new(self.variant, self.streams, "".into());
                self.client.connected();
            }
        }
    }

    fn unsubscribe(&mut self, kind: usize, name: usize) {
        // State of the world cannot say that everything is no longer wanted where it was said by naming nothing.
        if self.variant == Variant::StateOfTheWorld && NAMES[name] == "*" {
            return;
        }
        self.client.unsubscribe(KINDS[kind], [Arc::from(NAMES[name])]);
        let client = &self.client;
        self.applied[kind].retain(|name, _| client.is_subscribed(KINDS[kind], name));
    }

    fn server_reads(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        let received = match &request {
            Request::Delta(request) => self.server.on_delta(request).unwrap(),
            Request::StateOfTheWorld(request) => self.server.on_sotw(request).unwrap(),
        };
        let kind = KINDS.iter().position(|kind| **kind == *received.type_url).unwrap();
        let current = self.current(kind);
        let response = match &received.want {
            Want::Nothing => None,
            Want::Names(names) => self.server.push(KINDS[kind], &current, Scope::Names(names)),
            Want::Everything => self.server.push(KINDS[kind], &current, Scope::Everything),
        };
        self.to_client.extend(response);
    }

    fn client_reads(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let batch = match self.variant {
            Variant::Delta => self.client.on_delta(response.to_delta()),
            Variant::StateOfTheWorld => self.client.on_sotw(response.to_state_of_the_world()),
        };
        self.handed.push_back(batch.unwrap());
    }

    fn settle(&mut self) {
        let Some(batch) = self.handed.pop_front() else { return };
        let kind = KINDS.iter().position(|kind| **kind == *batch.type_url).unwrap();
        let mut rejected = Vec::new();
        for resource in &batch.resources {
            let cluster: Cluster = meltemi_proto::decode(&resource.body.value).unwrap();
            let version: u32 = cluster.alt_stat_name.parse().unwrap();
            if is_bad(version) {
                rejected.push(resource.name.clone());
            } else if self.client.is_subscribed(&batch.type_url, &resource.name) {
                self.applied[kind].insert(resource.name.to_string(), version);
            }
        }
        for name in &batch.removed {
            self.applied[kind].remove(&**name);
        }
        let outcome = match rejected.is_empty() {
            true => Outcome::Accepted,
            false => Outcome::PartlyRejected { names: rejected, message: "bad version".to_owned() },
        };
        self.client.settle(&batch.type_url, &batch.nonce, &outcome);
    }

    /// Lets everything under way arrive.
    fn quiesce(&mut self) {
        for _ in 0..2 {
            loop {
                let before = (self.to_server.len(), self.to_client.len(), self.handed.len());
                self.apply(Step::ClientSends);
                let sent = self.to_server.len() > before.0;
                self.server_reads();
                self.client_reads();
                self.settle();
                if before == (0, 0, 0) && !sent {
                    break;
                }
            }
            for kind in 0..KINDS.len() {
                self.apply(Step::ServerPushes { kind });
            }
        }
    }

    fn check(&self) {
        for (kind, type_url) in KINDS.iter().enumerate() {
            for name in NAMES.iter().filter(|name| **name != "*") {
                let applied = self.applied[kind].get(*name).copied();
                match self.resources[kind].get(name) {
                    _ if !self.client.is_subscribed(type_url, name) => assert_eq!(applied, None, "{type_url} {name}"),
                    Some(version) if is_bad(*version) => {}
                    Some(version) => assert_eq!(applied, Some(*version), "{type_url} {name}"),
                    // Endpoints are withdrawn by what refers to them, in the state-of-the-world variant.
                    None if self.variant == Variant::StateOfTheWorld && *type_url == ENDPOINT => {}
                    None => assert_eq!(applied, None, "{type_url} {name}"),
                }
            }
            let watch = self.server.watch(type_url);
            assert!(!watch.is_some_and(|watch| watch.is_outstanding()), "an answer is missing");
        }
    }
}

fn converse(variant: Variant, steps: Vec<Step>) {
    let mut world = World::new(variant);
    world.client.connected();
    for step in steps {
        world.apply(step);
    }
    world.quiesce();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn delta_client_ends_with_what_the_server_has(steps in prop::collection::vec(step(), 1..80)) {
        converse(Variant::Delta, steps);
    }

    #[test]
    fn state_of_the_world_client_ends_with_what_the_server_has(steps in prop::collection::vec(step(), 1..80)) {
        converse(Variant::StateOfTheWorld, steps);
    }
}

#[test]
fn rejected_resource_is_asked_for_again_on_the_next_stream() {
    let mut world = World::new(Variant::Delta);
    world.client.subscribe(CLUSTER, [Arc::from("*")]);
    world.client.connected();
    for (name, version) in [(0, 1), (1, 4)] {
        world.apply(Step::Change { kind: 0, name, version: Some(version) });
    }
    world.quiesce();
    let Some(watch) = world.server.watch(CLUSTER) else { panic!() };
    assert_eq!(watch.rejection().unwrap().message, "bad version");
    world.apply(Step::StreamIsLost);
    let Some(Request::Delta(request)) = world.client.next_request() else { panic!() };
    assert_eq!(request.initial_resource_versions.keys().collect::<Vec<_>>(), ["a"]);
    assert!(request.node.is_some());
}
