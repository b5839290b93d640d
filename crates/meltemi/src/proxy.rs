//! `meltemi proxy`: as pilot-agent's `proxy sidecar|router`, and as `envoy -c`.
//!
//! Puts together what two crates that may not know each other give: the agent (identity, names, readiness) and the proxy
//! (connections). Both end together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use meltemi_agent::{Role, Settings};
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proxy::{Options, Proxy};
use meltemi_telemetry::logging::{Format, Level, Levels, Logging};
use tokio::signal::unix::{SignalKind, signal};

use crate::privileges::{self, Privileges};

mod control_plane;
mod envoy_flags;
mod sidecar;

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "\
As pilot-agent, the rest from its environment (POD_NAME, INSTANCE_IP, PROXY_CONFIG, ISTIO_META_*, ...):
  meltemi proxy sidecar --domain default.svc.cluster.local
  meltemi proxy router --envoy /usr/local/bin/envoy     # supervises a real Envoy instead
  meltemi proxy sidecar --user 1337 --keep-capability NET_ADMIN   # started by root

As Envoy, from a bootstrap in JSON or YAML:
  meltemi proxy -c envoy.yaml --concurrency 2
  meltemi proxy -c envoy.yaml --mode validate

Exit codes: 0 ended when told to; 1 it failed; 2 wrong usage")]
pub struct Arguments {
    /// sidecar or router: run as an agent with its proxy
    #[arg(value_name = "ROLE", value_parser = ["sidecar", "router"], required_unless_present_any = ["config_path", "config_yaml"])]
    role: Option<String>,
    /// A bootstrap file, as for envoy -c
    #[arg(short = 'c', long = "config-path", value_name = "FILE", conflicts_with = "role")]
    config_path: Option<PathBuf>,
    /// A bootstrap, merged over that of --config-path
    #[arg(long = "config-yaml", value_name = "TEXT", conflicts_with = "role")]
    config_yaml: Option<String>,
    /// Worker threads [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// serve, or validate: only check the bootstrap
    #[arg(long, default_value = "serve", value_parser = ["serve", "validate"], value_name = "MODE")]
    mode: String,
    /// How long open connections of a listener that goes may last, in seconds
    #[arg(long = "drain-time-s", value_name = "SECONDS")]
    drain_time_s: Option<u64>,
    /// DNS domain of the workload, such as default.svc.cluster.local
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Node id of the bootstrap
    #[arg(long = "service-node", value_name = "ID")]
    service_node: Option<String>,
    /// Node cluster of the bootstrap
    #[arg(long = "service-cluster", visible_alias = "serviceCluster", value_name = "NAME")]
    service_cluster: Option<String>,
    /// Run and supervise this Envoy, with our agent beside it
    #[arg(long, value_name = "PATH", requires = "role")]
    envoy: Option<PathBuf>,
    /// Log level, as Envoy has it
    #[arg(short = 'l', long = "proxyLogLevel", visible_alias = "proxy-log-level", value_name = "LEVEL")]
    proxy_log_level: Option<String>,
    /// Log levels of components, as Envoy has them
    #[arg(long = "proxyComponentLogLevel", visible_alias = "component-log-level", value_name = "LIST")]
    proxy_component_log_level: Option<String>,
    /// Log levels, as Istio has them
    #[arg(long = "log_output_level", value_name = "LIST")]
    log_output_level: Option<String>,
    /// Where to log, instead of stderr
    #[arg(long = "log-path", value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// File into which the address of the admin port is written
    #[arg(long = "admin-address-path", value_name = "FILE", conflicts_with = "role")]
    admin_address_path: Option<PathBuf>,
    /// Zone of the bootstrap's node
    #[arg(long = "service-zone", value_name = "ZONE", conflicts_with = "role")]
    service_zone: Option<String>,
    #[command(flatten)]
    privileges: privileges::Flags,
    #[command(flatten)]
    envoy_flags: envoy_flags::EnvoyFlags,
    #[arg(long = "stsPort", hide = true)]
    sts_port: Option<u16>,
    #[arg(long = "templateFile", hide = true)]
    template_file: Option<String>,
    #[arg(long = "tokenManagerPlugin", hide = true)]
    token_manager_plugin: Option<String>,
}

