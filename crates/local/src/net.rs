//! Links and addresses, by `ip -batch`: one process for any number of steps.
//!
//! Owns the words. Acts in the network namespace of the calling thread.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::address::{FABRIC, PREFIX, Slot};
use crate::error::LocalError;

const BRIDGE: &str = "mesh0";

/// An ordinary user's `PATH` often lacks the folders where these programs are.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn batch(steps: &str) -> Result<(), LocalError> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).env("PATH", search_path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => LocalError::Missing { program: "ip", package: "iproute2" },
        _ => LocalError::io("ip")(source),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(steps.as_bytes()).map_err(LocalError::io("ip"))?;
    }
    let output = child.wait_with_output().map_err(LocalError::io("ip"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LocalError::Fabric(format!("ip refused: {message}\n{steps}")))
}

/// The bridge that joins the replicas, in the fabric's own network namespace.
pub(crate) fn make_bridge() -> Result<(), LocalError> {
    batch(&format!(
        "link set lo up\n\
         link add {BRIDGE} type bridge\n\
         addr add {FABRIC}/{PREFIX} dev {BRIDGE}\n\
         link set {BRIDGE} up\n"
    ))
}

/// A link from the bridge to each replica's namespace, which is that of the thread given.
pub(crate) fn make_links(links: &[(Slot, nix::unistd::Pid)]) -> Result<(), LocalError> {
    let mut steps = String::new();
    for (slot, thread) in links {
        let link = slot.link();
        steps.push_str(&format!("link add {link} type veth peer name eth0 netns {thread}\n"));
        steps.push_str(&format!("link set {link} master {BRIDGE} up\n"));
    }
    batch(&steps)
}

/// The replica's end, from within its namespace.
pub(crate) fn configure_link(slot: Slot) -> Result<(), LocalError> {
    let address = slot.address();
    batch(&format!(
        "link set lo up\n\
         addr add {address}/{PREFIX} dev eth0\n\
         link set eth0 up\n\
         route add default via {FABRIC}\n"
    ))
}
