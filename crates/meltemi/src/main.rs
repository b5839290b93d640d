//! The `meltemi` binary: the command line, and nothing that a library could hold.
//!
//! `up` and its two hidden helpers must run before the process has a second thread; everything else makes its own runtime.

mod authz_case;
mod cases;
mod cni;
mod compliance;
mod crds;
mod diff;
mod echo;
mod explain;
mod gateway_case;
mod inspect;
mod install;
mod iptables;
mod kube_inject;
mod memory;
mod pilot_agent;
mod privileges;
mod proxy;
mod ratelimit;
mod seclusion;
mod support;
mod up;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use meltemi_base::causes;
use meltemi_telemetry::logging::{Format, Level, Levels, Logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of options that every command has: after its own.
const LAST: usize = 500;

#[derive(Parser)]
#[command(
    name = "meltemi",
    version,
    about = "A service mesh that takes Istio's configuration: control plane, proxy and tools in one binary",
    after_long_help = "\
Examples:
  meltemi up                                   # the sample mesh, on this machine
  meltemi validate -f ./manifests              # file, line, field and a suggestion for what is wrong
  meltemi explain -f ./manifests --from web http://api/   # which route a request takes, and which line says so
  meltemi diff ./manifests ./manifests-new     # what a change does to every proxy
  meltemi discovery --configDir ./manifests    # the control plane alone, for any xDS client
  meltemi proxy -c envoy.yaml                  # one proxy, from an Envoy bootstrap
  meltemi kube-inject -f app.yaml              # manifests with the proxy in every pod
  meltemi ratelimit --config ./limits          # a rate limit server, for any Envoy
  meltemi install --set profile=demo           # into the cluster that kubectl knows
  source <(meltemi completion bash)

Exit codes: 0 done; 1 it failed; 2 wrong usage; 65 an input is wrong"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log: trace, debug, info, warn, error or off; for parts of it, a list such as default:info,push:debug
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL", env = "MELTEMI_LOG_LEVEL", display_order = LAST)]
    log_level: String,
    /// How to log: text or json
    // Checked by hand, since `proxy` takes Envoy's patterns as well.
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT", env = "MELTEMI_LOG_FORMAT", display_order = LAST)]
    log_format: String,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole mesh on this machine, from Kubernetes manifests, without Kubernetes
    Up(up::Arguments),
    /// Run the control plane, with pilot-discovery's flags
    Discovery(Box<meltemi_discovery::Args>),
    /// Run a sidecar or gateway, or a proxy from an Envoy bootstrap
    #[command(version)]
    Proxy(Box<proxy::Arguments>),
    /// Run a rate limit server, for limits that proxies share
    Ratelimit(ratelimit::Arguments),
    /// Serve as any application: reports who served it what, and calls further services
    Echo(echo::Arguments),
    /// Capture a workload's traffic for its proxy, with istio-iptables' flags
    #[command(alias = "istio-iptables")]
    Iptables(Box<iptables::Arguments>),
    /// Put proxies into Kubernetes manifests, with istioctl's flags
    KubeInject(Box<kube_inject::Arguments>),
    /// Capture the pods of a node for their proxies: the CNI plugin and its daemon
    Cni(cni::Arguments),
    /// Wait until the proxy of this pod is ready, as pilot-agent does
    Wait(pilot_agent::Wait),
    /// Ask the proxy of this pod or its agent, as pilot-agent does
    Request(pilot_agent::Request),
    /// Say what will become of a request, and why
    Explain(Box<explain::Explain>),
    /// Say what a change to the configuration will do, before it is applied
    Diff(diff::Diff),
    /// Put the mesh into a cluster
    Install(install::apply::Install),
    /// Bring an installation to this version, or to other settings
    Upgrade(install::apply::Install),
    /// Take the mesh out of a cluster
    Uninstall(install::uninstall::Uninstall),
    /// Make manifests and charts of an installation
    #[command(subcommand)]
    Manifest(install::manifest::Manifest),
    /// Show the profiles that installations begin with
    #[command(subcommand)]
    Profile(install::profile::Profile),
    /// Names that stand for revisions of the control plane
    #[command(subcommand)]
    Tag(install::tag::Tag),
    /// Show the revisions of the control plane in a cluster
    #[command(subcommand)]
    Revision(install::revision::Revision),
    /// Check that a cluster holds an installation, and that it is ready
    VerifyInstall(install::verify::VerifyInstall),
    /// Check Kubernetes and Istio documents
    #[command(alias = "v")]
    Validate(inspect::Validate),
    /// Print the version
    Version(inspect::Version),
    /// Print a completion script for a shell
    Completion(inspect::Completion),
    /// Experimental commands
    #[command(subcommand)]
    X(Experimental),
    #[command(name = meltemi_local::ENTER, hide = true)]
    Enter,
    #[command(name = meltemi_local::INSIDE, hide = true)]
    Inside,
}

