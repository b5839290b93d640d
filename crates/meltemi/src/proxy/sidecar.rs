//! One workload's agent and proxy in one process, or the agent beside a real Envoy.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use meltemi_agent::dns::{Names, Server, nameservers};
use meltemi_agent::envoy_admin::EnvoyAdmin;
use meltemi_agent::sds::Secrets;
use meltemi_agent::status::{self, ProxyState, Status, Told};
use meltemi_agent::supervise::{self, EnvoyOptions};
use meltemi_agent::termination::connections;
use meltemi_agent::upstream::{ControlPlane, agent_stream};
use meltemi_agent::{IdentityKeeper, Role, Settings, bootstrap, health, serve_workload_api, trust};
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use meltemi_proto::istio::networking::nds::v1::NameTable;
use meltemi_proxy::admin::AdminState;
use meltemi_proxy::worker::{Phase, Reach};
use meltemi_proxy::{Options, Proxy, SecretSource};
use meltemi_telemetry::logging::Logging;
use meltemi_telemetry::metrics::Filter;
use meltemi_xds::client::{Client, Event};
use meltemi_xds::{WILDCARD, types};
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::{control_plane, told_to_stop};

/// For what is still open when the wait for clients is over.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

struct Workload(Secrets);

impl SecretSource for Workload {
    fn secret(&self, name: &str) -> Option<Secret> {
        self.0.secret(name)
    }

    fn changed<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.0.changed())
    }
}

struct Serving {
    state: Arc<AdminState>,
    role: Role,
}

impl ProxyState for Serving {
    fn ready(&self) -> Told<'_, Result<(), String>> {
        Box::pin(std::future::ready(match self.state.server_state() {
            "LIVE" => Ok(()),
            state => Err(state.to_owned()),
        }))
    }

    fn metrics(&self) -> Told<'_, String> {
        Box::pin(std::future::ready(self.state.registry.prometheus(&Filter::default())))
    }

    /// The agent's ports are no listeners of this proxy.
    fn connections(&self) -> Told<'_, Result<u64, String>> {
        let active = |name: &str| name.ends_with(".downstream_cx_active");
        let filter = Filter { name: Some(&active), ..Filter::default() };
        Box::pin(std::future::ready(Ok(connections(&self.state.registry.text(&filter), &[]))))
    }

    /// Of a sidecar the inbound side alone: what the application still has to ask goes on as it was.
    fn drain(&self) -> Told<'_, ()> {
        let reach = if self.role == Role::Sidecar { Reach::Inbound } else { Reach::All };
        self.state.advance(Phase::Leaving(reach));
        Box::pin(std::future::ready(()))
    }

    fn ending(&self) {
        self.state.ending.store(true, Ordering::Relaxed);
    }
}

fn keeper(settings: &Settings, control_plane: &Arc<ControlPlane>) -> Arc<IdentityKeeper> {
    let keeper = Arc::new(IdentityKeeper::new(Arc::clone(control_plane), settings));
    let running = Arc::clone(&keeper);
    spawn_local(async move { running.run().await });
    if let Some(socket) = settings.workload_api_socket.clone() {
        let asked = keeper.clone();
        spawn_local(async move {
            if let Err(error) = serve_workload_api(&socket, asked).await {
                tracing::error!(socket = %socket.display(), %error, "Workload API");
            }
        });
    }
    keeper
}

/// Runs agent and proxy until told to stop.
pub async fn run(settings: Settings, logging: Arc<Logging>) -> anyhow::Result<()> {
    if let Some(mark) = settings.socket_mark {
        meltemi_net::mark_all_connections(mark);
    }
    let control_plane = Arc::new(ControlPlane::new(&settings));
    let keeper = keeper(&settings, &control_plane);
    let bootstrap: Bootstrap = meltemi_proto::json::from_value(&bootstrap::own(&settings)).context("bootstrap")?;
    let node = bootstrap.node.clone().unwrap_or_default();
    let mut options = Options::new(&bootstrap)?;
    if let Some(count) = settings.concurrency.filter(|count| *count > 0) {
        options.concurrency = usize::try_from(count)?;
    }
    options.control_plane = Some(control_plane::options(&control_plane, &keeper, node.clone()));
    options.secrets = Some(Box::new(Workload(Secrets::new(keeper.subscribe()))));
    // It is the agent that waits for clients to go.
    options.lingering = Duration::ZERO;
    options.drain_time = LAST_REQUESTS;
    options.on_demand_idle = settings.on_demand_idle;
    options.logging = Some(logging);
    let proxy = Proxy::new(options)?;
    let state: Arc<dyn ProxyState> = Arc::new(Serving { state: proxy.state(), role: settings.role });
    let status = Status::new(Arc::clone(&state), &settings);
    serve_status(&[settings.readiness_port, settings.status_port, settings.prometheus_port], &status);
    watch_health(&settings, &control_plane, &keeper, (&node, &state))?;
    spawn_local(trust::follow(control_plane::options(&control_plane, &keeper, node.clone()), Arc::clone(&keeper)));
    if settings.dns_capture {
        names(&settings, &control_plane, &keeper, node).await;
    }
    spawn_local(super::give_memory_back(proxy.state()));
    spawn_local(super::follow_signals(proxy.state()));
    Ok(proxy.run(status.termination.due(told_to_stop())).await?)
}

