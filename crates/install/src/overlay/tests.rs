use serde_json::json;

use super::*;
use crate::chart::Contents;
use crate::component::{Component, instances};
use crate::operator::{Operator, Request, Source};
use crate::render::{Rendered, render};

fn try_render(spec: &str) -> Result<Rendered, String> {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{indented}");
    let documents = vec![Source { name: "mesh.yaml".to_owned(), text }];
    let operator = Operator::resolve(&Request { documents, ..Request::default() }).unwrap();
    render(&operator, &Contents::default()).map_err(|error| error.to_string())
}

fn object(rendered: &Rendered, kind: &str, name: &str) -> Value {
    let objects = rendered.objects();
    let found = objects.iter().find(|object| object.kind() == kind && object.name() == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}")).value().clone()
}

fn pilot(settings: &str) -> Rendered {
    let indented: String = settings.lines().map(|line| format!("      {line}\n")).collect();
    try_render(&format!("components:\n  pilot:\n    k8s:\n{indented}")).unwrap()
}

#[test]
fn settings_reach_the_workload_its_pods_and_its_container() {
    let settings = "\
resources:
  requests:
    cpu: 1000m
env:
- name: PILOT_X
  value: one
- name: REVISION
  value: other
nodeSelector:
  disk: ssd
podAnnotations:
  a: b
securityContext:
  fsGroup: 2000
strategy:
  rollingUpdate:
    maxSurge: 1
readinessProbe:
  periodSeconds: 9
volumes:
- name: more
  emptyDir: {}
volumeMounts:
- name: more
  mountPath: /more
";
    let rendered = pilot(settings);
    assert_eq!(rendered.notices, []);
    let deployment = object(&rendered, "Deployment", "istiod");
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"], json!({"cpu": "1000m", "memory": "2048Mi"}));
    let env = container["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|entry| entry["name"] == name).map(|entry| entry["value"].clone());
    assert_eq!((value("PILOT_X"), value("REVISION")), (Some(json!("one")), Some(json!("other"))));
    assert_eq!(pod["spec"]["nodeSelector"], json!({"disk": "ssd"}));
    assert_eq!(pod["metadata"]["annotations"]["a"], "b");
    assert_eq!(pod["spec"]["securityContext"]["fsGroup"], 2000);
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": "25%"}));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(container["readinessProbe"]["periodSeconds"], 9);
    assert!(container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["mountPath"] == "/more"));
}

#[test]
fn autoscaling_and_budget_are_what_is_said() {
    let rendered = pilot("hpaSpec:\n  minReplicas: 3\n  maxReplicas: 10\npodDisruptionBudget:\n  maxUnavailable: 1\n");
    assert_eq!(rendered.notices, []);
    let scaler = object(&rendered, "HorizontalPodAutoscaler", "istiod");
    assert_eq!((&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]), (&json!(3), &json!(10)));
    let budget = object(&rendered, "PodDisruptionBudget", "istiod");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(budget["spec"].get("minAvailable"), None);
}

#[test]
fn what_reaches_nothing_is_said() {
    let notices = |rendered: Rendered| rendered.notices.iter().map(Notice::to_string).collect::<Vec<_>>();
    let expected =
        "spec.components.pilot.k8s.replicaCount: has no effect: autoscaling decides; hpaSpec.minReplicas is the least";
    assert_eq!(notices(pilot("replicaCount: 2\n")), [expected]);
    let expected =
        "spec.components.pilot.k8s.podDisruptionBudget: has no effect: there is no PodDisruptionBudget istiod";
    assert_eq!(notices(pilot("podDisruptionBudget:\n  minAvailable: 1\n")), [expected]);
    let overlay = "overlays:\n- kind: Service\n  name: istoid\n  patches: []\n";
    let expected =
        "spec.components.pilot.k8s.overlays[0]: has no effect: there is no Service \"istoid\" in this component";
    assert_eq!(notices(pilot(overlay)), [expected]);
}

#[test]
fn overlays_patch_single_fields() {
    let overlay = "\
overlays:
- kind: Deployment
  name: istiod
  patches:
  - path: spec.template.spec.containers.[name:discovery].args.[:discovery]
    value: discover
  - path: spec.template.spec.containers.[name:discovery].ports.[containerPort:8080].containerPort
    value: 8081
  - path: spec.template.metadata.labels.a\\.b/c
    value: x
  - path: spec.template.spec.priorityClassName
    value: high
  - path: spec.template.spec.containers.[name:discovery].env.[name:POD_NAME].valueFrom
    value: |
      fieldRef:
        fieldPath: metadata.uid
  - path: spec.template.spec.containers.[name:discovery].readinessProbe
";
    let rendered = pilot(overlay);
    let deployment = object(&rendered, "Deployment", "istiod");
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["args"][0], "discover");
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["containerPort"], 8081);
    assert_eq!(pod["metadata"]["labels"]["a.b/c"], "x");
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let name = env.iter().find(|entry| entry["name"] == "POD_NAME").unwrap();
    assert_eq!(name["valueFrom"], json!({"fieldRef": {"fieldPath": "metadata.uid"}}));
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(pod["spec"]["containers"][0].get("readinessProbe"), None);
}

#[test]
fn a_patch_that_does_not_fit_is_refused_with_its_place() {
    let spec = "components:\n  pilot:\n    k8s:\n      overlays:\n      - kind: Deployment\n        name: istiod\n        patches:\n        - path: spec.template.spec.containers.[name:none].image\n          value: x\n";
    let error = try_render(spec).unwrap_err();
    let expected = "spec.components.pilot.k8s.overlays[0].patches[0].path: spec.template.spec.containers[name:none]: nothing there";
    assert_eq!(error, expected);
}

#[test]
fn ports_of_a_gateway_are_its_services_and_its_pods() {
    let spec = "\
components:
  ingressGateways:
  - name: istio-ingressgateway
    enabled: true
    k8s:
      service:
        type: NodePort
        ports:
        - name: tcp
          port: 9000
          targetPort: 9000
";
    let rendered = try_render(spec).unwrap();
    let service = object(&rendered, "Service", "istio-ingressgateway");
    assert_eq!(service["spec"]["type"], "NodePort");
    let expected = json!([{"name": "tcp", "port": 9000, "protocol": "TCP", "targetPort": 9000}]);
    assert_eq!(service["spec"]["ports"], expected);
    let deployment = object(&rendered, "Deployment", "istio-ingressgateway");
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"], 9000);
}

#[test]
fn every_setting_of_kubernetes_goes_somewhere() {
    let known: Vec<_> = crate::operator::fields::KUBERNETES.iter().map(|field| field.path).collect();
    let mut reached: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).chain(["overlays"]).collect();
    reached.sort_unstable();
    let mut sorted = known.clone();
    sorted.sort_unstable();
    assert_eq!(reached, sorted);
    let operator = Operator::resolve(&Request::default()).unwrap();
    assert!(instances(&operator).iter().any(|instance| instance.component == Component::Pilot));
}
