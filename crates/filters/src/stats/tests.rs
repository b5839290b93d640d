use meltemi_plan::filter::IstioMetricConfig;
use meltemi_telemetry::metrics::Filter;

use super::*;
use crate::info::TlsInfo;
use crate::testing;

fn config(metrics: Vec<IstioMetricConfig>) -> Config {
    Config {
        stat_prefix: "istio".into(),
        disable_host_header_fallback: false,
        tcp_reporting_duration: Duration::from_secs(15),
        server_gateway: false,
        metrics,
    }
}

fn filter(metrics: Vec<IstioMetricConfig>, direction: Direction) -> (StatsFilter, Registry) {
    let context = testing::context();
    (StatsFilter::new(&config(metrics), direction, &context), context.registry.clone())
}

fn reviews() -> Arc<meltemi_plan::Cluster> {
    let service =
        serde_json::json!({ "host": "reviews.books.svc.cluster.local", "name": "reviews", "namespace": "books" });
    testing::cluster(
        "outbound|9080||reviews.books.svc.cluster.local",
        serde_json::json!({ "istio": { "services": [service] } }),
    )
}

fn outbound() -> StreamInfo {
    let mut info = testing::info();
    info.response_code = Some(200);
    info.duration = Some(Duration::from_millis(7));
    info.bytes_sent = 1000;
    info.upstream.cluster = Some(reviews());
    let filters =
        [("istio".into(), serde_json::json!({ "workload": "reviews-v1;books;reviews;v1;Kubernetes" }))].into();
    info.upstream.metadata = Some(Arc::new(meltemi_plan::Metadata { filters }));
    info
}

#[test]
fn outbound_requests_have_istios_labels_in_istios_order() {
    let (filter, registry) = filter(vec![], Direction::Outbound);
    filter.on_end(&testing::request(&[]), &outbound());
    filter.on_end(&testing::request(&[]), &outbound());
    let text = registry.prometheus(&Filter::default());
    let line = text.lines().find(|l| l.starts_with("istio_requests_total")).unwrap();
    assert_eq!(
        line,
        "istio_requests_total{reporter=\"source\",source_workload=\"productpage-v1\",\
         source_canonical_service=\"productpage\",source_canonical_revision=\"v1\",source_workload_namespace=\"books\",\
         source_principal=\"unknown\",source_app=\"productpage\",source_version=\"v1\",source_cluster=\"Kubernetes\",\
         destination_workload=\"reviews-v1\",destination_workload_namespace=\"books\",\
         destination_principal=\"unknown\",destination_app=\"reviews\",destination_version=\"v1\",\
         destination_service=\"reviews.books.svc.cluster.local\",destination_canonical_service=\"reviews\",\
         destination_canonical_revision=\"v1\",destination_service_name=\"reviews\",\
         destination_service_namespace=\"books\",destination_cluster=\"Kubernetes\",request_protocol=\"http\",\
         response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"} 2"
    );
    assert_eq!(registry.total("istio_request_duration_milliseconds", &[("response_code", "200")]), 2);
    assert!(text.contains("istio_build{component=\"proxy\",tag=\""), "{text}");
    assert!(text.contains("istio_response_bytes_sum{reporter=\"source\""), "{text}");
    assert!(!text.lines().any(|l| l.starts_with("istio_request_messages_total")), "gRPC only: {text}");
}

#[test]
fn inbound_requests_tell_the_peer_and_the_policy() {
    let (filter, registry) = filter(vec![], Direction::Inbound);
    let mut info = outbound();
    let uri = "spiffe://cluster.local/ns/books/sa/ratings".to_owned();
    let peer = meltemi_tls::PeerInfo { uri_sans: vec![uri.clone()], ..Default::default() };
    let connection = crate::ConnectionInfo {
        tls: Some(TlsInfo { peer: Some(Arc::new(peer)), ..TlsInfo::default() }),
        peer: Some(Arc::new(Peer { workload: "ratings-v1".into(), ..Peer::default() })),
        ..crate::ConnectionInfo::new(info.connection.remote.clone(), info.connection.local.clone())
    };
    info.connection = std::rc::Rc::new(connection);
    info.is_grpc = true;
    info.grpc_status = Some(14);
    info.request_messages = 3;
    filter.on_end(&testing::request(&[]), &info);
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "ratings-v1"),
        ("source_canonical_revision", "latest"),
        ("source_principal", uri.as_str()),
        ("destination_workload", "productpage-v1"),
        ("request_protocol", "grpc"),
        ("grpc_response_status", "14"),
        ("connection_security_policy", "mutual_tls"),
    ];
    assert_eq!(registry.total("istio_requests_total", &labels), 1);
    assert_eq!(registry.total("istio_request_messages_total", &labels), 3);
}

#[test]
fn the_host_stands_for_a_service_that_nobody_named() {
    let (filter, registry) = filter(vec![], Direction::Outbound);
    let mut info = outbound();
    info.upstream.cluster = Some(testing::cluster("PassthroughCluster", serde_json::json!({})));
    info.upstream.metadata = None;
    filter.on_end(&testing::request(&[]), &info);
    let labels = [
        ("destination_service", "reviews:9080"),
        ("destination_service_name", "PassthroughCluster"),
        ("destination_workload", "unknown"),
        ("destination_service_namespace", "unknown"),
    ];
    assert_eq!(registry.total("istio_requests_total", &labels), 1);
    // Another host is another label set.
    let mut other = testing::request(&[]);
    other.authority = "else".into();
    filter.on_end(&other, &info);
    assert_eq!(registry.total("istio_requests_total", &[("destination_service", "else")]), 1);
}

#[test]
fn metrics_may_be_dropped_and_labels_changed() {
    let change = |name: &str, drop, remove: &[&str], set: &[(&str, &str)]| IstioMetricConfig {
        name: name.into(),
        drop,
        tags_to_remove: remove.iter().map(|t| (*t).into()).collect(),
        dimensions: set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    };
    let metrics = vec![
        change("request_bytes", true, &[], &[]),
        change("requests_total", false, &["response_flags"], &[("source_app", "x"), ("extra", "1")]),
    ];
    let (filter, registry) = filter(metrics, Direction::Outbound);
    filter.on_end(&testing::request(&[]), &outbound());
    assert_eq!(registry.total("istio_request_bytes", &[]), 0);
    assert_eq!(registry.total("istio_requests_total", &[("source_app", "x"), ("extra", "1")]), 1);
    assert_eq!(registry.total("istio_requests_total", &[("response_flags", "-")]), 0);
    assert_eq!(registry.total("istio_response_bytes", &[("response_flags", "-"), ("source_app", "productpage")]), 1);
}

#[test]
fn tcp_connections_report_bytes_as_they_pass() {
    let context = testing::context();
    let stats = TcpStats::new(&config(vec![]), Direction::Outbound, &context);
    let total = |metric: &str| context.registry.total(metric, &[("request_protocol", "tcp"), ("response_flags", "-")]);
    let mut info = outbound();
    let mut report = TcpReport::default();
    (info.bytes_received, info.bytes_sent) = (10, 100);
    stats.tick(&mut report, &info);
    assert_eq!((total("istio_tcp_connections_opened_total"), total("istio_tcp_sent_bytes_total")), (1, 100));
    (info.bytes_received, info.bytes_sent) = (15, 250);
    stats.end(&mut report, &info);
    let all = ["opened_total", "closed_total"].map(|m| total(&format!("istio_tcp_connections_{m}")));
    assert_eq!(all, [1, 1]);
    assert_eq!((total("istio_tcp_received_bytes_total"), total("istio_tcp_sent_bytes_total")), (15, 250));
}
