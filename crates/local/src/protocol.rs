//! What the host's process and the one inside the namespaces tell each other: one JSON value a line.
//!
//! Towards the inside: first a [`Plan`], then at most one `stop`; the end of the stream means that the host's process is
//! gone, and that everything has to go. Towards the host: [`Event`]s.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the inside must know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub manifests: PathBuf,
    /// A folder of this run alone, removed at its end.
    pub state: PathBuf,
    /// Image name to host program.
    pub images: BTreeMap<String, PathBuf>,
    /// The Envoy that is every proxy whose pod names no other.
    pub envoy: Option<PathBuf>,
    pub verbose: bool,
    pub mesh_config: Option<PathBuf>,
}

/// A port of the ingress gateway that the host publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// As in the Gateway resource.
    pub port: u16,
    /// Where the gateway listens for it.
    pub target: u16,
    pub tls: bool,
    pub http: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub(crate) enum Event {
    /// The process id, as the host sees it, of the first process inside.
    Init { pid: i32 },
    /// Something the user should see.
    Line { text: String },
    /// A line that a workload printed.
    Output { source: String, text: String },
    /// Where the gateway is; comes again when its ports change.
    Gateway { address: Ipv4Addr, ports: Vec<Publish> },
    /// Every workload serves; comes once.
    Ready { workloads: usize },
    /// The fabric cannot go on.
    Failed { message: String },
}

/// The line that asks for an orderly end.
pub(crate) const STOP: &str = "stop";
