//! `istio.v1.auth.IstioCertificateService`.

use crate::authenticate::Authenticator;
use crate::authority::{Authority, AuthorityError, Issued};
use crate::external::{AskedSigner, ExternalAuthority, Lifetimes, sign_for_workload};
use meltemi_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use meltemi_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use meltemi_proto::json::struct_to_value;
use meltemi_tls::{PeerInfo, SpiffeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// A CSR of an RSA-4096 key is under 2 KiB.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The client certificate of a connection, put into each request's extensions by the server that terminated TLS. Its
/// chain is already verified.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Arc<PeerInfo>);

/// Counters under istiod's `citadel_server_*` names.
#[derive(Debug, Default)]
pub struct CertificateCounters {
    pub requests: AtomicU64,
    pub authentication_failures: AtomicU64,
    /// Requests that could not be read, or whose key is too weak.
    pub unreadable: AtomicU64,
    pub signing_failures: AtomicU64,
    pub issued: AtomicU64,
}

#[derive(Clone)]
pub struct CertificateService {
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
    external: Option<Arc<dyn ExternalAuthority>>,
    counters: Arc<CertificateCounters>,
}

impl CertificateService {
    pub fn new(authority: Arc<Authority>, authenticator: Arc<Authenticator>) -> Self {
        Self { authority, authenticator, external: None, counters: Arc::default() }
    }

    /// Has somebody else sign for workloads.
    pub fn with_external(self, external: Option<Arc<dyn ExternalAuthority>>) -> Self {
        Self { external, ..self }
    }

    pub fn counters(&self) -> Arc<CertificateCounters> {
        self.counters.clone()
    }

    /// The gRPC service, with its message size bounded.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn issue(&self, request: &Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Status> {
        let peer = request.extensions().get::<PeerCertificate>().map(|peer| &*peer.0);
        let caller = self.authenticator.authenticate(request.metadata(), peer).await.map_err(|e| {
            self.counters.authentication_failures.fetch_add(1, Ordering::Relaxed);
            Status::from(e)
        })?;
        let message = request.get_ref();
        let ttl = u64::try_from(message.validity_duration).ok().filter(|s| *s > 0).map(Duration::from_secs);
        let issued = match &self.external {
            None => self.authority.sign(&message.csr, &caller.id, ttl),
            Some(external) => self.sign_externally(&**external, message, &caller.id, ttl).await,
        };
        let issued = issued.map_err(|e| match e {
            AuthorityError::External(_) => {
                self.counters.signing_failures.fetch_add(1, Ordering::Relaxed);
                Status::unavailable(e.to_string())
            }
            AuthorityError::Request(_) => {
                self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                Status::invalid_argument(e.to_string())
            }
            _ => {
                self.counters.signing_failures.fetch_add(1, Ordering::Relaxed);
                Status::internal(e.to_string())
            }
        })?;
        tracing::debug!(id = %caller.id, "certificate issued");
        let mut cert_chain = issued.chain;
        cert_chain.push(issued.root);
        Ok(IstioCertificateResponse { cert_chain })
    }
}

/// The field of a request's metadata that names who is to sign.
const SIGNER: &str = "CertSigner";

impl CertificateService {
    async fn sign_externally(
        &self,
        external: &dyn ExternalAuthority,
        message: &IstioCertificateRequest,
        id: &SpiffeId,
        ttl: Option<Duration>,
    ) -> Result<Issued, AuthorityError> {
        let options = self.authority.options();
        let lifetimes = Lifetimes { asked: ttl, default: options.default_ttl, longest: options.max_ttl };
        let metadata = message.metadata.as_ref().map(struct_to_value).unwrap_or_default();
        let signer = match metadata.get(SIGNER).and_then(|signer| signer.as_str()) {
            None | Some("") => AskedSigner::Everybodys,
            Some(name) => AskedSigner::Named(name),
        };
        sign_for_workload(external, &message.csr, id, (lifetimes, signer)).await
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let response = self.issue(&request).await?;
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests;
