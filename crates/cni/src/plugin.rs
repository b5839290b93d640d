//! The plugin: what each command of a runtime does.
//!
//! Owns: asking, deciding, and putting rules into the container's network namespace. Makes no interface and changes no
//! result: what the plugins before it came to is passed on. Cost: a question to the daemon and two or three short
//! processes for each captured pod; for any other, the question.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use meltemi_netfilter::{Backend, Installation, Program, ipv6_in_use, within};
use serde_json::{Value, json};

use crate::decide::{Decision, Settings, decide};
use crate::failure::{Failure, Kind};
use crate::invocation::{Invocation, PodName, Verb};
use crate::network::{self, Network};
use crate::query::{Daemon, PodSource, QueryError};

#[cfg(test)]
pub(crate) mod tests;

/// How long a pod may be unknown to the API server, or the daemon not there, before its start fails for now.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Pods of the daemon itself, which must start where nobody answers yet.
const DAEMONS: [&str; 2] = ["istio-cni-node-", "meltemi-cni-"];

/// What puts rules into a namespace.
pub trait Kernel {
    fn apply(&self, namespace: &Path, settings: &Settings, backend: &Backend) -> Result<(), String>;

    /// What of the rules is not there.
    fn missing(&self, namespace: &Path, settings: &Settings, backend: &Backend) -> Result<Vec<String>, String>;
}

/// The machine that this runs on.
pub struct Host;

fn installation(settings: &Settings, backend: &Backend) -> Installation {
    let ipv6 = settings.dual_stack || ipv6_in_use();
    Installation::new(settings.capture.clone(), ipv6, backend.clone())
}

impl Kernel for Host {
    fn apply(&self, namespace: &Path, settings: &Settings, backend: &Backend) -> Result<(), String> {
        let applied =
            within(namespace, || installation(settings, backend).apply()).map_err(|error| error.to_string())?;
        applied.map_err(|error| error.to_string())
    }

    fn missing(&self, namespace: &Path, settings: &Settings, backend: &Backend) -> Result<Vec<String>, String> {
        let missing =
            within(namespace, || installation(settings, backend).missing()).map_err(|error| error.to_string())?;
        missing.map_err(|error| error.to_string())
    }
}

/// What `FORCE_IPTABLES_BINARY` may say; empty is the node's default.
pub const FLAVOURS: [&str; 3] = ["", "legacy", "nft"];

/// The program that writes rules on this node; none where `flavour` is not one of [`FLAVOURS`].
pub fn backend(native_nftables: bool, flavour: &str) -> Option<Backend> {
    let flavour = FLAVOURS.into_iter().find(|known| *known == flavour)?;
    let program = Program { flavour: Some(flavour).filter(|flavour| !flavour.is_empty()), lock_file: None };
    Some(if native_nftables { Backend::Nftables } else { Backend::Iptables(program) })
}

pub struct Plugin<'a> {
    pub pods: &'a dyn PodSource,
    pub kernel: &'a dyn Kernel,
    pub patience: Duration,
    pub pause: Duration,
}

