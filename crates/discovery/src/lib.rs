//! The control plane as a process: configuration in, xDS and certificates out.
//!
//! Owns the wiring and the sockets: store → registry → snapshot → pusher, the ADS and CA services on a plaintext and a TLS port,
//! debug pages and metrics. Decides nothing about resources. Memory is the snapshot, the resource cache and what each
//! connected proxy holds.

mod ads;
mod authority;
mod bundles;
mod clearance;
mod cluster;
mod debug;
mod documents;
mod follow;
mod given;
mod http;
mod keys;
mod mesh;
mod migration;
mod node;
mod options;
mod providers;
mod registration;
mod secure;
mod source;
mod stats;
mod tokens;
mod webhook;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use meltemi_ca::{
    Authenticator, CertificateCounters, CertificateService, ExternalAuthority, FederatedKeys, TokenVerifier,
};
use meltemi_config::{Key, Kind};
use meltemi_gateway_api::{Settings, node_addresses};
use meltemi_push::{Pusher, PusherOptions, Source};
use meltemi_store::{ConfigSet, ConfigStore, OverlayStore};
use meltemi_tls::{SpiffeId, TrustDomain};
use meltemi_translate::Cache;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use cluster::Cluster;
pub use keys::ForbiddenAddresses;
pub use meltemi_store::FileStore;
pub use options::{Args, DebugOptions, Options, TokenKeys, Tokens, WebhookOptions};

use crate::clearance::{Clearance, Privileged};
use crate::cluster::Union;
use crate::follow::Follower;
use crate::registration::{Entries, Registrations};
use crate::stats::Stats;

/// How long open streams may take to end once asked to.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A running control plane's parts, shared by its servers.
pub(crate) struct State {
    pub pusher: Pusher,
    pub config: Arc<ArcSwap<ConfigSet>>,
    pub stats: Stats,
    pub certificates: Arc<CertificateCounters>,
    pub authenticator: Arc<Authenticator>,
    /// Checks tokens by keys that may change, if any are taken.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// Built resources, as the pusher's source shares them.
    pub cache: Arc<Cache>,
    /// By what tokens of other trust domains are verified.
    pub federated: Arc<FederatedKeys>,
    pub registrations: Arc<Registrations>,
    /// The generation of the authority whose roots have been given to every connection.
    pub roots_pushed: AtomicU64,
    /// Of the identities that are issued and taken.
    pub trust_domain: TrustDomain,
    pub options: Options,
}

impl State {
    /// What a caller may see of debug output; `None` where it has proven no identity and needs one.
    pub fn clearance(&self, identity: Option<&SpiffeId>) -> Option<Clearance> {
        let debug = &self.options.debug;
        if !debug.authorization {
            return Some(Clearance::Everything);
        }
        let snapshot = self.pusher.snapshot();
        let (own, root) = (&*self.options.namespace, snapshot.root_namespace());
        identity.map(|id| Clearance::of(id, &Privileged { own, root, named: &debug.namespaces }))
    }
}

impl State {
    /// What conversions of the Gateway API and of Ingresses depend on, beside their objects.
    pub fn gateway_settings(&self, set: &ConfigSet) -> Settings {
        let mut settings = Settings::new(&self.options.domain, &self.pusher.snapshot().mesh);
        let node = |name: &str| set.get(&Key::new(Kind::Node, "", name));
        settings.ingress.nodes = node_addresses(&settings.ingress, set.of_kind(Kind::Pod), node);
        settings
    }
}

/// Sockets that are bound before anything is served, so that callers learn ephemeral ports.
pub struct Discovery {
    state: Arc<State>,
    store: Arc<OverlayStore>,
    follower: Follower,
    certificates: CertificateService,
    grpc: Option<TcpListener>,
    secure: Option<TcpListener>,
    http: Option<TcpListener>,
    monitoring: Option<TcpListener>,
    webhook: Option<TcpListener>,
}

