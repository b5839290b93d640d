use super::*;
use crate::inject::testing::injector;

fn template(text: &str) -> Option<GatewayTemplate> {
    let mut settings = injector("policy: enabled").settings().clone();
    settings.config.templates.insert(NAME.to_owned(), text.to_owned());
    GatewayTemplate::of(settings).unwrap()
}

fn gateway() -> Value {
    json!({
        "metadata": { "name": "edge", "namespace": "ns", "uid": "u1", "labels": {}, "annotations": { "a": "b" } },
        "spec": { "gatewayClassName": "istio", "addresses": [{ "value": "1.2.3.4" }] },
        "names": { "deployment": "edge-istio", "account": "robot" },
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http" }],
        "type": "LoadBalancer",
        "labels": { "own": "label" },
        "annotations": {},
        "cluster": "Kubernetes",
        "user": 1337,
        "group": 1337,
    })
}

#[test]
fn a_template_sees_the_gateway_as_istio_shows_it() {
    let text = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .DeploymentName | quote }}
  namespace: {{ .Namespace | quote }}
  labels: {{- toJsonMap .InfrastructureLabels (strdict \"name\" .Name) | nindent 4 }}
spec:
  selector: {matchLabels: {\"{{ .GatewayNameLabel }}\": {{ .Name }}}}
  image: {{ annotation .ObjectMeta `none` .ProxyImage }}
---
{{- if ge .KubeVersion 128 }}
apiVersion: v1
kind: Service
metadata: {name: {{ .ServiceAccount }}}
spec:
  {{- range $key, $port := .Ports }}
  - {name: {{ $port.Name }}, port: {{ $port.Port }}, app: {{ $port.AppProtocol }}}
  {{- end }}
  - {address: {{ (index .Spec.Addresses 0).Value | quote }}, network: '{{ index .InfrastructureLabels \"none\" }}'}
{{- end }}
";
    let objects = template(text).unwrap().objects(&gateway()).unwrap();
    assert_eq!(objects[0]["metadata"]["labels"], json!({ "name": "edge", "own": "label" }));
    assert_eq!(objects[0]["spec"]["selector"]["matchLabels"]["gateway.networking.k8s.io/gateway-name"], "edge");
    assert!(objects[0]["spec"]["image"].as_str().is_some_and(|image| image.starts_with("meltemi/meltemi:")));
    assert_eq!(
        objects[1]["spec"],
        json!([{ "name": "http", "port": 80, "app": "http" }, { "address": "1.2.3.4", "network": "" }])
    );
}

#[test]
fn what_makes_no_objects_is_refused() {
    let refused = |text: &str| template(text).unwrap().objects(&gateway()).unwrap_err();
    assert!(refused("{{ fail `not here` }}").contains("not here"));
    assert!(refused("kind: [").contains("no YAML"));
    assert!(refused("kind: Service").contains("no name"));
    let settings = injector("policy: enabled").settings().clone();
    assert!(GatewayTemplate::of(settings).unwrap().is_none(), "no template of that name is built in");
}