impl Plugin<'_> {
    fn run(&self, invocation: &Invocation, network: &Network) -> Result<Value, Failure> {
        match invocation.verb {
            Verb::Add => self.add(invocation, network),
            Verb::Check => self.check(invocation, network).map(|()| Value::Null),
            // Rules go with the namespace, and nothing else is kept. A daemon that is away is no reason to say that the
            // node has no network: pods that are not captured, the daemon's among them, can start.
            Verb::Delete | Verb::Collect | Verb::Status | Verb::Version => Ok(Value::Null),
        }
    }

    fn add(&self, invocation: &Invocation, network: &Network) -> Result<Value, Failure> {
        if let Some(settings) = self.settings(invocation, network)? {
            let applied = self.kernel.apply(&invocation.namespace, &settings, &network.backend);
            applied.map_err(|message| Failure::new(Kind::Rules, message))?;
        }
        let mut result = network.previous.clone().unwrap_or_else(|| json!({}));
        if let Some(result) = result.as_object_mut() {
            result.insert("cniVersion".to_owned(), network.version.clone().into());
        }
        Ok(result)
    }

    fn check(&self, invocation: &Invocation, network: &Network) -> Result<(), Failure> {
        if network.previous.is_none() {
            return Err(Failure::new(Kind::Configuration, "prevResult: CHECK needs what ADD came to"));
        }
        let Some(settings) = self.settings(invocation, network)? else { return Ok(()) };
        let missing = self.kernel.missing(&invocation.namespace, &settings, &network.backend);
        match missing.map_err(|message| Failure::new(Kind::Rules, message))?.as_slice() {
            [] => Ok(()),
            chains => Err(Failure::new(Kind::Rules, format!("rules are missing or changed: {}", chains.join(", ")))),
        }
    }

    /// How the pod is captured; none where it is not.
    fn settings(&self, invocation: &Invocation, network: &Network) -> Result<Option<Box<Settings>>, Failure> {
        let Some(name) = &invocation.pod else { return Ok(None) };
        let own = name.namespace == network.pod_namespace && DAEMONS.iter().any(|own| name.name.starts_with(own));
        if own || network.exclude_namespaces.contains(&name.namespace) {
            return Ok(None);
        }
        let pod = self.wait_for(name)?;
        match decide(&pod) {
            Ok(Decision::Capture(settings)) => Ok(Some(settings)),
            Ok(Decision::Leave(reason)) => {
                tracing::debug!(pod = %format_args!("{}/{}", name.namespace, name.name), "not captured: {reason}");
                Ok(None)
            }
            Err(error) => {
                let message = format!("pod {}/{}: {error}", name.namespace, name.name);
                Err(Failure::new(Kind::PodSettings, message))
            }
        }
    }

    /// Asks until the pod is known.
    fn wait_for(&self, name: &PodName) -> Result<crate::Pod, Failure> {
        let end = Instant::now() + self.patience;
        loop {
            let failed = match self.pods.pod(name) {
                Ok(Some(pod)) => return Ok(pod),
                Ok(None) => format!("pod {}/{} is not known to the API server", name.namespace, name.name),
                Err(error @ (QueryError::Connection { .. } | QueryError::Refused(_))) => error.to_string(),
            };
            if Instant::now() + self.pause > end {
                return Err(Failure::new(Kind::TryAgainLater, failed));
            }
            std::thread::sleep(self.pause);
        }
    }
}

fn supported() -> Value {
    json!({"cniVersion": network::LATEST, "supportedVersions": network::VERSIONS})
}

/// What goes to standard output, and whether it is an error.
fn answer(
    variable: impl Fn(&str) -> Option<String>,
    configuration: &[u8],
    run: impl FnOnce(&Invocation, &Network) -> Result<Value, Failure>,
) -> (Value, bool) {
    let answered = Invocation::read(variable).and_then(|invocation| match invocation.verb {
        Verb::Version => Ok(supported()),
        // What is on its way out goes, whatever became of its configuration.
        Verb::Delete => Ok(Value::Null),
        _ => run(&invocation, &network::parse(configuration)?),
    });
    match answered {
        Ok(value) => (value, false),
        Err(failure) => {
            let version = network::version_of(configuration).filter(|version| network::VERSIONS.contains(&&**version));
            (failure.to_json(version.as_deref().unwrap_or(network::LATEST)), true)
        }
    }
}

/// Does what the runtime asks by this process's environment and standard input. `logging` is given the level that the
/// configuration asks for.
pub fn main(logging: impl FnOnce(Option<&str>)) -> ExitCode {
    let mut configuration = Vec::new();
    let read = std::io::stdin().take(network::MAX_BYTES + 1).read_to_end(&mut configuration);
    let variable = |name: &str| std::env::var(name).ok();
    let run = |invocation: &Invocation, network: &Network| {
        logging(network.log_level.as_deref());
        let daemon = Daemon::at(&network.run_folder);
        let plugin = Plugin { pods: &daemon, kernel: &Host, patience: PATIENCE, pause: PAUSE };
        plugin.run(invocation, network)
    };
    let too_long = u64::try_from(configuration.len()).is_ok_and(|length| length > network::MAX_BYTES);
    let (value, failed) = match read {
        Err(error) => (Failure::new(Kind::Io, format!("standard input: {error}")).to_json(network::LATEST), true),
        Ok(_) if too_long => {
            let message = format!("the network configuration is longer than {} bytes", network::MAX_BYTES);
            (Failure::new(Kind::Decode, message).to_json(network::LATEST), true)
        }
        Ok(_) => answer(variable, &configuration, run),
    };
    // Some commands answer by their exit code alone. A runtime that does not listen has gone.
    let written = if value.is_null() { Ok(()) } else { writeln!(std::io::stdout(), "{value}") };
    ExitCode::from(u8::from(failed || written.is_err()))
}
