use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_is_in_the_order_of_the_enum_and_names_each_kind_once() {
    let mut seen = BTreeSet::new();
    for kind in Kind::all() {
        assert_eq!(kind.info().kind, kind);
        assert_eq!(Kind::find(kind.info().group, kind.as_str()), Some(kind));
        assert!(seen.insert((kind.info().group, kind.info().plural)), "{kind}");
    }
    assert_eq!(Kind::find("gateway.networking.k8s.io", "HTTPRoute"), Some(Kind::HttpRoute));
    assert_eq!(Kind::find("gateway.networking.k8s.io", "Gateway"), Some(Kind::KubernetesGateway));
    assert_eq!(Kind::Gateway.api_version(), "networking.istio.io/v1");
    assert_eq!(Kind::Service.api_version(), "v1");
}
