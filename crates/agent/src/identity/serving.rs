//! SPIFFE's Workload API for the application beside the proxy (`MELTEMI_WORKLOAD_API_SOCKET`): its X.509 certificate and what others'
//! are verified by, those of other trust domains by bundles of their own, as they are and as they change.
//!
//! Whoever can open the socket is the workload, as SPIFFE has it for endpoints of one workload; the folder decides who can. Tokens
//! (JWT-SVIDs) are asked of whoever gives the certificate (`tokens.rs`). Costs nothing until asked; at most [`MAX_STREAMS`] at once.

use super::tokens::Tokens;
use super::workload::{HEADER, SCHEME};
use super::{IdentityKeeper, WorkloadSecret, authority, der};
use meltemi_proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use meltemi_proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use meltemi_tls::Identity;
use rcgen::KeyPair;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use zeroize::Zeroize as _;

/// Streams of one workload at once; an application needs one or two.
const MAX_STREAMS: usize = 64;
/// Whoever may enter the folder.
const MODE: u32 = 0o666;

type Secret = Option<Arc<WorkloadSecret>>;
type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Api {
    secrets: watch::Receiver<Secret>,
    tokens: Tokens,
    streams: Arc<Semaphore>,
}

/// Serves until dropped.
pub async fn serve(socket: &Path, keeper: Arc<IdentityKeeper>) -> io::Result<()> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let (secrets, streams) = (keeper.subscribe(), Arc::new(Semaphore::new(MAX_STREAMS)));
    let api = Api { secrets, tokens: Tokens::new(keeper), streams };
    let server = tonic::transport::Server::builder().add_service(SpiffeWorkloadApiServer::new(api));
    let connections = crate::supervise::listen(socket, MODE)?.map(|connection| connection.map(authority::mended));
    server.serve_with_incoming(connections).await.map_err(io::Error::other)
}

/// Requests without the header may have been made by somebody who was tricked into it.
fn demanded<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get(HEADER).is_some_and(|value| value == "true") {
        true => Ok(()),
        false => Err(Status::invalid_argument(format!("the header {HEADER}: true is missing"))),
    }
}

impl Api {
    fn turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let held = self.streams.clone().try_acquire_owned();
        held.map_err(|_| Status::resource_exhausted(format!("more than {MAX_STREAMS} streams")))
    }

    /// What is made of the secret, once it is there and whenever it changes.
    fn updates<T: Send + 'static>(
        &self,
        make: fn(&WorkloadSecret) -> Result<T, String>,
    ) -> Result<Response<Updates<T>>, Status> {
        let held = self.turn()?;
        let present = WatchStream::new(self.secrets.clone()).filter_map(|secret| secret);
        let made = present.map(move |secret| {
            let _while_it_lives = &held;
            make(&secret).map_err(Status::internal)
        });
        Ok(Response::new(Box::pin(made)))
    }
}

/// The identity in a secret, as the certificate has it.
fn spiffe_id(secret: &WorkloadSecret) -> Result<String, String> {
    let identity = Identity::from_pem(secret.chain_pem.as_bytes(), secret.key_pem.as_bytes());
    let names = identity.map_err(|e| e.to_string())?.info().uri_sans.clone();
    names.into_iter().next().ok_or_else(|| "the certificate has no identity".to_owned())
}

fn lists(secret: &WorkloadSecret) -> Result<Vec<bytes::Bytes>, String> {
    Ok(der::of_lists(&secret.bundle.crl_pem)?.into_iter().map(Into::into).collect())
}

fn svids(secret: &WorkloadSecret) -> Result<X509svidResponse, String> {
    // Other forms of keys become PKCS#8, which is the only one here.
    let mut key = KeyPair::from_pem(&secret.key_pem).map_err(|e| e.to_string())?;
    let spiffe_id = spiffe_id(secret)?;
    let own = domain_of(&spiffe_id);
    let svid = X509svid {
        spiffe_id,
        x509_svid: der::of_certificates(&secret.chain_pem)?.into(),
        x509_svid_key: key.serialize_der().into(),
        bundle: der::of_certificates(own_roots(secret, &own))?.into(),
        hint: String::new(),
    };
    key.zeroize();
    Ok(X509svidResponse { svids: vec![svid], crl: lists(secret)?, federated_bundles: foreign(secret, &own)? })
}

/// The name of the trust domain, with its scheme.
fn domain_of(id: &str) -> String {
    id.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

/// What verifies workloads of our own trust domain.
fn own_roots<'a>(secret: &'a WorkloadSecret, own: &str) -> &'a str {
    let bundle = &secret.bundle;
    bundle.domains.get(own.strip_prefix(SCHEME).unwrap_or(own)).unwrap_or(&bundle.roots_pem)
}

/// What verifies those of others, by trust domain.
fn foreign(secret: &WorkloadSecret, own: &str) -> Result<BTreeMap<String, bytes::Bytes>, String> {
    let others = secret.bundle.domains.iter().map(|(name, roots)| (format!("{SCHEME}{name}"), roots));
    let others = others.filter(|(name, _)| name != own);
    others.map(|(name, roots)| Ok((name, der::of_certificates(roots)?.into()))).collect()
}

fn bundles(secret: &WorkloadSecret) -> Result<X509BundlesResponse, String> {
    let own = domain_of(&spiffe_id(secret)?);
    let mut bundles = foreign(secret, &own)?;
    let roots = der::of_certificates(own_roots(secret, &own))?.into();
    bundles.insert(own, roots);
    Ok(X509BundlesResponse { bundles, crl: lists(secret)? })
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        demanded(&request)?;
        self.updates(svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        demanded(&request)?;
        self.updates(bundles)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        demanded(&request)?;
        let _turn = self.turn()?;
        self.tokens.fetch(request.into_inner()).await.map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        demanded(&request)?;
        let held = self.turn()?;
        let bundles = self.tokens.bundles().await?.map(move |answer| {
            let _while_it_lives = &held;
            answer
        });
        Ok(Response::new(Box::pin(bundles)))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        demanded(&request)?;
        let _turn = self.turn()?;
        self.tokens.validate(request.into_inner()).await.map(Response::new)
    }
}
