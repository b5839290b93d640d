use serde_json::json;

use super::testing::{NoCluster, injector, request};
use super::*;

fn try_inject(injector: &Injector, pod: &Value) -> Result<Value, InjectError> {
    let outcome = injector.review(&request(pod.clone()), "/inject", Platform::default(), &NoCluster)?;
    let Outcome::Injected(patch) = outcome else { panic!("not injected") };
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
    Ok(pod)
}

fn injected(config: &str, pod: Value) -> Value {
    try_inject(&injector(config), &pod).unwrap()
}

fn web() -> Value {
    json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web", "image": "i" }] } })
}

const TWO: &str = "policy: enabled\naliases: {both: [sidecar, init]}\ntemplates:\n  sidecar: |\n    spec:\n      containers:\n      \
                   - {name: istio-proxy, image: proxy}\n  init: |\n    spec:\n      initContainers:\n      - {name: istio-init, image: proxy}\n";

#[test]
fn several_templates_are_asked_for_by_name_or_alias() {
    for asked in ["sidecar,init", "sidecar , init", "both"] {
        let mut pod = web();
        pod["metadata"]["annotations"]["inject.istio.io/templates"] = json!(asked);
        let pod = injected(TWO, pod);
        assert_eq!(pod["spec"]["initContainers"][0]["name"], "istio-init", "{asked}");
        assert_eq!(pod["spec"]["containers"][1]["name"], "istio-proxy", "{asked}");
    }
    let pod = injected(TWO, web());
    assert!(pod["spec"].get("initContainers").is_none());
}

#[test]
fn a_template_may_replace_what_it_would_be_merged_with() {
    let config = "policy: enabled\ntemplates:\n  sidecar: |\n    metadata:\n      labels: {$patch: replace, foo: bar}\n    spec:\n      \
                  containers: [{name: injected}]\n";
    let mut pod = web();
    pod["metadata"]["labels"] = json!({ "key": "value" });
    let pod = injected(config, pod);
    assert_eq!(pod["metadata"]["labels"], json!({ "foo": "bar" }));
    let names: Vec<_> =
        pod["spec"]["containers"].as_array().unwrap().iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["injected", "web"]);
}

#[test]
fn templates_that_make_no_pod_are_refused_by_name() {
    let refused = |template: &str| {
        let config = format!("policy: enabled\ntemplates:\n  sidecar: {}\n", json!(template));
        try_inject(&injector(&config), &web()).unwrap_err().to_string()
    };
    assert!(refused("{{ fail `not here` }}").starts_with("template \"sidecar\": "));
    assert!(refused("a: b\nspec: [").starts_with("template \"sidecar\": what it makes is no YAML: line 2: "));
    let error = refused("spec: {containers: [{image: i}]}");
    assert_eq!(
        error,
        "template \"sidecar\": what it makes is no pod: spec.containers: \"name\", by which the list merges, is missing"
    );
}

#[test]
fn a_template_that_cannot_be_parsed_makes_no_injector() {
    let mut settings = injector("policy: enabled").settings.clone();
    settings.config.templates.insert("bad".to_owned(), "{{ if }}".to_owned());
    assert!(Injector::new(settings).unwrap_err().to_string().starts_with("template \"bad\": "));
}

#[test]
fn annotations_of_the_configuration_are_put_on_every_pod() {
    let pod = injected("policy: enabled\ninjectedAnnotations: {a/b: c}\n", web());
    assert_eq!(pod["metadata"]["annotations"]["a/b"], "c");
}

#[test]
fn images_are_named_by_hub_name_tag_and_kind() {
    let named = |global: Value, kind: &str| image(&global, "proxy", or_variant(&global, kind));
    let global = json!({ "hub": "hub", "tag": "1.2-debug", "proxy": { "image": "p" } });
    assert_eq!(named(global.clone(), ""), "hub/p:1.2-debug");
    assert_eq!(named(global.clone(), "distroless"), "hub/p:1.2-distroless");
    assert_eq!(named(global, "default"), "hub/p:1.2");
    assert_eq!(named(json!({ "hub": "h", "tag": 7, "variant": "debug" }), ""), "h/meltemi:7-debug");
}

