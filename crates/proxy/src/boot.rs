//! The main thread: bootstrap, subscriptions, publication, the end.

mod admin_port;
mod control_plane;
mod subscriber;
#[cfg(test)]
mod tests;

use crate::admin::AdminState;
use crate::configurator::{Configurator, Held, Source};
use crate::demand::{self, Demand};
use crate::worker::{self, Feed, ListenerStatus, Phase, Reach};
use meltemi_plan::bootstrap::ConnectionLimits;
use meltemi_plan::{Bootstrap, PlanError};
use meltemi_proto::Any;
use meltemi_telemetry::Registry;
use meltemi_telemetry::logging::Logging;
use meltemi_xds::client;
use parking_lot::Mutex;
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

pub(crate) use admin_port::AdminPort;
pub use subscriber::Subscriber;

/// Unless told otherwise.
const ON_DEMAND_IDLE: Duration = Duration::from_secs(600);

/// Listener reports on their way to the main thread; one that does not fit is only a log line less.
const MAX_STATUSES: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("bootstrap: {0}")]
    Bootstrap(String),
    #[error("{what} {address}: {reason}")]
    Listen { what: &'static str, address: String, reason: std::io::Error },
    #[error("listener {listener}: {reason}")]
    Listener { listener: Arc<str>, reason: String },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// No source of its own, or whoever prints the chain would print the path twice.
impl From<PlanError> for RunError {
    fn from(error: PlanError) -> Self {
        Self::Bootstrap(error.to_string())
    }
}

/// Gives secrets that do not come by ADS, such as an agent's workload certificate.
pub trait SecretSource: Send {
    /// None: not there yet, or not a name of this source.
    fn secret(&self, name: &str) -> Option<meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret>;

    /// Resolves when a secret may have changed.
    fn changed<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// What a proxy is started with.
pub struct Options {
    pub bootstrap: Bootstrap,
    /// The document, for `/config_dump`.
    pub bootstrap_body: Any,
    /// Worker threads; at least one.
    pub concurrency: usize,
    pub registry: Registry,
    /// Overrides the way to the control plane that the bootstrap describes.
    pub control_plane: Option<client::Options>,
    pub secrets: Option<Box<dyn SecretSource>>,
    pub logging: Option<Arc<Logging>>,
    /// Where the address of the admin port is written.
    pub admin_address_path: Option<PathBuf>,
    /// Connections of a removed or drained listener are closed after this.
    pub drain_time: Duration,
    /// How long listeners go on accepting once the process was told to stop.
    pub lingering: Duration,
    /// Configuration that traffic asked for is given up when nothing has used it for so long.
    pub on_demand_idle: Duration,
}

impl Options {
    /// From a bootstrap document.
    pub fn new(bootstrap: &meltemi_proto::envoy::config::bootstrap::v3::Bootstrap) -> Result<Self, RunError> {
        Ok(Self {
            bootstrap: meltemi_plan::bootstrap(bootstrap)?,
            bootstrap_body: meltemi_proto::pack_bootstrap(bootstrap),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            registry: Registry::new(),
            control_plane: None,
            secrets: None,
            logging: None,
            admin_address_path: None,
            drain_time: Duration::from_secs(600),
            lingering: Duration::ZERO,
            on_demand_idle: ON_DEMAND_IDLE,
        })
    }
}

/// A proxy before it runs.
pub struct Proxy {
    options: Options,
    state: Arc<AdminState>,
    stop: mpsc::Receiver<()>,
}

impl Proxy {
    /// Takes the static part of the bootstrap. Everything that is wrong with it is found here.
    pub fn new(options: Options) -> Result<Self, RunError> {
        if options.control_plane.is_none() {
            // Made again when it runs; asked here so that `validate` sees what is wrong with it.
            control_plane::from_bootstrap(&options)?;
        }
        let bootstrap = &options.bootstrap;
        let local = bootstrap.local_cluster.clone();
        let local = local.map(|cluster| meltemi_upstream::Local::new(cluster, bootstrap.node.locality.clone()));
        let mut configurator = Configurator::new(options.registry.clone()).with_local(local);
        let failed = |kind: &str, name: &str| {
            let place = format!("static_resources.{kind} {name:?}");
            move |reason: String| RunError::Bootstrap(format!("{place}: {reason}"))
        };
        for secret in &bootstrap.secrets {
            configurator.set_secret(secret).map_err(failed("secrets", &secret.name))?;
        }
        for plan in &bootstrap.clusters {
            configurator.set_cluster(fixed(plan.clone())).map_err(failed("clusters", &plan.name))?;
        }
        for plan in &bootstrap.listeners {
            configurator.set_listener(fixed(plan.clone())).map_err(failed("listeners", &plan.name))?;
        }
        for (path, reason) in &bootstrap.ignored {
            tracing::info!(%path, %reason, "has no effect here");
        }
        configurator.publish();
        meltemi_proto::json::release_descriptors();
        let node = &options.bootstrap.node;
        let node = meltemi_filters::LocalNode::new(&node.id, &node.cluster, &node.metadata);
        let filters = meltemi_filters::Context::new(&options.registry, node);
        let (quit, stop) = mpsc::channel(1);
        let state = AdminState {
            configurator: Mutex::new(configurator),
            bootstrap: options.bootstrap_body.clone(),
            node: options.bootstrap.node.clone(),
            runtime: options.bootstrap.runtime.clone(),
            filters,
            bound: Default::default(),
            anomalies: Arc::default(),
            registry: options.registry.clone(),
            logging: options.logging.clone(),
            started: SystemTime::now(),
            concurrency: options.concurrency,
            health_failed: false.into(),
            phase: watch::Sender::default(),
            drain_time: options.drain_time,
            ending: false.into(),
            initialized: watch::Sender::new(false),
            quit,
        };
        Ok(Self { options, state: Arc::new(state), stop })
    }

    /// What `/ready`, `/stats` and the like are answered from.
    pub fn state(&self) -> Arc<AdminState> {
        self.state.clone()
    }

    /// Runs until `stop` resolves or `/quitquitquit` is asked for; then drains.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let admin = self.admin().await?;
        let (demand, questions) = demand::channel();
        let limits = self.options.bootstrap.limits.clone();
        let workers = Workers::start(&self.state, self.options.concurrency.max(1), limits, &demand)?;
        let mut subscriber = Subscriber::new(self.state.clone(), self.options.secrets.take());
        subscriber.on_demand(questions, self.options.on_demand_idle);
        let control_plane = match self.options.control_plane.take() {
            Some(options) => Some(options),
            None => {
                subscriber.follow_only(&self.options.bootstrap);
                control_plane::from_bootstrap(&self.options)?
            }
        };
        let following = subscriber.run(control_plane);
        let Workers { threads, statuses } = workers;
        let failed = watch_statuses(statuses, self.state.clone());
        let mut working = pin!(async {
            tokio::select! {
                () = following => Ok(()),
                done = admin => done.map_err(RunError::from),
                error = failed => Err(error),
            }
        });
        let (ended, works) = tokio::select! {
            ended = &mut working => (ended, false),
            () = stop => (Ok(()), true),
            _ = self.stop.recv() => (Ok(()), true),
        };
        self.state.ending.store(true, Ordering::Relaxed);
        if ended.is_ok() {
            let mut leaving = pin!(self.leave(threads));
            // What is still served follows the configuration until the end, and the admin tells of it.
            tokio::select! {
                () = &mut leaving => return ended,
                _ = &mut working, if works => {}
            }
            leaving.await;
        }
        ended
    }

    async fn leave(&self, threads: Vec<JoinHandle<()>>) {
        self.state.advance(Phase::Leaving(Reach::All));
        tokio::time::sleep(self.options.lingering).await;
        drain(threads, &self.state, self.options.drain_time).await;
    }

    async fn admin(&self) -> Result<impl Future<Output = std::io::Result<()>> + use<>, RunError> {
        let address = self.options.bootstrap.admin.as_ref().and_then(|admin| admin.address.as_ref());
        let port = match address {
            Some(address) => Some(AdminPort::bind(address).await?),
            None => None,
        };
        if let (Some(path), Some(port)) = (&self.options.admin_address_path, &port) {
            std::fs::write(path, port.address())?;
        }
        let state = self.state.clone();
        Ok(async move {
            match port {
                Some(port) => port.serve(state).await,
                None => std::future::pending().await,
            }
        })
    }
}

/// The worker threads and what they tell.
struct Workers {
    threads: Vec<JoinHandle<()>>,
    statuses: mpsc::Receiver<ListenerStatus>,
}

impl Workers {
    fn start(
        state: &Arc<AdminState>,
        count: usize,
        limits: ConnectionLimits,
        demand: &Demand,
    ) -> Result<Self, RunError> {
        let (status, statuses) = mpsc::channel(MAX_STATUSES);
        tokio::spawn(crate::spans::run(state.filters.clone(), state.configurator.lock().subscribe()));
        let worlds = state.configurator.lock().subscribe();
        tokio::spawn(crate::anomalies::run(state.registry.clone(), state.anomalies.clone(), worlds));
        let limits = worker::Limits::new(limits, &state.registry);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let worlds = state.configurator.lock().subscribe();
            let (status, filters) = (Some(status.clone()), state.filters.clone());
            let (phase, demand, limits) = (state.phase.subscribe(), Some(demand.clone()), limits.clone());
            threads.push(worker::spawn(index, Feed { worlds, phase, status, filters, limits, demand })?);
        }
        Ok(Self { threads, statuses })
    }
}

