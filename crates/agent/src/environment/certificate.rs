//! Where the workload's certificate comes from: the authority, files, or another agent's socket, in Istio's order; and a socket that
//! SPIFFE's own variable names before what is only found.

use super::{EnvironmentError, Variables, invalid};
use std::path::{Path, PathBuf};

/// Folders in which Istio's agent looks for a certificate, each with the names of chain, key and roots.
const FOLDERS: [(&str, [&str; 3]); 3] = [
    ("etc/certs", ["cert-chain.pem", "key.pem", "root-cert.pem"]),
    ("var/run/secrets/workload-spiffe-credentials", ["cert-chain.pem", "key.pem", "root-cert.pem"]),
    ("var/run/secrets/workload-spiffe-credentials", ["certificates.pem", "private_key.pem", "ca_certificates.pem"]),
];
const SOCKET_FOLDER: &str = "var/run/secrets/workload-spiffe-uds";
const SOCKET_NAME: &str = "WORKLOAD_IDENTITY_SOCKET_FILE";
/// SPIFFE Workload Endpoint, section 4.
const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A key made here, and a request to the authority.
    Authority,
    /// Somebody else writes them (`FILE_MOUNTED_CERTS`, or they are where Istio looks for them).
    Files(CertificateFiles),
    /// Another agent, such as SPIRE's, where Istio looks for it: SDS, or else the Workload API.
    Socket(PathBuf),
    /// SPIFFE's Workload API (`SPIFFE_ENDPOINT_SOCKET`).
    WorkloadApi(PathBuf),
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
    pub(super) fn from_variables(vars: &Variables, base: &Path) -> Result<Self, EnvironmentError> {
        if vars.flag("FILE_MOUNTED_CERTS") {
            let default = CertificateFiles::in_folder(&base.join(FOLDERS[0].0), FOLDERS[0].1);
            let path = |name: &str, default: PathBuf| vars.text(name).map_or(default, PathBuf::from);
            return Ok(Self::Files(CertificateFiles {
                chain: path("ISTIO_META_TLS_CLIENT_CERT_CHAIN", default.chain),
                key: path("ISTIO_META_TLS_CLIENT_KEY", default.key),
                roots: path("ISTIO_META_TLS_CLIENT_ROOT_CERT", default.roots),
            }));
        }
        if let Some(endpoint) = vars.text(ENDPOINT) {
            return Ok(Self::WorkloadApi(endpoint_socket(endpoint)?));
        }
        let folders = FOLDERS.iter().map(|(folder, names)| CertificateFiles::in_folder(&base.join(folder), *names));
        if let Some(files) = folders.into_iter().find(CertificateFiles::exist) {
            return Ok(Self::Files(files));
        }
        let name = vars.or(SOCKET_NAME, "socket");
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(invalid(SOCKET_NAME, &name, "not the name of a file, without a folder"));
        }
        let socket = base.join(SOCKET_FOLDER).join(name);
        Ok(if socket.exists() { Self::Socket(socket) } else { Self::Authority })
    }
}

/// `unix:///path` or `unix:/path`.
fn endpoint_socket(endpoint: &str) -> Result<PathBuf, EnvironmentError> {
    let wrong = |reason| Err(invalid(ENDPOINT, endpoint, reason));
    let Some(rest) = endpoint.strip_prefix("unix:") else {
        return wrong("not of the form unix:///path; other transports are not spoken");
    };
    match rest.strip_prefix("//").unwrap_or(rest) {
        path if path.contains(['?', '#']) => wrong("a query or a fragment has no meaning here"),
        path if path.starts_with('/') => Ok(path.into()),
        _ => wrong("the path is not absolute"),
    }
}