/// Where a control plane listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: Option<SocketAddr>,
    pub secure: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub monitoring: Option<SocketAddr>,
    pub webhook: Option<SocketAddr>,
}

impl Discovery {
    /// Reads the configuration, makes the first snapshot and binds the sockets.
    pub async fn bind(options: Options, store: Arc<dyn ConfigStore>) -> Result<Self> {
        let stats = Stats::new();
        let store = Arc::new(OverlayStore::new(store));
        let set = store.snapshot();
        let mesh = options.bundles.resolve(mesh::initial(options.mesh_config.as_deref(), &set)?);
        let trust_domain = options.trust_domain_in(&mesh)?;
        let watch = mesh::Watch::new(&options, trust_domain.clone());
        let (follower, snapshot) = Follower::new(&options, mesh, watch, &set);
        stats.describe(&snapshot, &set);
        stats.passed(set.iter().map(|object| object.key()).collect::<Vec<_>>().iter());
        let cache = Arc::new(Cache::default());
        let source: Arc<dyn Source> = Arc::new(source::Translator::new(
            cache.clone(),
            options.authority.clone(),
            options.cluster.as_ref().map(|cluster| cluster.access.clone()),
        ));
        let pusher_options = PusherOptions { identifier: options.identifier().into(), stats: stats.push.clone() };
        let (authenticator, tokens) = options.authenticator(&trust_domain)?;
        authenticator.set_aliases(authority::aliases(&snapshot.mesh));
        let authenticator = Arc::new(authenticator);
        let pusher = Pusher::new(source, Arc::new(snapshot), pusher_options);
        let external = options.external.clone();
        if let Some(external) = &external {
            external.set_mesh(&pusher.snapshot().mesh, &options.authority);
        }
        let certificates = CertificateService::new(options.authority.clone(), authenticator.clone())
            .with_external(external.map(|external| external as Arc<dyn ExternalAuthority>));
        let listen = async |address: Option<SocketAddr>| match address {
            Some(address) => TcpListener::bind(address).await.map(Some).with_context(|| format!("listen on {address}")),
            None => Ok(None),
        };
        let (grpc, secure) = (listen(options.grpc).await?, listen(options.secure).await?);
        let (http, monitoring) = (listen(options.http).await?, listen(options.monitoring).await?);
        let webhook = listen(options.webhook.address).await?;
        let config = Arc::new(ArcSwap::new(set));
        let (grace, most) = (options.workload_entry_grace, options.max_connections);
        let entries: Arc<dyn Entries> = match &options.cluster {
            Some(cluster) => cluster.entries(),
            None => store.clone(),
        };
        let registrations = Arc::new(Registrations::new(entries, grace, most, stats.registrations.clone()));
        let counters = certificates.counters();
        let state = State {
            pusher,
            config,
            stats,
            certificates: counters,
            authenticator,
            tokens,
            cache,
            federated: Arc::default(),
            registrations,
            roots_pushed: AtomicU64::new(*options.authority.subscribe().borrow()),
            trust_domain,
            options,
        };
        Ok(Self { state: Arc::new(state), store, follower, certificates, grpc, secure, http, monitoring, webhook })
    }

    pub fn addresses(&self) -> Addresses {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        Addresses {
            grpc: address(&self.grpc),
            secure: address(&self.secure),
            http: address(&self.http),
            monitoring: address(&self.monitoring),
            webhook: address(&self.webhook),
        }
    }

