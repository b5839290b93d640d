//! Debug output over xDS: who is told what.

use futures_util::{StreamExt as _, stream};
use meltemi_proto::Any;
use meltemi_proto::envoy::admin::v3::ClustersConfigDump;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use meltemi_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use meltemi_proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use meltemi_xds::types::{DEBUG, DEBUG_CONFIG_DUMP, DEBUG_SYNC};

use super::*;

/// Someone who asks from a namespace, on a connection that proves it.
struct Asker {
    channel: Channel,
    namespace: String,
    variant: Variant,
}

impl Asker {
    async fn from(mesh: &Mesh, namespace: &str, variant: Variant) -> Self {
        let id = SpiffeId::new("cluster.local".parse().unwrap(), namespace, "default").unwrap();
        let identity = mesh.authority.server_identity(&["asker".to_owned()], &id).unwrap();
        Self { channel: mesh.channel(Some(identity)).await, namespace: namespace.to_owned(), variant }
    }

    fn node(&self) -> Option<Node> {
        let namespace = &self.namespace;
        let metadata = json!({ "NAMESPACE": namespace, "SERVICE_ACCOUNT": "default" });
        Some(Node {
            id: format!("sidecar~127.0.9.8~asker.{namespace}~{namespace}.svc.cluster.local"),
            metadata: struct_from_value(&metadata),
            ..Default::default()
        })
    }

    /// The answer, or why the stream ended.
    async fn ask(&self, type_url: &str, name: &str) -> Result<Vec<Any>, String> {
        let names = if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
        let (node, type_url) = (self.node(), type_url.to_owned());
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let answer = async {
            match self.variant {
                Variant::Delta => {
                    let resource_names_subscribe = names;
                    let request =
                        DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() };
                    let requests = stream::iter([request]).chain(stream::pending());
                    let answer = client.delta_aggregated_resources(requests).await?.into_inner().message().await?;
                    let resources = answer.expect("an answer").resources;
                    Ok(resources.into_iter().filter_map(|resource| resource.resource).collect())
                }
                Variant::StateOfTheWorld => {
                    // As istioctl does, whose nonce is of no answer.
                    let response_nonce = "2026-11-28".to_owned();
                    let request = DiscoveryRequest {
                        node,
                        type_url,
                        resource_names: names,
                        response_nonce,
                        ..Default::default()
                    };
                    let requests = stream::iter([request]).chain(stream::pending());
                    let answer = client.stream_aggregated_resources(requests).await?.into_inner().message().await?;
                    Ok(answer.expect("an answer").resources)
                }
            }
        };
        let answer: Result<Vec<Any>, tonic::Status> = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
        answer.map_err(|status| status.to_string())
    }

    async fn page(&self, page: &str) -> Result<String, String> {
        let answer = self.ask(DEBUG, page).await?;
        let [any] = answer.as_slice() else { panic!("{} resources", answer.len()) };
        assert_eq!(any.type_url, DEBUG);
        Ok(String::from_utf8(any.value.to_vec()).unwrap())
    }

    async fn proxies(&self) -> Vec<ClientConfig> {
        let answer = self.ask(DEBUG_SYNC, "").await.unwrap();
        answer.iter().map(|any| any.unpack().unwrap()).collect()
    }
}

