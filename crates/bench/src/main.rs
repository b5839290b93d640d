//! The control-plane bench: a real `meltemi discovery` process, simulated proxies on real delta ADS streams, and the time and
//! CPU from one change of configuration until every proxy that it concerns has acknowledged it.

mod fleet;
mod mesh;
mod process;

use anyhow::{Context, Result};
use clap::Parser;
use fleet::Fleet;
use mesh::Mesh;
use process::Discovery;
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
    /// Give each namespace a Sidecar that imports only its own ten services.
    #[arg(long)]
    scoped: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!(
        "| services | proxies | scoped | change | proxies reached | time ms median [min-max] | CPU ms median [min-max] | RSS MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
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
    let reached = fleet.settle(limit).await?;
    let row = Row { services, arguments, rss_mib: discovery.rss_mib()? };
    row.print("first configuration", reached.proxies, &[reached.at - started], &[discovery.cpu()?]);
    for (name, change) in [
        ("one endpoint", Mesh::change_endpoint as fn(&mut Mesh) -> Result<fleet::Wanted>),
        ("one VirtualService", Mesh::change_route),
        ("one new service", Mesh::add_service),
    ] {
        let (mut times, mut cpus, mut reached) = (Vec::new(), Vec::new(), 0);
        for _ in 0..arguments.rounds {
            let before = discovery.cpu()?;
            let started = Instant::now();
            let wanted = change(&mut mesh)?;
            let found = fleet.wait_for(&wanted, Duration::from_secs(60)).await?;
            times.push(found.at - started);
            reached = found.proxies;
            // The wait outlasts the last arrival, so what the change causes after it counts as well.
            cpus.push(discovery.cpu()? - before);
        }
        let row = Row { services, arguments, rss_mib: discovery.rss_mib()? };
        row.print(name, reached, &times, &cpus);
    }
    Ok(())
}

struct Row<'a> {
    services: usize,
    arguments: &'a Arguments,
    rss_mib: u64,
}

impl Row<'_> {
    fn print(&self, change: &str, reached: usize, times: &[Duration], cpus: &[Duration]) {
        let Self { services, arguments, rss_mib } = self;
        let (proxies, scoped) = (arguments.proxies, arguments.scoped);
        let (times, cpus) = (spread(times), spread(cpus));
        println!("| {services} | {proxies} | {scoped} | {change} | {reached} | {times} | {cpus} | {rss_mib} |");
    }
}

fn spread(values: &[Duration]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort();
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(low), Some(middle), Some(high)) => format!("{:.0} [{:.0}-{:.0}]", ms(middle), ms(low), ms(high)),
        _ => "-".to_owned(),
    }
}
