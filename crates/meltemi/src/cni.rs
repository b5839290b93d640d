//! `meltemi cni`: the CNI plugin and the daemon of a node, over [`meltemi_cni`].
//!
//! A container runtime starts the plugin by the name of its file, `istio-cni`, and says the rest by its environment.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use meltemi_cni::conflist::{Mode, PLUGIN, Plan, PluginSettings, Wanted, plugin as plugin_object};
use meltemi_cni::daemon::{self, Options};
use meltemi_cni::decide::{Decision, decide};
use meltemi_cni::install::{self, State};
use meltemi_cni::repair::{self, Action};
use meltemi_cni::{NodeClient, Pod, Selectors};
use meltemi_netfilter::{Backend, Installation, Program};
use meltemi_telemetry::logging::{Format, Level, Levels, Logging};
use serde_json::json;

#[cfg(test)]
mod tests;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Run as the daemon of a node: put the plugin in place, keep it there, answer it, mend pods that came before it
    Daemon(Box<Daemon>),
    /// Put the plugin in place once
    Install(Once),
    /// Take the plugin away
    #[command(after_long_help = "\
Examples:
  meltemi cni uninstall --mounted-cni-net-dir /etc/cni/net.d --mounted-cni-bin-dir /opt/cni/bin

Exit codes: 0 done, or there was nothing; 1 it failed; 2 wrong usage")]
    Uninstall(Place),
    /// Say whether and how the plugin captures a pod
    Explain(Explain),
    /// Do what a container runtime asks by environment and standard input; also what this program does as `istio-cni`
    #[command(after_long_help = "\
Examples:
  CNI_COMMAND=VERSION meltemi cni plugin
  CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 \\
    CNI_ARGS='K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0' meltemi cni plugin < network.json

Exit codes: 0 done; 1 it failed, and standard output says why as CNI has it")]
    Plugin,
}

/// Where the plugin goes and what it is told.
#[derive(Debug, Clone, Args)]
struct Place {
    /// The node's folder of network configurations
    #[arg(long, default_value = "/host/etc/cni/net.d", value_name = "FOLDER", env = "MOUNTED_CNI_NET_DIR")]
    mounted_cni_net_dir: PathBuf,
    /// The node's folder of plugins
    #[arg(long, default_value = "/host/opt/cni/bin", value_name = "FOLDER", env = "MOUNTED_CNI_BIN_DIR")]
    mounted_cni_bin_dir: PathBuf,
    /// Chain into this file, and not into the first that the runtime could use; not chained, write it
    #[arg(long, value_name = "NAME", env = "CNI_CONF_NAME")]
    cni_conf_name: Option<String>,
    /// Come after the node's other plugins; false for a meta plugin that names this one
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", env = "CHAINED_CNI_PLUGIN")]
    chained_cni_plugin: bool,
    /// Leave the node's file as it is, and write one of our own before it
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "ISTIO_OWNED_CNI_CONFIG")]
    istio_owned_cni_config: bool,
    /// The name of that file
    #[arg(long, default_value = "02-istio-cni.conflist", value_name = "NAME", env = "ISTIO_OWNED_CNI_CONF_FILENAME")]
    istio_owned_cni_config_filename: String,
    /// Let the group read a file that is new
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "CNI_CONF_GROUP_READ")]
    cni_conf_group_read: bool,
    /// The folder of the socket on which the plugin asks the daemon, on the node and here
    #[arg(long, default_value = meltemi_cni::network::RUN_FOLDER, value_name = "FOLDER", env = "CNI_AGENT_RUN_DIR")]
    cni_agent_run_dir: PathBuf,
    /// Namespaces whose pods are never captured
    #[arg(long, default_value = "", value_name = "NAMES", env = "EXCLUDE_NAMESPACES")]
    exclude_namespaces: String,
    /// The daemon's own namespace
    #[arg(long, default_value = "istio-system", value_name = "NAME", env = "POD_NAMESPACE")]
    pod_namespace: String,
    /// What the plugin logs, to its runtime
    #[arg(long, default_value = "warn", value_name = "LEVEL", env = "LOG_LEVEL")]
    plugin_log_level: String,
    /// Capture by tables of nftables
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "NATIVE_NFTABLES")]
    native_nftables: bool,
    /// Which iptables to use: legacy or nft [default: the node's]; without effect on nftables
    #[arg(long, default_value = "", value_name = "NAME", env = "FORCE_IPTABLES_BINARY",
        value_parser = meltemi_cni::plugin::FLAVOURS)]
    force_iptables_binary: String,
    /// Refused where true: pods are captured for sidecars only
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "AMBIENT_ENABLED", hide = true)]
    ambient_enabled: bool,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi cni install --mounted-cni-net-dir /etc/cni/net.d --mounted-cni-bin-dir /opt/cni/bin
  meltemi cni install --mounted-cni-net-dir /etc/cni/net.d --dry-run          # the configuration, and nothing written
  meltemi cni install --mounted-cni-net-dir /etc/cni/net.d --dry-run -o json  # and in which file

