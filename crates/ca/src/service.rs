//! `istio.v1.auth.IstioCertificateService`.

use crate::authenticate::Authenticator;
use crate::authority::{Authority, AuthorityError};
use meltemi_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use meltemi_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use meltemi_tls::PeerInfo;
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
    counters: Arc<CertificateCounters>,
}

impl CertificateService {
    pub fn new(authority: Arc<Authority>, authenticator: Arc<Authenticator>) -> Self {
        Self { authority, authenticator, counters: Arc::default() }
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
        let issued = self.authority.sign(&message.csr, &caller.id, ttl).map_err(|e| match e {
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
