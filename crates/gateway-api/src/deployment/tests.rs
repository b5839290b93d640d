use super::*;
use meltemi_config::mesh::MeshConfig;

fn catalogue(text: &str) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for object in meltemi_config::objects("test.yaml", text).unwrap_or_else(|problems| panic!("{problems:?}")) {
        catalogue.take(&object.key(), Some(&object));
    }
    catalogue
}

fn values(values: Value) -> DeploymentValues {
    DeploymentValues::of(&values, &MeshConfig::default())
}

fn gateway(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: ns, uid: u1{metadata}}}\n\
         spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]{spec}}}\n"
    )
}

fn deployed(text: &str) -> Vec<Value> {
    let values = values(json!({"global": {"hub": "test", "tag": "v1"}}));
    let mut found = deployments(&catalogue(text), |_| values.clone(), None);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).objects.unwrap_or_else(|problem| panic!("{problem:?}"))
}

fn map(data: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options, namespace: ns}}\ndata:\n{data}\n")
}

const REFERENCE: &str = ", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: options}}";

#[test]
fn a_gateway_has_an_account_a_deployment_and_a_service() {
    let objects = deployed(&gateway(", labels: {own: label}", ""));
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ServiceAccount", "Deployment", "Service"]);
    for object in &objects {
        assert_eq!(object["metadata"]["name"], "edge-istio");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(
            object["metadata"]["labels"],
            json!({
                "own": "label", "gateway.istio.io/managed": "istio.io-gateway-controller", "istio.io/dataplane-mode": "none",
                "gateway.networking.k8s.io/gateway-name": "edge", "gateway.networking.k8s.io/gateway-class-name": "istio",
            })
        );
    }
    let pod = &objects[1]["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["service.istio.io/canonical-name"], "edge-istio");
    assert_eq!(pod["metadata"]["annotations"]["istio.io/rev"], "default");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "test/proxyv2:v1");
    assert_eq!(container["args"][3], "$(POD_NAMESPACE).svc.cluster.local");
    // Every volume that is mounted is there.
    let names = |list: &Value| -> std::collections::BTreeSet<String> {
        list.as_array().unwrap().iter().map(|own| own["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["spec"]["volumes"]));
    let service = &objects[2]["spec"];
    assert_eq!(service["type"], "LoadBalancer");
    assert_eq!(service["selector"], objects[1]["spec"]["selector"]["matchLabels"]);
    assert_eq!(
        service["ports"],
        json!([
            {"name": "status-port", "port": 15021, "protocol": "TCP", "appProtocol": "tcp"},
            {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"},
        ])
    );
}

#[test]
fn annotations_infrastructure_and_addresses_are_heeded() {
    let names = ", annotations: {gateway.istio.io/name-override: web, gateway.istio.io/service-account: robot, \
                 networking.istio.io/service-type: ClusterIP, kept: yes-it-is}";
    let objects = deployed(&gateway(names, ""));
    assert_eq!(objects[0]["metadata"]["name"], "robot");
    assert_eq!(objects[1]["spec"]["template"]["spec"]["serviceAccountName"], "robot");
    assert_eq!(objects[2]["metadata"]["name"], "web");
    assert_eq!(objects[2]["spec"]["type"], "ClusterIP");
    let kept = json!({"kept": "yes-it-is", "networking.istio.io/service-type": "ClusterIP"});
    assert_eq!(objects[2]["metadata"]["annotations"], kept);
    let own = ", addresses: [{type: IPAddress, value: 1.2.3.4}], \
               infrastructure: {labels: {a: b, gateway.networking.k8s.io/x: z}, annotations: {c: d}}";
    let objects = deployed(&gateway(", labels: {not: seen}", own));
    assert_eq!(objects[2]["spec"]["loadBalancerIP"], "1.2.3.4");
    let labels = objects[2]["metadata"]["labels"].as_object().unwrap();
    assert!(
        labels.contains_key("a") && !labels.contains_key("not") && !labels.contains_key("gateway.networking.k8s.io/x")
    );
    assert_eq!(objects[2]["metadata"]["annotations"], json!({"c": "d"}));
}

#[test]
fn overlays_are_merged_by_the_keys_of_lists_and_ask_for_what_is_not_there_otherwise() {
    let overlays = "  deployment: |
    metadata: {annotations: {mine: here}}
    spec:
      replicas: 4
      template:
        spec:
          securityContext: null
          containers:
          - name: istio-proxy
            resources: {requests: {cpu: 222m}}
            env: [{name: EXTRA, value: more}, {name: GOMEMLIMIT, $patch: delete}]
          - {name: helper, image: h}
  service: |
    spec: {ports: [{port: 80, nodePort: 30080}]}
  podDisruptionBudget: |
    spec: {minAvailable: 1}
  horizontalPodAutoscaler: |
    spec: {minReplicas: 2, maxReplicas: 5}
";
    let objects = deployed(&(gateway("", REFERENCE) + &map(overlays)));
    assert_eq!(objects.len(), 5);
    let spec = &objects[1]["spec"];
    assert_eq!(spec["replicas"], 4);
    let pod = &spec["template"]["spec"];
    assert!(pod.get("securityContext").is_none());
    assert_eq!(pod["containers"].as_array().unwrap().len(), 2);
    assert_eq!(pod["containers"][0]["image"], "test/proxyv2:v1");
    assert_eq!(pod["containers"][0]["resources"], json!({"requests": {"cpu": "222m"}}));
    let names: Vec<_> =
        pod["containers"][0]["env"].as_array().unwrap().iter().map(|own| own["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"EXTRA") && names.contains(&"CA_ADDR") && !names.contains(&"GOMEMLIMIT"), "{names:?}");
    let port = json!({"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http", "nodePort": 30080});
    assert_eq!(objects[2]["spec"]["ports"][1], port);
    assert_eq!(objects[3]["spec"]["maxReplicas"], 5);
    assert_eq!(objects[4]["spec"]["minAvailable"], 1);
}

#[test]
fn what_an_overlay_may_not_do_is_refused() {
    for (data, words) in [
        ("  deployment: |\n    metadata: {name: other}", "illegal metadata change"),
        ("  service: |\n    metadata: {ownerReferences: null}", "illegal metadata change"),
        ("  daemonSet: x", "unsupported overlay \"daemonSet\""),
        ("  deployment: '['", "overlay deployment"),
        ("  deployment: |\n    spec: {template: {spec: {containers: [{image: x}]}}}", "an element has no name"),
        ("  deployment: |\n    spec: {$setElementOrder: x}", "not supported"),
    ] {
        let catalogue = catalogue(&(gateway("", REFERENCE) + &map(data)));
        let found = deployments(&catalogue, |_| values(json!({})), None).remove(0).objects.unwrap_err();
        assert!(found.message.contains(words), "{data}: {found:?}");
    }
    let found =
        deployments(&catalogue(&gateway("", REFERENCE)), |_| values(json!({})), None).remove(0).objects.unwrap_err();
    assert!(found.message.contains("does not exist"), "{found:?}");
}

#[test]
fn a_class_has_defaults_and_some_gateways_are_not_deployed() {
    let defaults = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: defaults, namespace: istio-system, labels: {gateway.istio.io/defaults-for-class: istio}}
data: {deployment: '{spec: {replicas: 3}}'}
";
    let objects = deployed(&(gateway("", REFERENCE) + defaults + &map("  deployment: '{spec: {paused: true}}'")));
    assert_eq!((&objects[1]["spec"]["replicas"], &objects[1]["spec"]["paused"]), (&json!(3), &json!(true)));
    let none = |text: &str| assert_eq!(deployments(&catalogue(text), |_| values(json!({})), None), []);
    none(&gateway("", ", addresses: [{type: Hostname, value: gw}]"));
    none(&gateway(", annotations: {gateway.istio.io/controller-version: '6'}", ""));
    none(&gateway("", "").replace("gatewayClassName: istio", "gatewayClassName: istio-remote"));
    none(&gateway("", "").replace("gatewayClassName: istio", "gatewayClassName: nobodys"));
    let claims = |metadata: &str| {
        deployments(&catalogue(&gateway(metadata, "")), |_| values(json!({})), None)[0].claim.is_some()
    };
    assert!(claims(""));
    assert!(!claims(", annotations: {gateway.istio.io/controller-version: '5'}"));
}

#[test]
fn ports_have_names_of_their_own_and_sets_add_some() {
    let long = format!("{}.{}", "a".repeat(35), "a".repeat(35));
    let listeners = format!(
        "{{name: a.b, port: 81, protocol: HTTP}}, {{name: a-b, port: 82, protocol: TCP}}, {{name: again, port: 81, protocol: HTTP, hostname: x.y}}, \
         {{name: {long}, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}]}}}}"
    );
    let text = gateway("", ", allowedListeners: {namespaces: {from: Same}}")
        .replace("{name: http, port: 80, protocol: HTTP}", &listeners);
    let set = "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: ns}
spec: {parentRef: {name: edge}, listeners: [{name: extra, port: 90, protocol: TCP}]}
";
    let quic = DeploymentValues { quic: true, ..values(json!({})) };
    let objects = deployments(&catalogue(&(text + set)), |_| quic.clone(), None).remove(0).objects.unwrap();
    let ports = objects[2]["spec"]["ports"].as_array().unwrap();
    let shown: Vec<_> = ports
        .iter()
        .map(|port| format!("{} {}", port["name"].as_str().unwrap(), port["protocol"].as_str().unwrap()))
        .collect();
    let long = format!("{}-{}", "a".repeat(35), "a".repeat(27));
    let beside = format!("{}-443 UDP", &long[..59]);
    assert_eq!(shown, ["status-port TCP", "a-b TCP", "a-b-82 TCP", &format!("{long} TCP"), &beside, "extra TCP"]);
}

#[test]
fn what_is_not_ours_is_left_alone_and_an_old_selector_stays() {
    let wanted = deployed(&gateway("", "")).remove(1);
    assert_eq!(over(&Value::Null, wanted.clone()), Some(wanted.clone()));
    assert_eq!(over(&json!({"metadata": {"labels": {"app": "theirs"}}}), wanted.clone()), None);
    let labels = json!({"istio.io/gateway-name": "edge", "gateway.networking.k8s.io/gateway-name": "edge"});
    let existing = json!({
        "metadata": {"resourceVersion": "7", "labels": {"gateway.istio.io/managed": "istio.io-gateway-controller"}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}},
    });
    let found = over(&existing, wanted).unwrap();
    assert_eq!(found["metadata"]["resourceVersion"], "7");
    assert_eq!(found["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(found["spec"]["template"]["metadata"]["labels"]["istio.io/gateway-name"], "edge");
}

#[test]
fn low_ports_take_no_privilege_unless_the_installation_says_otherwise() {
    let security = |gateways: Value| {
        let values = values(json!({"global": {"hub": "h", "tag": "t"}, "gateways": gateways}));
        let found = deployments(&catalogue(&gateway("", "")), |_| values.clone(), None).remove(0).objects.unwrap();
        found[1]["spec"]["template"]["spec"]["securityContext"].clone()
    };
    let low_ports = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]);
    // As the charts have it where nobody said anything.
    assert_eq!(security(json!({"securityContext": {}, "seccompProfile": {}})), json!({"sysctls": low_ports}));
    let profile = json!({"type": "RuntimeDefault"});
    assert_eq!(security(json!({"seccompProfile": profile})), json!({"sysctls": low_ports, "seccompProfile": profile}));
    let own = json!({"runAsUser": 5});
    assert_eq!(security(json!({"securityContext": own, "seccompProfile": profile})), own);
}

#[test]
fn built_in_classes_are_made_where_they_are_not_there() {
    let names = |catalogue: &Catalogue| -> Vec<Value> {
        crate::missing_classes(catalogue).iter().map(|class| class["metadata"]["name"].clone()).collect()
    };
    assert_eq!(names(&Catalogue::default()), ["istio", "istio-remote"]);
    // Whoever made it may have given it to another controller.
    let own = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\n\
               spec: {controllerName: example.com/other}\n";
    assert_eq!(names(&catalogue(own)), ["istio-remote"]);
}

#[test]
fn a_gateway_that_is_being_removed_gets_nothing_anew() {
    let leaving = gateway(", deletionTimestamp: \"2026-01-01T00:00:00Z\"", "");
    assert_eq!(deployments(&catalogue(&leaving), |_| values(json!({})), None), []);
}

#[test]
fn the_roots_of_the_mesh_are_mounted_where_discovery_is_known_by_them() {
    let mounted = |provider: &str| {
        let global = json!({"hub": "test", "tag": "v1", "pilotCertProvider": provider});
        let found = deployments(&catalogue(&gateway("", "")), |_| values(json!({ "global": global })), None);
        let deployment = &found[0].objects.as_ref().unwrap()[1];
        deployment["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|own| own["name"] == "istiod-ca-cert")
    };
    assert!(mounted("istiod") && mounted("k8s.io/a.io/own") && !mounted("custom") && !mounted("none"));
}

#[test]
fn a_template_makes_the_objects_and_overlays_are_laid_over_them() {
    let account = |input: &Value, kind: &str, namespace: &str| {
        let metadata = json!({"name": input["names"]["account"], "namespace": namespace, "annotations": {"ports": input["ports"].to_string()}});
        json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
    };
    let text = gateway("", REFERENCE) + &map("  serviceAccount: '{metadata: {annotations: {laid: over}}}'");
    let made = |template: Template<'_>| {
        deployments(&catalogue(&text), |_| values(json!({})), Some(template))
            .remove(0)
            .objects
            .map_err(|problem| problem.message)
    };
    let two =
        |input: &Value| Ok(vec![account(input, "ServiceAccount", "ns"), account(input, "PodDisruptionBudget", "ns")]);
    let objects = made(&two).unwrap();
    assert_eq!(objects.len(), 1, "nobody asks for the budget");
    assert_eq!(objects[0]["metadata"]["name"], "edge-istio");
    assert_eq!(objects[0]["metadata"]["annotations"]["laid"], "over");
    assert!(objects[0]["metadata"]["annotations"]["ports"].as_str().unwrap().contains("\"port\":80"));
    assert_eq!(objects[0]["metadata"]["labels"][MANAGED], "istio.io-gateway-controller");
    let elsewhere = made(&|input: &Value| Ok(vec![account(input, "ServiceAccount", "kube-system")])).unwrap_err();
    assert!(elsewhere.contains("not in the Gateway's namespace"), "{elsewhere}");
    let role = made(&|input: &Value| Ok(vec![account(input, "ClusterRole", "ns")])).unwrap_err();
    assert!(role.contains("ClusterRole"), "{role}");
    assert!(made(&|_: &Value| Err("broken".to_owned())).unwrap_err().contains("broken"));
}
