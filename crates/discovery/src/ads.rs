//! `AggregatedDiscoveryService` in both variants, and the servers that carry it.

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use futures_util::{Stream, StreamExt as _};
use meltemi_ca::{CertificateService, PeerCertificate, WorkloadTokens};
use meltemi_proto::envoy::config::core::v3::Node as ProtoNode;
use meltemi_proto::prost;
use meltemi_push::{Incoming, Peer, ServeError};
use meltemi_tls::SpiffeId;
use meltemi_xds::Variant;
use meltemi_xds::server::Response;
use meltemi_xds::server::stream::{Body, Requests};
use rand::RngExt as _;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Status};
use tower::Service;

use crate::debug::Inquiries;
use crate::secure::{SecureInfo, SecureListener};
use crate::{State, cluster, node};

/// Responses generated and not yet taken by the transport.
const MAX_QUEUED_RESPONSES: usize = 2;
/// A request with the names and versions of a whole mesh.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// How long a new stream may be silent before its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams on one connection: ADS, CA and little else.
const MAX_STREAMS: u32 = 1_024;
/// So much sooner or later than its age a connection is given up, so that those that began together do not all come again
/// together; gRPC's own servers do the same.
const AGE_JITTER: f64 = 0.1;
/// HTTP/2 windows for responses of some megabytes.
const WINDOW: u32 = 4 << 20;

/// Paths of the two variants.
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

#[derive(Clone)]
pub(crate) struct AdsService {
    state: Arc<State>,
    stopped: watch::Receiver<bool>,
    /// One for each stream that may yet be served.
    places: Arc<Semaphore>,
}

/// What is known of a stream before its first request.
struct Arrival {
    address: String,
    metadata: MetadataMap,
    secure: bool,
    peer: Option<PeerCertificate>,
}

impl Arrival {
    fn of<T>(request: &http::Request<T>) -> Self {
        let extensions = request.extensions();
        let secure = extensions.get::<SecureInfo>();
        let plain = extensions.get::<TcpConnectInfo>().and_then(|info| info.remote_addr());
        let address = secure.map(|info| info.remote).or(plain);
        // On a socket of both families an IPv4 client has an address of the other.
        let address = address.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()).to_string());
        Self {
            address: address.unwrap_or_default(),
            metadata: MetadataMap::from_headers(request.headers().clone()),
            secure: secure.is_some(),
            peer: secure.and_then(|info| info.peer.clone()),
        }
    }
}

impl AdsService {
    pub(crate) fn new(state: Arc<State>, stopped: watch::Receiver<bool>) -> Self {
        let places = Arc::new(Semaphore::new(state.options.max_connections));
        Self { state, stopped, places }
    }

    /// A place among the streams that are served at once.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            self.state.stats.full.inc();
            let limit = self.state.options.max_connections;
            Status::resource_exhausted(format!("{limit} proxies are connected, which is the limit (--maxConnections)"))
        })
    }

    /// Who is at the other end, and the identity that its transport proved.
    async fn admit(
        &self,
        arrival: &Arrival,
        node: Option<&ProtoNode>,
        variant: Variant,
    ) -> Result<(Peer, Option<SpiffeId>), Status> {
        let mut node = node::parse(node)?;
        let mut identity = None;
        if arrival.secure {
            let peer = arrival.peer.as_ref().map(|peer| &*peer.0);
            let caller = self.state.authenticator.authenticate(&arrival.metadata, peer).await;
            let caller = caller.map_err(Status::from)?;
            if self.state.options.identity_check {
                node::check(&node, &caller.id)?;
            }
            identity = Some(caller.id);
        }
        if self.state.options.cluster.is_some() {
            cluster::prove(&mut node, identity.as_ref());
        }
        let proven = identity.as_ref().map(SpiffeId::to_string);
        Ok((Peer { node: Arc::new(node), variant, address: arrival.address.clone(), identity: proven }, identity))
    }

    /// Starts serving a stream; gives the answer with its responses.
    fn converse<M: prost::Message + prost::Name + Default + 'static>(
        &self,
        request: http::Request<tonic::body::Body>,
        variant: Variant,
        read: fn(M) -> Incoming,
    ) -> Result<http::Response<tonic::body::Body>, Status> {
        let place = self.place()?;
        let arrival = Arrival::of(&request);
        let requests = Requests::new(request.into_body(), MAX_REQUEST_BYTES);
        let requests = futures_util::stream::unfold(requests, move |mut requests: Requests<M>| async move {
            let next = requests.next().await?;
            Some((next.map(read), requests))
        });
        let (sender, responses) = mpsc::channel(MAX_QUEUED_RESPONSES);
        let (fail, failure) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let mut stopped = service.stopped.clone();
            let served = tokio::select! {
                served = service.serve(&arrival, requests, variant, sender) => served,
                () = age(service.state.options.max_connection_age) => {
                    Err(Status::unavailable("the connection is as old as one may be (--keepaliveMaxServerConnectionAge)"))
                }
                _ = stopped.wait_for(|stopped| *stopped) => Err(Status::unavailable("shutting down")),
            };
            if let Err(status) = served {
                if status.code() != Code::Unavailable {
                    tracing::warn!(peer = arrival.address, %status, "ADS stream refused");
                }
                let _ = fail.send(status).await;
            }
        });
        Ok(Body::new(responses, failure).into_answer())
    }

    async fn serve(
        &self,
        arrival: &Arrival,
        requests: impl Stream<Item = Result<Incoming, Status>> + Send,
        variant: Variant,
        sender: mpsc::Sender<Response>,
    ) -> Result<(), Status> {
        let mut requests = Box::pin(requests);
        let first = match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.next()).await {
            Ok(Some(first)) => first?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Status::deadline_exceeded("no request")),
        };
        let node = match &first {
            Incoming::Delta(request) => request.node.as_ref(),
            Incoming::StateOfTheWorld(request) => request.node.as_ref(),
        };
        let admitted = self.admit(arrival, node, variant).await.and_then(|(peer, identity)| {
            let registrations = &self.state.registrations;
            let registration = registrations.connect(&self.state.config.load(), &peer.node, identity.as_ref())?;
            let inquiries = Inquiries::new(self.state.clone(), identity.as_ref(), variant, sender.clone());
            Ok((peer, registration, inquiries))
        });
        let (peer, registration, inquiries) = admitted.inspect_err(|_| self.state.stats.refused_streams.inc())?;
        let id = peer.node.id.clone();
        tracing::info!(node = %id, address = peer.address, ?variant, "ADS: new connection");
        let requests = futures_util::stream::iter([Ok(first)]).chain(requests);
        let requests =
            requests.filter_map(|request| std::future::ready(request.map(|it| registration.intercept(it)).transpose()));
        let (refuse, mut refused) = oneshot::channel();
        let requests = answering(requests, inquiries, refuse);
        let served = self.state.pusher.serve(peer, requests, sender).await;
        tracing::info!(node = %id, "ADS: connection ended");
        if let Ok(status) = refused.try_recv() {
            return Err(status);
        }
        served.map_err(|error| match error {
            ServeError::Violation(violation) => Status::invalid_argument(violation.to_string()),
            ServeError::MixedVariants => Status::invalid_argument(error.to_string()),
        })
    }
}

