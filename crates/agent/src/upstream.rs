//! The way to the control plane: channels to discovery and to the certificate authority, and the credential shown there.

use crate::environment::Settings;
use crate::identity::WorkloadSecret;
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// As istio-agent's keepalive towards istiod.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("the token is not a header value")]
    Token,
}

/// Addresses and credentials of the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    discovery_address: String,
    ca_address: String,
    plaintext: bool,
    root_certificate_file: PathBuf,
    token_file: PathBuf,
    cluster_id: String,
}

impl ControlPlane {
    pub fn new(settings: &Settings) -> Self {
        Self {
            discovery_address: settings.discovery_address.clone(),
            ca_address: settings.ca_address.clone(),
            plaintext: settings.plaintext_discovery,
            root_certificate_file: settings.root_certificate_file.clone(),
            token_file: settings.token_file.clone(),
            cluster_id: settings.cluster_id.clone(),
        }
    }

    pub async fn authority_channel(&self, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        self.connect(&self.ca_address, secret).await
    }

    pub async fn discovery_channel(&self, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        self.connect(&self.discovery_address, secret).await
    }

    /// The endpoint of discovery for a client that reconnects by itself.
    pub fn discovery_endpoint(&self, secret: Option<&WorkloadSecret>) -> Result<Endpoint, ControlPlaneError> {
        self.endpoint(&self.discovery_address, secret)
    }

    async fn connect(&self, address: &str, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        let endpoint = self.endpoint(address, secret)?;
        endpoint.connect().await.map_err(|e| connect_error(address, &e))
    }

    /// The roots come from the file, which the operator mounts, until the authority has given its own bundle.
    fn endpoint(&self, address: &str, secret: Option<&WorkloadSecret>) -> Result<Endpoint, ControlPlaneError> {
        let scheme = if self.plaintext { "http" } else { "https" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|e| connect_error(address, &e))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        if self.plaintext {
            return Ok(endpoint);
        }
        let roots = match std::fs::read(&self.root_certificate_file) {
            Ok(pem) => pem,
            Err(source) => match secret {
                Some(secret) => secret.root_pem.clone().into_bytes(),
                None => return Err(ControlPlaneError::File { path: self.root_certificate_file.clone(), source }),
            },
        };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots));
        if let Some(secret) = secret {
            tls = tls.identity(tonic::transport::Identity::from_pem(&secret.chain_pem, &secret.key_pem));
        }
        endpoint.tls_config(tls).map_err(|e| connect_error(address, &e))
    }

    /// Adds the workload's token, read anew each time since Kubernetes rotates it, and the cluster that vouches for it. A
    /// token that is not there is no error: the certificate may prove the caller.
    pub fn authorize<T>(&self, mut request: tonic::Request<T>) -> Result<tonic::Request<T>, ControlPlaneError> {
        if let Ok(token) = std::fs::read_to_string(&self.token_file) {
            let mut value: MetadataValue<_> =
                format!("Bearer {}", token.trim()).parse().map_err(|_| ControlPlaneError::Token)?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Ok(cluster) = self.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        Ok(request)
    }
}

fn connect_error(address: &str, error: &dyn std::error::Error) -> ControlPlaneError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = format!("{reason}: {inner}");
        source = inner.source();
    }
    ControlPlaneError::Connect { address: address.to_owned(), reason }
}
