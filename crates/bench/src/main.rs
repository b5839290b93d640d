//! The control-plane bench: a real `meltemi discovery` process, simulated proxies on real delta ADS streams, and the time and
//! CPU from one change of configuration until every proxy that it concerns has acknowledged it.

mod fleet;
mod mesh;
mod process;
mod remote;

use anyhow::{Context, Result};
use clap::Parser;
use fleet::{Fleet, Reached};
use mesh::Mesh;
use process::{Discovery, Sent};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// Measures discovery: one endpoint change, one VirtualService change and one new service.
#[derive(Parser)]
#[command(after_help = "Example: meltemi-bench --meltemi target/release/meltemi --services 100,1000 --proxies 1000")]
struct Arguments {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/meltemi")]
    meltemi: PathBuf,
    /// Services in the mesh, one run for each number.
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    services: Vec<usize>,
    /// Simulated sidecars.
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Times that each change is made.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Give each namespace a Sidecar that imports only its own five services.
    #[arg(long)]
    scoped: bool,
    /// Measure nothing, but connect to the replicas behind this address and answer on standard output when a change that is named
    /// on standard input is where (bench/kubernetes.py).
    #[arg(long, conflicts_with_all = ["services", "rounds", "scoped"])]
    connect: Option<String>,
    /// The namespaces that the proxies are in, with --connect.
    #[arg(long, value_delimiter = ',', default_value = "default")]
    namespaces: Vec<String>,
}

const HEAD: &str = "\
| services | proxies | scoped | change | proxies reached | p50 ms | p99 ms | last ms | CPU ms | responses | KiB sent | RSS MiB |
|---|---|---|---|---|---|---|---|---|---|---|---|";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(address) = &arguments.connect {
        return remote::run(&arguments, address).await;
    }
    println!("{HEAD}");
    for services in &arguments.services {
        run(&arguments, *services).await.with_context(|| format!("{services} services"))?;
    }
    Ok(())
}

async fn run(arguments: &Arguments, services: usize) -> Result<()> {
    let mut mesh = Mesh::new(services, arguments.scoped)?;
    let discovery = Discovery::start(&arguments.meltemi, mesh.folder()).await?;
    let started = Instant::now();
    let mut fleet = Fleet::connect(discovery.address(), arguments.proxies, mesh.namespaces()).await;
    let limit = Duration::from_secs(600);
    let reached = fleet.settle(1, limit).await?;
    let mut first = Row::new("first configuration");
    first.take(&reached, started, discovery.cpu()?, discovery.sent().await?);
    first.print(services, arguments, discovery.rss_mib()?);
    for (name, change) in [
        ("one endpoint", Mesh::change_endpoint as fn(&mut Mesh) -> Result<fleet::Wanted>),
        ("one VirtualService", Mesh::change_route),
        ("one new service", Mesh::add_service),
    ] {
        let mut row = Row::new(name);
        for _ in 0..arguments.rounds {
            let (cpu, sent) = (discovery.cpu()?, discovery.sent().await?);
            let started = Instant::now();
            let wanted = change(&mut mesh)?;
            let reached = fleet.wait_for(&wanted, Duration::from_secs(60)).await?;
            // The wait outlasts the last arrival, so what the change causes after it counts as well.
            row.take(&reached, started, discovery.cpu()? - cpu, discovery.sent().await? - sent);
        }
        row.print(services, arguments, discovery.rss_mib()?);
    }
    Ok(())
}

/// What one kind of change cost, round by round.
struct Row {
    change: &'static str,
    reached: usize,
    /// Until half, 99 of 100 and all of the proxies that it reached had it.
    shares: [Vec<f64>; 3],
    cpu: Vec<f64>,
    responses: Vec<f64>,
    kib: Vec<f64>,
}

impl Row {
    fn new(change: &'static str) -> Self {
        Self { change, reached: 0, shares: Default::default(), cpu: vec![], responses: vec![], kib: vec![] }
    }

    fn take(&mut self, reached: &Reached, started: Instant, cpu: Duration, sent: Sent) {
        self.reached = reached.proxies();
        for (share, times) in [0.5, 0.99, 1.0].into_iter().zip(&mut self.shares) {
            times.push(reached.share(started, share).as_secs_f64() * 1e3);
        }
        self.cpu.push(cpu.as_secs_f64() * 1e3);
        self.responses.push(sent.responses as f64);
        self.kib.push(sent.bytes as f64 / 1024.0);
    }

    fn print(&self, services: usize, arguments: &Arguments, rss_mib: u64) {
        let (proxies, scoped) = (arguments.proxies, if arguments.scoped { "yes" } else { "no" });
        let [p50, p99, last] = self.shares.each_ref().map(|times| spread(times));
        let Self { change, reached, .. } = self;
        let (cpu, responses, kib) = (spread(&self.cpu), spread(&self.responses), spread(&self.kib));
        println!(
            "| {services} | {proxies} | {scoped} | {change} | {reached} | {p50} | {p99} | {last} | {cpu} | {responses} | {kib} | {rss_mib} |"
        );
    }
}

/// Median, and the range where it is one.
fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(low), Some(middle), Some(high)) if low.round() < high.round() => {
            format!("{middle:.0} [{low:.0}-{high:.0}]")
        }
        (_, Some(middle), _) => format!("{middle:.0}"),
        _ => "-".to_owned(),
    }
}
