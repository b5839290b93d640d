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

mod debug;
mod rotation;
mod webhook;

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
        Self::start_over(|_| {}, change).await
    }

    /// With more in the folder.
    async fn start_over(write: impl FnOnce(&std::path::Path), change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        std::fs::write(dir.path().join("services.yaml"), SERVICE).unwrap();
        std::fs::write(dir.path().join("echo.yaml"), endpoints("echo", &["127.0.1.1"])).unwrap();
        std::fs::write(dir.path().join("other.yaml"), endpoints("other", &["127.0.2.1"])).unwrap();
        let authority = Authority::self_signed(AuthorityOptions::new("cluster.local".parse().unwrap())).unwrap();
        let tokens = TokenIssuer::generate("test").unwrap();
        let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
        let mut options = Options {
            grpc: any,
            secure: any,
            http: any,
            monitoring: any,
            webhook: WebhookOptions { address: any, ..WebhookOptions::default() },
            tokens: Some(Tokens::of_key(tokens.public_pem(), "test")),
            ..Options::new(Arc::new(authority))
        };
        change(&mut options);
        let authority = options.authority.clone();
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
        self.try_channel(identity).await.unwrap()
    }

    async fn try_channel(&self, identity: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
        self.channel_by(&self.authority.root_pem(), identity).await
    }

    /// Of a client that trusts these roots.
    async fn channel_by(&self, roots: &str, identity: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
        let anchors = TrustSlot::new(TrustAnchors::from_pem(roots.as_bytes(), &[]).unwrap());
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
        Endpoint::from_static("http://istiod.istio-system.svc").connect_with_connector(connector).await
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
    registry_pages_have_istiods_shapes(&mesh).await;
    assert_eq!(mesh.json("/debug/mesh").await["rootNamespace"], "istio-system");
    mesh.json("/debug/configz").await;
    let policies = mesh.json("/debug/authorizationz").await["authorization_policies"].clone();
    assert_eq!(policies, json!({"namespace_to_policies": {}, "root_namespace": "istio-system"}));
    for address in [mesh.addresses.http, mesh.addresses.monitoring] {
        mesh.get(address, "/ready").await;
        assert!(mesh.get(address, "/version").await.contains("meltemi"));
        let metrics = mesh.get(address, "/metrics").await;
        for line in [
            "pilot_xds{version=\"unknown\"} 1",
            "pilot_services 2",
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"cds\"} 0",
            "# HELP pilot_xds Connected proxies, by version.",
            "istiod_managed_clusters{cluster_type=\"local\"} 1",
            "pilot_xds_push_time_count{type=\"cds\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
        }
    }
    mesh.stop().await;
}

/// `/debug/registryz` and `/debug/endpointShardz` over the mesh of [`SERVICE`].
async fn registry_pages_have_istiods_shapes(mesh: &Mesh) {
    const HOST: &str = "echo.default.svc.cluster.local";
    let services = mesh.json("/debug/registryz").await;
    let service = services.as_array().unwrap().iter().find(|service| service["hostname"] == HOST).unwrap();
    assert_eq!(service["ports"], json!([{ "name": "http", "port": 8000, "protocol": "HTTP" }]));
    assert_eq!(service["clusterVIPs"], json!({ "Addresses": { "Kubernetes": ["127.200.0.1"] } }));
    assert_eq!((&service["defaultAddress"], &service["Resolution"]), (&json!("127.200.0.1"), &json!(0)));
    assert_eq!(service["MeshExternal"], false);
    let attributes = &service["Attributes"];
    assert_eq!((&attributes["Name"], &attributes["Namespace"]), (&json!("echo"), &json!("default")));
    assert_eq!(
        (&attributes["ServiceRegistry"], &attributes["LabelSelectors"]),
        (&json!("Kubernetes"), &json!({"app": "echo"}))
    );
    assert_eq!(attributes["ExportTo"], json!({ "*": {} }));
    for page in ["/debug/endpointShardz", "/debug/endpointz"] {
        let shards = mesh.json(page).await;
        let endpoint = &shards[HOST]["default"]["Shards"]["Kubernetes/Kubernetes"][0];
        assert_eq!(endpoint["Addresses"], json!(["127.0.1.1"]), "{shards}");
        assert_eq!((&endpoint["ServicePortName"], &endpoint["EndpointPort"]), (&json!("http"), &json!(9000)));
        assert_eq!((&endpoint["TLSMode"], &endpoint["HealthStatus"]), (&json!("disabled"), &json!(1)));
        assert_eq!(endpoint["Locality"], json!({ "Label": "", "ClusterID": "Kubernetes" }));
        assert!(shards[HOST]["default"]["ServiceAccounts"].is_object());
    }
}

