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

/// `helm`, where there is one.
fn helm() -> Option<std::path::PathBuf> {
    let home = || std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi");
    let cache = std::env::var_os("MELTEMI_CACHE").map_or_else(home, std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([cache.join("tools/bin")]).collect::<Vec<_>>();
    places.into_iter().map(|place| place.join("helm")).find(|program| program.is_file())
}

/// Installations that differ in what charts look at.
const INSTALLATIONS: &[&[&str]] = &[
    &[],
    &["profile=minimal", "values.global.platform=gke", "components.cni.enabled=true"],
    &["profile=openshift"],
    &["profile=ambient", "values.global.imagePullSecrets={a,b}"],
    &["profile=demo", "revision=canary", "components.cni.enabled=true", "values.global.networkPolicy.enabled=true"],
    &[
        "profile=minimal",
        "hub=example.com/mesh",
        "tag=1",
        "values.global.logAsJson=true",
        "values.pilot.replicaCount=3",
    ],
    &["profile=minimal", "values.global.resourceScope=namespace", "values.pilot.autoscaleEnabled=false"],
    &["profile=minimal", "values.global.resourceScope=cluster"],
    &["profile=minimal", r#"values.gatewayClasses={"istio":{"service":{"spec":{"type":"ClusterIP"}}}}"#],
    &["profile=minimal", "values.global.proxy.tracer=zipkin", r#"values.pilot.tolerations=[{"operator":"Exists"}]"#],
    &["values.sidecarInjectorWebhook.enableNamespacesByDefault=true", "meshConfig.accessLogFile=/dev/stdout"],
];

#[test]
fn helm_makes_the_same_objects_of_charts_and_values() {
    let Some(helm) = helm() else { return println!("skipped: no helm") };
    let dir = std::env::temp_dir().join(format!("meltemi-charts-{}", std::process::id()));
    for chart in Chart::ALL {
        for (name, text) in chart.files(&Contents::default()) {
            let file = dir.join(chart.name()).join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }
    for settings in INSTALLATIONS {
        for instance in instances(&operator(settings)) {
            let translated = translate(&instance).unwrap();
            let values = dir.join("values.yaml");
            std::fs::write(&values, crate::yaml::write(&translated.values)).unwrap();
            let chart = dir.join(translated.chart.name());
            let output = std::process::Command::new(&helm)
                .args(["template", &*translated.release])
                .arg(chart)
                .args(["--namespace", &*instance.namespace, "-f"])
                .arg(&values)
                .output()
                .unwrap();
            assert!(output.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let parts = meltemi_config::split_documents(&text);
            let parts = parts.into_iter().map(|(_, part)| crate::yaml::read(part).unwrap());
            let theirs = by_name(parts.filter(|part| !part.is_null()).collect());
            let release = Release { name: &translated.release, namespace: &instance.namespace };
            let given = for_charts(&instance.values);
            let ours = translated.chart.render(&release, &given, &Contents::default()).unwrap();
            let ours = by_name(ours.iter().map(|object| object.value().clone()).collect());
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{settings:?}");
            for (name, object) in &ours {
                assert_eq!(object, &theirs[name], "{settings:?}: {name}");
            }
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// Objects by kind and name, with the documents that they hold read.
fn by_name(objects: Vec<Value>) -> std::collections::BTreeMap<String, Value> {
    let read = |mut object: Value| {
        for (_, text) in object["data"].as_object_mut().into_iter().flatten() {
            if let Some(document) = text.as_str().and_then(|text| crate::yaml::read(text).ok()) {
                *text = document;
            }
        }
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    };
    objects.into_iter().map(read).collect()
}
