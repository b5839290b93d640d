//! Where the workload's certificate comes from: the authority, files, or another agent's socket, in Istio's order.

use super::Variables;
use std::path::{Path, PathBuf};

/// Folders in which Istio's agent looks for a certificate, each with the names of chain, key and roots.
const FOLDERS: [(&str, [&str; 3]); 3] = [
    ("etc/certs", ["cert-chain.pem", "key.pem", "root-cert.pem"]),
    ("var/run/secrets/workload-spiffe-credentials", ["cert-chain.pem", "key.pem", "root-cert.pem"]),
    ("var/run/secrets/workload-spiffe-credentials", ["certificates.pem", "private_key.pem", "ca_certificates.pem"]),
];
const SOCKET_FOLDER: &str = "var/run/secrets/workload-spiffe-uds";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A key made here, and a request to the authority.
    Authority,
    /// Somebody else writes them (`FILE_MOUNTED_CERTS`, or they are where Istio looks for them).
    Files(CertificateFiles),
    /// SDS of another agent, such as SPIRE's.
    Socket(PathBuf),
}

/// PEM files of a chain with its key, and of the roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
    pub roots: PathBuf,
}

impl CertificateFiles {
    fn in_folder(folder: &Path, [chain, key, roots]: [&str; 3]) -> Self {
        Self { chain: folder.join(chain), key: folder.join(key), roots: folder.join(roots) }
    }

    fn exist(&self) -> bool {
        [&self.chain, &self.key, &self.roots].iter().all(|path| path.exists())
    }
}

impl CertificateSource {
    /// `base` is the folder that Istio's relative paths are below.
    pub(super) fn from_variables(vars: &Variables, base: &Path) -> Self {
        if vars.flag("FILE_MOUNTED_CERTS") {
            let default = CertificateFiles::in_folder(&base.join(FOLDERS[0].0), FOLDERS[0].1);
            let path = |name: &str, default: PathBuf| vars.text(name).map_or(default, PathBuf::from);
            return Self::Files(CertificateFiles {
                chain: path("ISTIO_META_TLS_CLIENT_CERT_CHAIN", default.chain),
                key: path("ISTIO_META_TLS_CLIENT_KEY", default.key),
                roots: path("ISTIO_META_TLS_CLIENT_ROOT_CERT", default.roots),
            });
        }
        let folders = FOLDERS.iter().map(|(folder, names)| CertificateFiles::in_folder(&base.join(folder), *names));
        if let Some(files) = folders.into_iter().find(CertificateFiles::exist) {
            return Self::Files(files);
        }
        let socket = base.join(SOCKET_FOLDER).join(vars.or("WORKLOAD_IDENTITY_SOCKET_FILE", "socket"));
        if socket.exists() { Self::Socket(socket) } else { Self::Authority }
    }
}