#[test]
fn flags_are_pilot_discoverys() {
    use clap::Parser as _;
    let dir = tempfile::tempdir().unwrap();
    let ca_dir = format!("--caDir={}", dir.path().join("ca").display());
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
        "--persistentSessions",
        "--drainingLabel=example.com/leaving",
        "--quicListeners",
        &ca_dir,
    ]);
    let options = args.into_options().unwrap();
    assert!(options.sessions.enabled && &*options.sessions.draining_label == "example.com/leaving");
    assert_eq!(&*options.sessions.cookie_label, "istio.io/persistent-session");
    assert_eq!(options.grpc, Some("127.0.0.1:15010".parse().unwrap()));
    assert_eq!(options.secure, None);
    assert!(["[::]:8080", "0.0.0.0:8080"].map(|any| Some(any.parse().unwrap())).contains(&options.http));
    assert_eq!(options.monitoring, Some("[::1]:15014".parse().unwrap()));
    assert_eq!(options.mesh_config, Some("/does/not/exist".into()), "it may yet appear");
    assert_eq!(options.trust_domain.as_ref().unwrap().as_str(), "td");
    assert_eq!(options.keepalive_interval, Duration::from_secs(60));
    assert_eq!(options.max_connection_age, Some(Duration::from_secs(1800)));
    assert!(options.quic_listeners);
    for (text, wanted) in [("true", true), ("false", false)] {
        let args = Args::parse_from(["discovery", &format!("--quicListeners={text}")]);
        assert_eq!(args.quic_listeners, wanted, "as PILOT_ENABLE_QUIC_LISTENERS is written");
    }
    assert!(Args::try_parse_from(["discovery", "--keepaliveInterval=soon"]).is_err());
}

#[test]
fn flags_say_who_fetches_keys_and_from_where_they_may_not_come() {
    use meltemi_model::KeyFetch;
    let keys = |arguments: &[&str]| parsed(arguments).map(|options| options.keys);
    let default = keys(&[]).unwrap();
    assert_eq!((default.fetch, default.interval), (KeyFetch::ControlPlane, Duration::from_secs(1200)));
    for (text, expected) in [
        ("istiod", KeyFetch::ControlPlane),
        ("false", KeyFetch::ControlPlane),
        ("hybrid", KeyFetch::Hybrid),
        ("true", KeyFetch::Hybrid),
        ("envoy", KeyFetch::Proxy),
    ] {
        assert_eq!(keys(&[&format!("--jwksFetch={text}")]).unwrap().fetch, expected, "{text}");
    }
    let forbidden = keys(&["--blockedJwksCidrs=10.0.0.0/8"]).unwrap().forbidden;
    assert!(forbidden.contains("10.1.1.1".parse().unwrap()) && !forbidden.contains("11.1.1.1".parse().unwrap()));
    // A wait of nothing would ask an issuer for ever.
    assert_eq!(keys(&["--jwksRefreshInterval=0s"]).unwrap().interval, Duration::from_secs(1));
    for wrong in ["--jwksFetch=sometimes", "--blockedJwksCidrs=10.0.0.0/40", "--jwksCaFile=/does/not/exist"] {
        assert!(keys(&[wrong]).is_err(), "{wrong}");
    }
    assert!(parsed(&["--multipleCustomAuthzProviders"]).unwrap().several_external_authorizers);
}

