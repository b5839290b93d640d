//! What Istio's table of injections shows and the case folders beside the project do not: each test is named for the rows
//! that it stands for, and looks at what they are about.

#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::sync::Arc;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::split_documents;
use meltemi_webhook::inject::manifest::{Injected, ManifestError, Nodes};
use meltemi_webhook::inject::values::Installation;
use meltemi_webhook::inject::{Injector, InjectorConfig, NativeSidecars, Settings, patched_mesh};
use serde_json::{Value, json};

/// An installation, and the nodes of its cluster.
struct Setup {
    spec: Value,
    flags: Vec<&'static str>,
    mesh: Value,
    native: bool,
    compliance: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self { spec: json!({}), flags: Vec::new(), mesh: json!({}), native: true, compliance: "" }
    }
}

impl Setup {
    fn flags(flags: &[&'static str]) -> Self {
        Self { flags: flags.to_vec(), ..Self::default() }
    }

    fn old(mut self) -> Self {
        self.native = false;
        self
    }

    fn try_inject(&self, input: &Value) -> Result<Injected, ManifestError> {
        let flags: Vec<String> = self.flags.iter().map(|flag| (*flag).to_owned()).collect();
        let installation = Installation::new(&self.spec, &flags).unwrap();
        let mesh = patched_mesh(&MeshConfig::default(), &installation.mesh).unwrap();
        let settings = Settings {
            config: InjectorConfig::parse(&installation.injector_config().to_string()).unwrap(),
            values: installation.values,
            mesh: patched_mesh(&mesh, &self.mesh).unwrap(),
            revision: String::new(),
            environment: Arc::default(),
            compliance_policy: self.compliance.to_owned(),
        };
        let native_sidecars = if self.native { NativeSidecars::Always } else { NativeSidecars::Never };
        let nodes = Nodes { native_sidecars, nodes: Vec::new() };
        Injector::new(settings).unwrap().inject_documents(&input.to_string(), &nodes)
    }

    /// The one document that comes of one.
    fn inject(&self, input: &Value) -> Value {
        let injected = self.try_inject(input).unwrap();
        let parts = split_documents(&injected.text);
        let [(_, part)] = parts.as_slice() else { panic!("{} documents", parts.len()) };
        serde_saphyr::from_str(part).unwrap()
    }

    fn pod(&self, annotations: Value, containers: Value) -> Value {
        self.inject(&pod(annotations, containers))
    }
}

fn pod(annotations: Value, containers: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "hello", "labels": { "app": "hello" }, "annotations": annotations },
        "spec": { "containers": containers },
    })
}

