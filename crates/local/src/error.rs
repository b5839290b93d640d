//! What can go wrong before the mesh serves, said so that its reader knows what to do.

use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum LocalError {
    #[error("{0}: no such folder or file; give the manifests with -f DIR")]
    NoManifests(PathBuf),
    #[error("{}", .0.join("\n"))]
    Manifests(Vec<String>),
    #[error("nothing to run: no Deployment, StatefulSet, DaemonSet or Pod in {0}")]
    NothingToRun(PathBuf),
    #[error(
        "port {port} on {address} is taken by another program; choose another with {option} PORT, or {option} 0 for \
         any that is free"
    )]
    PortTaken { address: String, port: u16, option: &'static str },
    #[error("cannot listen on {address}:{port}: {source}")]
    Listen { address: String, port: u16, source: std::io::Error },
    #[error(
        "this system lets an ordinary user make no user namespace ({reason}), and `meltemi up` needs one. \
         An administrator can allow it, depending on the system, with one of\n  \
         sysctl -w user.max_user_namespaces=15000\n  \
         sysctl -w kernel.unprivileged_userns_clone=1\n  \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n\
         In a container, start it with --privileged, or with a seccomp profile that allows unshare(2). \
         Or run `meltemi up` as root"
    )]
    UserNamespaces { reason: String },
    #[error("{program} is missing; install it, on Debian or Ubuntu with `apt-get install {package}`")]
    Missing { program: &'static str, package: &'static str },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Fabric(String),
}

impl LocalError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| LocalError::Io { what, source }
    }

    pub(crate) fn sys(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| LocalError::Io { what, source: errno.into() }
    }

    /// The exit code of `meltemi up`: 65 for a wrong input (sysexits' EX_DATAERR), 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            LocalError::Manifests(_) | LocalError::NothingToRun(_) | LocalError::NoManifests(_) => 65,
            LocalError::PortTaken { .. }
            | LocalError::Listen { .. }
            | LocalError::UserNamespaces { .. }
            | LocalError::Missing { .. }
            | LocalError::Io { .. }
            | LocalError::Fabric(_) => 1,
        }
    }
}