    /// Serves until `shutdown` is done, then ends streams, within a few seconds.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tracing::info!(services = self.state.pusher.snapshot().services.len(), "discovery is ready");
        self.keep(&stopped, &mut tasks);
        self.listen(&stopped, &mut tasks)?;
        tokio::pin!(shutdown);
        let mut failure = None;
        tokio::select! {
            () = &mut shutdown => {}
            Some(ended) = tasks.join_next() => failure = ended.map_err(anyhow::Error::from).and_then(|ended| ended).err(),
        }
        stop.send_replace(true);
        let ended = tokio::time::timeout(SHUTDOWN_GRACE, async { while tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tasks.shutdown().await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Starts what follows others: the store, the cluster, the authority and its files.
    fn keep(&self, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<Result<()>>) {
        let state = &self.state;
        let (below, registrations, mut ended) = (self.store.clone(), state.registrations.clone(), stopped.clone());
        tasks.spawn(async move {
            tokio::select! {
                ((), ()) = async { tokio::join!(below.follow(), registrations.reap()) } => {}
                _ = ended.wait_for(|stopped| *stopped) => {}
            }
            Ok(())
        });
        if let Some(cluster) = state.options.cluster.clone() {
            let (state, stopped) = (state.clone(), stopped.clone());
            tasks.spawn(async move {
                cluster.run(state, stopped).await;
                Ok(())
            });
        }
        let keeping = authority::run(state.clone(), stopped.clone());
        let keys = tokens::follow(state.clone(), stopped.clone());
        let (given, mut ended) = (state.options.given.clone(), stopped.clone());
        let files = async move {
            tokio::select! {
                () = given.follow() => {}
                _ = ended.wait_for(|stopped| *stopped) => {}
            }
        };
        tasks.spawn(async move {
            tokio::join!(keeping, keys, files);
            Ok(())
        });
    }

    /// Starts the servers, and what proxies are told of changes by.
    fn listen(self, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
        let Self { state, store, follower, certificates, .. } = self;
        tasks.spawn(follow::run(follower, store, state.clone(), stopped.clone()));
        let ads = ads::AdsService::new(state.clone(), stopped.clone());
        if let Some(listener) = self.grpc {
            tasks.spawn(ads::serve_plaintext(listener, ads.clone(), certificates.clone(), stopped.clone()));
        }
        if let Some(listener) = self.secure {
            let tls = secure::SecureListener::new(listener, state.clone())?;
            tasks.spawn(ads::serve_secure(tls, ads.clone(), certificates, stopped.clone()));
        }
        if let Some(listener) = self.webhook {
            tasks.spawn(webhook::serve(
                secure::SecureListener::of_http(listener, state.clone())?,
                state.clone(),
                stopped.clone(),
            ));
        }
        for listener in [self.http, self.monitoring].into_iter().flatten() {
            tasks.spawn(http::serve(listener, state.clone(), stopped.clone()));
        }
        Ok(())
    }
}

/// Runs a control plane over a folder of documents, a cluster, or both, until `shutdown` is done.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    let folder = match &options.config_dir {
        Some(dir) => {
            Some(Arc::new(FileStore::open(dir).with_context(|| format!("configuration in {}", dir.display()))?))
        }
        None => None,
    };
    let cluster = options.cluster.as_ref().map(|cluster| cluster.store.clone());
    let problems = folder.iter().map(|folder| folder.watch_problems());
    let problems: Vec<_> = problems.chain(cluster.iter().map(|cluster| cluster.watch_problems())).collect();
    let mut following = JoinSet::new();
    let store: Arc<dyn ConfigStore> = match (folder, cluster) {
        (Some(folder), Some(cluster)) => {
            let union = Arc::new(Union::new(folder, cluster));
            let store = union.clone();
            following.spawn(async move { union.follow().await });
            store
        }
        (Some(folder), None) => folder,
        (None, Some(cluster)) => cluster,
        (None, None) => {
            tracing::warn!(
                "nothing is followed: there is no --configDir and no --kubeconfig, and this is no pod of a cluster"
            );
            Arc::new(meltemi_store::MemoryStore::new(ConfigSet::default()))
        }
    };
    let discovery = Discovery::bind(options, store).await?;
    for problems in problems {
        following.spawn(follow::log_problems(problems, discovery.state.stats.clone()));
    }
    discovery.serve(shutdown).await
}

/// Until SIGINT or SIGTERM.
pub async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