fn hello() -> Value {
    json!([{ "name": "hello", "image": "hello:1.0", "ports": [{ "name": "http", "containerPort": 80 }] }])
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containers", "initContainers"].map(|list| &pod["spec"][list]);
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|container| container["name"] == name).unwrap_or_else(|| panic!("no {name} in {pod}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(|item| item["name"].as_str()).collect()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    container["env"].as_array()?.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

fn has_arguments(container: &Value, wanted: &[&str]) -> bool {
    let arguments: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    arguments.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn hello_never_and_proxy_init_image_name() {
    let setup = Setup::flags(&[
        "values.global.imagePullPolicy=Never",
        "values.global.proxy_init.image=init",
        "values.global.hub=hub",
        "values.global.tag=1",
    ]);
    let pod = setup.pod(json!({}), hello());
    for name in ["istio-init", "istio-proxy"] {
        assert_eq!(container(&pod, name)["imagePullPolicy"], "Never");
    }
    assert_eq!(container(&pod, "istio-init")["image"], "hub/init:1");
    assert_eq!(container(&pod, "istio-proxy")["image"], "hub/meltemi:1");
    let image = |annotations: Value| container(&setup.pod(annotations, hello()), "istio-proxy")["image"].clone();
    assert_eq!(image(json!({ "sidecar.istio.io/proxyImage": "other/proxy:2" })), "other/proxy:2");
    assert_eq!(image(json!({ "sidecar.istio.io/proxyImageType": "debug" })), "hub/meltemi:1-debug");
    let of_variant =
        Setup::flags(&["values.global.variant=distroless", "values.global.hub=hub", "values.global.tag=1"]);
    let image = |annotations: Value| container(&of_variant.pod(annotations, hello()), "istio-proxy")["image"].clone();
    assert_eq!(image(json!({})), "hub/meltemi:1-distroless");
    assert_eq!(image(json!({ "sidecar.istio.io/proxyImageType": "" })), "hub/meltemi:1", "said, if with no word");
}

#[test]
fn hello_cncf_networks_and_existing_ones() {
    let setup = Setup::flags(&["components.cni.enabled=true", "values.cni.provider=multus"]);
    let network = "k8s.v1.cni.cncf.io/networks";
    for (annotations, expected) in
        [(json!({}), "default/istio-cni"), (json!({ network: "alt_cni" }), "alt_cni, default/istio-cni")]
    {
        let pod = setup.pod(annotations, hello());
        assert_eq!(pod["metadata"]["annotations"][network], expected);
        assert_eq!(names(&pod["spec"]["initContainers"]), ["istio-validation", "istio-proxy"]);
    }
}

#[test]
fn hello_image_secrets_and_templates_in_values() {
    let setup = Setup {
        spec: json!({ "values": { "global": {
            "imagePullSecrets": ["barSecret"],
            "podDNSSearchNamespaces": ["global", "{{ valueOrDefault .DeploymentMeta.Namespace \"default\" }}.global"],
        } } }),
        ..Setup::default()
    };
    let pod = setup.pod(json!({}), hello());
    assert_eq!(names(&pod["spec"]["imagePullSecrets"]), ["barSecret"]);
    assert!(pod["spec"].get("dnsConfig").is_none(), "templates are not made of values");
}

#[test]
fn probes_and_holding_the_application() {
    let probed = json!([{
        "name": "hello",
        "ports": [{ "name": "http", "containerPort": 80 }],
        "readinessProbe": { "httpGet": { "path": "/ip", "port": "http" } },
        "livenessProbe": { "tcpSocket": { "port": 90 } },
    }]);
    let held = Setup::flags(&["values.global.proxy.holdApplicationUntilProxyStarts=true"]);
    let not_held = json!({ "proxy.istio.io/config": "holdApplicationUntilProxyStarts: false" });
    let old = held.old().pod(not_held, probed.clone());
    assert_eq!(names(&old["spec"]["containers"]), ["istio-proxy", "hello"]);
    let proxy = container(&old, "istio-proxy");
    assert_eq!(proxy["lifecycle"]["postStart"]["exec"]["command"], json!(["pilot-agent", "wait"]));
    assert_eq!(
        variable(proxy, "ISTIO_KUBE_APP_PROBERS"),
        Some(
            r#"{"/app-health/hello/livez":{"tcpSocket":{"port":90}},"/app-health/hello/readyz":{"httpGet":{"path":"/ip","port":80}}}"#
        )
    );
    let native = Setup::flags(&["values.global.proxy.holdApplicationUntilProxyStarts=true"]).pod(json!({}), probed);
    let proxy = container(&native, "istio-proxy");
    assert_eq!(proxy["lifecycle"]["preStop"]["exec"]["command"][2], "--debug-port=15020");
    assert_eq!(
        container(&native, "hello")["livenessProbe"],
        json!({ "httpGet": { "path": "/app-health/hello/livez", "port": 15020 } })
    );
}

#[test]
fn https_probes_and_the_flag_unset_in_an_annotation() {
    let probed = json!([{ "name": "hello", "livenessProbe": { "httpGet": { "port": 80, "scheme": "HTTPS" } } }]);
    let pod = Setup::default().pod(json!({}), probed.clone());
    assert_eq!(container(&pod, "hello")["livenessProbe"]["httpGet"]["scheme"], "HTTP");
    let pod = Setup::default().pod(json!({ "sidecar.istio.io/rewriteAppHTTPProbers": "false" }), probed);
    assert_eq!(container(&pod, "hello")["livenessProbe"]["httpGet"], json!({ "port": 80, "scheme": "HTTPS" }));
    assert_eq!(variable(container(&pod, "istio-proxy"), "ISTIO_KUBE_APP_PROBERS"), None);
}

#[test]
fn hello_probes_localhost() {
    let setup = Setup { mesh: json!({ "inboundTrafficPolicy": { "mode": "LOCALHOST" } }), ..Setup::default() };
    let pod = setup.pod(json!({}), hello());
    let first = &container(&pod, "istio-proxy")["env"][0];
    assert_eq!(*first, json!({ "name": "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "value": "true" }));
}

#[test]
fn cronjob_and_job() {
    let template = json!({ "spec": { "containers": hello(), "restartPolicy": "OnFailure" } });
    let cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "nightly" },
        "spec": { "schedule": "@daily", "jobTemplate": { "spec": { "template": template } } },
    });
    let injected = Setup::default().inject(&cron_job);
    let job = &injected["spec"]["jobTemplate"];
    assert!(job["metadata"]["annotations"]["sidecar.istio.io/status"].is_string());
    assert_eq!(job["spec"]["template"]["metadata"], json!({}));
    let pod = json!({ "spec": job["spec"]["template"]["spec"] });
    let owner = variable(container(&pod, "istio-proxy"), "ISTIO_META_OWNER");
    assert_eq!(owner, Some("kubernetes://apis/batch/v1/namespaces/default/cronjobs/nightly"));
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "once" }, "spec": { "template": template } });
    let old = Setup::default().old().inject(&job);
    let pod = &old["spec"]["template"];
    assert_eq!(names(&pod["spec"]["initContainers"]), ["istio-init"]);
    assert_eq!(names(&pod["spec"]["containers"]), ["hello", "istio-proxy"]);
}

