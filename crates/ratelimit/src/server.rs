//! The server as a process: sockets, and the files that it follows.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::counters::{Backend, Counters};
use crate::limits::Limits;
use crate::service::{Manners, Service};
use crate::source::{Source, Stamp};
use crate::stats::Stats;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// Connections of proxies at once.
const MAX_CONNECTIONS: usize = 10_000;
/// Requests under way on one connection.
const MAX_STREAMS: u32 = 1_024;
/// A client that is gone without a word is noticed after two of these.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// No request takes as long; the counters have a shorter limit of their own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is said when nothing could be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// An error; the proxy's `failure_mode_deny` decides.
    #[default]
    Error,
    Allow,
    Deny,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub http: SocketAddr,
    pub on_failure: OnFailure,
    /// Say `RateLimit-*` to the clients of proxies.
    pub headers: bool,
    /// Count, and never refuse.
    pub shadow: bool,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// Sockets that are bound before anything is served, so that callers learn ephemeral ports.
pub struct RateLimitServer {
    service: Service,
    follower: Follower,
    grpc: TcpListener,
    http: TcpListener,
}

impl RateLimitServer {
    /// Reads the configuration and binds the sockets. Fails where the configuration is wrong.
    pub async fn bind(options: Options, backend: Backend) -> Result<Self> {
        let stats = Arc::new(Stats::new());
        let limits = Arc::new(ArcSwap::from_pointee(Limits::default()));
        let stamps = options.source.stamps()?;
        let follower =
            Follower { source: options.source, stats: stats.clone(), limits: limits.clone(), seen: Some(stamps) };
        follower.load()?;
        let counters = Counters::start(backend, &stats.registry);
        let listen = async |address: SocketAddr| {
            TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
        };
        let manners = Manners { on_failure: options.on_failure, headers: options.headers, shadow: options.shadow };
        Ok(Self {
            service: Service::new(limits, Arc::new(counters), stats, manners, seconds_since_1970),
            follower,
            grpc: listen(options.grpc).await?,
            http: listen(options.http).await?,
        })
    }

    pub fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses { grpc: self.grpc.local_addr()?, http: self.http.local_addr()? })
    }

    /// Serves until `shutdown` is done, then ends with the requests under way.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let stopping = || {
            let mut stopped = stopped.clone();
            async move { drop(stopped.wait_for(|stopped| *stopped).await) }
        };
        let grpc = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .timeout(REQUEST_TIMEOUT)
            .add_service(self.service.into_server())
            .serve_with_incoming_shutdown(connections::accept(self.grpc, MAX_CONNECTIONS), stopping());
        let http = meltemi_pages::serve(self.http, router(self.follower.stats.clone()), |_, peer| peer, stopping());
        let following = async {
            tokio::select! {
                () = self.follower.run() => {}
                () = stopping() => {}
            }
        };
        let ending = async {
            shutdown.await;
            stop.send_replace(true);
        };
        let (grpc, (), (), ()) = tokio::join!(grpc, http, following, ending);
        Ok(grpc?)
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}

fn router(stats: Arc<Stats>) -> Router {
    let metrics = move || {
        let text = stats.registry.prometheus(&meltemi_telemetry::metrics::Filter::default());
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new().route("/healthcheck", get(|| async { "OK" })).route("/metrics", get(metrics))
}

/// Puts in force what the files say.
struct Follower {
    source: Source,
    stats: Arc<Stats>,
    limits: Arc<ArcSwap<Limits>>,
    /// The files as they were last read; `None` where they could not be looked at.
    seen: Option<Vec<Stamp>>,
}

impl Follower {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    /// Reads the files if they changed. What is wrong leaves the limits as they were, and is said once.
    fn look(&mut self) {
        let stamps = self.source.stamps();
        let failed = match (&stamps, &self.seen) {
            (Ok(stamps), Some(seen)) if stamps == seen => return,
            (Err(_), None) => return,
            (Ok(_), _) => self.load().err(),
            (Err(error), Some(_)) => Some(anyhow::anyhow!("{error}")),
        };
        self.seen = stamps.ok();
        match failed {
            None => tracing::info!("limits are in force"),
            Some(error) => {
                self.stats.config_load_error.inc();
                tracing::error!("the limits stay as they were: {error}");
            }
        }
    }

    fn load(&self) -> Result<()> {
        let documents = self.source.read()?;
        for warning in &documents.warnings {
            tracing::warn!("{warning}");
        }
        self.limits.store(Arc::new(Limits::new(&documents.configurations, &self.stats)));
        self.stats.config_load_success.inc();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
