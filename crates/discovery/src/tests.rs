//! The control plane over real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meltemi_ca::{Authority, AuthorityOptions, TokenIssuer};
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use meltemi_proto::istio::v1::auth::IstioCertificateRequest;
use meltemi_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_proto::json::struct_from_value;
use meltemi_tls::{CertSlot, ClientOptions, ClientTls, Identity, TrustAnchors, TrustSlot, Validation};
use meltemi_xds::client::{Client, Event, Events, Options as ClientSettings, Target, Update};
use meltemi_xds::types::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use meltemi_xds::{Variant, WILDCARD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::*;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  clusterIP: 127.200.0.1
  selector: {app: echo}
  ports: [{name: http, port: 8000, targetPort: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec:
  clusterIP: 127.200.0.2
  selector: {app: other}
  ports: [{name: http, port: 8000, targetPort: 9000}]
";
const ECHO: &str = "outbound|8000||echo.default.svc.cluster.local";
const OTHER: &str = "outbound|8000||other.default.svc.cluster.local";
const PATIENCE: Duration = Duration::from_secs(30);

fn endpoints(service: &str, addresses: &[&str]) -> String {
    let list: String = addresses
        .iter()
        .map(|address| format!("- {{addresses: [{address}], conditions: {{ready: true}}}}\n"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, namespace: default, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 9000, protocol: TCP}}]\n\
         endpoints:\n{list}"
    )
}

/// A control plane over a folder.
struct Mesh {
    dir: tempfile::TempDir,
    addresses: Addresses,
    authority: Arc<Authority>,
    tokens: TokenIssuer,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Mesh {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("services.yaml"), SERVICE).unwrap();
        std::fs::write(dir.path().join("echo.yaml"), endpoints("echo", &["127.0.1.1"])).unwrap();
        std::fs::write(dir.path().join("other.yaml"), endpoints("other", &["127.0.2.1"])).unwrap();
        let authority = Authority::self_signed(AuthorityOptions::new("cluster.local".parse().unwrap())).unwrap();
        let authority = Arc::new(authority);
        let tokens = TokenIssuer::generate("test").unwrap();
        let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
        let mut options = Options {
            grpc: any,
            secure: any,
            http: any,
            monitoring: any,
            tokens: Some((tokens.public_pem().to_owned(), "test".to_owned())),
            ..Options::new(authority.clone())
        };
        change(&mut options);
        let store = Arc::new(FileStore::open(dir.path()).unwrap());
        let discovery = Discovery::bind(options, store).await.unwrap();
        let addresses = discovery.addresses();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(discovery.serve(async move { drop(stopped.await) }));
        Self { dir, addresses, authority, tokens, stop, task }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn plain(&self) -> Target {
        Target::Tcp(self.addresses.grpc.unwrap().to_string())
    }

    /// A TLS channel to the secure port, with a certificate where there is one.
    async fn channel(&self, identity: Option<Identity>) -> Channel {
        let anchors = TrustSlot::new(TrustAnchors::from_pem(self.authority.root_pem().as_bytes(), &[]).unwrap());
        let tls = ClientTls::new(ClientOptions {
            certificate: identity.map(CertSlot::new),
            validation: Some(Validation { anchors, ..Validation::default() }),
            alpn: vec![b"h2".to_vec()],
            sni: Some("istiod.istio-system.svc".to_owned()),
            ..ClientOptions::default()
        })
        .unwrap();
        let address = self.addresses.secure.unwrap();
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let stream = tokio_rustls::TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        Endpoint::from_static("http://istiod.istio-system.svc").connect_with_connector(connector).await.unwrap()
    }

    async fn get(&self, address: Option<SocketAddr>, path: &str) -> String {
        let mut stream = TcpStream::connect(address.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(self.addresses.http, path).await).unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn node(name: &str) -> Node {
    let metadata = json!({ "NAMESPACE": "default", "SERVICE_ACCOUNT": "client", "LABELS": { "app": "client" }, "CLUSTER_ID": "Kubernetes" });
    Node {
        id: format!("sidecar~127.0.9.9~{name}.default~default.svc.cluster.local"),
        metadata: struct_from_value(&metadata),
        ..Default::default()
    }
}

/// A proxy that accepts everything.
struct Proxy {
    client: Client,
    events: Events,
    held: BTreeMap<(String, String), meltemi_xds::Resource>,
}

impl Proxy {
    fn connect(target: Target, node: Node, variant: Variant) -> Self {
        let mut settings = ClientSettings::new(target, node);
        settings.variant = variant;
        settings.backoff = (Duration::from_millis(20), Duration::from_millis(100));
        let (client, events) = Client::spawn(settings);
        Self { client, events, held: BTreeMap::new() }
    }

    /// Reads updates until the condition holds; gives the types of those read.
    async fn until(&mut self, condition: impl Fn(&Self) -> bool) -> Vec<String> {
        let mut read = Vec::new();
        while !condition(self) {
            let event = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("an update in time");
            match event.unwrap() {
                Event::Update(update) => read.push(self.apply(update)),
                Event::Connected => {}
                Event::Disconnected(cause) => panic!("{cause}"),
            }
        }
        read
    }

    fn apply(&mut self, update: Update) -> String {
        let type_url = update.type_url.to_string();
        for resource in update.resources {
            self.held.insert((type_url.clone(), resource.name.to_string()), resource);
        }
        for name in update.removed {
            self.held.remove(&(type_url.clone(), name.to_string()));
        }
        update.reply.accept();
        type_url
    }

    fn has(&self, type_url: &str, name: &str) -> bool {
        self.held.contains_key(&(type_url.to_owned(), name.to_owned()))
    }

    fn addresses(&self, cluster: &str) -> Vec<String> {
        let Some(resource) = self.held.get(&(ENDPOINT.to_owned(), cluster.to_owned())) else { return Vec::new() };
        let assignment: ClusterLoadAssignment = resource.body.unpack().unwrap();
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        let mut addresses: Vec<String> = endpoints
            .filter_map(|endpoint| match endpoint.host_identifier? {
                HostIdentifier::Endpoint(endpoint) => Some(format!("{:?}", endpoint.address?)),
                HostIdentifier::EndpointName(_) => None,
            })
            .filter_map(|text| text.split("address: \"").nth(1)?.split('"').next().map(str::to_owned))
            .collect();
        addresses.sort();
        addresses
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_change_reaches_proxies_of_both_variants_and_nothing_else_is_sent() {
    let mesh = Mesh::start().await;
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        mesh.write("echo.yaml", &endpoints("echo", &["127.0.1.1"]));
        let mut proxy = Proxy::connect(mesh.plain(), node("client"), variant);
        proxy.client.subscribe(CLUSTER, [WILDCARD]);
        proxy.client.subscribe(LISTENER, [WILDCARD]);
        proxy.client.subscribe(ENDPOINT, [ECHO, OTHER]);
        proxy.client.subscribe(ROUTE, ["8000"]);
        let first = proxy.until(|proxy| proxy.has(ROUTE, "8000") && proxy.addresses(ECHO) == ["127.0.1.1"]).await;
        assert!(
            first.iter().position(|kind| kind == CLUSTER) < first.iter().position(|kind| kind == ROUTE),
            "{first:?}"
        );
        assert!(proxy.has(CLUSTER, ECHO) && proxy.has(CLUSTER, OTHER) && proxy.addresses(OTHER) == ["127.0.2.1"]);
        proxy.until(|proxy| proxy.held.keys().any(|(kind, _)| kind == LISTENER)).await;

        mesh.write("echo.yaml", &endpoints("echo", &["127.0.1.1", "127.0.1.2"]));
        let read = proxy.until(|proxy| proxy.addresses(ECHO).len() == 2).await;
        assert_eq!(read, [ENDPOINT], "{variant:?}");

        mesh.write(
            "vs.yaml",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: echo, namespace: default}\n\
                    spec:\n  hosts: [echo]\n  http: [{timeout: 3s, route: [{destination: {host: echo}}]}]\n",
        );
        let before = proxy.held[&(ROUTE.to_owned(), "8000".to_owned())].version.clone();
        let key = (ROUTE.to_owned(), "8000".to_owned());
        let read = proxy.until(|proxy| proxy.held[&key].version != before).await;
        assert_eq!(read, [ROUTE], "{variant:?}");
        std::fs::remove_file(mesh.dir.path().join("vs.yaml")).unwrap();
        proxy.until(|proxy| proxy.held[&key].version == before).await;
        proxy.client.close();
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workload_gets_a_certificate_by_token_and_is_held_to_it() {
    let mesh = Mesh::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let ask = async |token: Option<&str>, identity: Option<Identity>| {
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr: csr.clone(),
            validity_duration: 3600,
            ..Default::default()
        });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        IstioCertificateServiceClient::new(mesh.channel(identity).await).create_certificate(request).await
    };
    assert_eq!(ask(None, None).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let token = mesh.tokens.issue("default", "client", Duration::from_secs(60)).unwrap();
    let chain = ask(Some(&token), None).await.unwrap().into_inner().cert_chain;
    let identity = || Identity::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    // Renewal needs no token.
    assert!(!ask(None, Some(identity())).await.unwrap().into_inner().cert_chain.is_empty());

    let secure = async |identity: Option<Identity>| {
        let channel = mesh.channel(identity).await;
        Target::Custom(Arc::new(move || {
            let channel = channel.clone();
            Box::pin(async move { Ok(channel) })
        }))
    };
    let mut proxy = Proxy::connect(secure(Some(identity())).await, node("client"), Variant::Delta);
    proxy.client.subscribe(CLUSTER, [WILDCARD]);
    proxy.until(|proxy| proxy.has(CLUSTER, ECHO)).await;
    let status = mesh.json("/debug/adsz").await;
    assert_eq!(status["clients"][0]["identity"], "spiffe://cluster.local/ns/default/sa/client");

    let mut other = node("client");
    other.metadata = struct_from_value(&json!({ "NAMESPACE": "kube-system" }));
    for (target, node, expected) in [
        (secure(Some(identity())).await, other, "node of namespace"),
        (secure(None).await, node("anonymous"), "no credential"),
    ] {
        let mut refused = Proxy::connect(target, node, Variant::Delta);
        refused.client.subscribe(CLUSTER, [WILDCARD]);
        let cause = loop {
            match tokio::time::timeout(PATIENCE, refused.events.next()).await.unwrap().unwrap() {
                Event::Disconnected(cause) => break cause,
                Event::Connected => {}
                Event::Update(update) => panic!("{update:?}"),
            }
        };
        assert!(cause.contains(expected), "{cause}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_pages_and_metrics_tell_what_is_going_on() {
    let mesh = Mesh::start().await;
    let mut proxy = Proxy::connect(mesh.plain(), node("client"), Variant::Delta);
    proxy.client.subscribe(CLUSTER, [WILDCARD]);
    proxy.client.subscribe(ENDPOINT, [ECHO]);
    proxy.until(|proxy| proxy.has(CLUSTER, ECHO) && proxy.has(ENDPOINT, ECHO)).await;
    let synced = async || {
        let status = mesh.json("/debug/syncz").await[0].clone();
        (status["cluster_sent"] == status["cluster_acked"] && status["cluster_sent"] != "").then_some(status)
    };
    let mut status = synced().await;
    while status.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = synced().await;
    }
    assert_eq!(status.unwrap()["proxy"], "client.default");
    let dump = mesh.json("/debug/config_dump?proxyID=client.default").await;
    let clusters = dump["configs"][0]["dynamic_active_clusters"].as_array().unwrap();
    assert!(clusters.iter().any(|entry| entry["cluster"]["name"] == ECHO), "{dump}");
    let services = mesh.json("/debug/registryz").await;
    assert!(services.as_array().unwrap().iter().any(|service| service["hostname"] == "echo.default.svc.cluster.local"));
    assert!(mesh.json("/debug/endpointz").await.to_string().contains("127.0.1.1"));
    assert_eq!(mesh.json("/debug/mesh").await["rootNamespace"], "istio-system");
    mesh.json("/debug/configz").await;
    for address in [mesh.addresses.http, mesh.addresses.monitoring] {
        mesh.get(address, "/ready").await;
        assert!(mesh.get(address, "/version").await.contains("meltemi"));
        let metrics = mesh.get(address, "/metrics").await;
        for line in [
            "pilot_xds 1",
            "pilot_services 2",
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"cds\"} 0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
        }
    }
    mesh.stop().await;
}

#[test]
fn flags_are_pilot_discoverys() {
    use clap::Parser as _;
    let args = Args::parse_from([
        "discovery",
        "--configDir=/x",
        "--meshConfig",
        "/does/not/exist",
        "--grpcAddr=127.0.0.1:15010",
        "--secureGRPCAddr=",
        "--httpAddr=:8080",
        "--monitoringAddr=[::1]:15014",
        "--httpsAddr=:15017",
        "--trust-domain=td",
        "--domain=example.org",
        "--keepaliveInterval=1m",
        "--keepaliveMaxServerConnectionAge=30m",
        "--log_output_level=default:info",
        "--caDir=/does/not/exist",
    ]);
    let options = args.into_options().unwrap();
    assert_eq!(options.grpc, Some("127.0.0.1:15010".parse().unwrap()));
    assert_eq!(options.secure, None);
    assert_eq!(options.http, Some("0.0.0.0:8080".parse().unwrap()));
    assert_eq!(options.monitoring, Some("[::1]:15014".parse().unwrap()));
    assert_eq!(options.mesh_config, None);
    assert_eq!(options.trust_domain.as_str(), "td");
    assert_eq!(options.keepalive_interval, Duration::from_secs(60));
    assert_eq!(options.max_connection_age, Some(Duration::from_secs(1800)));
    assert!(Args::try_parse_from(["discovery", "--keepaliveInterval=soon"]).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_proxies_than_may_be_are_refused_and_let_in_when_there_is_place() {
    let mesh = Mesh::start_with(|options| options.max_connections = 1).await;
    let mut first = Proxy::connect(mesh.plain(), node("first"), Variant::Delta);
    first.client.subscribe(CLUSTER, [WILDCARD]);
    first.until(|proxy| proxy.has(CLUSTER, ECHO)).await;
    let mut second = Proxy::connect(mesh.plain(), node("second"), Variant::Delta);
    second.client.subscribe(CLUSTER, [WILDCARD]);
    let cause = loop {
        match tokio::time::timeout(PATIENCE, second.events.next()).await.unwrap().unwrap() {
            Event::Disconnected(cause) => break cause,
            Event::Connected => {}
            Event::Update(update) => panic!("served {}", update.type_url),
        }
    };
    assert!(cause.contains("1 proxies are connected, which is the limit"), "{cause}");
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    let refused = metrics.lines().find(|line| line.starts_with("pilot_xds_full_connections")).unwrap();
    assert_ne!(refused.rsplit(' ').next().unwrap(), "0");
    assert_eq!(mesh.json("/debug/syncz").await.as_array().unwrap().len(), 1);
    first.client.close();
    loop {
        match tokio::time::timeout(PATIENCE, second.events.next()).await.unwrap().unwrap() {
            Event::Update(update) => {
                second.apply(update);
                break;
            }
            Event::Connected | Event::Disconnected(_) => {}
        }
    }
    assert!(second.has(CLUSTER, ECHO));
    mesh.stop().await;
}
