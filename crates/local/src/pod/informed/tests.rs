use super::*;

fn expected(clusters: &[(&str, &[&str])]) -> Expected {
    let endpoints = |list: &[&str]| list.iter().map(|at| at.parse().expect("an address")).collect();
    let clusters = clusters.iter().map(|(name, list)| ((*name).to_owned(), endpoints(list))).collect();
    Expected { generation: 1, clusters }
}

#[test]
fn a_proxy_is_informed_once_each_cluster_that_it_has_lists_every_endpoint() {
    // As Envoy 1.40 and our proxy write it, shortened.
    let text = r#"{"cluster_statuses": [
        {"name": "outbound|80||a", "added_via_api": true, "host_statuses": [
            {"address": {"socket_address": {"address": "10.244.0.2", "port_value": 8080}}, "weight": 1},
            {"address": {"socket_address": {"address": "10.244.0.3", "port_value": 8080}}}]},
        {"name": "outbound|80||empty"},
        {"name": "xds-grpc", "host_statuses": [{"address": {"pipe": {"path": "./XDS"}}}]}]}"#;
    let clusters: Clusters = serde_json::from_str(text).expect("JSON");
    let has = |clusters_expected: &[(&str, &[&str])]| clusters.have(&expected(clusters_expected));
    assert!(has(&[("outbound|80||a", &["10.244.0.2:8080", "10.244.0.3:8080"]), ("outbound|80||empty", &[])]));
    assert!(has(&[("outbound|80||a", &["10.244.0.2:8080"]), ("outbound|80||hidden-from-it", &["10.244.0.9:80"])]));
    assert!(!has(&[("outbound|80||a", &["10.244.0.2:8080", "10.244.0.4:8080"])]));
    assert!(!has(&[("outbound|80||a", &["10.244.0.2:9090"])]));
    assert!(!has(&[("outbound|80||empty", &["10.244.0.2:8080"])]));
}
