//! The way to the control plane: channels to discovery and to the certificate authority, and the credential shown there.

use crate::environment::Settings;
use crate::identity::WorkloadSecret;
use hyper_util::rt::TokioIo;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::prost_types::{Value, value::Kind};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tonic::codegen::http::Uri;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use zeroize::Zeroizing;

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
    socket_mark: Option<u32>,
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
            socket_mark: settings.socket_mark,
        }
    }

    pub async fn authority_channel(&self, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        self.connect(&self.ca_address, secret).await
    }

    pub async fn discovery_channel(&self, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        self.connect(&self.discovery_address, secret).await
    }

    async fn connect(&self, address: &str, secret: Option<&WorkloadSecret>) -> Result<Channel, ControlPlaneError> {
        let endpoint = self.endpoint(address, secret)?;
        let mark = self.socket_mark;
        let connector = tower::service_fn(move |uri: Uri| dial(uri, mark));
        endpoint.connect_with_connector(connector).await.map_err(|e| connect_error(address, &e))
    }

    fn endpoint(&self, address: &str, secret: Option<&WorkloadSecret>) -> Result<Endpoint, ControlPlaneError> {
        let scheme = if self.plaintext { "http" } else { "https" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|e| connect_error(address, &e))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        if self.plaintext {
            return Ok(endpoint);
        }
        // What the operator mounts, and what the authority has given since: its root may be a newer one by now.
        let given = secret.map(|secret| secret.bundle.roots_pem.clone().into_bytes());
        let roots = match (std::fs::read(&self.root_certificate_file), given) {
            (Err(source), None) => {
                return Err(ControlPlaneError::File { path: self.root_certificate_file.clone(), source });
            }
            (mounted, given) => mounted.ok().into_iter().chain(given),
        };
        let mut tls = ClientTlsConfig::new().ca_certificates(roots.map(Certificate::from_pem));
        if let Some(secret) = secret {
            tls = tls.identity(tonic::transport::Identity::from_pem(&secret.chain_pem, secret.key_pem.as_bytes()));
        }
        endpoint.tls_config(tls).map_err(|e| connect_error(address, &e))
    }

    /// What [`Self::authorize`] adds, as header names and values.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("clusterid".to_owned(), self.cluster_id.clone())];
        if let Ok(token) = std::fs::read_to_string(&self.token_file) {
            headers.push(("authorization".to_owned(), format!("Bearer {}", token.trim())));
        }
        headers
    }

    /// Adds the workload's token, read anew each time since Kubernetes rotates it, and the cluster that vouches for it. A
    /// token that is not there is no error: the certificate may prove the caller.
    pub fn authorize<T>(&self, mut request: tonic::Request<T>) -> Result<tonic::Request<T>, ControlPlaneError> {
        if let Ok(token) = std::fs::read_to_string(&self.token_file).map(Zeroizing::new) {
            let header = Zeroizing::new(format!("Bearer {}", token.trim()));
            let mut value: MetadataValue<_> = header.parse().map_err(|_| ControlPlaneError::Token)?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Ok(cluster) = self.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        Ok(request)
    }
}

/// The node as it is on a stream of the agent's own, so that discovery does not take it for another proxy.
pub fn agent_stream(mut node: Node) -> Node {
    let kind = Some(Kind::StringValue("true".to_owned()));
    let fields = &mut node.metadata.get_or_insert_default().fields;
    fields.insert("AGENT_STREAM".to_owned(), Value { kind });
    // By its settings Istio's control plane tells a proxy from others; that there is a probe must be known whichever stream
    // is the first.
    if let Some(Value { kind: Some(Kind::StructValue(config)) }) = fields.get_mut("PROXY_CONFIG") {
        config.fields.retain(|key, _| key == "readinessProbe");
        if config.fields.is_empty() {
            fields.remove("PROXY_CONFIG");
        }
    }
    node
}

/// Dials as tonic does by itself, with the mark set before the connection begins.
async fn dial(uri: Uri, mark: Option<u32>) -> std::io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(15012);
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = mark {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark)?;
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Err(e) => failure = e,
        }
    }
    Err(failure)
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
