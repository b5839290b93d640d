//! The network configuration that a runtime gives the plugin on standard input.
//!
//! Owns: which keys there may be, and what each must look like. A key that is neither CNI's nor the plugin's is refused by
//! name: it was meant to do something. Cost: one parse of at most [`MAX_BYTES`].

use std::path::PathBuf;

use meltemi_netfilter::Backend;
use serde_json::{Map, Value};

use crate::failure::{Failure, Kind};
use crate::plugin;

#[cfg(test)]
mod tests;

/// A configuration is some hundred bytes; a previous result adds as much for each interface.
pub const MAX_BYTES: u64 = 1 << 20;

/// Versions of the specification that the plugin speaks, oldest first. Results pass through unchanged, so their shape, which
/// is the same since 0.3.0, is all that counts.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The version in which the plugin speaks where it could not find out another.
pub const LATEST: &str = "1.1.0";

/// Where the daemon's sockets are, and the plugin's log.
pub const RUN_FOLDER: &str = "/var/run/istio-cni";

/// Keys of CNI's own, which mean nothing to a plugin that makes no interface.
const FOREIGN: [&str; 10] = [
    "args",
    "capabilities",
    "disableCheck",
    "disableGC",
    "dns",
    "ipMasq",
    "ipam",
    "loadOnlyInlinedPlugins",
    "promiscMode",
    "runtimeConfig",
];

/// Keys that Istio's plugin has, or had, and that say where things are which this plugin does without.
const WITHOUT_EFFECT: [&str; 5] =
    ["cni_event_address", "enable_ambient_detection_retry", "enablement_selectors", "log_uds_address", "ztunnel_ready"];

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub version: String,
    pub name: String,
    pub log_level: Option<String>,
    pub run_folder: PathBuf,
    /// Namespaces whose pods are never captured.
    pub exclude_namespaces: Vec<String>,
    /// The daemon's own namespace.
    pub pod_namespace: String,
    /// What writes the rules.
    pub backend: Backend,
    /// What the plugins before this one came to.
    pub previous: Option<Value>,
}

/// Takes keys out of a configuration, each once.
struct Keys(Map<String, Value>);

fn wrong(key: &str, expected: &str) -> Failure {
    Failure::new(Kind::Configuration, format!("{key}: {expected} is expected"))
}

impl Keys {
    fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    fn switch(&mut self, key: &str) -> Result<bool, Failure> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(on)) => Ok(on),
            Some(_) => Err(wrong(key, "true or false")),
        }
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>, Failure> {
        let entries = match self.0.remove(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(wrong(key, "a list")),
        };
        let text = |(i, entry): (usize, Value)| match entry {
            Value::String(text) => Ok(text),
            _ => Err(wrong(&format!("{key}[{i}]"), "a string")),
        };
        entries.into_iter().enumerate().map(text).collect()
    }

    /// Refuses what is left.
    fn end(mut self) -> Result<(), Failure> {
        // Before Istio 1.25 some settings stood in an object of their own.
        self.0.remove("kubernetes");
        match self.0.keys().find(|key| {
            !FOREIGN.contains(&&***key) && !WITHOUT_EFFECT.contains(&&***key) && !key.starts_with("cni.dev/")
        }) {
            Some(key) => Err(Failure::new(Kind::Configuration, format!("{key}: no such setting of this plugin"))),
            None => Ok(()),
        }
    }
}

/// `kubernetes.exclude_namespaces`, where older configurations have it.
fn older_exclusions(keys: &Keys) -> Result<Vec<String>, Failure> {
    match keys.0.get("kubernetes") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(inner)) => {
            let mut inner = Keys(inner.clone());
            inner.texts("exclude_namespaces").map_err(|error| Failure::new(error.kind, format!("kubernetes.{error}")))
        }
        Some(_) => Err(wrong("kubernetes", "an object")),
    }
}

fn backend(keys: &mut Keys) -> Result<Backend, Failure> {
    let flavour = keys.text("force_iptables_binary")?.unwrap_or_default();
    let expected = || wrong("force_iptables_binary", "legacy or nft");
    plugin::backend(keys.switch("native_nftables")?, &flavour).ok_or_else(expected)
}

/// The version that a configuration asks for, even where the rest of it is wrong.
pub fn version_of(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value.get("cniVersion")?.as_str().map(str::to_owned)
}

/// Reads a configuration.
pub fn parse(bytes: &[u8]) -> Result<Network, Failure> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(Kind::Decode, format!("the network configuration is no JSON: {error}")))?;
    let Value::Object(map) = value else { return Err(wrong("the network configuration", "an object")) };
    let mut keys = Keys(map);
    let version = keys.text("cniVersion")?.ok_or_else(|| wrong("cniVersion", "a version"))?;
    if !VERSIONS.contains(&&*version) {
        let spoken = VERSIONS.join(", ");
        return Err(Failure::new(Kind::IncompatibleVersion, format!("cniVersion: {version:?} is none of {spoken}")));
    }
    let name = keys.text("name")?.filter(|name| !name.is_empty()).ok_or_else(|| wrong("name", "a name"))?;
    keys.text("type")?;
    if keys.switch("ambient_enabled")? {
        let message = "ambient_enabled: pods are captured for sidecars only; set it to false";
        return Err(Failure::new(Kind::Configuration, message));
    }
    let previous = match keys.0.remove("prevResult") {
        None | Some(Value::Null) => None,
        Some(previous @ Value::Object(_)) => Some(previous),
        Some(_) => return Err(wrong("prevResult", "an object")),
    };
    let mut exclude_namespaces = keys.texts("exclude_namespaces")?;
    exclude_namespaces.extend(older_exclusions(&keys)?);
    let older_level = keys.text("log_level")?;
    let network = Network {
        version,
        name,
        log_level: keys.text("plugin_log_level")?.or(older_level).filter(|level| !level.is_empty()),
        run_folder: keys.text("cni_agent_run_dir")?.unwrap_or_else(|| RUN_FOLDER.to_owned()).into(),
        exclude_namespaces,
        pod_namespace: keys.text("pod_namespace")?.unwrap_or_default(),
        backend: backend(&mut keys)?,
        previous,
    };
    keys.end()?;
    Ok(network)
}
