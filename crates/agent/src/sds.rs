//! Secrets by name, and an SDS server for a supervised Envoy.
//!
//! Names are Istio's: `default` (the workload's certificate), `ROOTCA` (the mesh's roots), `file-cert:<chain>~<key>` and
//! `file-root:<path>`. The server listens on a Unix socket that only its owner may open.

use crate::identity::{TrustBundle, WorkloadSecret};
use crate::trust;
use meltemi_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_proto::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use meltemi_proto::{Any, type_url};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// The workload's own certificate.
pub const DEFAULT: &str = "default";
/// The mesh's roots.
pub const ROOT_CA: &str = "ROOTCA";
/// Files are looked at again this often.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// More names than an Envoy of ours could ask for; a request beyond is refused.
const MAX_NAMES: usize = 1000;

/// Gives secrets by name, and tells when to ask again.
#[derive(Clone)]
pub struct Secrets {
    workload: watch::Receiver<Option<Arc<WorkloadSecret>>>,
}

fn inline(text: impl Into<Vec<u8>>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(text.into().into())), watched_directory: None })
}

fn certificate(name: &str, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Secret {
    let certificate =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}

fn roots(name: &str, bundle: &TrustBundle) -> Secret {
    let TrustBundle { roots_pem, crl_pem, domains } = bundle;
    let context = CertificateValidationContext {
        trusted_ca: inline(roots_pem.as_str()),
        crl: if crl_pem.is_empty() { None } else { inline(crl_pem.as_str()) },
        custom_validator_config: trust::validator(domains, crl_pem),
        ..CertificateValidationContext::default()
    };
    Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

impl Secrets {
    pub fn new(workload: watch::Receiver<Option<Arc<WorkloadSecret>>>) -> Self {
        Self { workload }
    }

    /// None: not there yet, or a name that is not served here.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        if let Some(files) = name.strip_prefix("file-cert:") {
            let (chain, key) = files.split_once('~')?;
            return Some(certificate(name, std::fs::read(chain).ok()?, std::fs::read(key).ok()?));
        }
        if let Some(path) = name.strip_prefix("file-root:") {
            let roots_pem = std::fs::read_to_string(path).ok()?;
            return Some(roots(name, &TrustBundle { roots_pem, ..TrustBundle::default() }));
        }
        let workload = self.workload.borrow().clone()?;
        match name {
            DEFAULT => Some(certificate(name, workload.chain_pem.clone(), workload.key_pem.as_bytes())),
            ROOT_CA => Some(roots(name, &workload.bundle)),
            _ => None,
        }
    }

    /// Whether the name is one that this agent serves, now or later.
    pub fn serves(name: &str) -> bool {
        matches!(name, DEFAULT | ROOT_CA) || name.starts_with("file-cert:") || name.starts_with("file-root:")
    }

    /// Returns when a secret may have changed.
    pub async fn changed(&mut self) {
        tokio::select! {
            changed = self.workload.changed() => {
                if changed.is_err() {
                    // The keeper is gone; files may still change.
                    tokio::time::sleep(FILE_INTERVAL).await;
                }
            }
            () = tokio::time::sleep(FILE_INTERVAL) => {}
        }
    }

    pub fn into_server(self) -> SecretDiscoveryServiceServer<SecretServer> {
        SecretDiscoveryServiceServer::new(SecretServer { secrets: self })
    }
}

/// The gRPC face of [`Secrets`], state of the world.
pub struct SecretServer {
    secrets: Secrets,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One subscription: what was asked for and what was sent.
struct Subscription {
    secrets: Secrets,
    names: BTreeSet<String>,
    sent: Vec<Any>,
    nonce: u64,
}

impl Subscription {
    /// The response to send now, if it differs from the last.
    fn response(&mut self) -> Option<DiscoveryResponse> {
        let resources: Vec<Any> =
            self.names.iter().filter_map(|name| self.secrets.secret(name)).map(|secret| Any::pack(&secret)).collect();
        // Envoy keeps waiting for a name that a response leaves out, so an incomplete one would only be sent twice.
        if resources.len() < self.names.len() || resources == self.sent || resources.is_empty() {
            return None;
        }
        self.sent = resources.clone();
        self.nonce += 1;
        Some(DiscoveryResponse {
            version_info: self.nonce.to_string(),
            nonce: self.nonce.to_string(),
            type_url: type_url::<Secret>(),
            resources,
            ..DiscoveryResponse::default()
        })
    }

    /// Takes one request; an error where it is over the limit.
    fn request(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        if let Some(error) = request.error_detail {
            tracing::warn!(error = %error.message, "secret refused by the proxy");
            return Ok(());
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(Status::resource_exhausted("too many secrets"));
        }
        self.names = request.resource_names.into_iter().collect();
        Ok(())
    }
}

async fn subscribe(
    secrets: Secrets,
    mut requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let mut watcher = secrets.clone();
    let mut subscription = Subscription { secrets, names: BTreeSet::new(), sent: Vec::new(), nonce: 0 };
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                if let Err(status) = subscription.request(request) {
                    // The stream ends with this; a receiver that is gone has ended already.
                    let _ = responses.send(Err(status)).await;
                    return;
                }
            }
            () = watcher.changed() => {}
        }
        if let Some(response) = subscription.response()
            && responses.send(Ok(response)).await.is_err()
        {
            return;
        }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretServer {
    type StreamSecretsStream = ResponseStream<DiscoveryResponse>;
    type DeltaSecretsStream = ResponseStream<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(subscribe(self.secrets.clone(), request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("secrets are served as state of the world, as the bootstrap asks for them"))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let mut subscription =
            Subscription { secrets: self.secrets.clone(), names: BTreeSet::new(), sent: Vec::new(), nonce: 0 };
        subscription.request(request.into_inner())?;
        subscription.response().map(Response::new).ok_or_else(|| Status::unavailable("not there yet"))
    }
}
