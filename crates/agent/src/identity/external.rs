//! A certificate from another agent on this node, such as SPIRE's, on a Unix socket: by Envoy's SDS, with the names that Istio uses
//! there, or by SPIFFE's Workload API. The other agent makes the keys and renews in time.

use super::{FIRST_RETRY, IdentityKeeper, LONGEST_RETRY, TrustBundle, workload};
use crate::sds::{DEFAULT, ROOT_CA};
use hyper_util::rt::TokioIo;
use meltemi_base::Backoff;
use meltemi_proto::envoy::config::core::v3::data_source::Specifier;
use meltemi_proto::envoy::config::core::v3::{DataSource, Node};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use meltemi_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use meltemi_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use meltemi_proto::google::rpc::Status as RpcStatus;
use meltemi_proto::type_url;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use zeroize::Zeroizing;

/// A chain and a few roots.
pub(super) const MAX_RESPONSE_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that lived this long was good.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// gRPC's code for what is malformed.
const INVALID_ARGUMENT: i32 = 3;

/// What another agent may speak.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Sds,
    WorkloadApi,
}

/// Why a stream ended.
pub(super) struct Ended {
    reason: String,
    /// The other agent does not speak this protocol.
    unspoken: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self { reason: status.message().to_owned(), unspoken: status.code() == Code::Unimplemented }
    }
}

/// What has come of the two secrets.
#[derive(Default)]
struct Received {
    certificate: Option<(String, Zeroizing<String>)>,
    bundle: Option<TrustBundle>,
}

/// Follows the socket until dropped, by the protocols in turn until the other agent speaks one.
pub(super) async fn follow(socket: &Path, protocols: &[Protocol], keeper: &IdentityKeeper) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut speaking = 0;
    loop {
        let begun = Instant::now();
        let protocol = protocols[speaking % protocols.len()];
        let ended = match protocol {
            Protocol::Sds => stream(socket, keeper).await,
            Protocol::WorkloadApi => workload::stream(socket, keeper).await,
        };
        let ended = ended.err().unwrap_or(Ended { reason: "the stream ended".to_owned(), unspoken: false });
        speaking += usize::from(ended.unspoken);
        if begun.elapsed() > SETTLED_AFTER {
            backoff.reset();
        }
        let (wait, reason) = (backoff.next(), ended.reason);
        tracing::warn!(socket = %socket.display(), ?protocol, reason, retry_in = ?wait, "certificates of another agent");
        tokio::time::sleep(wait).await;
    }
}

pub(super) async fn connect(socket: &Path) -> Result<Channel, Ended> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is only for the request's authority.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|e| Ended { reason: e.to_string(), unspoken: false })
}

async fn stream(socket: &Path, keeper: &IdentityKeeper) -> Result<(), Ended> {
    let channel = connect(socket).await?;
    let mut client = SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (sender, requests) = mpsc::channel(1);
    let node = Node { id: keeper.node_id.clone(), ..Node::default() };
    let first = DiscoveryRequest { node: Some(node), ..subscription() };
    sender.try_send(first).expect("room for one");
    let mut answers = client.stream_secrets(ReceiverStream::new(requests)).await?.into_inner();
    let mut received = Received::default();
    while let Some(answer) = answers.message().await? {
        let taken = received.take(&answer).and_then(|()| received.install(keeper));
        if let Err(reason) = &taken {
            tracing::warn!(reason, "secrets of another agent are refused");
        }
        if sender.send(reply(&answer, taken.err())).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn subscription() -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: type_url::<Secret>(),
        resource_names: vec![DEFAULT.to_owned(), ROOT_CA.to_owned()],
        ..DiscoveryRequest::default()
    }
}

fn reply(answer: &DiscoveryResponse, refusal: Option<String>) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: if refusal.is_none() { answer.version_info.clone() } else { String::new() },
        response_nonce: answer.nonce.clone(),
        error_detail: refusal.map(|message| RpcStatus { code: INVALID_ARGUMENT, message, details: Vec::new() }),
        ..subscription()
    }
}

impl Received {
    /// A response may hold one secret or both.
    fn take(&mut self, answer: &DiscoveryResponse) -> Result<(), String> {
        for resource in &answer.resources {
            let secret: Secret = resource.unpack().map_err(|e| e.to_string())?;
            match (&*secret.name, secret.r#type) {
                (DEFAULT, Some(Type::TlsCertificate(certificate))) => {
                    let chain = text(certificate.certificate_chain, "certificate_chain")?;
                    let key = Zeroizing::new(text(certificate.private_key, "private_key")?);
                    self.certificate = Some((chain, key));
                }
                (ROOT_CA, Some(Type::ValidationContext(context))) => {
                    let crl_pem = context.crl.map(|crl| text(Some(crl), "crl")).transpose()?.unwrap_or_default();
                    let roots_pem = text(context.trusted_ca, "trusted_ca")?;
                    self.bundle = Some(TrustBundle { roots_pem, crl_pem, ..TrustBundle::default() });
                }
                (name, _) => return Err(format!("secret {name:?} is not of the kind that was asked for")),
            }
        }
        Ok(())
    }

    fn install(&self, keeper: &IdentityKeeper) -> Result<(), String> {
        let Some(((chain, key), bundle)) = self.certificate.as_ref().zip(self.bundle.as_ref()) else { return Ok(()) };
        keeper.install(chain.clone(), key.clone(), bundle.clone()).map(|_| ()).map_err(|e| e.to_string())
    }
}

/// Of a source in the message itself.
fn text(source: Option<DataSource>, field: &str) -> Result<String, String> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes.into()).map_err(|_| format!("{field}: not UTF-8"))
        }
        Some(Specifier::InlineString(text)) => Ok(text),
        Some(_) => Err(format!("{field}: only inline sources are taken")),
        None => Err(format!("{field}: missing")),
    }
}
