use super::*;

fn of(id: &str) -> Clearance {
    let named = BTreeSet::from(["tools".to_owned()]);
    Clearance::of(&id.parse().unwrap(), &Privileged { own: "istio-system", root: "root", named: &named })
}

#[test]
fn namespaces_of_the_mesh_and_those_named_see_everything_others_their_own() {
    for namespace in ["istio-system", "root", "tools"] {
        assert_eq!(of(&format!("spiffe://cluster.local/ns/{namespace}/sa/any")), Clearance::Everything);
    }
    let shop = of("spiffe://cluster.local/ns/shop/sa/istiod");
    assert_eq!(shop, Clearance::Namespace("shop".into()));
    for (page, seen) in [("config_dump", true), ("edsz", true), ("ndsz", true), ("syncz", false), ("mesh", false)] {
        assert_eq!(shop.covers_page(page), seen, "{page}");
        assert!(Clearance::Everything.covers_page(page));
    }
}

#[test]
fn a_proxy_is_seen_from_its_own_namespace() {
    let node = meltemi_model::NodeDescription {
        id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned(),
        metadata: serde_json::Map::new(),
        locality: Default::default(),
        extensions: Default::default(),
        user_agent: String::new(),
    };
    let node = Node::new(node).unwrap();
    assert!(Clearance::Everything.covers(&node));
    assert!(Clearance::Namespace("shop".into()).covers(&node));
    assert!(!Clearance::Namespace("other".into()).covers(&node));
}
