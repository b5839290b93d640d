//! `meltemi proxy sidecar|router`: the agent and the data plane in one process.
//!
//! The agent asks for a certificate and keeps it; the proxy takes its secrets from the agent, its configuration from discovery
//! and, where names are captured, hands the mesh's names to the DNS server. With `--envoy` a foreign Envoy takes the proxy's
//! place.

use anyhow::{Context, Result};
use meltemi_agent::dns::{self, Names};
use meltemi_agent::environment::Variables;
use meltemi_agent::sds::Secrets;
use meltemi_agent::supervise::{self, EnvoyOptions};
use meltemi_agent::upstream::ControlPlane;
use meltemi_agent::{IdentityKeeper, Role, Settings, bootstrap, status};
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use meltemi_proto::istio::networking::nds::v1::NameTable;
use meltemi_proxy::admin::AdminState;
use meltemi_proxy::{Options, Proxy, SecretSource};
use meltemi_telemetry::logging::Logging;
use meltemi_xds::client::{self, Client, Event, Target};
use meltemi_xds::{WILDCARD, types};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What the command line says.
pub struct WorkloadOptions {
    pub role: Role,
    /// pilot-agent's `--domain`.
    pub dns_domain: Option<String>,
    pub concurrency: Option<usize>,
    /// Supervise this Envoy instead of proxying.
    pub envoy: Option<PathBuf>,
    pub envoy_log_level: String,
    pub logging: Arc<Logging>,
}

/// Runs until `stop` resolves.
pub async fn run(options: WorkloadOptions, stop: impl Future<Output = ()>) -> Result<()> {
    meltemi_tls::install_default_provider();
    let variables = Variables::of_process();
    let settings = Settings::from_variables(options.role, options.dns_domain.as_deref(), &variables)?;
    if let Some(mark) = settings.socket_mark {
        meltemi_net::mark_all_connections(mark);
    }
    let control_plane = Arc::new(ControlPlane::new(&settings));
    let id = format!("spiffe://{}/ns/{}/sa/{}", settings.trust_domain, settings.namespace, settings.service_account);
    let keeper = Arc::new(IdentityKeeper::new(control_plane.clone(), id, settings.certificate_ttl));
    let keeping = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.run().await }
    });
    let secrets = Secrets::new(keeper.subscribe());
    let names = serve_names(&settings, &control_plane)?;
    let result = match &options.envoy {
        Some(binary) => run_envoy(&settings, &options, binary.clone(), control_plane, secrets, stop).await,
        None => run_own(&settings, &options, &control_plane, secrets, stop).await,
    };
    keeping.abort();
    if let Some(names) = names {
        names.abort();
    }
    result
}

async fn run_envoy(
    settings: &Settings,
    options: &WorkloadOptions,
    binary: PathBuf,
    control_plane: Arc<ControlPlane>,
    secrets: Secrets,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let envoy = EnvoyOptions {
        binary,
        directory: "./etc/istio/proxy".into(),
        log_level: options.envoy_log_level.clone(),
        extra_arguments: Vec::new(),
    };
    let state = Arc::new(EnvoyState { admin_port: settings.admin_port });
    let status = status::serve(SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.status_port)), state);
    tokio::select! {
        done = supervise::run(settings, &envoy, control_plane, secrets, stop) => done.context("envoy"),
        done = status => done.context("status port"),
    }
}

/// A supervised Envoy, asked on its admin port.
struct EnvoyState {
    admin_port: u16,
}

impl EnvoyState {
    fn ask(&self, path: &str) -> std::io::Result<(u16, String)> {
        use std::io::{Read, Write};
        let timeout = std::time::Duration::from_secs(2);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port));
        let mut stream = std::net::TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }
}

impl status::ProxyState for EnvoyState {
    fn ready(&self) -> std::result::Result<(), String> {
        match self.ask("/ready") {
            Ok((200, _)) => Ok(()),
            Ok((_, body)) => Err(body),
            Err(e) => Err(e.to_string()),
        }
    }

    fn metrics(&self) -> String {
        self.ask("/stats/prometheus").map(|(_, body)| body).unwrap_or_default()
    }
}

