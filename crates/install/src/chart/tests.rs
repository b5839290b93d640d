use serde_json::json;

use super::*;
use crate::object::{ObjectKey, manifest};
use crate::operator::fields;

fn contents() -> Contents {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gateways.networking.istio.io"},
        "spec": {"group": "networking.istio.io", "description": "a {{ brace }}"},
    });
    let injection = [("sidecar".to_owned(), "metadata:\n  name: {{ .Name }}\n\nspec: {}\n".to_owned())];
    Contents { definitions: vec![definition], injection: injection.into() }
}

fn render(chart: Chart, values: &Value) -> Vec<Object> {
    let release = Release { name: "istio", namespace: "istio-system" };
    chart.render(&release, values, &contents()).unwrap_or_else(|error| panic!("{error}"))
}

fn object(chart: Chart, values: &Value, kind: &str, name: &str) -> Value {
    let objects = render(chart, values);
    let found = objects.iter().find(|object| object.kind() == kind && object.name() == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} among {}", manifest(&objects))).value().clone()
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(Object::key).map(|key: ObjectKey| key.to_string()).collect()
}

#[test]
fn the_control_plane_is_these_objects() {
    let expected = [
        "HorizontalPodAutoscaler/istiod.istio-system",
        "ClusterRole/istiod-clusterrole-istio-system",
        "ClusterRole/istiod-gateway-controller-istio-system",
        "ClusterRoleBinding/istiod-clusterrole-istio-system",
        "ClusterRoleBinding/istiod-gateway-controller-istio-system",
        "ConfigMap/istio.istio-system",
        "Deployment/istiod.istio-system",
        "ConfigMap/istio-sidecar-injector.istio-system",
        "MutatingWebhookConfiguration/istio-sidecar-injector",
        "Role/istiod.istio-system",
        "RoleBinding/istiod.istio-system",
        "Service/istiod.istio-system",
        "ServiceAccount/istiod.istio-system",
        "ValidatingWebhookConfiguration/istio-validator-istio-system",
        "ConfigMap/values.istio-system",
    ];
    assert_eq!(names(&render(Chart::Istiod, &json!({}))), expected);
}