Exit codes: 0 done; 1 it failed, or there is no configuration yet to chain into; 2 wrong usage")]
struct Once {
    #[command(flatten)]
    place: Place,
    /// Print what would be written, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi cni daemon                                     # as a DaemonSet has it, with the node's folders under /host
  meltemi cni daemon --repair-repair-pods                # makes the rules of pods that came too early
  curl -s localhost:8000/readyz

Exit codes: 0 it was told to end; 1 it failed; 2 wrong usage")]
struct Daemon {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    repair: Repair,
    /// This node's name [default: the machine's]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// Address of /healthz and /readyz
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8000)), value_name = "ADDRESS")]
    health: SocketAddr,
    /// Port of /metrics
    #[arg(long, default_value_t = 15014, value_name = "PORT", env = "MONITORING_PORT")]
    monitoring_port: u16,
    /// Take the taint cni.istio.io/not-ready off the node when it is ready
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", env = "CNI_UNTAINT_NODE")]
    untaint_node: bool,
    /// Take plugin and configuration away at the end
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", env = "CNI_CLEANUP")]
    cleanup: bool,
}

/// What becomes of pods that came before the plugin.
#[derive(Debug, Clone, Args)]
struct Repair {
    /// Look for pods that started before the plugin was there
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", env = "REPAIR_ENABLED")]
    repair_enabled: bool,
    /// Make their rules from here; wins over deleting
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "REPAIR_REPAIR_PODS")]
    repair_repair_pods: bool,
    /// Delete them, so that their owners make others; wins over labelling
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "REPAIR_DELETE_PODS")]
    repair_delete_pods: bool,
    /// Label them
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", env = "REPAIR_LABEL_PODS")]
    repair_label_pods: bool,
    /// The label's key
    #[arg(long, default_value = "cni.istio.io/uninitialized", value_name = "KEY", env = "REPAIR_BROKEN_POD_LABEL_KEY")]
    repair_broken_pod_label_key: String,
    /// The label's value
    #[arg(long, default_value = "true", value_name = "VALUE", env = "REPAIR_BROKEN_POD_LABEL_VALUE")]
    repair_broken_pod_label_value: String,
    /// The annotation by which pods with a sidecar are known
    #[arg(long, default_value = "sidecar.istio.io/status", value_name = "KEY", env = "REPAIR_SIDECAR_ANNOTATION")]
    repair_sidecar_annotation: String,
    /// The init container that fails where nothing is captured
    #[arg(long, default_value = "istio-validation", value_name = "NAME", env = "REPAIR_INIT_CONTAINER_NAME")]
    repair_init_container_name: String,
    /// Its exit code; 0 for any
    #[arg(long, default_value_t = 126, value_name = "CODE", env = "REPAIR_INIT_CONTAINER_EXIT_CODE")]
    repair_init_container_exit_code: i32,
    /// Its last message; empty for any
    #[arg(long, default_value = "", value_name = "TEXT", env = "REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE")]
    repair_init_container_termination_message: String,
    /// Which pods to look at, by label
    #[arg(long, default_value = "", value_name = "SELECTOR", env = "REPAIR_LABEL_SELECTORS")]
    repair_label_selectors: String,
    /// Which pods to look at, by field
    #[arg(long, default_value = "", value_name = "SELECTOR", env = "REPAIR_FIELD_SELECTORS")]
    repair_field_selectors: String,
    /// The node's processes
    #[arg(long, default_value = "/host/proc", value_name = "FOLDER")]
    host_proc: PathBuf,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  kubectl get pod web-0 -o yaml | meltemi cni explain -f -
  meltemi cni explain -f pod.yaml --native-nftables
  meltemi cni explain -f pod.yaml -o json        # captured, and the reason or the rules