#[test]
fn traffic_annotations_that_are_wrong() {
    for (name, value, expected) in [
        ("excludeOutboundIPRanges", "*", "excludeipranges"),
        ("excludeInboundPorts", "*", "excludeinboundports"),
        ("excludeOutboundPorts", "*", "excludeoutboundports"),
        ("includeOutboundIPRanges", "10.0.0.0/8,bad", "includeipranges"),
        ("includeInboundPorts", "bad", "includeinboundports"),
    ] {
        let annotations = json!({ format!("traffic.sidecar.istio.io/{name}"): value });
        let error = Setup::default().try_inject(&pod(annotations, hello())).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(expected), "{error}");
    }
}

#[test]
fn hello_host_network_with_ns() {
    let mut host = pod(json!({}), hello());
    host["metadata"]["namespace"] = json!("sample");
    host["spec"]["hostNetwork"] = json!(true);
    let injected = Setup::default().try_inject(&host).unwrap();
    assert_eq!(
        injected.warnings,
        ["===> Skipping injection because Pod \"sample/hello\" has host networking enabled\n"]
    );
}

#[test]
fn hello_tracing_disabled_and_ignore() {
    let setup = Setup { mesh: json!({ "defaultConfig": { "tracing": {} } }), ..Setup::default() };
    let pod = setup.pod(json!({}), hello());
    assert_eq!(variable(container(&pod, "istio-proxy"), "PROXY_CONFIG"), Some("{\"tracing\":{}}\n"));
    let ignored = Setup::default().pod(json!({ "sidecar.istio.io/inject": "false" }), hello());
    assert_eq!(names(&ignored["spec"]["containers"]), ["hello"]);
}

#[test]
fn native_sidecar_and_multi_init() {
    let mut input = pod(json!({}), hello());
    input["spec"]["initContainers"] = json!([{ "name": "a" }, { "name": "b", "restartPolicy": "Always" }]);
    let native = Setup::default().inject(&input);
    assert_eq!(names(&native["spec"]["initContainers"]), ["istio-init", "istio-proxy", "a", "b"]);
    assert_eq!(container(&native, "istio-proxy")["restartPolicy"], "Always");
    let old = Setup::default().old().inject(&input);
    assert_eq!(names(&old["spec"]["initContainers"]), ["a", "b", "istio-init"]);
    assert!(container(&old, "istio-proxy").get("restartPolicy").is_none());
}

#[test]
fn gateway_and_gateway_spire() {
    let spire = "spec:\n  containers:\n  - name: istio-proxy\n    volumeMounts:\n    - {name: workload-socket, mountPath: \
                 /var/run/secrets/workload-spiffe-uds, readOnly: true}\n  volumes:\n  - {name: workload-socket, csi: {driver: \
                 csi.spiffe.io, readOnly: true}}\n";
    let setup = Setup {
        spec: json!({ "values": { "sidecarInjectorWebhook": { "templates": { "spire": spire } } } }),
        ..Setup::default()
    };
    let auto = json!([{ "name": "istio-proxy", "image": "auto", "securityContext": { "runAsUser": 7 } }]);
    let gateway = setup.pod(json!({ "inject.istio.io/templates": "gateway" }), auto.clone());
    assert_eq!(names(&gateway["spec"]["containers"]), ["istio-proxy"]);
    assert!(gateway["spec"].get("initContainers").is_none());
    assert_eq!(gateway["spec"]["securityContext"]["sysctls"][0]["name"], "net.ipv4.ip_unprivileged_port_start");
    let proxy = container(&gateway, "istio-proxy");
    assert!(has_arguments(proxy, &["proxy", "router", "--domain"]));
    assert_eq!(proxy["securityContext"], json!({ "runAsGroup": 1337, "runAsUser": 7 }));
    assert!(gateway["metadata"]["labels"].get("security.istio.io/tlsMode").is_none());
    let with_spire = setup.pod(json!({ "inject.istio.io/templates": "gateway,spire" }), auto);
    let socket = &with_spire["spec"]["volumes"][0];
    assert_eq!(*socket, json!({ "name": "workload-socket", "csi": { "driver": "csi.spiffe.io", "readOnly": true } }));
    assert_eq!(container(&with_spire, "istio-proxy")["volumeMounts"][0]["readOnly"], true);
}