async fn connected(mesh: &Mesh) -> Proxy {
    let mut proxy = Proxy::connect(mesh.plain(), node("client"), Variant::Delta);
    proxy.client.subscribe(CLUSTER, [WILDCARD]);
    proxy.until(|proxy| proxy.has(CLUSTER, ECHO)).await;
    while mesh.json("/debug/syncz").await[0]["cluster_acked"] == "" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meshs_namespace_asks_for_all_that_there_is() {
    let mesh = Mesh::start().await;
    let _proxy = connected(&mesh).await;
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let asker = Asker::from(&mesh, "istio-system", variant).await;
        let proxies = asker.proxies().await;
        let [proxy] = proxies.as_slice() else { panic!("{proxies:?}") };
        let node = proxy.node.as_ref().unwrap();
        assert_eq!(node.id, "client.default");
        let types: Vec<_> = proxy.generic_xds_configs.iter().map(|it| (&*it.type_url, it.config_status())).collect();
        assert_eq!(types, [(CLUSTER, ConfigStatus::Synced)]);

        let dump = asker.ask(DEBUG_CONFIG_DUMP, "client.default").await.unwrap();
        let [clusters] = dump.as_slice() else { panic!("{} sections", dump.len()) };
        let clusters: ClustersConfigDump = clusters.unpack().unwrap();
        assert!(clusters.dynamic_active_clusters.len() > 2, "{clusters:?}");
        assert_eq!(asker.ask(DEBUG_CONFIG_DUMP, "nobody.default").await.unwrap(), []);

        let syncz: Value = serde_json::from_str(&asker.page("syncz").await.unwrap()).unwrap();
        assert_eq!(syncz[0]["proxy"], "client.default");
        let pages: Vec<String> = serde_json::from_str(&asker.page("list").await.unwrap()).unwrap();
        for page in &pages {
            let text = asker.page(page).await.unwrap();
            assert!(!text.contains("404 page not found"), "{page}: {text}");
        }
        assert!(asker.page("edsz").await.unwrap().contains("You must provide a proxyID in the query string"));
        assert!(asker.page("nothingz").await.unwrap().contains("404 page not found"));
        assert!(asker.page("mesh?pretty").await.unwrap().contains("\n  \"rootNamespace\""));
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_namespaces_see_their_own_proxies_alone() {
    let mesh = Mesh::start().await;
    let _proxy = connected(&mesh).await;
    let (own, foreign) = ("default", "shop");
    for (namespace, seen) in [(own, true), (foreign, false)] {
        let asker = Asker::from(&mesh, namespace, Variant::StateOfTheWorld).await;
        assert_eq!(asker.proxies().await.len(), usize::from(seen), "{namespace}");
        assert_eq!(asker.ask(DEBUG_CONFIG_DUMP, "client.default").await.unwrap().is_empty(), !seen);
        let page = asker.page("config_dump?proxyID=client.default").await.unwrap();
        assert_eq!(page.contains(ECHO), seen, "{page}");
        let refused = asker.page("syncz").await.unwrap_err();
        assert!(refused.contains("not for callers of your namespace"), "{refused}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_proves_no_identity_is_told_nothing_unless_that_is_wished() {
    for wished in [false, true] {
        let mesh = Mesh::start_with(|options| options.debug.authorization = !wished).await;
        let address = format!("http://{}", mesh.addresses.grpc.unwrap());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let asker = Asker { channel, namespace: "istio-system".to_owned(), variant: Variant::StateOfTheWorld };
        match asker.ask(DEBUG_SYNC, "").await {
            Ok(answer) => assert!(wished && answer.is_empty(), "{answer:?}"),
            Err(refused) => assert!(!wished && refused.contains("authentication required"), "{refused}"),
        }
        mesh.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_can_be_kept_off_http() {
    let mesh = Mesh::start_with(|options| options.debug.on_http = false).await;
    let mut stream = TcpStream::connect(mesh.addresses.http.unwrap()).await.unwrap();
    stream.write_all(b"GET /debug/syncz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let asker = Asker::from(&mesh, "istio-system", Variant::Delta).await;
    assert!(asker.page("mesh").await.unwrap().contains("rootNamespace"));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_what_is_held_are_in_istiods_shapes() {
    let mesh = Mesh::start_over(
        |dir| {
            let documents = "\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: later, namespace: default, creationTimestamp: '2026-01-02T00:00:00Z'}
spec: {}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: earlier, namespace: default, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {accessLogging: [{disabled: true}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec: {host: echo.default.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: default}
spec: {egress: [{hosts: ['./echo.default.svc.cluster.local']}], outboundTrafficPolicy: {mode: ALLOW_ANY}}
";
            std::fs::write(dir.join("more.yaml"), documents).unwrap();
        },
        |_| {},
    )
    .await;
    let _proxy = connected(&mesh).await;
    let telemetries = mesh.json("/debug/telemetryz").await["telemetries"].clone();
    let listed = &telemetries["namespace_to_telemetries"]["default"];
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("earlier"), &json!("later")));
    assert_eq!(listed[0]["spec"]["accessLogging"][0]["disabled"], true);
    assert_eq!(telemetries["root_namespace"], "istio-system");

    let scope = mesh.json("/debug/sidecarz?proxyID=client.default").await;
    assert_eq!((&scope["name"], &scope["namespace"]), (&json!("narrow"), &json!("default")));
    assert_eq!(scope["outboundTrafficPolicy"]["mode"], "ALLOW_ANY");
    let hosts: Vec<_> = scope["servicesByHostname"].as_object().unwrap().keys().collect();
    assert_eq!(hosts, ["echo.default.svc.cluster.local"]);
    assert_eq!(scope["egressListenerServices"][0][0]["hostname"], "echo.default.svc.cluster.local");
    let rule = &scope["destinationRules"]["echo.default.svc.cluster.local"][0];
    assert_eq!((&rule["from"][0]["Name"], &rule["rule"]["Spec"]["subsets"][0]["name"]), (&json!("echo"), &json!("v1")));

    assert!(mesh.json("/debug/inject").await["sidecar"].as_str().unwrap().contains("istio-proxy"));
    assert_eq!(mesh.json("/debug/networkz").await, json!([]));
    assert_eq!(mesh.json("/debug/pushcontext").await["AuthorizationPolicies"]["root_namespace"], "istio-system");
    assert_eq!(mesh.json("/debug/instancesz").await, json!({ "client.default": [] }));
    let kinds = mesh.json("/debug/resourcesz").await;
    let gateway = json!({ "group": "networking.istio.io", "version": "v1", "kind": "Gateway" });
    assert!(kinds.as_array().unwrap().contains(&gateway), "{kinds}");
    let connections = mesh.json("/debug/connections").await;
    assert_eq!(connections["totalClients"], 1);
    let fields: Vec<_> = connections["clients"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["connectionId", "connectedAt", "address"]);

    let names = mesh.json("/debug/cachez").await;
    assert!(names[CLUSTER].as_array().unwrap().contains(&json!(ECHO)), "{names}");
    let sizes = mesh.json("/debug/cachez?sizes=true").await;
    assert!(sizes["total"].as_str().unwrap().ends_with('B') && sizes[CLUSTER].is_string(), "{sizes}");
    assert_eq!(mesh.get(mesh.addresses.http, "/debug/cachez?clear=true").await, "Cache cleared\n");
    assert_eq!(mesh.json("/debug/cachez").await, json!({}));
    let dump = mesh.get(mesh.addresses.http, "/debug/config_dump?proxyID=client.default").await;
    assert!(dump.contains(ECHO), "what is needed is built again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_ago_a_type_was_sent_is_told() {
    let begun = std::time::SystemTime::now();
    let mesh = Mesh::start().await;
    let _proxy = connected(&mesh).await;
    let asker = Asker::from(&mesh, "istio-system", Variant::StateOfTheWorld).await;
    let proxies = asker.proxies().await;
    let updated = proxies[0].generic_xds_configs[0].last_updated.expect("a time");
    let updated = std::time::SystemTime::try_from(updated).unwrap();
    assert!(begun <= updated && updated <= std::time::SystemTime::now());
    let resources = mesh.json("/debug/syncz").await[0]["resources"].clone();
    assert!(resources[CLUSTER]["sentTime"].is_string() && resources[CLUSTER]["lastError"].is_null(), "{resources}");
}