Exit codes: 0 it is said; 1 the file cannot be read; 65 it is no pod, or has settings that cannot be put in force")]
struct Explain {
    /// A document of kind Pod, as YAML or JSON; - is standard input
    #[arg(short = 'f', long, value_name = "PATH")]
    filename: PathBuf,
    /// Show tables of nftables
    #[arg(long)]
    native_nftables: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Whether a container runtime started this program as its plugin.
pub fn is_plugin(program: Option<&OsStr>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == PLUGIN || name == "meltemi-cni")
}

/// The plugin. What it logs goes to the runtime, on standard error.
pub fn plugin() -> ExitCode {
    meltemi_cni::plugin::main(|level| {
        let levels = level.and_then(|level| crate::levels(level).ok());
        Logging::install(Format::Json, levels.unwrap_or_else(|| Levels::new(Level::WARNING)));
    })
}

pub fn run(arguments: &Arguments, logging: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Plugin => return Ok(plugin()),
        Command::Explain(arguments) => return explain(arguments),
        Command::Install(once) => install(once)?,
        Command::Uninstall(place) => {
            let mut out = std::io::stdout().lock();
            for path in place.settings()?.uninstall()? {
                writeln!(out, "{}", path.display())?;
            }
        }
        Command::Daemon(arguments) => {
            logging()?;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(arguments.run())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Place {
    /// What writes rules.
    fn backend(&self) -> anyhow::Result<Backend> {
        let flavour = &self.force_iptables_binary;
        if self.native_nftables && !flavour.is_empty() {
            tracing::warn!(flavour, "--force-iptables-binary: has no effect, since --native-nftables is set");
        }
        meltemi_cni::plugin::backend(self.native_nftables, flavour).context("--force-iptables-binary")
    }

    fn settings(&self) -> anyhow::Result<install::Settings> {
        anyhow::ensure!(!self.ambient_enabled, "--ambient-enabled: pods are captured for sidecars only");
        let names = self.exclude_namespaces.split(',').map(str::trim).filter(|name| !name.is_empty());
        let told = PluginSettings {
            log_level: self.plugin_log_level.clone(),
            run_folder: self.cni_agent_run_dir.display().to_string(),
            exclude_namespaces: names.map(str::to_owned).collect(),
            pod_namespace: self.pod_namespace.clone(),
            native_nftables: self.native_nftables,
            force_iptables_binary: self.force_iptables_binary.clone(),
        };
        let mode = match (self.chained_cni_plugin, self.istio_owned_cni_config) {
            (false, _) => Mode::Alone,
            (true, true) => Mode::Owned(self.istio_owned_cni_config_filename.clone()),
            (true, false) => Mode::Chained,
        };
        let file = self.cni_conf_name.clone().filter(|name| !name.is_empty());
        Ok(install::Settings {
            configurations: self.mounted_cni_net_dir.clone(),
            programs: self.mounted_cni_bin_dir.clone(),
            program: std::env::current_exe().context("this program's own file")?,
            wanted: Wanted { mode, file, plugin: plugin_object(&told) },
            group_read: self.cni_conf_group_read,
        })
    }
}

fn install(once: &Once) -> anyhow::Result<()> {
    let settings = once.place.settings()?;
    let (as_json, mut out) = (once.output == "json", std::io::stdout().lock());
    if once.dry_run {
        let (file, text) = match settings.plan()? {
            Plan::Wait(reason) => anyhow::bail!("{reason}"),
            Plan::Keep(name) => (name, None),
            Plan::Write { name, text, .. } => (name, Some(text)),
        };
        let file = settings.configurations.join(file);
        match text {
            _ if as_json => writeln!(out, "{}", json!({"file": file, "changes": text.is_some(), "content": text}))?,
            Some(text) => write!(out, "{text}")?,
            None => writeln!(out, "{}: in place", file.display())?,
        }
        return Ok(());
    }
    match settings.install()? {
        State::Waiting(reason) => anyhow::bail!("{reason}"),
        State::Ready { file, changed } if as_json => writeln!(out, "{}", json!({"file": file, "changes": changed}))?,
        State::Ready { file, .. } => writeln!(out, "{}", file.display())?,
    }
    Ok(())
}

impl Repair {
    fn settings(&self, backend: Backend) -> Option<repair::Settings> {
        let label = || Action::Label {
            key: self.repair_broken_pod_label_key.clone(),
            value: self.repair_broken_pod_label_value.clone(),
        };
        let action = match (self.repair_repair_pods, self.repair_delete_pods, self.repair_label_pods) {
            (true, _, _) => Action::Mend,
            (false, true, _) => Action::Delete,
            (false, false, true) => label(),
            (false, false, false) => return None,
        };
        self.repair_enabled.then(|| repair::Settings {
            action,
            sidecar_annotation: self.repair_sidecar_annotation.clone(),
            init_container: self.repair_init_container_name.clone(),
            exit_code: self.repair_init_container_exit_code,
            message: self.repair_init_container_termination_message.clone(),
            selectors: Selectors {
                labels: self.repair_label_selectors.clone(),
                fields: self.repair_field_selectors.clone(),
            },
            processes: self.host_proc.clone(),
            backend,
        })
    }
}

impl Daemon {
    fn options(&self) -> anyhow::Result<Options> {
        Ok(Options {
            install: self.place.settings()?,
            repair: self.repair.settings(self.place.backend()?),
            run_folder: self.place.cni_agent_run_dir.clone(),
            health: self.health,
            metrics: SocketAddr::new(self.health.ip(), self.monitoring_port),
            untaint: self.untaint_node,
            cleanup: self.cleanup,
        })
    }

    async fn run(&self) -> anyhow::Result<()> {
        let options = self.options()?;
        let node = match &self.node_name {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("--node-name")?.trim().to_owned(),
        };
        let cluster = NodeClient::connect(&node).await.context("reaching the API server")?;
        daemon::run(options, Arc::new(cluster), meltemi_discovery::termination()).await
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("standard input");
    }
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn pod(text: &str) -> anyhow::Result<Pod> {
    let document: serde_json::Value = serde_saphyr::from_str(text).context("neither YAML nor JSON")?;
    anyhow::ensure!(document["kind"] == "Pod", "kind: Pod is expected");
    Ok(Pod::from_document(document)?)
}

fn explain(arguments: &Explain) -> anyhow::Result<ExitCode> {
    let text = read(&arguments.filename)?;
    let decided = pod(&text).and_then(|pod| Ok(decide(&pod)?));
    let decision = match decided {
        Ok(decision) => decision,
        Err(error) => {
            eprintln!("error: {}: {error:#}", arguments.filename.display());
            return Ok(ExitCode::from(DATA_ERROR));
        }
    };
    let (as_json, mut out) = (arguments.output == "json", std::io::stdout().lock());
    match decision {
        Decision::Leave(reason) if as_json => writeln!(out, "{}", json!({"captured": false, "reason": reason}))?,
        Decision::Leave(reason) => writeln!(out, "not captured: {reason}")?,
        Decision::Capture(settings) => {
            let backend =
                if arguments.native_nftables { Backend::Nftables } else { Backend::Iptables(Program::default()) };
            let rules = Installation::new(settings.capture, settings.dual_stack, backend).text();
            if as_json {
                writeln!(out, "{}", json!({"captured": true, "rules": rules.lines().collect::<Vec<_>>()}))?;
            } else {
                write!(out, "{rules}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
