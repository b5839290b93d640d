//! A fleet before replicas that somebody else runs and changes: told on standard input what to wait for, it answers on standard output,
//! a line of JSON each. Times are Unix time in milliseconds.
//!
//! `wait TYPE NAME` is answered first with `{"waiting": NAME}`, which is when the change may be made, then with when it was at each
//! proxy. The end of input is its end.

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

use crate::Arguments;
use crate::fleet::{Fleet, Reached, Wanted};

const LIMIT: Duration = Duration::from_secs(600);

pub async fn run(arguments: &Arguments, address: &str) -> Result<()> {
    let address = address.parse().with_context(|| format!("{address:?} is no address and port"))?;
    let started = Instant::now();
    let mut fleet = Fleet::connect(address, arguments.proxies, arguments.namespaces.clone()).await;
    let reached = fleet.settle(arguments.proxies, LIMIT).await?;
    let last = reached.share(started, 1.0);
    say(&json!({ "settled": reached.proxies(), "last_ms": last.as_millis() as u64 }))?;
    while let Some(line) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await? {
        let wanted = wanted(&line?)?;
        fleet.forget();
        say(&json!({ "waiting": wanted.name }))?;
        let reached = fleet.wait_for(&wanted, LIMIT).await?;
        say(&json!({ "arrived_ms": times(&reached) }))?;
    }
    Ok(())
}

fn wanted(line: &str) -> Result<Wanted> {
    let Some((type_url, name)) = line.strip_prefix("wait ").and_then(|rest| rest.split_once(' ')) else {
        bail!("{line:?} is not `wait TYPE NAME`");
    };
    let type_url = meltemi_xds::types::PUSH_ORDER.into_iter().find(|known| known.ends_with(&format!(".{type_url}")));
    Ok(Wanted { type_url: type_url.with_context(|| format!("{line:?}: no such type"))?, name: name.to_owned() })
}

fn times(reached: &Reached) -> Vec<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = |arrival: &Instant| now.saturating_sub(arrival.elapsed()).as_millis() as u64;
    reached.arrivals.iter().map(time).collect()
}

fn say(answer: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()?;
    Ok(())
}
