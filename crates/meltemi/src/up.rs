//! `meltemi up`: the flags, the sample that is built in, and the identities of the local mesh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use meltemi_local::{LocalError, Manifests};

mod credentials;

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "\
Reads Kubernetes manifests (Deployment, StatefulSet, DaemonSet, ReplicaSet, Pod, Service, ServiceAccount, Namespace, \
ConfigMap, Secret) and Istio resources. Every replica runs as a local process in a network namespace of its own, with a \
sidecar; its traffic is captured by the same iptables rules as on Kubernetes. The ingress gateway is published on the \
host's loopback. Editing a file takes effect at once. Ctrl-C ends everything.

A container runs its `command` as a program of this machine. One without `command` runs what --image says for its image; \
the image `meltemi` is this program.

Examples:
  meltemi up                                   # the sample
  meltemi up -f ./manifests
  meltemi up -f ./manifests --image registry.example/shop/web=./target/debug/web --port 0

Inside a pod, here frontend's, from another terminal (root leaves out -U --preserve-credentials):
  pid=$(grep -lzs '^HOSTNAME=frontend' /proc/[0-9]*/environ | head -n1 | cut -d/ -f3)
  nsenter -t $pid -U --preserve-credentials -n -m curl -s http://catalog:8080/
  nsenter -t $pid -U --preserve-credentials -n -m curl -s localhost:15000/config_dump

Exit codes: 0 ended by Ctrl-C or SIGTERM; 1 it cannot run here, or a part of it failed for good; \
65 a manifest is wrong")]
pub struct Arguments {
    /// A folder of manifests, or one file; the built-in sample unless given
    #[arg(short = 'f', long, value_name = "DIR")]
    filename: Option<PathBuf>,
    /// Host port of the gateway's HTTP port 80; 0 takes any free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,
    /// Host port of the gateway's HTTPS port 443; 0 takes any free one [default: 8443, or any free one]
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// Host address on which the gateway is published
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    address: std::net::IpAddr,
    /// Program of this machine that stands for an image; repeatable
    #[arg(long = "image", value_name = "NAME=PATH", value_parser = image)]
    images: Vec<(String, PathBuf)>,
    /// Run this Envoy as every proxy, with our agent beside it; a pod's annotation sidecar.istio.io/proxyImage, which
    /// --image resolves, wins
    #[arg(long, value_name = "PATH", value_parser = program)]
    envoy: Option<PathBuf>,
    /// A file with mesh settings (MeshConfig)
    #[arg(long = "mesh-config", visible_alias = "meshConfig", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Show what every process prints
    #[arg(short, long)]
    verbose: bool,
}

fn image(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), program(path)?))
}

fn program(path: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    if path.is_file() { Ok(path) } else { Err(format!("{}: no such program", path.display())) }
}

/// The files of `samples/shop`.
static SAMPLE: [(&str, &str); 3] = [
    ("namespace.yaml", include_str!("../../../samples/shop/namespace.yaml")),
    ("services.yaml", include_str!("../../../samples/shop/services.yaml")),
    ("routing.yaml", include_str!("../../../samples/shop/routing.yaml")),
];

/// Runs the mesh. The process must have a single thread.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let manifests = arguments.filename.clone().map_or(Manifests::BuiltIn(&SAMPLE), Manifests::Path);
    let options = meltemi_local::Options {
        manifests,
        address: arguments.address,
        port: arguments.port,
        https_port: arguments.https_port,
        images: arguments.images.iter().cloned().collect::<BTreeMap<_, _>>(),
        envoy: arguments.envoy.clone(),
        verbose: arguments.verbose,
        mesh_config: arguments.mesh_config.as_ref().map(std::path::absolute).transpose()?,
        executable: executable()?,
    };
    match meltemi_local::up(&options) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Its lines begin with where the error is.
        Err(error @ LocalError::Manifests(_)) => {
            eprintln!("{error}");
            Ok(ExitCode::from(error.exit_code()))
        }
        Err(error) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

fn executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("where this program is")
}

/// The hidden subcommand between host and inside.
pub fn enter() -> anyhow::Result<ExitCode> {
    match meltemi_local::enter(&executable()?) {
        Ok(code) => Ok(code),
        Err(error) => {
            meltemi_local::report_failure(&error);
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

/// The hidden subcommand that is the first process inside.
pub fn inside() -> anyhow::Result<ExitCode> {
    let executable: &Path = &executable()?;
    Ok(meltemi_local::inside(executable, &credentials::LocalIdentities::new()?))
}
