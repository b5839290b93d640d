//! The daemon of a node: the parts, put together.
//!
//! Owns: what is started first and ended last. Ready means that the runtime uses the plugin, and that the plugin is answered.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::install::{self, State};
use crate::plugin::Host;
use crate::query;
use crate::repair::{self, Repair};
use crate::serve::{self, Stats};

#[cfg(test)]
mod tests;

/// Keeps pods away from a node until its pods can be captured.
pub const TAINT: &str = "cni.istio.io/not-ready";

/// Between two tries to take the taint away.
const TAINT_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Options {
    pub install: install::Settings,
    pub repair: Option<repair::Settings>,
    /// The folder of the socket on which the plugin asks.
    pub run_folder: PathBuf,
    /// Of `/healthz` and `/readyz`.
    pub health: SocketAddr,
    /// Of `/metrics`.
    pub metrics: SocketAddr,
    /// Whether to take [`TAINT`] off the node.
    pub untaint: bool,
    /// Whether plugin and configuration go when the daemon ends.
    pub cleanup: bool,
}

/// Runs until `stop` is done.
pub async fn run<C: Cluster>(options: Options, cluster: Arc<C>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let listen =
        async |address: SocketAddr| TcpListener::bind(address).await.with_context(|| format!("listening on {address}"));
    let (health, metrics) = (listen(options.health).await?, listen(options.metrics).await?);
    serve_on(options, cluster, health, metrics, stop).await
}

async fn serve_on<C: Cluster>(
    options: Options,
    cluster: Arc<C>,
    health: TcpListener,
    metrics: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let folder = &options.run_folder;
    let socket = query::listen(folder).with_context(|| format!("listening in {}", folder.display()))?;
    let stats = Arc::new(Stats::new());
    let (ready, states) = watch::channel(false);
    let repairing = options.repair.clone().map(|settings| {
        let (cluster, kernel, stats) = (cluster.clone(), Arc::new(Host), stats.clone());
        Repair { cluster, kernel, settings, stats, done: HashMap::new() }.run()
    });
    tokio::select! {
        () = query::answer(socket, cluster.clone()) => {}
        () = serve::serve(health, metrics, states.clone(), stats.clone()) => {}
        () = options.install.keep(&ready, |looked| told(looked, &stats)) => {}
        () = optional(repairing) => {}
        () = optional(options.untaint.then(|| untaint(&*cluster, states))) => {}
        () = stop => {}
    }
    if options.cleanup {
        let changed = options.install.uninstall().context("taking the plugin away")?;
        tracing::info!("the plugin is taken away: {} files", changed.len());
    }
    // A plugin that still asks then sees at once that nobody is there.
    let _ = std::fs::remove_file(query::socket(folder));
    Ok(())
}

fn told(looked: &Result<State, install::FileError>, stats: &Stats) {
    match looked {
        Ok(State::Ready { file, changed }) => {
            stats.looked("SUCCESS");
            if *changed {
                tracing::info!("the plugin is in place, by {}", file.display());
            }
        }
        Ok(State::Waiting(reason)) => {
            stats.looked("WAITING");
            tracing::info!("waiting to put the plugin in place: {reason}");
        }
        Err(error) => {
            stats.looked("FAILURE");
            tracing::error!(%error, "putting the plugin in place");
        }
    }
}

/// Never done where there is nothing to do.
async fn optional(work: Option<impl Future<Output = ()>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Takes the taint off whenever the node becomes ready.
async fn untaint<C: Cluster>(cluster: &C, mut states: watch::Receiver<bool>) {
    while states.wait_for(|ready| *ready).await.is_ok() {
        match cluster.remove_taint(TAINT).await {
            Ok(there) => {
                if there {
                    tracing::info!("the node is ready: taint {TAINT} is off");
                }
                // Until it is ready the next time.
                if states.wait_for(|ready| !*ready).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "taking taint {TAINT} off the node");
                tokio::time::sleep(TAINT_PAUSE).await;
            }
        }
    }
    std::future::pending().await
}