/// `format` is `text`, `json` or, as only Envoy has it, a pattern.
pub fn run(arguments: &Arguments, default_level: &str, format: &str) -> anyhow::Result<()> {
    let logging = Arc::new(arguments.logging(default_level, format == "json")?);
    crate::compliance::warn();
    crate::seclusion::begin();
    let pattern = (!crate::LOG_FORMATS.contains(&format)).then_some("log-format PATTERN");
    for flag in arguments.without_effect().chain(pattern) {
        tracing::warn!("--{flag} is accepted for pilot-agent's and Envoy's sake and has no effect");
    }
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match arguments.role.as_deref() {
        None => {
            let bootstrap = arguments.bootstrap()?;
            confine(&arguments.privileges.of_bootstrap(&bootstrap))?;
            runtime()?.block_on(arguments.serve_bootstrap(&bootstrap, logging))
        }
        Some(role) => {
            let role = if role == "sidecar" { Role::Sidecar } else { Role::Router };
            let variables = meltemi_agent::environment::Variables::of_process();
            let mut settings = Settings::from_variables(role, arguments.domain.as_deref(), &variables)?;
            if let Some(count) = arguments.concurrency {
                settings.concurrency = u32::try_from(count).ok();
            }
            confine(&arguments.privileges.of_agent(&settings, arguments.envoy.is_some()))?;
            let (runtime, local) = (runtime()?, tokio::task::LocalSet::new());
            match &arguments.envoy {
                Some(envoy) => {
                    let level = arguments.proxy_log_level.as_deref().unwrap_or("warning");
                    runtime.block_on(local.run_until(sidecar::with_envoy(settings, envoy, level)))
                }
                None => runtime.block_on(local.run_until(sidecar::run(settings, logging))),
            }
        }
    }
}

/// Before there is a second thread.
fn confine(privileges: &Privileges) -> anyhow::Result<()> {
    privileges.confine()?;
    if privileges.identity.is_some() {
        // With another user the kernel forgets it.
        crate::seclusion::begin();
    }
    Ok(())
}

/// How often what configuration changes have freed goes back to the system.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(30);

/// How long the start is given before what it took goes back, with or without a configuration.
const START: Duration = Duration::from_secs(2);

/// Gives memory back after the start, once the first configuration is in force, and from time to time after. Never resolves.
pub async fn give_memory_back(state: Arc<meltemi_proxy::admin::AdminState>) {
    let mut initialized = state.initialized.subscribe();
    // The sender is part of the state that we hold; a control plane without clusters may say nothing at all.
    let mut within = async |limit| {
        let in_force = initialized.wait_for(|initialized| *initialized);
        tokio::time::timeout(limit, in_force).await.is_ok()
    };
    if !within(START).await {
        crate::memory::give_back();
        within(GIVE_BACK_INTERVAL).await;
    }
    // What the start has read of the program is not needed again.
    crate::memory::give_back_program();
    loop {
        crate::memory::give_back();
        tokio::time::sleep(GIVE_BACK_INTERVAL).await;
    }
}

/// What Envoy does at signals that do not end it: SIGUSR1 opens log files anew, SIGHUP does nothing. Never resolves.
pub async fn follow_signals(state: Arc<meltemi_proxy::admin::AdminState>) {
    // Who asks for a signal once has taken away its power to end the process.
    let signals = signal(SignalKind::hangup()).and_then(|_| signal(SignalKind::user_defined1()));
    match signals {
        Ok(mut reopen) => {
            while reopen.recv().await.is_some() {
                tracing::info!("log files are opened anew");
                state.reopen_logs();
            }
        }
        Err(error) => tracing::warn!(%error, "no signals: SIGUSR1 and SIGHUP end this process"),
    }
    std::future::pending().await
}

