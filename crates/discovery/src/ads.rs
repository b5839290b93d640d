//! `AggregatedDiscoveryService` in both variants, and the servers that carry it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::{Stream, StreamExt as _};
use meltemi_ca::{Authenticator, CertificateService, PeerCertificate};
use meltemi_proto::envoy::config::core::v3::Node as ProtoNode;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_push::{Incoming, Peer, ServeError};
use meltemi_xds::Variant;
use meltemi_xds::server::Response;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Extensions, Request, Status, Streaming};

use crate::secure::{SecureInfo, SecureListener};
use crate::{State, node};

/// Responses generated and not yet taken by the transport.
const MAX_QUEUED_RESPONSES: usize = 2;
/// A request with the names and versions of a whole mesh.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// How long a new stream may be silent before its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams on one connection: ADS, CA and little else.
const MAX_STREAMS: u32 = 1_024;
/// HTTP/2 windows for responses of some megabytes.
const WINDOW: u32 = 4 << 20;

#[derive(Clone)]
pub(crate) struct AdsService {
    state: Arc<State>,
    authenticator: Arc<Authenticator>,
    stopped: watch::Receiver<bool>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is known of a stream before its first request.
struct Arrival {
    address: String,
    metadata: MetadataMap,
    secure: bool,
    peer: Option<PeerCertificate>,
}

impl Arrival {
    fn of<T>(request: &Request<T>) -> Self {
        let extensions: &Extensions = request.extensions();
        let secure = extensions.get::<SecureInfo>();
        let plain = extensions.get::<TcpConnectInfo>().and_then(|info| info.remote_addr());
        let address = secure.map(|info| info.remote).or(plain).map(|address| address.to_string());
        Self {
            address: address.unwrap_or_default(),
            metadata: request.metadata().clone(),
            secure: secure.is_some(),
            peer: secure.and_then(|info| info.peer.clone()),
        }
    }
}

impl AdsService {
    pub(crate) fn new(state: Arc<State>, authenticator: Arc<Authenticator>, stopped: watch::Receiver<bool>) -> Self {
        Self { state, authenticator, stopped }
    }

    fn admit(&self, arrival: &Arrival, node: Option<&ProtoNode>, variant: Variant) -> Result<Peer, Status> {
        let node = node::parse(node)?;
        let mut identity = None;
        if arrival.secure {
            let peer = arrival.peer.as_ref().map(|peer| &*peer.0);
            let caller = self.authenticator.authenticate(&arrival.metadata, peer);
            let caller = caller.map_err(|error| Status::unauthenticated(error.to_string()))?;
            node::check(&node, &caller.id)?;
            identity = Some(caller.id.to_string());
        }
        Ok(Peer { node: Arc::new(node), variant, address: arrival.address.clone(), identity })
    }

    /// Starts serving a stream; gives the responses.
    fn converse<Q, R>(
        &self,
        arrival: Arrival,
        requests: Streaming<Q>,
        variant: Variant,
        read: impl Fn(Q) -> Incoming + Send + Sync + 'static,
        write: impl Fn(Response) -> Option<R> + Send + 'static,
    ) -> Responses<R>
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        let (sender, responses) = mpsc::channel(MAX_QUEUED_RESPONSES);
        let (fail, failure) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let mut stopped = service.stopped.clone();
            let requests = requests.map(move |request| request.map(&read));
            let served = tokio::select! {
                served = service.serve(&arrival, requests, variant, sender) => served,
                _ = stopped.wait_for(|stopped| *stopped) => Err(Status::unavailable("shutting down")),
            };
            if let Err(status) = served {
                if status.code() != Code::Unavailable {
                    tracing::warn!(peer = arrival.address, %status, "ADS stream refused");
                }
                let _ = fail.send(status).await;
            }
        });
        let responses =
            ReceiverStream::new(responses).filter_map(move |response| std::future::ready(write(response).map(Ok)));
        Box::pin(responses.chain(ReceiverStream::new(failure).map(Err)))
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
        let peer = self.admit(arrival, node, variant).inspect_err(|_| self.state.stats.refused.inc())?;
        let id = peer.node.id.clone();
        tracing::info!(node = %id, address = peer.address, ?variant, "ADS: new connection");
        let requests = futures_util::stream::iter([Ok(first)]).chain(requests);
        let served = self.state.pusher.serve(peer, requests, sender).await;
        tracing::info!(node = %id, "ADS: connection ended");
        served.map_err(|error| match error {
            ServeError::Violation(violation) => Status::invalid_argument(violation.to_string()),
            ServeError::MixedVariants => Status::invalid_argument(error.to_string()),
        })
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let arrival = Arrival::of(&request);
        let write = |response| match response {
            Response::StateOfTheWorld(response) => Some(response),
            Response::Delta(_) => None,
        };
        let requests = request.into_inner();
        let responses = self.converse(arrival, requests, Variant::StateOfTheWorld, Incoming::StateOfTheWorld, write);
        Ok(tonic::Response::new(responses))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let arrival = Arrival::of(&request);
        let write = |response| match response {
            Response::Delta(response) => Some(response),
            Response::StateOfTheWorld(_) => None,
        };
        Ok(tonic::Response::new(self.converse(arrival, request.into_inner(), Variant::Delta, Incoming::Delta, write)))
    }
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
        Some(age) => server.max_connection_age(age),
        None => server,
    }
}

fn ads_server(service: AdsService) -> AggregatedDiscoveryServiceServer<AdsService> {
    AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES)
}

/// Serves ADS and certificates without TLS: for clients on a network that is trusted otherwise.
pub(crate) async fn serve_plaintext(
    listener: TcpListener,
    ads: AdsService,
    certificates: CertificateService,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let router = server(&ads.state).add_service(ads_server(ads)).add_service(certificates.into_server());
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await?;
    Ok(())
}

/// Serves ADS and certificates to clients that prove who they are.
pub(crate) async fn serve_secure(
    listener: SecureListener,
    ads: AdsService,
    certificates: CertificateService,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let certificates = InterceptedService::new(certificates.into_server(), |mut request: Request<()>| {
        if let Some(peer) = request.extensions().get::<SecureInfo>().and_then(|info| info.peer.clone()) {
            request.extensions_mut().insert(peer);
        }
        Ok(request)
    });
    let router = server(&ads.state).add_service(ads_server(ads)).add_service(certificates);
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    router.serve_with_incoming_shutdown(listener.incoming(), stop).await?;
    Ok(())
}
