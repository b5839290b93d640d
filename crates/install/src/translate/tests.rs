use serde_json::json;

use super::*;
use crate::chart::{Contents, Release};
use crate::component::{Component, instances};
use crate::operator::{Operator, Request};
use crate::render::render;

fn operator(settings: &[&str]) -> Operator {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    Operator::resolve(&Request { settings, ..Request::default() }).unwrap()
}

#[test]
fn values_are_what_differs_and_what_the_chart_knows() {
    let operator = operator(&["hub=example.com/mesh", "values.pilot.replicaCount=3", "values.cni.chained=false"]);
    let pilot = instances(&operator).into_iter().find(|it| it.component == Component::Pilot).unwrap();
    let translated = translate(&pilot).unwrap();
    assert_eq!(translated.values["global"], json!({"hub": "example.com/mesh"}));
    assert_eq!(translated.values["pilot"]["replicaCount"], 3);
    assert_eq!(translated.values.get("cni"), None);
}

#[test]
fn what_no_value_says_is_told() {
    let operator = operator(&["components.pilot.k8s.replicaCount=2", "components.pilot.k8s.priorityClassName=high"]);
    let pilot = instances(&operator).into_iter().find(|it| it.component == Component::Pilot).unwrap();
    let notices: Vec<_> = translate(&pilot).unwrap().notices.iter().map(Notice::to_string).collect();
    assert_eq!(
        notices,
        ["spec.components.pilot.k8s.priorityClassName: is no value of the chart: let a post-renderer patch it"]
    );
}

#[test]
fn charts_with_translated_values_are_the_same_objects() {
    let operator =
        operator(&["profile=demo", "components.cni.enabled=true", "revision=canary", "values.pilot.autoscaleMin=2"]);
    let rendered = render(&operator, &Contents::default()).unwrap();
    for instance in instances(&operator) {
        let translated = translate(&instance).unwrap();
        let release = Release { name: &translated.release, namespace: &instance.namespace };
        let objects = translated.chart.render(&release, &translated.values, &Contents::default()).unwrap();
        let made = rendered.objects();
        for object in &objects {
            assert!(made.contains(object), "{}", object.key());
        }
    }
}

/// Keys of the schema are those of the values.
fn check(schema: &Value, values: &Value, at: &str) {
    let Some(map) = values.as_object().filter(|map| !map.is_empty()) else { return };
    for (key, value) in map {
        let inner = schema["properties"].get(key).unwrap_or_else(|| panic!("{at}.{key}"));
        check(inner, value, &format!("{at}.{key}"));
    }
}

#[test]
fn schemas_know_every_value() {
    for chart in Chart::ALL {
        check(&chart.schema().unwrap(), &chart.defaults().unwrap(), chart.name());
    }
    let schema = Chart::Istiod.schema().unwrap();
    assert_eq!(schema.pointer("/properties/pilot/properties/autoscaleEnabled/type"), Some(&json!(["boolean", "null"])));
    assert_eq!(schema.pointer("/properties/pilot/additionalProperties"), Some(&json!(false)));
}
