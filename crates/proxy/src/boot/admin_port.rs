//! The socket of the admin port, of TCP or of a path.

use super::RunError;
use crate::admin::{self, AdminState};
use meltemi_plan::common::Address;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

pub enum AdminPort {
    Tcp(TcpListener),
    Unix(UnixListener, Arc<Path>),
}

impl AdminPort {
    pub async fn bind(address: &Address) -> Result<Self, RunError> {
        let bound = match address {
            Address::Socket(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Address::Pipe { path, mode } => unix(path, *mode).map(|listener| Self::Unix(listener, path.clone())),
            Address::Name { .. } | Address::Internal { .. } => Err(io::ErrorKind::Unsupported.into()),
        };
        bound.map_err(|reason| RunError::Listen { what: "admin", address: address.to_string(), reason })
    }

    /// Where it is, with the port that the system chose.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Self::Unix(_, path) => path.display().to_string(),
        }
    }

    pub async fn serve(self, state: Arc<AdminState>) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => axum::serve(listener, admin::router(state)).await,
            Self::Unix(listener, _) => axum::serve(listener, admin::router(state)).await,
        }
    }
}

/// A path, or an abstract name that starts with `@`. A socket that was left at the path goes; any other file stays.
fn unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(name) = path.as_os_str().as_encoded_bytes().strip_prefix(b"@") {
        let listener = std::os::unix::net::UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener);
    }
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}