/// Resolves at SIGTERM or SIGINT.
pub async fn told_to_stop() {
    let signals =
        signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    match signals {
        Ok((mut terminate, mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "no signals: only killing ends this process");
            std::future::pending().await
        }
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The document alone, so that an error has its line.
fn alone(path: &Path) -> anyhow::Result<Bootstrap> {
    meltemi_proto::json::from_text(&read(path)?).with_context(|| path.display().to_string())
}

/// As Envoy merges `--config-yaml`: objects field by field, lists one after the other, all else replaced.
fn merge(base: &mut serde_json::Value, over: serde_json::Value) {
    use serde_json::Value::{Array, Object};
    match (base, over) {
        (Object(base), Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (Array(base), Array(over)) => base.extend(over),
        (base, over) => *base = over,
    }
}

impl Arguments {
    fn logging(&self, default: &str, json: bool) -> anyhow::Result<Logging> {
        let level: Level = self.proxy_log_level.as_deref().unwrap_or("info").parse()?;
        let mut levels = Levels::new(level);
        if self.proxy_log_level.is_none() && self.log_output_level.is_none() {
            levels = crate::levels(default)?;
        }
        if let Some(list) = &self.log_output_level {
            levels = levels.with_list(list)?;
        }
        if let Some(list) = &self.proxy_component_log_level {
            levels = levels.with_components(list)?;
        }
        let format = if json { Format::Json } else { Format::Text };
        match &self.log_path {
            Some(path) => {
                Logging::install_in(path, format, levels).with_context(|| format!("--log-path {}", path.display()))
            }
            None => Ok(Logging::install(format, levels)),
        }
    }

    /// Flags that were given although nothing here depends on them.
    fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            (self.sts_port.is_some(), "stsPort"),
            (self.template_file.is_some(), "templateFile"),
            (self.token_manager_plugin.is_some(), "tokenManagerPlugin"),
        ];
        let given = given.into_iter().filter_map(|(given, flag)| given.then_some(flag));
        given.chain(self.envoy_flags.without_effect())
    }

    fn bootstrap(&self) -> anyhow::Result<Bootstrap> {
        let value = |text: &str| meltemi_proto::json::value_from_text(text);
        let mut bootstrap = match (&self.config_path, &self.config_yaml) {
            (Some(path), None) => alone(path)?,
            (path, text) => {
                let mut document = match path {
                    Some(path) => value(&read(path)?).with_context(|| path.display().to_string())?,
                    None => serde_json::Value::Null,
                };
                if let Some(text) = text {
                    merge(&mut document, value(text).context("--config-yaml")?);
                }
                meltemi_proto::json::from_value(&document).context("bootstrap")?
            }
        };
        let node = bootstrap.node.get_or_insert_default();
        if let Some(id) = &self.service_node {
            node.id.clone_from(id);
        }
        if let Some(cluster) = &self.service_cluster {
            node.cluster.clone_from(cluster);
        }
        if let Some(zone) = &self.service_zone {
            node.locality.get_or_insert_default().zone.clone_from(zone);
        }
        Ok(bootstrap)
    }

    async fn serve_bootstrap(&self, bootstrap: &Bootstrap, logging: Arc<Logging>) -> anyhow::Result<()> {
        let mut options = Options::new(bootstrap)?;
        if let Some(concurrency) = self.concurrency {
            options.concurrency = concurrency.max(1);
        }
        if let Some(seconds) = self.drain_time_s {
            options.drain_time = Duration::from_secs(seconds);
        }
        options.logging = Some(logging);
        options.admin_address_path.clone_from(&self.admin_address_path);
        let proxy = Proxy::new(options)?;
        if self.mode == "validate" {
            println!("configuration OK");
            return Ok(());
        }
        let (memory, signals) = (give_memory_back(proxy.state()), follow_signals(proxy.state()));
        tokio::select! {
            done = proxy.run(told_to_stop()) => Ok(done?),
            () = memory => Ok(()),
            () = signals => Ok(()),
        }
    }
}
