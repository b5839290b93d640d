//! Tokens of workloads (SPIFFE JWT-SVID), for the agents that serve the Workload API: the messages are that API's own, and whoever
//! asks proves who it is as for a certificate. The token names the caller and nobody else. Tokens of other trust domains are verified by
//! the keys of their bundles, which callers get beside our own, in the form of section 4 of SPIFFE's Trust Domain and Bundle.
//!
//! Where others sign for the mesh there is no key for tokens: none is given out (`Unimplemented`, as servers say that do not have this
//! profile), and keys are those of other trust domains alone, if there are any.

#[cfg(test)]
mod tests;

use crate::authenticate::Authenticator;
use crate::authority::{Authority, AuthorityError};
use crate::federated::{BundleKeys, FederatedKeys};
use crate::service::PeerCertificate;
use meltemi_proto::json::struct_from_value;
use meltemi_proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use meltemi_proto::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use meltemi_tls::{SpiffeId, TrustDomain};
use serde_json::{Map, Value, json};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// A token is two KiB.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Parties that one token is for.
const MAX_AUDIENCES: usize = 32;

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct WorkloadTokens {
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
    federated: Arc<FederatedKeys>,
    /// Bundles end with the server.
    stopped: watch::Receiver<bool>,
}

impl WorkloadTokens {
    pub fn new(authority: Arc<Authority>, authenticator: Arc<Authenticator>, stopped: watch::Receiver<bool>) -> Self {
        Self { authority, authenticator, federated: Arc::default(), stopped }
    }

    /// With keys of other trust domains.
    pub fn with_federated(self, federated: Arc<FederatedKeys>) -> Self {
        Self { federated, ..self }
    }

    /// The gRPC service, with its message size bounded.
    pub fn into_server(self) -> SpiffeWorkloadApiServer<Self> {
        SpiffeWorkloadApiServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<SpiffeId, Status> {
        let peer = request.extensions().get::<PeerCertificate>().map(|peer| &*peer.0);
        Ok(self.authenticator.authenticate(request.metadata(), peer).await?.id)
    }

    /// Key sets by trust domain.
    fn bundles(&self) -> Result<JwtBundlesResponse, Status> {
        let federated = self.federated.current();
        let mut own = match self.authority.token_keys() {
            Ok(keys) => keys,
            Err(AuthorityError::Keyless) if !federated.is_empty() => Vec::new(),
            Err(error) => return Err(refusal(error)),
        };
        let trust_domain = self.authority.trust_domain();
        own.extend(federated.get(trust_domain).map(BundleKeys::jwks).unwrap_or_default().iter().cloned());
        let others = federated.iter().filter(|(domain, _)| *domain != trust_domain);
        let others = others.map(|(domain, keys)| (domain, keys.jwks().to_vec()));
        let set = |(domain, keys): (&TrustDomain, Vec<Value>)| {
            (format!("spiffe://{}", domain.as_str()), json!({ "keys": keys }).to_string().into_bytes().into())
        };
        Ok(JwtBundlesResponse { bundles: others.chain([(trust_domain, own)]).map(set).collect() })
    }

    /// The claims of a token for this audience, of our own trust domain or of another.
    fn verify(&self, svid: &str, audience: &str) -> Result<Option<Map<String, Value>>, AuthorityError> {
        let own = match self.authority.verify_token(svid, audience) {
            Err(AuthorityError::Keyless) if !self.federated.current().is_empty() => None,
            verified => verified?,
        };
        Ok(own.or_else(|| self.federated.verify(svid, audience)))
    }
}

fn refusal(error: AuthorityError) -> Status {
    match error {
        AuthorityError::Keyless => Status::unimplemented("JWT-SVIDs are not served: others sign for the mesh"),
        error => Status::internal(error.to_string()),
    }
}

fn certificates() -> Status {
    Status::unimplemented("certificates are given by IstioCertificateService")
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadTokens {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Err(certificates())
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(certificates())
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        let id = self.caller(&request).await?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        if !(1..=MAX_AUDIENCES).contains(&audience.len()) || audience.iter().any(String::is_empty) {
            return Err(Status::invalid_argument(format!("audience: one to {MAX_AUDIENCES}, none empty")));
        }
        if !spiffe_id.is_empty() && spiffe_id != id.to_string() {
            return Err(Status::permission_denied(format!("spiffe_id: the caller is {id}")));
        }
        let svid = self.authority.sign_token(&id, &audience).map_err(refusal)?;
        tracing::debug!(%id, "token issued");
        let svid = Jwtsvid { spiffe_id: id.to_string(), svid, hint: String::new() };
        Ok(Response::new(JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.caller(&request).await?;
        self.bundles()?;
        let own = self.clone();
        let authority = WatchStream::new(self.authority.subscribe()).map(drop);
        let federated = WatchStream::from_changes(self.federated.subscribe()).map(drop);
        let mut told = None;
        let changes = authority.merge(federated).map(move |()| own.bundles()).filter_map(move |bundles| {
            let known = told.replace(bundles.as_ref().ok().cloned());
            let is_new = bundles.is_err() || known.flatten().as_ref() != bundles.as_ref().ok();
            is_new.then_some(bundles)
        });
        let stopped = WatchStream::new(self.stopped.clone()).filter(|stopped| *stopped);
        // The end of the server is the end of the stream.
        let ending = changes.map(Some).merge(stopped.map(|_| None)).take_while(Option::is_some);
        Ok(Response::new(Box::pin(ending.filter_map(|answer| answer))))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.caller(&request).await?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience: missing"));
        }
        let claims = self.verify(&svid, &audience).map_err(refusal)?;
        let claims = claims.ok_or_else(|| Status::invalid_argument("svid: not valid for this audience"))?;
        let spiffe_id = claims.get("sub").and_then(|sub| sub.as_str()).unwrap_or_default().to_owned();
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id, claims: struct_from_value(&claims.into()) }))
    }
}
