use super::*;
use crate::object::{REVISION_LABEL, manifest};
use crate::operator::Request;

fn rendered(settings: &[&str]) -> Rendered {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    let operator = Operator::resolve(&Request { settings, ..Request::default() }).unwrap();
    render(&operator, &Contents::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A golden file is read by a person before it is committed: `MELTEMI_BLESS=1` writes it.
fn check_golden(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(name);
    if std::env::var_os("MELTEMI_BLESS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{name}");
}

#[test]
fn the_default_profile_is_this_manifest() {
    check_golden("default.yaml", &manifest(&rendered(&[]).objects()));
}

#[test]
fn everything_is_these_objects() {
    let objects = rendered(&["profile=demo", "components.cni.enabled=true", "revision=canary"]).objects();
    let names: String = objects.iter().map(|object| format!("{}\n", object.key())).collect();
    check_golden("demo-canary.txt", &names);
}

#[test]
fn the_cni_plugin_is_this_manifest() {
    check_golden("cni.yaml", &manifest(&rendered(&["profile=empty", "components.cni.enabled=true"]).objects()));
}

#[test]
fn every_object_says_whose_it_is() {
    for object in rendered(&["profile=demo", "components.cni.enabled=true"]).objects() {
        assert!(object.label(COMPONENT_LABEL).is_some(), "{}", object.key());
        assert!(object.label(OWNER_LABEL).is_some(), "{}", object.key());
        let kept = ["Namespace"].contains(&object.kind());
        assert!(kept || object.label(REVISION_LABEL).is_some(), "{}", object.key());
    }
}

#[test]
fn the_same_installation_is_the_same_text() {
    let text = || manifest(&rendered(&["profile=demo"]).objects());
    assert_eq!(text(), text());
}

#[test]
fn nothing_is_made_of_the_empty_profile() {
    assert!(rendered(&["profile=empty"]).parts.is_empty());
}

#[test]
fn a_remote_cluster_has_the_webhook_and_where_the_control_plane_is() {
    let objects = rendered(&["profile=remote", "values.global.remotePilotAddress=10.0.0.9"]).objects();
    let kinds: Vec<_> = objects.iter().map(Object::kind).collect();
    let expected = [
        "Namespace",
        "ConfigMap",
        "Service",
        "EndpointSlice",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn two_gateways_of_one_name_are_refused() {
    let settings = vec![r#"components.ingressGateways=[{"name":"a"},{"name":"a"}]"#.to_owned()];
    let operator = Operator::resolve(&Request { settings, ..Request::default() }).unwrap();
    let error = render(&operator, &Contents::default()).unwrap_err().to_string();
    assert!(error.ends_with("is made twice: two gateways have the same name and namespace"), "{error}");
}
