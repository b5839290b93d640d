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
/// Proxies live in so many namespaces at most: some replicas see the same.
const MAX_NAMESPACES: usize = 100;

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

/// When a change was at each proxy that it reached, in order.
pub struct Reached {
    pub arrivals: Vec<Instant>,
}

impl Reached {
    pub fn proxies(&self) -> usize {
        self.arrivals.len()
    }

    /// From `start` until this share of the proxies had it.
    pub fn share(&self, start: Instant, share: f64) -> Duration {
        let place = (self.arrivals.len() as f64 * share).ceil() as usize;
        let arrival = self.arrivals.get(place.saturating_sub(1));
        arrival.map_or(Duration::ZERO, |arrival| arrival.saturating_duration_since(start))
    }
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

fn in_order(arrivals: impl Iterator<Item = Instant>) -> Vec<Instant> {
    let mut arrivals: Vec<Instant> = arrivals.collect();
    arrivals.sort();
    arrivals
}

impl Fleet {
    pub async fn connect(discovery: SocketAddr, proxies: usize, namespaces: Vec<String>) -> Self {
        let (sender, seen) = mpsc::channel(MAX_QUEUED);
        for number in 0..proxies {
            let namespace = &namespaces[number % namespaces.len().min(MAX_NAMESPACES)];
            let options = Options::new(Target::Tcp(discovery.to_string()), node(number, namespace));
            let (client, events) = Client::spawn(options);
            tokio::spawn(proxy(number, client, events, sender.clone()));
        }
        Self { seen }
    }

    /// Waits until so many proxies heard anything and nothing more comes; tells how many these are.
    pub async fn settle(&mut self, proxies: usize, limit: Duration) -> Result<Reached> {
        let end = Instant::now() + limit;
        let mut heard: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            match tokio::time::timeout(QUIET, self.seen.recv()).await {
                Ok(Some(seen)) => {
                    heard.insert(seen.proxy, Instant::now());
                }
                Ok(None) => bail!("all clients have stopped"),
                Err(_) if heard.len() < proxies && Instant::now() < end => {}
                Err(_) => return Ok(Reached { arrivals: in_order(heard.into_values()) }),
            }
            if Instant::now() > end {
                bail!("not settled after {limit:?}");
            }
        }
    }

    /// What came until now is no answer to what is asked next.
    pub fn forget(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// Waits for the change at every proxy that gets it.
    pub async fn wait_for(&mut self, wanted: &Wanted, limit: Duration) -> Result<Reached> {
        let end = Instant::now() + limit;
        let mut proxies: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            let patience = if proxies.is_empty() { end - Instant::now() } else { TAIL };
            match tokio::time::timeout(patience, self.seen.recv()).await {
                Ok(Some(seen)) => {
                    let concerns = *seen.type_url == *wanted.type_url && seen.names.iter().any(|n| **n == *wanted.name);
                    if concerns {
                        proxies.entry(seen.proxy).or_insert_with(Instant::now);
                    }
                }
                Ok(None) => bail!("all clients have stopped"),
                Err(_) if proxies.is_empty() => bail!("{} reached nobody within {limit:?}", wanted.name),
                Err(_) => return Ok(Reached { arrivals: in_order(proxies.into_values()) }),
            }
        }
    }
}