/// Requests without those for debug output, which are answered; the status of one that is refused is sent and ends the stream.
fn answering(
    requests: impl Stream<Item = Result<Incoming, Status>> + Send,
    inquiries: Inquiries,
    refuse: oneshot::Sender<Status>,
) -> impl Stream<Item = Result<Incoming, Status>> + Send {
    let begun = Some((Box::pin(requests), inquiries, refuse));
    futures_util::stream::unfold(begun, |state| async move {
        let (mut requests, mut inquiries, refuse) = state?;
        loop {
            match requests.next().await? {
                Err(status) => return Some((Err(status), None)),
                Ok(request) => match inquiries.intercept(request).await {
                    Ok(None) => {}
                    Ok(Some(request)) => return Some((Ok(request), Some((requests, inquiries, refuse)))),
                    Err(status) => {
                        // The reader ends with the stream, and takes it then.
                        let _ = refuse.send(status.clone());
                        return Some((Err(status), None));
                    }
                },
            }
        }
    })
}

impl NamedService for AdsService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<tonic::body::Body>> for AdsService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let answer = match request.uri().path() {
            DELTA => self.converse(request, Variant::Delta, Incoming::Delta),
            STATE_OF_THE_WORLD => self.converse(request, Variant::StateOfTheWorld, Incoming::StateOfTheWorld),
            _ => Err(Status::unimplemented("no such method")),
        };
        std::future::ready(Ok(answer.unwrap_or_else(Status::into_http)))
    }
}

/// Resolves when a stream has lived as long as its connection may: it would never end by itself, and its proxy would never come to
/// another replica.
async fn age(longest: Option<Duration>) {
    match longest {
        Some(longest) => tokio::time::sleep(jittered(longest)).await,
        None => std::future::pending().await,
    }
}

fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::rng().random_range(1.0 - AGE_JITTER..=1.0 + AGE_JITTER))
}

fn server(state: &State) -> Server {
    let options = &state.options;
    let server = Server::builder()
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .tcp_nodelay(true);
    match options.max_connection_age {
        // New streams go elsewhere from then on, that of ADS once it ends.
        Some(age) => server.max_connection_age(age.mul_f64(1.0 - AGE_JITTER)),
        None => server,
    }
}

/// Serves ADS and certificates without TLS: for clients on a network that is trusted otherwise.
pub(crate) async fn serve_plaintext(
    listener: TcpListener,
    ads: AdsService,
    certificates: CertificateService,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let tokens = tokens(&ads.state, &stopped).into_server();
    let router = server(&ads.state).add_service(ads).add_service(certificates.into_server()).add_service(tokens);
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await?;
    Ok(())
}

/// Signs tokens of workloads for those who ask for certificates.
fn tokens(state: &State, stopped: &watch::Receiver<bool>) -> WorkloadTokens {
    let (authority, authenticator) = (state.options.authority.clone(), state.authenticator.clone());
    WorkloadTokens::new(authority, authenticator, stopped.clone()).with_federated(state.federated.clone())
}

/// What services outside of the transport's module know the client by.
fn with_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(peer) = request.extensions().get::<SecureInfo>().and_then(|info| info.peer.clone()) {
        request.extensions_mut().insert(peer);
    }
    Ok(request)
}

/// Serves ADS and certificates to clients that prove who they are.
pub(crate) async fn serve_secure(
    listener: SecureListener,
    ads: AdsService,
    certificates: CertificateService,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let certificates = InterceptedService::new(certificates.into_server(), with_peer);
    let tokens = InterceptedService::new(tokens(&ads.state, &stopped).into_server(), with_peer);
    let router = server(&ads.state).add_service(ads).add_service(certificates).add_service(tokens);
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    router.serve_with_incoming_shutdown(listener.incoming(), stop).await?;
    Ok(())
}