/// Logs listeners that cannot be bound. One of the bootstrap ends the process; another may be repaired by an update.
async fn watch_statuses(mut statuses: mpsc::Receiver<ListenerStatus>, state: Arc<AdminState>) -> RunError {
    while let Some(ListenerStatus { worker, listener, result }) = statuses.recv().await {
        let reason = match result {
            Err(reason) => reason,
            Ok(meltemi_net::Address::Socket(address)) if worker == 0 => {
                state.bound.add(&listener, address);
                continue;
            }
            Ok(_) => continue,
        };
        tracing::error!(listener = %listener, reason, "listener not bound");
        let configurator = state.configurator.lock();
        let fixed = configurator.held_listeners().any(|(held, _)| held.source.fixed && held.plan.name == listener);
        if fixed {
            return RunError::Listener { listener, reason };
        }
    }
    std::future::pending().await
}

/// Asks the workers to finish what is open, within a limit, and waits for their threads.
async fn drain(threads: Vec<JoinHandle<()>>, state: &AdminState, limit: Duration) {
    state.advance(Phase::Draining);
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    });
    tokio::pin!(joined);
    if tokio::time::timeout(limit, &mut joined).await.is_err() {
        state.advance(Phase::Stopped);
        // The threads end at once now; a panic among them was logged.
        let _ = joined.await;
    }
}

fn fixed<P>(plan: Arc<P>) -> Held<P> {
    let source = Source { body: Arc::default(), version: Arc::default(), updated: SystemTime::now(), fixed: true };
    Held { plan, source }
}