#[test]
fn custom_template() {
    let custom = "metadata:\n  annotations: {foo: bar}\nspec:\n  containers:\n  {{- range .Spec.Containers }}\n  - name: {{ .Name }}\n    env: \
                  [{name: SOME_ENV, value: \"{{ $.Values.global.istioNamespace }}\"}]\n  {{- end }}\n";
    let setup = Setup {
        spec: json!({ "values": { "sidecarInjectorWebhook": { "templates": { "custom": custom } } } }),
        ..Setup::default()
    };
    let pod = setup.pod(json!({ "inject.istio.io/templates": "custom" }), hello());
    assert_eq!(pod["metadata"]["annotations"]["foo"], "bar");
    assert_eq!(variable(container(&pod, "hello"), "SOME_ENV"), Some("istio-system"));
    assert_eq!(names(&pod["spec"]["containers"]), ["hello"]);
    let status = pod["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap();
    assert!(status.starts_with(r#"{"initContainers":null,"containers":["hello"],"volumes":null"#), "{status}");
}

#[test]
fn grpc_agent_and_grpc_simple() {
    let agent = Setup::default().pod(json!({ "inject.istio.io/templates": "grpc-agent" }), hello());
    assert_eq!(names(&agent["spec"]["containers"]), ["hello", "istio-proxy"]);
    let proxy = container(&agent, "istio-proxy");
    assert_eq!(variable(proxy, "ISTIO_META_GENERATOR"), Some("grpc"));
    assert_eq!(proxy["env"].as_array().unwrap().last().unwrap()["name"], "DISABLE_ENVOY");
    assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 15020);
    let application = container(&agent, "hello");
    assert_eq!(variable(application, "GRPC_XDS_BOOTSTRAP"), Some("/etc/istio/proxy/grpc-bootstrap.json"));
    assert_eq!(names(&application["volumeMounts"]), ["istio-data", "istio-xds", "workload-certs"]);
    let simple = Setup::default().pod(json!({ "inject.istio.io/templates": "grpc-simple" }), hello());
    assert_eq!(names(&simple["spec"]["initContainers"]), ["grpc-bootstrap-init"]);
    assert_eq!(variable(container(&simple, "hello"), "GRPC_GO_LOG_VERBOSITY_LEVEL"), Some("99"));
    assert_eq!(names(&simple["spec"]["volumes"]), ["grpc-io-proxyless-bootstrap"]);
}

#[test]
fn proxy_resources_of_memory_alone_and_of_annotations() {
    let setup = Setup {
        spec: json!({ "values": { "global": { "proxy": { "resources": {
            "limits": { "cpu": "2000m", "memory": null }, "requests": { "cpu": null, "memory": null },
        } } } } }),
        ..Setup::default()
    };
    let pod = setup.pod(json!({}), hello());
    assert_eq!(container(&pod, "istio-proxy")["resources"], json!({ "limits": { "cpu": "2" } }));
    let annotations = json!({
        "sidecar.istio.io/proxyCPU": "100m", "sidecar.istio.io/proxyMemory": "1024Mi", "sidecar.istio.io/proxyCPULimit": "1000m",
    });
    let pod = Setup::default().pod(annotations, hello());
    let expected = json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "100m", "memory": "1Gi" } });
    for name in ["istio-init", "istio-proxy"] {
        assert_eq!(container(&pod, name)["resources"], expected);
    }
}

#[test]
fn nothing_is_captured_in_the_mode_none() {
    let annotations = json!({ "sidecar.istio.io/interceptionMode": "NONE" });
    let native = Setup::default().pod(annotations.clone(), hello());
    assert_eq!(names(&native["spec"]["initContainers"]), ["istio-proxy"]);
    let old = Setup::default().old().pod(annotations, hello());
    assert!(old["spec"].get("initContainers").is_none());
    assert_eq!(variable(container(&old, "istio-proxy"), "ISTIO_META_INTERCEPTION_MODE"), Some("NONE"));
}

