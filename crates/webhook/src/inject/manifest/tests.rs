use super::*;
use crate::inject::testing::injector;

const ALWAYS: Nodes = Nodes { native_sidecars: NativeSidecars::Always, nodes: Vec::new() };

fn injected(text: &str) -> Injected {
    injector("policy: enabled").inject_documents(text, &ALWAYS).unwrap()
}

fn refused(text: &str) -> String {
    injector("policy: enabled").inject_documents(text, &ALWAYS).unwrap_err().to_string()
}

#[test]
fn other_documents_pass_unchanged() {
    let service = "apiVersion: v1\nkind: Service   # ours\nmetadata: {name: a}\nspec: {ports: []}\n";
    assert_eq!(injected(service).text, format!("{service}---\n"));
    let old = "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}";
    assert_eq!(injected(old).text, format!("{old}\n---\n"));
}

#[test]
fn every_kind_that_makes_pods_is_injected() {
    for (version, kind) in KINDS.iter().filter(|(_, kind)| *kind != "List") {
        let (metadata, spec) = places(kind);
        let mut document =
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a", "namespace": "n" } });
        for (path, value) in
            [(metadata, json!({ "labels": { "l": "1" } })), (spec, json!({ "containers": [{ "name": "c" }] }))]
        {
            let mut place = &mut document;
            for key in path.split('/').skip(1) {
                place = &mut place[key];
            }
            match value {
                Value::Object(value) if place.is_object() => place.as_object_mut().unwrap().extend(value),
                value => *place = value,
            }
        }
        let out = injected(&document.to_string());
        let value = document::value(out.text.trim_end_matches("---\n")).unwrap();
        let pod = json!({ "metadata": value.pointer(metadata).unwrap(), "spec": value.pointer(spec).unwrap() });
        assert!(pod::container(&pod, names::PROXY_CONTAINER).is_some(), "{kind}");
        assert!(pod::annotation(&pod, names::STATUS).is_some(), "{kind}");
        assert!(value["status"].is_object(), "{kind}");
    }
}

#[test]
fn lists_are_injected_item_by_item() {
    let out = injected(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: s}}\n- {apiVersion: v1, kind: Pod, \
         metadata: {name: p}, spec: {containers: [{name: c}]}}\n",
    );
    let list = document::value(out.text.trim_end_matches("---\n")).unwrap();
    assert_eq!(list["items"][0], json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" } }));
    assert!(pod::annotation(&list["items"][1], names::STATUS).is_some());
}

#[test]
fn what_is_skipped_is_said() {
    let deployment = |spec: &str, labels: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec: {{template: {{metadata: {{labels: \
             {{{labels}}}}}, spec: {{containers: [{{name: c}}], {spec}}}}}}}\n"
        )
    };
    let host = injected(&deployment("hostNetwork: true", "a: b"));
    assert_eq!(
        host.warnings,
        ["===> Skipping injection because Deployment \"shop/web\" has host networking enabled\n"]
    );
    assert!(!host.text.contains("istio-proxy"));
    let no = injected(&deployment("", "sidecar.istio.io/inject: 'false'"));
    assert_eq!(
        no.warnings,
        ["===> Skipping injection because Deployment \"shop/web\" has sidecar injection disabled\n"]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    assert!(refused("a: b\n---\nkind: [\n").starts_with("line 3: "), "{}", refused("a: b\n---\nkind: [\n"));
    let controller = "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: rc}\nspec: {}\n";
    assert_eq!(refused(controller), "ReplicationController \"rc\": spec.template is required");
    let wrong =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {status.sidecar.istio.io/port: web}}\nspec: {}\n";
    assert!(
        refused(wrong).contains("Pod \"p\": failed to run injection template: invalid value 'web'"),
        "{}",
        refused(wrong)
    );
    let absent =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {inject.istio.io/templates: absent}}\nspec: {}\n";
    assert!(
        refused(absent).contains("requested template \"absent\" not found; have gateway, grpc-agent"),
        "{}",
        refused(absent)
    );
}
