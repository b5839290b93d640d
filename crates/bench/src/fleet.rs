//! Simulated sidecars: real ADS clients that accept everything and follow what clusters and listeners name.

use anyhow::{Result, bail};
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::prost_types::{Struct, Value, value::Kind};
use meltemi_xds::client::{Client, Event, Events, Options, Target};
use meltemi_xds::{WILDCARD, types};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Nothing came for this long: the first configuration is complete.
const QUIET: Duration = Duration::from_secs(2);
/// After the last proxy that a change reached, nobody else is waited for beyond this.
const TAIL: Duration = Duration::from_millis(700);
const MAX_QUEUED: usize = 1 << 16;

/// What a change makes discovery send.
pub struct Wanted {
    pub type_url: &'static str,
    pub name: String,
}

struct Seen {
    proxy: usize,
    type_url: Arc<str>,
    names: Vec<Arc<str>>,
}

pub struct Fleet {
    seen: mpsc::Receiver<Seen>,
}

/// How far a change went and when it was there.
pub struct Reached {
    pub proxies: usize,
    /// Of the last arrival.
    pub at: Instant,
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn node(number: usize, namespace: &str) -> Node {
    let ip = format!("10.{}.{}.{}", 10 + number / 62_500, number / 250 % 250, number % 250 + 1);
    let fields = BTreeMap::from([
        ("NAMESPACE".to_owned(), text(namespace)),
        ("INSTANCE_IPS".to_owned(), text(&ip)),
        ("DIALECT".to_owned(), text("istio-proxy")),
    ]);
    Node {
        id: format!("sidecar~{ip}~proxy-{number}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: "bench".to_owned(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..Node::default()
    }
}

/// One proxy until its client stops.
async fn proxy(number: usize, client: Client, mut events: Events, seen: mpsc::Sender<Seen>) {
    client.subscribe(types::CLUSTER, [WILDCARD]);
    client.subscribe(types::LISTENER, [WILDCARD]);
    let mut followed: BTreeSet<Arc<str>> = BTreeSet::new();
    while let Some(event) = events.next().await {
        let Event::Update(update) = event else { continue };
        let names: Vec<Arc<str>> = update.resources.iter().map(|resource| resource.name.clone()).collect();
        if &*update.type_url == types::CLUSTER {
            let outbound = names.iter().filter(|name| name.starts_with("outbound|"));
            let new: Vec<Arc<str>> = outbound.filter(|name| followed.insert((*name).clone())).cloned().collect();
            client.subscribe(types::ENDPOINT, new);
        } else if &*update.type_url == types::LISTENER && followed.insert("80".into()) {
            client.subscribe(types::ROUTE, ["80"]);
        }
        let report = Seen { proxy: number, type_url: update.type_url.clone(), names };
        update.reply.accept();
        if seen.send(report).await.is_err() {
            return;
        }
    }
}

impl Fleet {
    pub async fn connect(discovery: SocketAddr, proxies: usize, namespaces: Vec<String>) -> Self {
        let (sender, seen) = mpsc::channel(MAX_QUEUED);
        for number in 0..proxies {
            let namespace = &namespaces[number % namespaces.len()];
            let options = Options::new(Target::Tcp(discovery.to_string()), node(number, namespace));
            let (client, events) = Client::spawn(options);
            tokio::spawn(proxy(number, client, events, sender.clone()));
        }
        Self { seen }
    }

    /// Waits until nothing more comes; tells how many proxies heard anything.
    pub async fn settle(&mut self, limit: Duration) -> Result<Reached> {
        let end = Instant::now() + limit;
        let mut heard = BTreeSet::new();
        let mut at = Instant::now();
        loop {
            match tokio::time::timeout(QUIET, self.seen.recv()).await {
                Ok(Some(seen)) => {
                    heard.insert(seen.proxy);
                    at = Instant::now();
                }
                Ok(None) => bail!("all clients have stopped"),
                Err(_) if heard.is_empty() && Instant::now() < end => {}
                Err(_) => return Ok(Reached { proxies: heard.len(), at }),
            }
            if Instant::now() > end {
                bail!("not settled after {limit:?}");
            }
        }
    }

    /// Waits for the change at every proxy that gets it.
    pub async fn wait_for(&mut self, wanted: &Wanted, limit: Duration) -> Result<Reached> {
        let end = Instant::now() + limit;
        let mut proxies = BTreeSet::new();
        let mut at = Instant::now();
        loop {
            let patience = if proxies.is_empty() { end - Instant::now() } else { TAIL };
            match tokio::time::timeout(patience, self.seen.recv()).await {
                Ok(Some(seen)) => {
                    let concerns = *seen.type_url == *wanted.type_url && seen.names.iter().any(|n| **n == *wanted.name);
                    if concerns && proxies.insert(seen.proxy) {
                        at = Instant::now();
                    }
                }
                Ok(None) => bail!("all clients have stopped"),
                Err(_) if proxies.is_empty() => bail!("{} reached nobody within {limit:?}", wanted.name),
                Err(_) => return Ok(Reached { proxies: proxies.len(), at }),
            }
        }
    }
}
