//! The main oracle of the data plane: a random Envoy configuration and random requests, given to a real Envoy and to our
//! proxy, must give the same status, headers, body, attempts, chosen cluster and endpoint, response flags and access log.
//!
//! Every scenario adds listeners, clusters and probes to the plan of a seed; one pair of processes serves a whole plan.
//! A fixed set of seeds runs in CI. More: `MELTEMI_DIFF_SEEDS=0..2000 cargo test -p meltemi --test e2e differential`, one
//! scenario alone with `MELTEMI_DIFF_ONLY=tls`, configurations of failures kept in the folder `MELTEMI_DIFF_KEEP`.
//! What differs on purpose is in [`purpose`], with the reason.

mod authz;
mod backend;
mod balance;
mod chains;
mod client;
mod compare;
mod edge;
mod filters;
mod limits;
mod log;
mod manager;
mod messages;
mod pki;
mod protocols;
mod purpose;
mod random;
mod routes;
mod services;
mod sessions;
mod tcp;
mod tls;
mod tokens;

use crate::support::{Process, envoy, free_address, meltemi};
use backend::Backends;
use client::Probe;
use pki::Pki;
use random::Random;
use serde_json::{Value, json};
use services::Services;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokens::Issuer;

const CI_SEEDS: Range<u64> = 0..4;

/// Probes under way at once on each side.
const AT_ONCE: usize = 6;

type Scenario = (&'static str, fn(&mut Plan<'_>, &mut Random));

const SCENARIOS: &[Scenario] = &[
    ("routes", routes::add),
    ("chains", chains::add),
    ("tls", tls::add),
    ("balance", balance::add),
    ("filters", filters::add),
    ("tcp", tcp::add),
    ("protocols", protocols::add),
    ("messages", messages::add),
    ("edge", edge::add),
    ("sessions", sessions::add),
    ("tokens", tokens::add),
    ("authz", authz::add),
    ("limits", limits::add),
];

/// What all seeds share.
pub struct Setup {
    pub backends: Backends,
    pub pki: Pki,
    pub issuer: Issuer,
    pub services: Services,
}

/// What both proxies are given. Ports below 1000 stand for listeners: that of listener N is N + 1.
pub struct Plan<'a> {
    pub setup: &'a Setup,
    seed: u64,
    listeners: Vec<Value>,
    clusters: Vec<Value>,
    probes: Vec<Probe>,
}

impl Plan<'_> {
    /// Adds a listener on all addresses of loopback; `rest` is what it has besides its name and address.
    pub fn listener(&mut self, rest: Value) -> usize {
        let index = self.listeners.len();
        let mut listener = json!({ "name": format!("listener-{index}"), "address": socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.next_port()))) });
        merge(&mut listener, rest);
        self.listeners.push(listener);
        index
    }

    /// The port of the listener that is added next.
    pub fn next_port(&self) -> u16 {
        u16::try_from(self.listeners.len() + 1).expect("few listeners")
    }

    pub fn cluster(&mut self, cluster: Value) {
        self.clusters.push(cluster);
    }

    /// Adds a probe from an address of its own within 127.(90+block).0.0/16.
    pub fn probe(&mut self, mut probe: Probe, block: u8) {
        let number = u16::try_from(self.probes.len()).expect("few probes") + 1;
        probe.from = Ipv4Addr::new(127, 90 + block, (number >> 8) as u8, number as u8);
        self.probes.push(probe);
    }
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A static cluster, with what else it has.
pub fn cluster(name: &str, endpoints: &[SocketAddr], rest: Value) -> Value {
    let ends: Vec<Value> = endpoints.iter().map(|a| json!({ "endpoint": { "address": socket(*a) } })).collect();
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": ends }] },
    });
    merge(&mut cluster, rest);
    cluster
}

/// One proxy under the plan.
struct Side {
    seed: u64,
    mark: char,
    ports: Vec<u16>,
    dir: PathBuf,
    process: Process,
}

impl Side {
    fn start(mark: char, plan: &Plan<'_>, dir: &Path, envoy: &Path) -> Self {
        let dir = dir.join(mark.to_string());
        std::fs::create_dir(&dir).expect("a folder");
        let ports: Vec<u16> = plan.listeners.iter().map(|_| free_address().port()).collect();
        let mut bootstrap = json!({ "static_resources": { "listeners": plan.listeners, "clusters": plan.clusters } });
        settle(&mut bootstrap, &ports, &dir);
        let file = dir.join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string()).expect("write");
        let process = if mark == 'e' {
            let mut command = Command::new(envoy);
            command.arg("-c").arg(&file).args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]);
            command.args(["--file-flush-interval-msec", "50"]);
            Process::start("envoy", &mut command, &dir)
        } else {
            let mut command = meltemi();
            command.args(["proxy", "-c"]).arg(&file).args(["--concurrency", "1"]);
            Process::start("meltemi", &mut command, &dir)
        };
        Self { seed: plan.seed, mark, ports, dir, process }
    }

    /// Of the same length on both sides, and unlike those of all other seeds of a run.
    fn id(&self, probe: usize) -> String {
        format!("id{:06}n{probe:04}{}", self.seed, self.mark)
    }

    fn wait(&mut self) {
        for port in &self.ports {
            self.process.wait_listening(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        }
    }
}