/// Every template that comes with the injector, in the settings that change its shape.
#[test]
fn injecting_twice_is_injecting_once() {
    for template in ["sidecar", "gateway", "grpc-agent", "grpc-simple"] {
        for native in ["true", "false"] {
            let mut pod = web();
            pod["metadata"]["annotations"] = json!({
                "inject.istio.io/templates": template,
                "sidecar.istio.io/nativeSidecar": native,
                "prometheus.io/port": "80",
            });
            pod["spec"]["containers"][0]["livenessProbe"] = json!({ "httpGet": { "port": 80 } });
            check_idempotent(&pod);
        }
    }
}

fn check_idempotent(pod: &Value) {
    let injector = injector("policy: enabled");
    let once = try_inject(&injector, pod).unwrap();
    let twice = try_inject(&injector, &once).unwrap();
    let differences = case::differences(&twice, &once);
    assert!(differences.is_empty(), "{pod}\n{}", differences.join("\n"));
}

mod property {
    use proptest::prelude::*;

    use super::*;

    fn container(name: &'static str) -> impl Strategy<Value = Value> {
        let probe = prop_oneof![
            Just(json!(null)),
            (1..200u16).prop_map(|port| json!({ "httpGet": { "path": "/x", "port": port }, "timeoutSeconds": 3 })),
            (1..200u16).prop_map(|port| json!({ "tcpSocket": { "port": port } })),
            Just(json!({ "httpGet": { "port": "named" } })),
        ];
        let ports = proptest::collection::btree_set(1..9000u16, 0..3);
        (probe.clone(), probe, ports).prop_map(move |(liveness, readiness, ports)| {
            let ports: Vec<Value> = ports.into_iter().map(|port| json!({ "containerPort": port })).collect();
            let mut container = json!({ "name": name, "image": "i", "ports": ports });
            for (field, probe) in [("livenessProbe", liveness), ("readinessProbe", readiness)] {
                if !probe.is_null() {
                    container[field] = probe;
                }
            }
            container
        })
    }

    /// A proxy that the user customises, or none.
    fn proxy() -> impl Strategy<Value = Option<Value>> {
        prop_oneof![
            Just(None),
            Just(Some(json!({ "name": "istio-proxy", "image": "auto" }))),
            (0..3000i64).prop_map(|user| Some(json!({
                "name": "istio-proxy", "image": "own", "args": ["x"], "securityContext": { "runAsUser": user },
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
            }))),
        ]
    }

    fn annotations() -> impl Strategy<Value = Value> {
        let choices = proptest::sample::subsequence(
            vec![
                ("inject.istio.io/templates", "gateway"),
                ("sidecar.istio.io/nativeSidecar", "false"),
                ("sidecar.istio.io/interceptionMode", "TPROXY"),
                ("sidecar.istio.io/interceptionMode", "NONE"),
                ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true"),
                ("prometheus.io/port", "80"),
                ("prometheus.io/scrape", "false"),
                ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
                ("sidecar.istio.io/proxyCPU", "1500m"),
                ("traffic.sidecar.istio.io/excludeOutboundPorts", "1,2"),
            ],
            0..5,
        );
        choices.prop_map(|chosen| chosen.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn injecting_any_pod_twice_is_injecting_it_once(
            application in container("web"),
            init in proptest::option::of(container("setup")),
            proxy in proxy(),
            annotations in annotations(),
        ) {
            let containers: Vec<Value> = std::iter::once(application).chain(proxy).collect();
            let mut pod = json!({ "metadata": { "name": "web", "annotations": annotations }, "spec": { "containers": containers } });
            if let Some(init) = init {
                pod["spec"]["initContainers"] = json!([init]);
            }
            check_idempotent(&pod);
        }
    }
}
