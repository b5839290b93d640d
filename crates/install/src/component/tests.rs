use super::*;
use crate::operator::{Request, Source};

fn operator(spec: &str) -> Operator {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{indented}");
    let documents = vec![Source { name: "mesh.yaml".to_owned(), text }];
    Operator::resolve(&Request { documents, ..Request::default() }).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn of(spec: &str, component: Component) -> Vec<Instance> {
    instances(&operator(spec)).into_iter().filter(|instance| instance.component == component).collect()
}

#[test]
fn the_default_is_the_control_plane_and_an_ingress_gateway() {
    let components: Vec<_> = instances(&operator("hub: a\n")).iter().map(|it| it.component).collect();
    assert_eq!(components, [Component::Base, Component::Pilot, Component::IngressGateways]);
}

#[test]
fn gateways_are_switched_on_by_components_and_by_values() {
    let spec = "components:\n  ingressGateways:\n  - name: a\n    enabled: false\n  - name: b\n";
    let names: Vec<_> = of(spec, Component::IngressGateways).into_iter().map(|it| it.workload.name).collect();
    assert_eq!(names, ["b"]);
    let spec = "values:\n  gateways:\n    istio-egressgateway:\n      enabled: true\n";
    assert_eq!(of(spec, Component::EgressGateways).len(), 1);
}

#[test]
fn settings_of_a_gateway_have_the_names_of_its_chart() {
    let spec = "\
components:
  ingressGateways:
  - name: edge
    namespace: edge
    label:
      istio: edge
    k8s:
      hpaSpec:
        minReplicas: 3
values:
  global:
    imagePullPolicy: Always
  gateways:
    istio-ingressgateway:
      autoscaleMax: 9
      type: NodePort
";
    let gateways = of(spec, Component::IngressGateways);
    let [gateway] = &gateways[..] else { panic!("{gateways:?}") };
    assert_eq!(gateway.namespace, "edge");
    assert_eq!(gateway.values["autoscaling"], json!({"maxReplicas": 9, "minReplicas": 3}));
    assert_eq!(gateway.values["service"]["type"], "NodePort");
    assert_eq!(gateway.values["imagePullPolicy"], "Always");
    assert_eq!(gateway.values["labels"], json!({"app": "istio-ingressgateway", "istio": "edge"}));
    assert_eq!(gateway.values["serviceAccount"]["name"], "edge-service-account");
}

#[test]
fn every_setting_of_a_gateway_has_a_name_in_its_chart() {
    let defaults = Chart::Gateway.defaults().unwrap();
    let of_gateway = "values.gateways.istio-ingressgateway.";
    for (at, field) in crate::operator::fields().filter(|(at, _)| at.starts_with(of_gateway)) {
        let name = &at[of_gateway.len()..];
        if field.fate != crate::operator::fields::Fate::Used || ["enabled", "name"].contains(&name) {
            continue;
        }
        let mut spec = json!({"values": {}});
        let value = json!("marked");
        path::put(&mut spec, at, value.clone());
        let mut operator = operator("hub: a\n");
        operator.values = spec["values"].take();
        operator.values["global"] = json!({});
        operator.values["meshConfig"] = json!({});
        let rendered = gateway::values(&operator, Component::IngressGateways, "a", &json!({}));
        // Labels are merged, so that no text gets through.
        assert!(name == "labels" || rendered.to_string().contains("marked"), "{at} takes no effect");
        let marked = |defaults: &Value, rendered: &Value| -> bool { is_known(defaults, rendered) };
        assert!(marked(&defaults, &rendered), "{at}: {rendered}");
    }
}

/// Every key of `given` is a key of the chart's values.
fn is_known(defaults: &Value, given: &Value) -> bool {
    match (defaults, given) {
        (Value::Object(known), Value::Object(given)) if !known.is_empty() => {
            given.iter().all(|(key, value)| known.get(key).is_some_and(|known| is_known(known, value)))
        }
        _ => true,
    }
}

#[test]
fn a_revision_beside_the_default_validates_only_its_own() {
    let base = of("revision: canary\n", Component::Base);
    assert_eq!(base[0].values["defaultRevision"], "");
    let base = of("hub: a\n", Component::Base);
    assert_eq!(path::find(&base[0].values, "defaultRevision"), None);
}