/// Puts real ports and folders in.
fn settle(value: &mut Value, ports: &[u16], dir: &Path) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let port = value.as_u64().filter(|_| key == "port_value" || key == "destination_port");
                match port.and_then(|port| ports.get(usize::try_from(port).ok()?.checked_sub(1)?)) {
                    Some(real) => *value = json!(real),
                    None => settle(value, ports, dir),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, ports, dir)),
        Value::String(text) => {
            if text.contains("@DIR@") {
                *text = text.replace("@DIR@", &dir.display().to_string());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Plays the whole plan of a seed to both sides: how many probes, and how they differed.
fn run_seed(seed: u64, setup: &Setup, envoy: &Path) -> (usize, Vec<String>) {
    let only = std::env::var("MELTEMI_DIFF_ONLY").ok();
    let mut plan = Plan { setup, seed, listeners: Vec::new(), clusters: Vec::new(), probes: Vec::new() };
    for (name, add) in SCENARIOS {
        if only.as_deref().is_none_or(|only| only.split(',').any(|only| only == *name)) {
            add(&mut plan, &mut Random::new(seed, name));
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut sides = ['e', 'm'].map(|mark| Side::start(mark, &plan, dir.path(), envoy));
    sides.iter_mut().for_each(Side::wait);
    let mut transcripts = play(&plan, &sides);
    for side in &mut sides {
        if !side.process.is_running() {
            return (plan.probes.len(), vec![format!("seed {seed}: {} ended\n{}", side.mark, side.process.output())]);
        }
    }
    log::append(&plan.probes, &sides, &mut transcripts);
    let differences = compare::all(&plan, &transcripts);
    if !differences.is_empty()
        && let Some(keep) = std::env::var_os("MELTEMI_DIFF_KEEP")
    {
        for side in &sides {
            let file = Path::new(&keep).join(format!("seed-{seed}-{}.json", side.mark));
            std::fs::copy(side.dir.join("bootstrap.json"), file).expect("copy");
        }
    }
    (plan.probes.len(), differences)
}

/// What was seen of each probe, on both sides.
type Transcripts = Vec<[Vec<String>; 2]>;

fn play(plan: &Plan<'_>, sides: &[Side; 2]) -> Transcripts {
    use futures_util::StreamExt;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let one = |(number, probe): (usize, &Probe)| {
        let probe = probe.clone();
        let sides = [&sides[0], &sides[1]]
            .map(|side| (side.ports[probe.listener], format!("{}-{number:03}-{}", plan.seed % 1000 + 1000, side.mark)));
        async move {
            let [theirs, ours] = &sides;
            let both = futures_util::future::join(
                client::play(&probe, theirs.0, &theirs.1, &plan.setup.pki),
                client::play(&probe, ours.0, &ours.1, &plan.setup.pki),
            );
            <[Vec<String>; 2]>::from(both.await)
        }
    };
    let probes = futures_util::stream::iter(plan.probes.iter().enumerate()).map(one).buffered(AT_ONCE);
    let transcripts: Transcripts = tokio::task::LocalSet::new().block_on(&runtime, probes.collect());
    let with_arrivals = |(number, mut both): (usize, [Vec<String>; 2])| {
        for (side, lines) in sides.iter().zip(&mut both) {
            arrivals(plan.setup, &side.id(number), side.ports[plan.probes[number].listener], lines);
        }
        both
    };
    transcripts.into_iter().enumerate().map(with_arrivals).collect()
}

/// Adds what arrived at the backends under this id: attempts and mirrored requests.
fn arrivals(setup: &Setup, id: &str, port: u16, lines: &mut Vec<String>) {
    let attempts = setup.backends.attempts(id);
    if attempts > 0 {
        lines.push(format!("arrived {attempts} times"));
    }
    for text in setup.backends.texts(id) {
        let text = text.replace(id, "@ID@").replace(&format!(":{port}"), ":@PORT@");
        lines.extend(text.lines().map(|line| format!("arrived {}", client::rounded(line))));
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("MELTEMI_DIFF_SEEDS") else { return CI_SEEDS };
    let (from, to) = text.split_once("..").expect("MELTEMI_DIFF_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn the_same_configuration_gives_the_same_answers_as_envoy() {
    let envoy = match envoy() {
        Ok(path) => path,
        Err(reason) => return println!("{reason}"),
    };
    let pki = Pki::new();
    let issuer = Issuer::new();
    let services = Services::start(issuer.keys());
    let setup = Setup { backends: Backends::start(&pki), pki, issuer, services };
    let (mut differences, mut played) = (Vec::new(), 0);
    let began = std::time::Instant::now();
    for seed in seeds() {
        let (probes, found) = run_seed(seed, &setup, &envoy);
        played += probes;
        if seed > 0 && seed.is_multiple_of(50) {
            println!("seed {seed}: {played} probes, {} differences", differences.len());
        }
        differences.extend(found);
    }
    println!("{played} probes, {} differences, {:?}", differences.len(), began.elapsed());
    assert!(differences.is_empty(), "{}", differences[..differences.len().min(60)].join("\n"));
}
