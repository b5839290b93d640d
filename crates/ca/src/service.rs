//! `istio.v1.auth.IstioCertificateService`.

use crate::authority::{Authority, AuthorityError};
use crate::token::TokenVerifier;
use meltemi_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use meltemi_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use meltemi_tls::{PeerInfo, SpiffeId, TrustDomain};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// A CSR of an RSA-4096 key is under 2 KiB.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The client certificate of a connection, put into each request's extensions by the server that terminated TLS. Its
/// chain is already verified.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Arc<PeerInfo>);

/// Who asks, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no credential: neither a client certificate nor an authorization header")]
    Missing,
    #[error("{0}")]
    Refused(String),
}

/// Proves callers by client certificate (renewal) or by token (first certificate).
pub struct Authenticator {
    trust_domain: TrustDomain,
    tokens: Option<TokenVerifier>,
}

impl Authenticator {
    pub fn new(trust_domain: TrustDomain, tokens: Option<TokenVerifier>) -> Self {
        Self { trust_domain, tokens }
    }

    /// A token, where one is shown, decides; else the certificate does. A bad token is never outweighed by a certificate.
    pub fn authenticate(&self, metadata: &MetadataMap, peer: Option<&PeerInfo>) -> Result<Caller, AuthError> {
        if let Some(header) = metadata.get("authorization") {
            let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            let token = token.ok_or_else(|| AuthError::Refused("authorization is no bearer token".to_owned()))?;
            let verifier =
                self.tokens.as_ref().ok_or_else(|| AuthError::Refused("tokens are not accepted here".to_owned()))?;
            let id = verifier.verify(token).map_err(|e| AuthError::Refused(e.to_string()))?;
            return Ok(Caller { id });
        }
        let uri = peer.and_then(PeerInfo::spiffe).ok_or(AuthError::Missing)?;
        let id: SpiffeId = uri.parse().map_err(|e| AuthError::Refused(format!("{e}")))?;
        if id.trust_domain != self.trust_domain {
            return Err(AuthError::Refused(format!("trust domain {} is not ours", id.trust_domain)));
        }
        Ok(Caller { id })
    }
}

/// Counters under istiod's `citadel_server_*` names.
#[derive(Debug, Default)]
pub struct CertificateCounters {
    pub requests: AtomicU64,
    pub authentication_failures: AtomicU64,
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

    fn issue(&self, request: &Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Status> {
        let peer = request.extensions().get::<PeerCertificate>().map(|peer| &*peer.0);
        let caller = self.authenticator.authenticate(request.metadata(), peer).map_err(|e| {
            self.counters.authentication_failures.fetch_add(1, Ordering::Relaxed);
            Status::unauthenticated(e.to_string())
        })?;
        let message = request.get_ref();
        let ttl = u64::try_from(message.validity_duration).ok().filter(|s| *s > 0).map(Duration::from_secs);
        let issued = self.authority.sign(&message.csr, &caller.id, ttl).map_err(|e| {
            self.counters.signing_failures.fetch_add(1, Ordering::Relaxed);
            match e {
                AuthorityError::Request(_) => Status::invalid_argument(e.to_string()),
                _ => Status::internal(e.to_string()),
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
        let response = self.issue(&request)?;
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests;