#[test]
fn status_params_status_annotations_and_a_port_of_zero() {
    let setup = Setup::flags(&["values.global.proxy.statusPort=123", "values.global.proxy.readinessPeriodSeconds=200"]);
    let pod = setup.pod(json!({ "readiness.status.sidecar.istio.io/failureThreshold": "300" }), hello());
    let probe = &container(&pod, "istio-proxy")["readinessProbe"];
    assert_eq!((&probe["periodSeconds"], &probe["failureThreshold"]), (&json!(200), &json!(300)));
    assert!(has_arguments(container(&pod, "istio-init"), &["-d", "15090,15021,123"]));
    let zero = Setup::default().pod(json!({ "status.sidecar.istio.io/port": "0" }), hello());
    assert!(container(&zero, "istio-proxy").get("readinessProbe").is_none());
    assert!(has_arguments(container(&zero, "istio-init"), &["-d", "15090,15021"]));
}

#[test]
fn kubevirt_interfaces_and_user_volumes() {
    let annotations = json!({
        "traffic.sidecar.istio.io/kubevirtInterfaces": "net1",
        "traffic.sidecar.istio.io/excludeInterfaces": "net2",
        "sidecar.istio.io/userVolume": r#"{"certs":{"secret":{"secretName":"s"}}}"#,
        "sidecar.istio.io/userVolumeMount": r#"{"certs":{"mountPath":"/certs","readOnly":true}}"#,
        "sidecar.istio.io/bootstrapOverride": "custom",
    });
    let pod = Setup::default().pod(annotations, hello());
    assert!(has_arguments(container(&pod, "istio-init"), &["-k", "net1", "-c", "net2"]));
    let mounts = container(&pod, "istio-proxy")["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({ "name": "certs", "mountPath": "/certs", "readOnly": true })));
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({ "name": "certs", "secret": { "secretName": "s" } })));
    assert!(volumes.contains(&json!({ "name": "custom-bootstrap-volume", "configMap": { "name": "custom" } })));
}

#[test]
fn hello_otel_semconv() {
    let setup = Setup {
        mesh: json!({
            "extensionProviders": [{ "name": "otel", "opentelemetry": {
                "service": "otel.observability.svc.cluster.local", "port": 4317,
                "serviceAttributeEnrichment": "OTEL_SEMANTIC_CONVENTIONS",
            } }],
            "defaultConfig": { "proxyMetadata": { "A": "b" } },
        }),
        ..Setup::default()
    };
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "hello", "namespace": "shop" },
        "spec": { "template": { "metadata": { "labels": { "app": "hello" } }, "spec": { "containers": hello() } } },
    });
    let injected = setup.inject(&deployment);
    let proxy = container(&injected["spec"]["template"], "istio-proxy");
    assert_eq!(
        variable(proxy, "OTEL_RESOURCE_ATTRIBUTES"),
        Some("service.namespace=shop,service.version=1.0,service.instance.id=shop.$(POD_NAME).hello")
    );
    let names = names(&proxy["env"]);
    assert_eq!(names[names.len() - 3..], ["TRUST_DOMAIN", "OTEL_RESOURCE_ATTRIBUTES", "A"]);
}

#[test]
fn hello_fips_140_3() {
    let setup = Setup { compliance: "fips-140-3", ..Setup::default() };
    let pod = setup.pod(json!({}), hello());
    let names = names(&container(&pod, "istio-proxy")["env"]);
    let at = names.iter().position(|name| *name == "GOMEMLIMIT").unwrap();
    assert_eq!(names[at..at + 4], ["GOMEMLIMIT", "COMPLIANCE_POLICY", "GODEBUG", "ISTIO_META_CLUSTER_ID"]);
    assert_eq!(variable(container(&pod, "istio-proxy"), "GODEBUG"), Some("fips140=only"));
}

#[test]
fn canonical_service_labels_and_a_second_injection_of_probers() {
    let mut input = pod(json!({}), hello());
    input["metadata"]["labels"] =
        json!({ "service.istio.io/canonical-name": "mine", "app.kubernetes.io/version": "7" });
    let injected = Setup::default().inject(&input);
    let labels = &injected["metadata"]["labels"];
    assert_eq!(labels["service.istio.io/canonical-name"], "mine");
    assert_eq!(labels["service.istio.io/canonical-revision"], "7");
    let mut again = injected.clone();
    again["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "late", "livenessProbe": { "tcpSocket": { "port": 9 } } }));
    let again = Setup::default().inject(&again);
    let probers = variable(container(&again, "istio-proxy"), "ISTIO_KUBE_APP_PROBERS");
    assert_eq!(probers, Some(r#"{"/app-health/late/livez":{"tcpSocket":{"port":9}}}"#));
    assert_eq!(variable(container(&again, "istio-proxy"), "ISTIO_META_APP_CONTAINERS"), Some("hello,late"));
}
