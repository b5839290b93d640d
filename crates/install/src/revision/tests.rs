use serde_json::json;

use super::*;
use crate::tag::{TagRequest, objects};

#[test]
fn what_belongs_to_a_revision_is_found_by_its_labels() {
    let labelled =
        |name: &str, labels: Value| json!({"metadata": {"name": name, "namespace": "istio-system", "labels": labels}});
    let tag = TagRequest { name: "prod", revision: "canary", namespace: "istio-system", everywhere: false };
    let mut webhooks: Vec<_> = objects(&tag).unwrap().iter().map(|object| object.value().clone()).collect();
    webhooks.push(labelled("istio-sidecar-injector-canary", json!({"istio.io/rev": "canary"})));
    let mut deployment =
        labelled("istiod-canary", json!({"istio.io/rev": "canary", "operator.istio.io/component": "Pilot"}));
    deployment["spec"] = json!({"replicas": 2, "template": {"spec": {"containers": [{"image": "meltemi/meltemi:1"}]}}});
    deployment["status"] = json!({"readyReplicas": 1});
    let gateway =
        labelled("edge", json!({"istio.io/rev": "default", "operator.istio.io/component": "IngressGateways"}));
    let namespaces =
        vec![labelled("a", json!({"istio.io/rev": "prod"})), labelled("b", json!({"istio.io/rev": "canary"}))];
    let mut pod = labelled("web", json!({}));
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/status": "{\"revision\":\"canary\"}"});
    let observed = Observed { webhooks, deployments: vec![deployment, gateway], namespaces, pods: vec![pod] };
    let found = revisions(&observed);
    let plane = ControlPlane {
        namespace: "istio-system".to_owned(),
        name: "istiod-canary".to_owned(),
        image: "meltemi/meltemi:1".to_owned(),
        wanted: 2,
        ready: 1,
    };
    let canary = Revision {
        name: "canary".to_owned(),
        tags: vec!["prod".to_owned()],
        control_planes: vec![plane],
        webhooks: vec!["istio-revision-tag-prod".to_owned(), "istio-sidecar-injector-canary".to_owned()],
        gateways: Vec::new(),
        namespaces: vec!["a".to_owned(), "b".to_owned()],
        proxies: vec!["istio-system/web".to_owned()],
    };
    let default =
        Revision { name: "default".to_owned(), gateways: vec!["istio-system/edge".to_owned()], ..Revision::default() };
    assert_eq!(found, [canary, default]);
}
