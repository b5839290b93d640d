use super::*;
use serde_json::json;

fn node(id: &str, metadata: Value) -> Result<Node, NodeError> {
    let Value::Object(metadata) = metadata else { panic!("metadata is an object") };
    Node::new(NodeDescription { id: id.into(), metadata, ..Default::default() })
}

#[test]
fn an_id_and_metadata_describe_a_node() {
    let node = node(
        "sidecar~10.0.0.1~reviews-1.shop~shop.svc.cluster.local",
        json!({
            "LABELS": {"app": "reviews", "istio-locality": "eu.a"}, "INSTANCE_IPS": "10.0.0.1,fd00::1",
            "DNS_CAPTURE": "true", "POD_PORTS": "[{\"name\":\"web\",\"containerPort\":8080}]"
        }),
    )
    .unwrap();
    assert_eq!(node.kind, NodeKind::Sidecar);
    assert_eq!(&*node.namespace, "shop");
    assert_eq!(node.ip_addresses, [Arc::from("10.0.0.1"), Arc::from("fd00::1")]);
    assert_eq!(node.locality.to_string(), "eu/a");
    assert_eq!(node.domain(), "cluster.local");
    assert!(node.dns_capture() && node.dns_auto_allocate() && node.has_ipv6());
    assert_eq!(node.pod_port("web"), Some(8080));
}

#[test]
fn a_wrong_id_is_refused() {
    for id in
        ["", "sidecar~10.0.0.1~a.b", "sidecar~10.0.0.1~a.b~c~d", "plane~10.0.0.1~a.b~b.svc.x", "sidecar~~a.b~b.svc.x"]
    {
        assert!(node(id, json!({})).is_err(), "{id}");
    }
    assert!(node("router~~a.b~b.svc.x", json!({"INSTANCE_IPS": "10.0.0.2"})).is_ok());
}
