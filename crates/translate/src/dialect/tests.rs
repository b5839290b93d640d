use super::*;
use meltemi_model::NodeDescription;
use serde_json::json;

fn dialect(metadata: serde_json::Value, user_agent: &str, extensions: &[&str]) -> Dialect {
    let description = NodeDescription {
        id: "sidecar~1.1.1.1~a.default~default.svc.cluster.local".into(),
        metadata: metadata.as_object().cloned().unwrap(),
        user_agent: user_agent.into(),
        extensions: extensions.iter().map(|e| (*e).into()).collect(),
        ..NodeDescription::default()
    };
    Dialect::of(&Node::new(description).unwrap())
}

#[test]
fn the_announcement_decides_and_metadata_overrides() {
    assert_eq!(dialect(json!({}), "envoy", &["envoy.filters.http.router"]), Dialect::Envoy);
    assert_eq!(dialect(json!({}), "envoy", &["istio.stats"]), Dialect::IstioProxy);
    assert_eq!(dialect(json!({}), "gRPC C-core Linux", &[]), Dialect::Grpc);
    assert_eq!(dialect(json!({"GENERATOR": "grpc"}), "", &[]), Dialect::Grpc);
    assert_eq!(dialect(json!({"DIALECT": "envoy"}), "envoy", &["istio.stats"]), Dialect::Envoy);
    assert_eq!(dialect(json!({"DIALECT": "istio-proxy"}), "", &[]), Dialect::IstioProxy);
}
