//! `meltemi up`: a whole mesh on one machine, without Kubernetes and without root.
//!
//! Three processes of the same binary, one inside the other:
//! - the **host**'s ([`up`]) talks to the user, publishes the gateway's ports, and decides about the end;
//! - the one **between** ([`enter`]) makes the mount, network and process namespaces and does nothing else;
//! - the **inside** ([`inside`]) is the first process in them. It builds a bridge, gives every replica a thread with a
//!   network and mount namespace of its own, in which its program and its proxy run, and keeps them running.
//!
//! When the inside ends, for whatever reason, the kernel ends every process in its namespace and takes the network with
//! it; when the host's process ends, the inside notices at once that its standard input is closed.
//!
//! Never: anything outside of the run's own state folder, anything that outlives the run.

mod address;
mod docs;
mod error;
mod fabric;
mod forward;
mod host;
mod images;
mod manifests;
mod mesh;
mod namespaces;
mod net;
mod pod;
mod process;
mod protocol;
mod resolver;
mod service_rules;
mod workload;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub use error::LocalError;
pub use host::{Manifests, Options, up};

use protocol::Event;

/// The hidden subcommands by which the binary starts itself.
pub const ENTER: &str = "fabric-enter";
pub const INSIDE: &str = "fabric-inside";

/// Makes and proves identities; the fabric itself knows nothing of keys.
pub trait Credentials: Send + Sync {
    /// Writes into `folder` what discovery must read, and gives the environment and arguments that point it there.
    /// `trust_domain` is the mesh's.
    fn prepare(&self, folder: &Path, trust_domain: &str) -> Result<Discovery, String>;
    /// A workload's proof of who it is, as Kubernetes' projected token.
    fn token(&self, namespace: &str, service_account: &str) -> Result<String, String>;
}

/// How discovery is to be started, beyond what the fabric says itself.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The root certificate that workloads trust.
    pub root_certificate: std::path::PathBuf,
}

/// The process between: see the crate's documentation.
pub fn enter(executable: &Path) -> Result<ExitCode, LocalError> {
    namespaces::enter(executable, &[INSIDE])
}

/// The first process inside: see the crate's documentation. Never returns before the mesh is to end.
pub fn inside(executable: &Path, credentials: &dyn Credentials) -> ExitCode {
    match fabric::run(executable, credentials) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Event::Failed { message: error.to_string() });
            ExitCode::from(error.exit_code())
        }
    }
}

/// Tells the host's process, from the process between, what went wrong there.
pub fn report_failure(error: &LocalError) {
    report(&Event::Failed { message: error.to_string() });
}

/// Tells the host's process. When that is gone there is nobody to tell.
fn report(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