/// Serves what others ask of the agent; where two ports are the same, once.
fn serve_status(ports: &[u16], status: &Arc<Status>) {
    for port in ports.iter().copied().collect::<BTreeSet<_>>() {
        let status = Arc::clone(status);
        spawn_local(async move {
            if let Err(error) = status::serve(port, status).await {
                tracing::error!(port, %error, "status port");
            }
        });
    }
}

/// Probes the application as `readinessProbe` says, and tells discovery.
fn watch_health(
    settings: &Settings,
    control_plane: &Arc<ControlPlane>,
    keeper: &Arc<IdentityKeeper>,
    (node, proxy): (&Node, &Arc<dyn ProxyState>),
) -> anyhow::Result<()> {
    let Some(probe) = settings.readiness_probe.clone() else { return Ok(()) };
    let prober = health::Prober::new(&probe, settings).map_err(anyhow::Error::msg).context("readinessProbe")?;
    let (told, heard) = watch::channel(None);
    spawn_local(health::watch(probe, prober, Arc::clone(proxy), told));
    spawn_local(health::report(Arc::clone(control_plane), keeper.subscribe(), node.clone(), heard));
    Ok(())
}

/// Answers the workload's DNS queries from discovery's name table.
async fn names(settings: &Settings, control_plane: &Arc<ControlPlane>, keeper: &Arc<IdentityKeeper>, node: Node) {
    let (table, names) = watch::channel(Arc::new(Names::default()));
    let upstreams = nameservers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let server = Server::new(names, upstreams, settings.socket_mark);
    // `localhost` is an address of each family.
    match tokio::net::lookup_host(&settings.dns_address).await {
        Ok(addresses) => addresses.for_each(|address| {
            let server = server.clone();
            spawn_local(async move {
                if let Err(error) = server.serve(address).await {
                    tracing::error!(%address, %error, "DNS");
                }
            });
        }),
        Err(error) => tracing::error!(address = settings.dns_address, %error, "DNS: not an address"),
    }
    let options = control_plane::options(control_plane, keeper, agent_stream(node));
    let namespace = settings.namespace.clone();
    spawn_local(follow_names(options, namespace, table));
}

async fn follow_names(options: meltemi_xds::client::Options, namespace: String, table: watch::Sender<Arc<Names>>) {
    let (client, mut events) = Client::spawn(options);
    client.subscribe(types::NAME_TABLE, [WILDCARD]);
    while let Some(event) = events.next().await {
        let Event::Update(update) = event else { continue };
        let tables = update.resources.iter().map(|resource| resource.body.unpack::<NameTable>());
        match tables.collect::<Result<Vec<_>, _>>() {
            Ok(tables) => {
                if let Some(newest) = tables.last() {
                    table.send_replace(Arc::new(Names::from_table(newest, &namespace)));
                }
                update.reply.accept();
            }
            Err(error) => update.reply.reject(error.to_string()),
        }
    }
}

/// Runs the agent, with a real Envoy that it starts again when it ends, until told to stop.
pub async fn with_envoy(settings: Settings, envoy: &Path, level: &str) -> anyhow::Result<()> {
    let control_plane = Arc::new(ControlPlane::new(&settings));
    let keeper = keeper(&settings, &control_plane);
    // Relative, as Istio's agent has it: a socket's path must fit in 108 bytes, wherever the working folder is.
    let directory =
        std::env::var_os("MELTEMI_PROXY_DIR").map_or_else(|| PathBuf::from("./etc/istio/proxy"), PathBuf::from);
    // Envoy itself listens on the other two and passes readiness on to this one.
    let own_ports = vec![settings.readiness_port, settings.prometheus_port];
    let admin = EnvoyAdmin { port: settings.admin_port, role: settings.role, own_ports };
    let state: Arc<dyn ProxyState> = Arc::new(admin);
    let status = Status::new(Arc::clone(&state), &settings);
    serve_status(&[settings.status_port], &status);
    let options =
        EnvoyOptions { binary: envoy.to_owned(), directory, log_level: level.to_owned(), extra_arguments: Vec::new() };
    let secrets = Secrets::new(keeper.subscribe());
    let node = meltemi_proto::json::from_value::<Bootstrap>(&bootstrap::own(&settings)).context("bootstrap")?.node;
    let node = node.unwrap_or_default();
    watch_health(&settings, &control_plane, &keeper, (&node, &state))?;
    spawn_local(trust::follow(control_plane::options(&control_plane, &keeper, node.clone()), Arc::clone(&keeper)));
    if settings.dns_capture {
        names(&settings, &control_plane, &keeper, node).await;
    }
    let due = status.termination.due(told_to_stop());
    Ok(supervise::run(&settings, &options, control_plane, secrets, due).await?)
}