#[test]
fn flags_say_who_signs_and_for_how_long_and_wrong_ones_are_named() {
    use clap::Parser as _;
    let limits = ["discovery", "--signerMaxCertTTL=a.io/b=12h,a.io/c=1h"];
    let hour = Duration::from_secs(3600);
    let limits = Args::try_parse_from(limits).unwrap().authority.signer_max_ttl;
    assert_eq!(limits, [("a.io/b".to_owned(), 12 * hour), ("a.io/c".to_owned(), hour)]);
    for provider in ["istiod", "custom", "none", ""] {
        parsed(&[&format!("--pilotCertProvider={provider}")]).expect(provider);
    }
    let external = ["--externalCA=ISTIOD_RA_KUBERNETES_API", "--k8sSigner=a.io/b"];
    for (arguments, expected) in [
        (&["--signerMaxCertTTL=a.io/b"][..], "SIGNER=DURATION"),
        (&["--signerMaxCertTTL=a.io/b=0s"], "more than nothing"),
        (&["--pilotCertProvider=vault"], "one of istiod, custom, none, k8s.io/SIGNER"),
        (&["--pilotCertProvider=k8s.io/"], "no signer is named"),
        (&["--pilotCertProvider=k8s.io/a.io/b"], "only with --externalCA"),
        (&["--externalCA=other"], "only ISTIOD_RA_KUBERNETES_API"),
        (&["--externalCA=ISTIOD_RA_KUBERNETES_API"], "neither --k8sSigner nor --certSignerDomain"),
        (&external, "there is no cluster"),
    ] {
        let error = format!("{:#}", parsed(arguments).err().expect("a refusal"));
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
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

fn parsed(arguments: &[&str]) -> Result<Options> {
    use clap::Parser as _;
    let dir = tempfile::tempdir().unwrap();
    let ca_dir = format!("--caDir={}", dir.path().join("ca").display());
    Args::try_parse_from(["discovery", &ca_dir].iter().chain(arguments))?.into_options()
}

#[test]
fn flags_without_effect_are_taken_and_a_repeated_flag_counts_as_given_last() {
    let unused = [
        "--ctrlz_port=9876",
        "--ctrlz_address=localhost",
        "--shutdownDuration=10s",
        "--networksConfig=/x",
        "--clusterRegistriesNamespace=istio-system",
        "-a=app",
        "--profile",
        "--tls-cipher-suites=A,B",
        "--log_target=stdout",
        "--log_caller=all",
        "--log_stacktrace_level=default:none",
        "--registries=Kubernetes",
        "--domain=one",
        "--domain=two",
        "--keepaliveInterval=1h30m",
    ];
    let options = parsed(&unused).unwrap();
    assert_eq!((options.domain.as_str(), options.keepalive_interval), ("two", Duration::from_secs(5400)));
    use clap::Parser as _;
    let given = Args::parse_from(["discovery"].iter().chain(&unused)).unused.given();
    assert_eq!(given.len(), 12, "{given:?}");
    assert!(Args::parse_from(["discovery"]).unused.given().is_empty());
}

#[test]
fn addresses_are_of_both_families_and_names_are_resolved() {
    let options =
        parsed(&["--grpcAddr=localhost:0", "--secureGRPCAddr=:0", "--httpAddr=", "--monitoringAddr="]).unwrap();
    assert!(options.grpc.unwrap().ip().is_loopback());
    let any = options.secure.unwrap();
    let listener = std::net::TcpListener::bind(any).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    if any.is_ipv6() {
        std::net::TcpStream::connect(("::1", port)).unwrap();
    }
    let error = format!("{:#}", parsed(&["--grpcAddr=15010"]).err().unwrap());
    assert!(error.contains("--grpcAddr") && error.contains("\"15010\" is not an address"), "{error}");
}

#[test]
fn a_security_file_that_is_none_ends_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(&garbage, "nothing of the kind").unwrap();
    let name = garbage.display().to_string();
    let missing = dir.path().join("missing.pem").display().to_string();
    for (arguments, flag) in [
        (vec!["--tokenKeyFile", name.as_str(), "--tokenIssuer", "me"], "--tokenKeyFile"),
        (vec!["--caCertFile", name.as_str()], "--caCertFile"),
        (vec!["--tlsCertFile", name.as_str(), "--tlsKeyFile", name.as_str()], "--tlsCertFile"),
    ] {
        let error = format!("{:#}", parsed(&arguments).err().expect(flag));
        assert!(error.contains(flag) && error.contains(&name), "{error}");
        let arguments: Vec<&str> = arguments.iter().map(|word| if *word == name { &*missing } else { *word }).collect();
        let error = format!("{:#}", parsed(&arguments).err().expect(flag));
        assert!(error.contains(&missing) && error.matches("os error").count() == 1, "{error}");
    }
}

#[test]
fn a_named_folder_of_the_root_is_made_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder");
    let argument = format!("--caDir={}", path.display());
    let root = || parsed(&[&argument]).unwrap().authority.root_pem().to_owned();
    assert_eq!(root(), root());
    std::fs::remove_file(path.join("ca-key.pem")).unwrap();
    let error = format!("{:#}", parsed(&[&argument]).err().unwrap());
    assert!(error.ends_with("ca-key.pem is missing beside root-cert.pem") && error.contains("new/folder"), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = format!("{:#}", parsed(&[&format!("--caDir={}", file.display())]).err().unwrap());
    assert!(error.ends_with("file: not a folder"), "{error}");
}

/// A workload's certificate as the mesh issues it by token, and what the mesh says its trust domain is.
async fn issued_identity(mesh: &Mesh) -> (String, Value) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let mut request = tonic::Request::new(IstioCertificateRequest { csr, ..Default::default() });
    let token = mesh.tokens.issue("default", "client", Duration::from_secs(60)).unwrap();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = IstioCertificateServiceClient::new(mesh.channel(None).await);
    let chain = client.create_certificate(request).await.unwrap().into_inner().cert_chain;
    let identity = Identity::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    // Taken for a renewal.
    let mut client = IstioCertificateServiceClient::new(mesh.channel(Some(identity.clone())).await);
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    client.create_certificate(IstioCertificateRequest { csr, ..Default::default() }).await.unwrap();
    (identity.info().uri_sans[0].clone(), mesh.json("/debug/mesh").await["trustDomain"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_are_of_the_meshs_trust_domain_unless_the_flag_gives_another() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, "trustDomain: foo.com\n").unwrap();
    for (given, expected) in [(None, "foo.com"), (Some("bar.org"), "bar.org"), (Some("cluster.local"), "cluster.local")]
    {
        let mesh = Mesh::start_with(|options| {
            options.mesh_config = Some(file.clone());
            options.trust_domain = given.map(|text| text.parse().unwrap());
        })
        .await;
        let (identity, in_force) = issued_identity(&mesh).await;
        assert_eq!(identity, format!("spiffe://{expected}/ns/default/sa/client"));
        assert_eq!(in_force, expected);
        mesh.stop().await;
    }
}

const MESH_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                        data:\n  mesh: |\n    trustDomain: map.example\n    rootNamespace: roots\n";

async fn until_mesh(mesh: &Mesh, field: &str, expected: impl Into<Value>) {
    let expected = expected.into();
    let end = tokio::time::Instant::now() + PATIENCE;
    while mesh.json("/debug/mesh").await[field] != expected {
        assert!(tokio::time::Instant::now() < end, "{field} is not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_config_map_istio_is_the_mesh_configuration_where_no_file_is_given() {
    let mesh = Mesh::start_over(|dir| std::fs::write(dir.join("istio.yaml"), MESH_MAP).unwrap(), |_| {}).await;
    assert_eq!(
        issued_identity(&mesh).await,
        ("spiffe://map.example/ns/default/sa/client".to_owned(), json!("map.example"))
    );
    assert_eq!(mesh.json("/debug/mesh").await["rootNamespace"], "roots");
    // An edit is followed, but for the trust domain: identities are out.
    mesh.write("istio.yaml", &MESH_MAP.replace("roots", "others").replace("map.example", "new.example"));
    until_mesh(&mesh, "rootNamespace", "others").await;
    assert_eq!(mesh.json("/debug/mesh").await["trustDomain"], "map.example");
    std::fs::remove_file(mesh.dir.path().join("istio.yaml")).unwrap();
    until_mesh(&mesh, "rootNamespace", "istio-system").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_file_that_appears_later_is_taken_then_and_wins_over_the_config_map() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("mesh.yaml");
    let mesh = Mesh::start_over(
        |dir| std::fs::write(dir.join("istio.yaml"), MESH_MAP).unwrap(),
        |options| options.mesh_config = Some(file.clone()),
    )
    .await;
    assert_eq!(mesh.json("/debug/mesh").await["rootNamespace"], "istio-system");
    std::fs::write(&file, "rootNamespace: late\n").unwrap();
    until_mesh(&mesh, "rootNamespace", "late").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_mesh_file_ends_the_start_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("mesh.yaml");
    std::fs::write(&file, "accessLogFile: x\ntrustDomian: y\n").unwrap();
    let authority = Authority::self_signed(AuthorityOptions::new("cluster.local".parse().unwrap())).unwrap();
    let options = Options { mesh_config: Some(file.clone()), ..Options::new(Arc::new(authority)) };
    let store = Arc::new(meltemi_store::MemoryStore::new(ConfigSet::default()));
    let error = async || format!("{:#}", Discovery::bind(options.clone(), store.clone()).await.err().unwrap());
    let expected = format!("\n  {}:2: error: trustDomian: unknown field; did you mean `trustDomain`?", file.display());
    assert!(error().await.ends_with(&expected), "{}", error().await);
    std::fs::write(&file, b"accessLogFile: x\n\n\xff").unwrap();
    let expected = format!("\n  {}:3: error: not UTF-8: a byte 0xff", file.display());
    assert!(error().await.ends_with(&expected), "{}", error().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_taken_and_refused_are_counted() {
    let mesh = Mesh::start().await;
    mesh.write(
        "vs.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: echo, namespace: default}\n\
         spec:\n  hosts: [echo]\n  http: [{timeout: 3s, route: [{destination: {host: echo}}]}]\n",
    );
    let line = "galley_validation_passed{group=\"networking.istio.io\",resource=\"virtualservices\",version=\"v1\"} 1";
    let end = tokio::time::Instant::now() + PATIENCE;
    while !mesh.get(mesh.addresses.monitoring, "/metrics").await.lines().any(|found| found == line) {
        assert!(tokio::time::Instant::now() < end, "{line}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stats = Stats::new();
    let problems =
        |text: &str| meltemi_config::parse_documents("f", text).iter().flat_map(|d| d.check()).collect::<Vec<_>>();
    let twice_wrong =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {host: 1, hots: 2}\n";
    stats.refused(problems(twice_wrong).iter());
    assert_eq!(stats.registry.total("galley_validation_failed", &[("resource", "virtualservices")]), 1);
    mesh.stop().await;
}

/// A server of one answer, which may change.
async fn key_server(answer: Arc<std::sync::Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys = move || {
        let answer = answer.lock().unwrap().clone();
        async move { answer }
    };
    tokio::spawn(axum::serve(listener, axum::Router::new().route("/keys", axum::routing::get(keys))).into_future());
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_issuer_reach_the_proxies_that_need_them_and_follow_its_rotation() {
    let answer = Arc::new(std::sync::Mutex::new("{\"keys\":[{\"kid\":\"first\"}]}".to_owned()));
    let server = key_server(answer.clone()).await;
    let mesh = Mesh::start_with(|options| options.keys.interval = Duration::from_millis(200)).await;
    let mut proxy = Proxy::connect(mesh.plain(), node("client"), Variant::Delta);
    proxy.client.subscribe(LISTENER, [WILDCARD]);
    let key = (LISTENER.to_owned(), "virtualInbound".to_owned());
    proxy.until(|proxy| proxy.held.contains_key(&key)).await;
    let shows = |proxy: &Proxy, text: &str| {
        let bytes = &proxy.held[&key].body.value;
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    mesh.write(
        "jwt.yaml",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: default}}\n\
             spec:\n  jwtRules:\n  - {{issuer: one, jwksUri: 'http://{server}/keys'}}\n  - {{issuer: two, jwksUri: 'http://{server}/absent'}}\n"
        ),
    );
    // The issuer that has no keys closes no door but its own.
    proxy.until(|proxy| shows(proxy, "first") && shows(proxy, "origins-1")).await;
    "{\"keys\":[{\"kid\":\"second\"}]}".clone_into(&mut answer.lock().unwrap());
    proxy.until(|proxy| shows(proxy, "second") && !shows(proxy, "first")).await;
    std::fs::remove_file(mesh.dir.path().join("jwt.yaml")).unwrap();
    proxy.until(|proxy| !shows(proxy, "origins-0")).await;
    mesh.stop().await;
}