async fn run_own(
    settings: &Settings,
    options: &WorkloadOptions,
    control_plane: &Arc<ControlPlane>,
    secrets: Secrets,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let bootstrap: Bootstrap = meltemi_proto::json::from_value(&bootstrap::own(settings))?;
    let mut proxy_options = Options::new(&bootstrap)?;
    let configured = settings.concurrency.filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    proxy_options.concurrency = options.concurrency.or(configured).unwrap_or(proxy_options.concurrency);
    proxy_options.logging = Some(options.logging.clone());
    proxy_options.drain_time = settings.termination_drain_duration;
    proxy_options.control_plane = Some(client_options(control_plane, bootstrap.node.clone().unwrap_or_default()));
    proxy_options.secrets = Some(Box::new(LocalSecrets { secrets, first: true }));
    let proxy = Proxy::new(proxy_options)?;
    let state = Arc::new(OwnState { state: proxy.state() });
    let ports = [settings.readiness_port, settings.status_port, settings.prometheus_port];
    let [ready, merged, prometheus] = ports.map(|port| {
        let state: Arc<dyn status::ProxyState> = state.clone();
        status::serve(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), state)
    });
    tokio::select! {
        done = proxy.run(stop) => done.context("proxy"),
        done = ready => done.with_context(|| format!("readiness port {}", settings.readiness_port)),
        done = merged => done.with_context(|| format!("status port {}", settings.status_port)),
        done = prometheus => done.with_context(|| format!("metrics port {}", settings.prometheus_port)),
    }
}

/// Each stream dials anew, with the token as it is then.
fn client_options(
    control_plane: &Arc<ControlPlane>,
    node: meltemi_proto::envoy::config::core::v3::Node,
) -> client::Options {
    let dialing = control_plane.clone();
    let target = Target::Custom(Arc::new(move || {
        let control_plane = dialing.clone();
        Box::pin(async move { Ok(control_plane.discovery_channel(None).await?) })
    }));
    let mut options = client::Options::new(target, node);
    let control_plane = control_plane.clone();
    options.metadata = Some(Arc::new(move || control_plane.headers()));
    options
}

struct OwnState {
    state: Arc<AdminState>,
}

impl status::ProxyState for OwnState {
    fn ready(&self) -> std::result::Result<(), String> {
        match self.state.server_state() {
            "LIVE" => Ok(()),
            other => Err(other.to_owned()),
        }
    }

    fn metrics(&self) -> String {
        self.state.registry.prometheus(&Default::default())
    }
}

/// The agent's secrets as the proxy asks for them.
struct LocalSecrets {
    secrets: Secrets,
    first: bool,
}

impl SecretSource for LocalSecrets {
    fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.secret(name)
    }

    fn changed<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            // What arrived between the first look and now counts as a change.
            if !std::mem::take(&mut self.first) {
                self.secrets.changed().await;
            }
        })
    }
}

/// Starts the DNS server where names are captured; it follows discovery's name table on a stream of its own.
fn serve_names(
    settings: &Settings,
    control_plane: &Arc<ControlPlane>,
) -> Result<Option<tokio::task::JoinHandle<()>>> {
    if !settings.dns_capture {
        return Ok(None);
    }
    let address = settings.dns_address.replace("localhost", "127.0.0.1");
    let address: SocketAddr = address.parse().with_context(|| format!("DNS_PROXY_ADDR={address:?}"))?;
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut upstreams = dns::nameservers(&resolv_conf);
    upstreams.retain(|upstream| upstream.ip() != address.ip());
    let (publish, names) = watch::channel(Arc::new(Names::default()));
    let server = dns::Server::new(names, upstreams, settings.socket_mark);
    let node: Bootstrap = meltemi_proto::json::from_value(&bootstrap::own(settings))?;
    let options = client_options(control_plane, node.node.unwrap_or_default());
    let namespace = settings.namespace.clone();
    Ok(Some(tokio::spawn(async move {
        tokio::select! {
            done = server.serve(address) => {
                if let Err(error) = done {
                    tracing::error!(%address, %error, "dns server");
                }
            }
            () = follow_names(options, namespace, publish) => {}
        }
    })))
}

async fn follow_names(options: client::Options, namespace: String, publish: watch::Sender<Arc<Names>>) {
    let (client, mut events) = Client::spawn(options);
    client.subscribe(types::NAME_TABLE, [WILDCARD]);
    while let Some(event) = events.next().await {
        let Event::Update(update) = event else { continue };
        let table = update.resources.first().map(|resource| resource.body.unpack::<NameTable>());
        match table {
            Some(Ok(table)) => {
                publish.send_replace(Arc::new(Names::from_table(&table, &namespace)));
                update.reply.accept();
            }
            Some(Err(e)) => update.reply.reject(e.to_string()),
            None => update.reply.accept(),
        }
    }
}
