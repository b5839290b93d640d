//! A proxy's side of xDS and of the certificate service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use meltemi_proto::envoy::config::core::v3::{Node, address::Address, socket_address::PortSpecifier};
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use meltemi_proto::istio::v1::auth::IstioCertificateRequest;
use meltemi_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_proto::json::struct_from_value;
use meltemi_tls::{CertSlot, ClientOptions, ClientTls, Identity, TrustAnchors, TrustSlot, Validation};
use meltemi_xds::Variant;
use meltemi_xds::client::{Client, Event, Events, Options, Target};
use meltemi_xds::types::ENDPOINT;
use serde_json::json;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::kubernetes::PATIENCE;

/// Runs a case's asynchronous part on this thread, whose network it stays in.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A node of a pod of this account.
pub fn node(kind: &str, namespace: &str, account: &str) -> Node {
    let metadata = json!({ "NAMESPACE": namespace, "SERVICE_ACCOUNT": account, "LABELS": { "app": account } });
    Node {
        id: format!("{kind}~127.0.9.9~{account}-1.{namespace}~{namespace}.svc.cluster.local"),
        metadata: struct_from_value(&metadata),
        ..Node::default()
    }
}

/// A proxy that accepts everything, and what it holds.
pub struct Proxy {
    client: Client,
    events: Events,
    held: BTreeMap<(String, String), meltemi_xds::Resource>,
}

impl Proxy {
    pub fn connect(target: Target, node: Node) -> Self {
        let mut options = Options::new(target, node);
        options.variant = Variant::Delta;
        options.backoff = (Duration::from_millis(20), Duration::from_millis(100));
        let (client, events) = Client::spawn(options);
        Self { client, events, held: BTreeMap::new() }
    }

    pub fn plain(address: SocketAddr, node: Node) -> Self {
        Self::connect(Target::Tcp(address.to_string()), node)
    }

    pub fn subscribe(&self, type_url: &str, names: &[&str]) {
        self.client.subscribe(type_url, names.iter().copied());
    }

    /// Reads until the condition holds; false where it does not in time.
    pub async fn reaches(&mut self, patience: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let reading = async {
            while !condition(self) {
                if let Event::Update(update) = self.events.next().await.expect("the client lives") {
                    let type_url = update.type_url.to_string();
                    for resource in update.resources {
                        self.held.insert((type_url.clone(), resource.name.to_string()), resource);
                    }
                    for name in update.removed {
                        self.held.remove(&(type_url.clone(), name.to_string()));
                    }
                    update.reply.accept();
                }
            }
        };
        tokio::time::timeout(patience, reading).await.is_ok()
    }

    pub async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        assert!(self.reaches(PATIENCE, condition).await, "{what}: not in time; held are {:?}", self.held.keys());
    }

    pub fn has(&self, type_url: &str, name: &str) -> bool {
        self.held.contains_key(&(type_url.to_owned(), name.to_owned()))
    }

    /// `address:port` of a cluster's endpoints.
    pub fn endpoints(&self, cluster: &str) -> Vec<String> {
        let Some(resource) = self.held.get(&(ENDPOINT.to_owned(), cluster.to_owned())) else { return Vec::new() };
        let assignment: ClusterLoadAssignment = resource.body.unpack().expect("an assignment");
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        let mut addresses: Vec<String> = endpoints
            .filter_map(|endpoint| match endpoint.host_identifier? {
                HostIdentifier::Endpoint(endpoint) => match endpoint.address?.address? {
                    Address::SocketAddress(at) => match at.port_specifier? {
                        PortSpecifier::PortValue(port) => Some(format!("{}:{port}", at.address)),
                        PortSpecifier::NamedPort(_) => None,
                    },
                    _ => None,
                },
                HostIdentifier::EndpointName(_) => None,
            })
            .collect();
        addresses.sort();
        addresses
    }
}

/// These replicas as a Service has them: each connection goes to the next one that answers.
pub fn in_turn(replicas: &[SocketAddr]) -> Target {
    let (replicas, next) = (replicas.to_vec(), Arc::new(AtomicUsize::new(0)));
    Target::Custom(Arc::new(move || {
        let mut order = replicas.clone();
        order.rotate_left(next.fetch_add(1, Ordering::Relaxed) % replicas.len());
        Box::pin(async move {
            let mut failure = None;
            for replica in order {
                match Endpoint::from_shared(format!("http://{replica}"))?.connect().await {
                    Ok(channel) => return Ok(channel),
                    Err(error) => failure = Some(error),
                }
            }
            Err(failure.expect("a replica").into())
        })
    }))
}

/// What a proxy speaks to the TLS port.
fn tls(roots: &str, identity: Option<Identity>) -> ClientTls {
    let anchors = TrustSlot::new(TrustAnchors::from_pem(roots.as_bytes(), &[]).expect("roots"));
    ClientTls::new(ClientOptions {
        certificate: identity.map(CertSlot::new),
        validation: Some(Validation { anchors, ..Validation::default() }),
        alpn: vec![b"h2".to_vec()],
        sni: Some("istiod.istio-system.svc".to_owned()),
        ..ClientOptions::default()
    })
    .expect("TLS")
}

/// Whether the TLS port proves itself, or why not.
pub async fn handshake(address: SocketAddr, roots: &str) -> Result<(), String> {
    let tls = tls(roots, None);
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let connected = tokio_rustls::TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// A channel to the TLS port, with a certificate where there is one.
pub async fn channel(address: SocketAddr, roots: &str, identity: Option<Identity>) -> Channel {
    let tls = tls(roots, identity);
    let connector = tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let stream = tokio_rustls::TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://istiod.istio-system.svc").connect_with_connector(connector).await.expect("a channel")
}

/// A TLS port with the identity of whoever connects.
pub async fn secure(address: SocketAddr, roots: &str, identity: Identity) -> Target {
    let channel = channel(address, roots, Some(identity)).await;
    Target::Custom(Arc::new(move || {
        let channel = channel.clone();
        Box::pin(async move { Ok(channel) })
    }))
}

/// Asks for a certificate by token, in the name of `namespace/account`: the identity and the roots, or why there is none.
pub async fn certificate(
    address: SocketAddr,
    roots: &str,
    name: (&str, &str),
    token: &str,
) -> Result<(Identity, String), tonic::Status> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let id = format!("spiffe://cluster.local/ns/{}/sa/{}", name.0, name.1);
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().expect("a URI"))];
    let request = params.serialize_request(&key).expect("a request");
    let csr = request.pem().expect("PEM");
    let mut request =
        tonic::Request::new(IstioCertificateRequest { csr, validity_duration: 3600, ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    let channel = channel(address, roots, None).await;
    let chain = IstioCertificateServiceClient::new(channel).create_certificate(request).await?.into_inner().cert_chain;
    let identity = Identity::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes()).expect("an identity");
    Ok((identity, chain.last().cloned().unwrap_or_default()))
}
