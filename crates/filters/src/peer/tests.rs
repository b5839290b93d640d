use super::*;

fn node() -> LocalNode {
    let metadata = serde_json::json!({
        "NAME": "reviews-v1-abc", "NAMESPACE": "books", "CLUSTER_ID": "Kubernetes", "WORKLOAD_NAME": "reviews-v1",
        "OWNER": "kubernetes://apis/apps/v1/namespaces/books/deployments/reviews-v1",
        "LABELS": { "app": "reviews", "version": "v1", "service.istio.io/canonical-name": "reviews" },
        "INSTANCE_IPS": "10.0.0.1",
    });
    LocalNode::new("sidecar~10.0.0.1~reviews-v1-abc.books~books.svc.cluster.local", "reviews.books", &metadata)
}

#[test]
fn what_a_node_says_is_read_back() {
    let node = node();
    let peer = Peer::from_header(node.header.as_bytes()).unwrap();
    assert_eq!(*peer, *node.peer);
    assert_eq!((&*peer.workload, &*peer.app, &*peer.canonical_revision), ("reviews-v1", "reviews", "v1"));
    assert_eq!(peer.to_string(), "reviews-v1;books;reviews;v1;Kubernetes");
    let again = Peer::from_header(node.header.as_bytes()).unwrap();
    assert!(Arc::ptr_eq(&peer, &again), "remembered");
}

#[test]
fn the_workload_may_come_from_the_owner() {
    let metadata = serde_json::json!({ "OWNER": "kubernetes://apis/apps/v1/namespaces/books/deployments/reviews-v1" });
    assert_eq!(&*Peer::from_node_metadata(&metadata).workload, "reviews-v1");
    assert_eq!(Peer::from_node_metadata(&Json::Null), Peer::default());
}

#[test]
fn nonsense_is_ignored() {
    let too_long = "A".repeat(LIMIT + 4);
    for value in ["%%%", "AAA", "////", too_long.as_str()] {
        assert_eq!(Peer::from_header(value.as_bytes()), None, "{:.10}", value);
    }
}

#[test]
fn endpoint_metadata() {
    let check = |text: &str, expected: Option<(&str, &str)>| {
        let filters = [("istio".into(), serde_json::json!({ "workload": text }))].into();
        let peer = Peer::from_endpoint(&Metadata { filters });
        assert_eq!(peer.as_ref().map(|p| (&*p.workload, &*p.cluster)), expected, "{text}");
    };
    check("reviews-v1;books;reviews;v1;Kubernetes", Some(("reviews-v1", "Kubernetes")));
    check("reviews-v1;books;reviews;v1", Some(("reviews-v1", "")));
    check("reviews-v1", None);
    assert_eq!(Peer::from_endpoint(&Metadata::default()), None);
}
