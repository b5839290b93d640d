use super::*;

fn made(name: &str, revision: &str) -> Vec<Object> {
    objects(&TagRequest { name, revision, namespace: "istio-system", everywhere: false }).unwrap()
}

#[test]
fn a_tag_is_a_webhook_that_leads_to_its_revision() {
    let tag = made("prod", "1-20");
    let [webhook] = &tag[..] else { panic!("{tag:?}") };
    assert_eq!(webhook.name(), "istio-revision-tag-prod");
    assert_eq!((webhook.label(TAG_LABEL), webhook.label(REVISION_LABEL)), (Some("prod"), Some("1-20")));
    assert_eq!(webhook.label(OWNER_LABEL), None);
    let first = &webhook.value()["webhooks"][0];
    assert_eq!(first["clientConfig"]["service"]["name"], "istiod-1-20");
    assert_eq!(first["namespaceSelector"]["matchExpressions"][0]["values"], json!(["prod"]));
    assert_eq!(webhook.value()["webhooks"].as_array().unwrap().len(), 2);
}

#[test]
fn the_default_tag_injects_and_validates_what_names_none() {
    let tag = made("default", "canary");
    let names: Vec<_> = tag.iter().map(Object::name).collect();
    assert_eq!(names, ["istio-revision-tag-default", "istiod-default-validator"]);
    assert_eq!(tag[0].value()["webhooks"].as_array().unwrap().len(), 4);
    assert_eq!(tag[1].value()["webhooks"][0]["clientConfig"]["service"]["name"], "istiod-canary");
}

#[test]
fn tags_and_their_namespaces_are_read_from_labels() {
    let webhooks: Vec<_> = made("prod", "canary").iter().map(|object| object.value().clone()).collect();
    let namespace = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let namespaces = [
        namespace("a", json!({"istio.io/rev": "prod"})),
        namespace("b", json!({"istio.io/rev": "prod", "istio-injection": "enabled"})),
        namespace("c", json!({})),
    ];
    let expected = Tag { name: "prod".to_owned(), revision: "canary".to_owned(), namespaces: vec!["a".to_owned()] };
    assert_eq!(tags(&webhooks, &namespaces), [expected]);
    assert_eq!(injected("default", &namespaces), ["b"]);
}