#[test]
fn a_revision_is_part_of_every_name_and_has_no_default_webhooks() {
    let objects = render(Chart::Istiod, &json!({"revision": "canary"}));
    for object in &objects {
        assert!(object.name().contains("-canary"), "{}", object.key());
        assert_eq!(object.label("istio.io/rev"), Some("canary"), "{}", object.key());
    }
    let webhook = object(
        Chart::Istiod,
        &json!({"revision": "canary"}),
        "MutatingWebhookConfiguration",
        "istio-sidecar-injector-canary",
    );
    let webhooks: Vec<_> =
        webhook["webhooks"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(webhooks, ["rev.namespace.sidecar-injector.istio.io", "rev.object.sidecar-injector.istio.io"]);
    assert_eq!(webhook["webhooks"][0]["clientConfig"]["service"]["name"], "istiod-canary");
}

#[test]
fn the_default_revision_injects_what_names_none() {
    let values = json!({"sidecarInjectorWebhook": {"enableNamespacesByDefault": true}});
    let webhook = object(Chart::Istiod, &values, "MutatingWebhookConfiguration", "istio-sidecar-injector");
    let webhooks: Vec<_> =
        webhook["webhooks"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let expected = ["rev.namespace.", "rev.object.", "namespace.", "object.", "auto."];
    assert_eq!(webhooks, expected.map(|prefix| format!("{prefix}sidecar-injector.istio.io")));
}

#[test]
fn the_mesh_configuration_is_the_users_over_where_the_control_plane_is() {
    let values =
        json!({"revision": "r1", "meshConfig": {"accessLogFile": "/dev/stdout", "defaultConfig": {"concurrency": 2}}});
    let map = object(Chart::Istiod, &values, "ConfigMap", "istio-r1");
    let mesh = yaml::read(map["data"]["mesh"].as_str().unwrap()).unwrap();
    let expected = json!({
        "accessLogFile": "/dev/stdout",
        "defaultProviders": {"metrics": ["prometheus"]},
        "defaultConfig": {"concurrency": 2, "discoveryAddress": "istiod-r1.istio-system.svc:15012"},
        "rootNamespace": "istio-system",
        "trustDomain": "cluster.local",
    });
    assert_eq!(mesh, expected);
}

#[test]
fn the_injector_gets_its_templates_and_the_values_that_they_read() {
    let values = json!({"sidecarInjectorWebhook": {"templates": {"mine": "spec: {}"}}});
    let map = object(Chart::Istiod, &values, "ConfigMap", "istio-sidecar-injector");
    let config = yaml::read(map["data"]["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["templates"]["sidecar"], "metadata:\n  name: {{ .Name }}\n\nspec: {}\n");
    assert_eq!(config["templates"]["mine"], "spec: {}");
    assert_eq!(config["defaultTemplates"], json!(["sidecar"]));
    let values: Value = serde_json::from_str(map["data"]["values"].as_str().unwrap()).unwrap();
    let keys: Vec<_> = values.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["gateways", "global", "pilot", "revision", "sidecarInjectorWebhook"]);
}

#[test]
fn kinds_are_part_of_the_base_unless_left_out() {
    let kept = names(&render(Chart::Base, &json!({})));
    assert_eq!(
        kept,
        [
            "CustomResourceDefinition/gateways.networking.istio.io",
            "ValidatingWebhookConfiguration/istiod-default-validator"
        ]
    );
    let definition = object(Chart::Base, &json!({}), "CustomResourceDefinition", "gateways.networking.istio.io");
    assert_eq!(definition["spec"]["description"], "a {{ brace }}");
    let left = json!({"base": {"excludedCRDs": ["gateways.networking.istio.io"]}, "defaultRevision": ""});
    assert_eq!(render(Chart::Base, &left), []);
}

#[test]
fn a_budget_needs_a_second_pod() {
    let kinds =
        |values: &Value| -> Vec<_> { render(Chart::Istiod, values).iter().map(|it| it.kind().to_owned()).collect() };
    let budget = "PodDisruptionBudget".to_owned();
    assert!(!kinds(&json!({})).contains(&budget));
    assert!(kinds(&json!({"pilot": {"autoscaleMin": 2}})).contains(&budget));
    assert!(kinds(&json!({"pilot": {"autoscaleEnabled": false, "replicaCount": 3}})).contains(&budget));
}

#[test]
fn scopes_divide_the_objects() {
    let of = |scope: &str| names(&render(Chart::Istiod, &json!({"global": {"resourceScope": scope}})));
    let (cluster, namespace) = (of("cluster"), of("namespace"));
    assert!(cluster.iter().all(|name| !name.ends_with(".istio-system")), "{cluster:?}");
    assert!(namespace.iter().all(|name| name.ends_with(".istio-system")), "{namespace:?}");
    assert_eq!(cluster.len() + namespace.len(), of("all").len());
}

#[test]
fn a_tracer_that_is_no_longer_there_is_refused() {
    let release = Release { name: "istio", namespace: "istio-system" };
    let values = json!({"global": {"proxy": {"tracer": "lightstep"}}});
    let error = Chart::Istiod.render(&release, &values, &contents()).unwrap_err().to_string();
    assert!(
        error.contains("chart istiod: templates/configmap.yaml") && error.contains("extension providers"),
        "{error}"
    );
}

#[test]
fn a_gateway_is_a_pod_to_be_injected() {
    let values =
        json!({"name": "istio-ingressgateway", "labels": {"app": "istio-ingressgateway", "istio": "ingressgateway"}});
    let deployment = object(Chart::Gateway, &values, "Deployment", "istio-ingressgateway");
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["metadata"]["annotations"]["inject.istio.io/templates"], "gateway");
    assert_eq!(pod["metadata"]["labels"]["sidecar.istio.io/inject"], "true");
    assert_eq!(pod["spec"]["containers"][0]["image"], "auto");
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        json!({"app": "istio-ingressgateway", "istio": "ingressgateway"})
    );
    let service = object(Chart::Gateway, &values, "Service", "istio-ingressgateway");
    let ports: Vec<_> =
        service["spec"]["ports"].as_array().unwrap().iter().map(|it| it["port"].as_i64().unwrap()).collect();
    assert_eq!(ports, [15021, 80, 443]);
}

/// Values that only injection reads, from the values of the injector.
const FOR_INJECTION: [&str; 10] = [
    "values.global.proxy",
    "values.global.waypoint",
    "values.global.caAddress",
    "values.global.caName",
    "values.global.mountMtlsCerts",
    "values.global.network",
    "values.global.podDNSSearchNamespaces",
    "values.gateways.s",
    "values.pilot.cni.provider",
    "values.sidecarInjectorWebhook.",
];

#[test]
fn every_field_that_takes_effect_is_read_by_a_chart() {
    let texts: String = Chart::ALL.iter().flat_map(|chart| chart.files(&contents())).map(|(_, text)| text).collect();
    for (path, field) in fields() {
        let of_chart = path.starts_with("values.") && field.fate == crate::operator::fields::Fate::Used;
        let for_injection = FOR_INJECTION.iter().any(|start| path.starts_with(start));
        if !of_chart || for_injection || path.starts_with("values.gateways.istio-") {
            continue;
        }
        let read = path.replacen("values.", ".Values.", 1);
        assert!(texts.contains(&read), "{path} takes no effect");
    }
}

fn rules(chart: Chart, values: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for object in render(chart, values).iter().filter(|object| object.kind().ends_with("Role")) {
        for rule in object.value()["rules"].as_array().unwrap() {
            let words = |key: &str| -> Vec<&str> {
                rule[key].as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
            };
            let named = if words("resourceNames").is_empty() {
                String::new()
            } else {
                format!(" named {}", words("resourceNames").join(" "))
            };
            let line = format!(
                "{} {}: {} of {}{named}",
                object.kind(),
                object.name(),
                words("verbs").join(" "),
                words("resources").join(" ")
            );
            lines.push(format!("{line} in {}", words("apiGroups").join(" ")));
        }
    }
    lines
}

#[test]
fn rights_are_these_and_no_more() {
    let rights = |chart| rules(chart, &json!({"name": "gateway"})).join("\n") + "\n";
    let text: String = Chart::ALL.into_iter().map(rights).collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chart/rights.txt");
    if std::env::var_os("MELTEMI_BLESS").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap());
    assert!(!text.contains(": *") && !text.contains("escalate") && !text.contains("impersonate"), "{text}");
}