#[derive(Subcommand)]
enum Experimental {
    /// Print which fields of Istio's and Envoy's documents take effect
    Support(support::Arguments),
    /// Print the definitions of Istio's kinds and ours, for a cluster
    Crds(crds::Arguments),
    /// Check what becomes of authorization policies against a case's expectations
    AuthzCase(authz_case::Arguments),
    /// Check what becomes of the Gateway API's objects against a case's expectations
    GatewayCase(gateway_case::Arguments),
}

const LOG_FORMATS: [&str; 2] = ["text", "json"];

fn main() -> ExitCode {
    if cni::is_plugin(std::env::args_os().next().as_deref()) {
        return cni::plugin();
    }
    let cli = Cli::parse();
    if let Err(wrong) = check_logging(&cli) {
        Cli::command().error(clap::error::ErrorKind::InvalidValue, format!("{wrong:#}")).exit();
    }
    if let Err(wrong) = compliance::begin() {
        Cli::command().error(clap::error::ErrorKind::InvalidValue, wrong).exit();
    }
    match run(&cli) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What `proxy` is given may be Envoy's, and it looks itself.
fn check_logging(cli: &Cli) -> anyhow::Result<()> {
    if matches!(cli.command, Command::Proxy(_)) {
        return Ok(());
    }
    anyhow::ensure!(LOG_FORMATS.contains(&&*cli.log_format), "--log-format {:?}: one of text, json", cli.log_format);
    levels(&cli.log_level).context("--log-level").map(drop)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A level for everything, or a list of levels by component.
fn levels(text: &str) -> anyhow::Result<Levels> {
    if text.contains(':') { Ok(Levels::new(Level::INFO).with_list(text)?) } else { Ok(Levels::new(text.parse()?)) }
}

fn format(cli: &Cli) -> Format {
    if cli.log_format == "json" { Format::Json } else { Format::Text }
}

fn discovery(arguments: &meltemi_discovery::Args, cli: &Cli) -> anyhow::Result<()> {
    let list = &arguments.log_output_level;
    let levels =
        if list == "default:info" { levels(&cli.log_level)? } else { Levels::new(Level::INFO).with_list(list)? };
    let format = if arguments.log_as_json { Format::Json } else { format(cli) };
    Logging::install(format, levels);
    compliance::warn();
    seclusion::begin();
    privileges::Privileges::none(arguments.binds_low_port()).confine()?;
    let arguments = arguments.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ended = std::pin::pin!(meltemi_discovery::termination());
        let options = tokio::select! {
            options = arguments.prepare() => options?,
            () = &mut ended => return Ok(()),
        };
        meltemi_discovery::run(options, ended).await
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Up(arguments) => return up::run(arguments),
        Command::Enter => return up::enter(),
        Command::Inside => return up::inside(),
        Command::Explain(arguments) => return explain::run(arguments),
        Command::Diff(arguments) => return diff::run(arguments),
        Command::Validate(arguments) => return inspect::validate(arguments),
        Command::KubeInject(arguments) => return kube_inject::run(arguments),
        Command::Install(arguments) => return install::apply::install(arguments),
        Command::Upgrade(arguments) => return install::apply::upgrade(arguments),
        Command::Uninstall(arguments) => return install::uninstall::run(arguments),
        Command::Manifest(command) => return install::manifest::run(command),
        Command::Profile(command) => return install::profile::run(command),
        Command::Tag(command) => return install::tag::run(command),
        Command::Revision(command) => return install::revision::run(command),
        Command::VerifyInstall(arguments) => return install::verify::run(arguments),
        Command::Wait(arguments) => pilot_agent::wait(arguments)?,
        Command::Request(arguments) => pilot_agent::request(arguments)?,
        Command::Discovery(arguments) => discovery(arguments, cli)?,
        Command::Proxy(arguments) => proxy::run(arguments, &cli.log_level, &cli.log_format)?,
        Command::Ratelimit(arguments) => {
            Logging::install(format(cli), levels(&cli.log_level)?);
            ratelimit::run(arguments)?;
        }
        Command::Echo(arguments) => echo::run(arguments.clone())?,
        Command::Iptables(arguments) => return iptables::run(arguments),
        Command::Cni(arguments) => {
            let logging = || {
                Logging::install(format(cli), levels(&cli.log_level)?);
                Ok(())
            };
            return cni::run(arguments, logging);
        }
        Command::X(Experimental::Support(arguments)) => return support::run(arguments),
        Command::X(Experimental::Crds(arguments)) => return crds::run(arguments),
        Command::X(Experimental::AuthzCase(arguments)) => return authz_case::run(arguments),
        Command::X(Experimental::GatewayCase(arguments)) => return gateway_case::run(arguments),
        Command::Version(arguments) => inspect::version(arguments)?,
        Command::Completion(arguments) => inspect::completion::<Cli>(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
