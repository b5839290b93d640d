use meltemi_kubernetes::apply::Held;
use serde_json::json;

use super::*;

fn held(kind: &'static str, name: &str, owner: &str, manager: &str) -> (Place, Held) {
    let object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "ns",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "edge", "uid": owner}],
            "managedFields": [{"manager": manager, "operation": "Apply"}],
        },
    });
    (place(&object).unwrap(), Held::of_document(object).unwrap())
}

#[test]
fn what_we_applied_and_is_not_wanted_any_more_goes_and_nothing_else_does() {
    let held: Labelled = [
        held("Service", "edge-istio", "u1", MANAGER),
        held("Service", "old-name", "u1", MANAGER),
        held("PodDisruptionBudget", "edge-istio", "u1", MANAGER),
        // Of somebody who uses our label.
        held("Deployment", "theirs", "u1", "helm"),
        held("Deployment", "other-istio", "u2", MANAGER),
    ]
    .into();
    let service = json!({"kind": "Service", "metadata": {"name": "edge-istio", "namespace": "ns"}});
    let wanted = BTreeSet::from([place(&service).unwrap()]);
    let owned = owned(&held, "u1");
    assert_eq!(owned.len(), 4);
    let gone: Vec<_> = unwanted(&owned, &wanted).into_iter().map(|place| (place.kind, &*place.name)).collect();
    assert_eq!(gone, [("PodDisruptionBudget", "edge-istio"), ("Service", "old-name")]);
}

#[test]
fn every_kind_that_is_deployed_can_be_reached() {
    for kind in KINDS {
        assert!(Resource::of_kind(kind).is_some_and(|resource| resource.namespaced), "{kind}");
    }
}

#[test]
fn proxy_configs_and_an_annotation_decide_about_a_gateways_proxies() {
    let config = |name: &str, namespace: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    };
    let text = config("mesh", "istio-system", "concurrency: 1, environmentVariables: {A: mesh, B: mesh}")
        + &config("ns", "ns", "image: {imageType: debug}, environmentVariables: {B: ns}")
        + &config(
            "edge",
            "ns",
            "selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}, concurrency: 3",
        );
    let objects = meltemi_config::objects("test.yaml", &text).unwrap();
    let known = webhook::Known(std::sync::Arc::new(meltemi_store::ConfigSet::from_objects(objects)));
    let (mesh, installed) = (MeshConfig::default(), json!({"global": {"hub": "h", "tag": "v1"}}));
    let of = |namespace: &str, name: &str, annotations: &[(&str, &str)]| {
        let annotations = annotations.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let gateway = Meta { name: name.into(), namespace: namespace.into(), annotations, ..Meta::default() };
        let values = values_for(&gateway, &installed, (&mesh, &known));
        let metadata: Vec<String> =
            values.proxy_metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (values.image.to_string(), values.proxy_config["concurrency"].as_i64(), metadata.join(" "))
    };
    let expected = |image: &str, concurrency: i64, metadata: &str| {
        (format!("h/proxyv2:{image}"), Some(concurrency), metadata.to_owned())
    };
    assert_eq!(of("other", "edge", &[]), expected("v1", 1, "A=mesh B=mesh"));
    assert_eq!(of("ns", "other", &[]), expected("v1-debug", 1, "A=mesh B=ns"));
    assert_eq!(of("ns", "edge", &[]), expected("v1-debug", 3, "A=mesh B=ns"));
    assert_eq!(of("ns", "edge", &[(IMAGE_TYPE, "distroless")]), expected("v1-distroless", 3, "A=mesh B=ns"));
}