#[test]
fn who_may_sign_is_approved_and_nobody_else() {
    let signing = |values: &Value| {
        let all = rules(Chart::Istiod, values);
        all.into_iter().filter(|rule| rule.ends_with("in certificates.k8s.io")).collect::<Vec<_>>()
    };
    assert_eq!(signing(&json!({})), [""; 0]);
    let requests = "ClusterRole istiod-clusterrole-istio-system: create get watch update patch delete of \
                    certificatesigningrequests certificatesigningrequests/approval in certificates.k8s.io";
    let approve = |names: &str| {
        format!("ClusterRole istiod-clusterrole-istio-system: approve of signers named {names} in certificates.k8s.io")
    };
    let own = json!({"global": {"pilotCertProvider": "k8s.io/a.io/own"}});
    assert_eq!(signing(&own), [requests, &approve("a.io/own")]);
    let env =
        json!({"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "K8S_SIGNER": "a.io/all", "CERT_SIGNER_DOMAIN": "b.io"});
    let all = json!({
        "global": {"pilotCertProvider": "k8s.io/a.io/own", "certSigners": ["a.io/all", "c.io/x"]},
        "pilot": {"env": env},
    });
    assert_eq!(signing(&all), [requests, &approve("a.io/all c.io/x a.io/own b.io/*")]);
    let nobody = json!({"pilot": {"env": {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API"}}});
    assert_eq!(signing(&nobody), [requests], "not every signer there is");
}

#[test]
fn every_right_has_its_reason_above_it() {
    for chart in Chart::ALL {
        for (name, text) in
            chart.files(&contents()).iter().filter(|(_, text)| text.contains("rbac.authorization.k8s.io"))
        {
            for (before, rule) in text.lines().zip(text.lines().skip(1)) {
                assert!(
                    !rule.starts_with("- apiGroups:") || before.starts_with("# "),
                    "{} {name}: {rule}",
                    chart.name()
                );
            }
        }
    }
}

#[test]
fn charts_are_of_this_version_and_have_a_schema() {
    for chart in Chart::ALL {
        let files = chart.files(&contents());
        let described = yaml::read(&files["Chart.yaml"]).unwrap();
        let version = json!(env!("CARGO_PKG_VERSION"));
        assert_eq!((&described["version"], &described["appVersion"]), (&version, &version), "{}", chart.name());
        let schema: Value = serde_json::from_str(&files["values.schema.json"]).unwrap();
        assert!(schema["properties"].is_object(), "{}", chart.name());
        let tag = chart.defaults().unwrap().pointer("/global/tag").cloned();
        assert!(tag.is_none_or(|tag| tag == version), "{}", chart.name());
    }
}
