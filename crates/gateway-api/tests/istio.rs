//! Istio's own conversion cases: what its controller makes of Gateway API objects, and their status.
//!
//! The cases are data beside the workspace (`../shared/peer/gateway-api`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use meltemi_config::{Document, Key, Kind, parse_documents};
use meltemi_gateway_api::{Catalogue, Converted, GatewayService, Services, convert, statuses};
use meltemi_model::{ConfigRef, ObjectKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What does not hold yet: the case, words of every difference that is excused, and the reason. Everything else of the case
/// must hold, and what starts to hold must leave the list.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    ("backend-tls-policy", POLICIES, "BackendTLSPolicy is not read yet"),
    ("backend-tls-policy-ignored", POLICIES, "BackendTLSPolicy is not read yet"),
    ("backend-traffic-policy-ignored", POLICIES, "XBackendTrafficPolicy is not read yet"),
    ("mix-backend-policy", POLICIES, "neither policy is read yet"),
    (
        "east-west-ambient",
        &["Gateway istio-system/"],
        "gateways between networks of an ambient mesh are not served yet",
    ),
    ("http", &["InferencePool", "infpool"], "InferencePool is not read yet"),
    ("reference-policy-inferencepool", &["InferencePool", "inference"], "InferencePool is not read yet"),
];

const POLICIES: &[&str] = &["BackendTLSPolicy", "XBackendTrafficPolicy", "DestinationRule"];

const DOMAIN: &str = "domain.suffix";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/gateway-api")
}

/// The registry of every case.
struct Registry(BTreeMap<(String, String), GatewayService>);

impl Services for Registry {
    fn find(&self, namespace: &str, hostname: &str) -> Option<GatewayService> {
        self.0.get(&(namespace.to_owned(), hostname.to_owned())).cloned()
    }

    fn namespaces(&self, hostname: &str) -> Vec<String> {
        self.0.keys().filter(|(_, host)| host == hostname).map(|(namespace, _)| namespace.clone()).collect()
    }
}

/// Each service has one endpoint a port: 8080 for the first, none else.
fn registry() -> (Registry, String) {
    let text = std::fs::read_to_string(folder().join("fixtures/registry-services.yaml")).unwrap();
    let list: Value = serde_saphyr::from_str(&text).unwrap();
    let mut services = BTreeMap::new();
    // Hosts are looked up among ServiceEntries here, and in the registry there.
    let mut entries = String::new();
    for (index, service) in list.as_array().unwrap().iter().enumerate() {
        let (host, namespace) = (service["hostname"].as_str().unwrap(), service["namespace"].as_str().unwrap());
        let ports = service["ports"].as_array().unwrap().iter().enumerate();
        let ports = ports.map(|(i, port)| {
            (u32::try_from(port["port"].as_u64().unwrap()).unwrap(), vec![if i == 0 { 8080 } else { 0 }])
        });
        let external = service["external_addresses"]["Kubernetes"].as_array().into_iter().flatten();
        let own = GatewayService {
            ports: ports.collect(),
            external: external.map(|address| address.as_str().unwrap().to_owned()).collect(),
            ..GatewayService::default()
        };
        services.insert((namespace.to_owned(), host.to_owned()), own);
        entries += &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: known-{index}, namespace: {namespace}}}\n\
             spec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC}}\n"
        );
    }
    (Registry(services), entries)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The objects of a case. Each namespace exists, with the label that the cases select by.
fn catalogue(input: &str, entries: &str) -> Catalogue {
    let fixtures = read(&folder().join("fixtures/kubernetes-objects.yaml"));
    let mut documents: Vec<Document> =
        [&fixtures, input, entries].iter().flat_map(|text| parse_documents("case", text)).collect();
    let named = parse_documents("case", input).into_iter().filter_map(|document| document.key);
    let namespaces: std::collections::BTreeSet<_> =
        named.map(|key| key.namespace).filter(|name| !name.is_empty()).collect();
    for name in namespaces {
        let part = name.split('-').next().unwrap_or_default();
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{istio.io/test-name-part: {part}}}}}\n"
        );
        documents.extend(parse_documents("case", &text));
    }
    let mut catalogue = Catalogue::default();
    for document in documents {
        if let Some(object) = document.object {
            catalogue.take(&object.key(), Some(&object));
        }
    }
    catalogue
}

/// A status without what differs from run to run.
fn plain(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("lastTransitionTime");
            map.remove("observedGeneration");
            map.values_mut().for_each(|inner| *inner = plain(inner.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| *inner = plain(inner.take())),
        _ => {}
    }
    value
}

fn documents(path: &Path) -> Vec<Value> {
    let text = read(path);
    let parts = meltemi_config::split_documents(&text);
    parts.into_iter().map(|(_, part)| serde_saphyr::from_str(part).unwrap()).collect()
}

fn key_of(document: &Value) -> Option<Key> {
    let group = document["apiVersion"].as_str()?.split_once('/').map_or("", |(group, _)| group);
    let kind = Kind::find(group, document["kind"].as_str()?)?;
    let meta = &document["metadata"];
    Some(Key::new(kind, meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str()?))
}

fn status_differences(case: &Path, catalogue: &Catalogue, registry: &Registry) -> Vec<String> {
    let found = statuses(catalogue, DOMAIN, registry);
    let mut differences = Vec::new();
    let mut expected = BTreeMap::new();
    for document in documents(&case.join("expected-status.yaml")) {
        match key_of(&document) {
            Some(key) => drop(expected.insert(key, plain(document["status"].clone()))),
            None => differences.push(format!("a status of the unknown kind {}", document["kind"])),
        }
    }
    for (key, wanted) in &expected {
        let own = found.get(key).map_or(json!({}), |status| plain(serde_json::to_value(status).unwrap()));
        if own != *wanted {
            differences.push(format!("status of {key}:\n    expected {wanted}\n    got      {own}"));
        }
    }
    let extra = found.keys().filter(|key| !expected.contains_key(key));
    differences.extend(extra.map(|key| format!("status of {key}: none expected")));
    differences
}

/// An object as the expected file has it.
fn written<T: serde::Serialize>(config: &ConfigRef<T>) -> Value {
    let annotations: BTreeMap<_, _> = config.annotations.iter().map(|(key, value)| (&**key, &**value)).collect();
    json!({"annotations": annotations, "spec": serde_json::to_value(&*config.spec).unwrap()})
}

/// The CRD's default of five seconds for `maxAge`, which Istio's test does not apply.
fn undefaulted(mut value: Value) -> Value {
    for route in value["spec"]["http"].as_array_mut().into_iter().flatten() {
        if route["corsPolicy"]["maxAge"] == "5s"
            && let Some(policy) = route["corsPolicy"].as_object_mut()
        {
            policy.remove("maxAge");
        }
    }
    value
}

fn conversion_differences(case: &Path, converted: &Converted) -> Vec<String> {
    let mut expected: BTreeMap<(Kind, ObjectKey), Value> = BTreeMap::new();
    for document in documents(&case.join("expected.yaml")) {
        let key = key_of(&document).unwrap();
        let value = json!({"annotations": document["metadata"]["annotations"], "spec": document["spec"]});
        expected.insert((key.kind, ObjectKey { namespace: key.namespace, name: key.name }), value);
    }
    let gateways = converted.gateways.iter().map(|(key, own)| ((Kind::Gateway, key.clone()), written(own)));
    let rules = converted.virtual_services.iter();
    let rules = rules.map(|(key, own)| ((Kind::VirtualService, key.clone()), undefaulted(written(own))));
    let found: BTreeMap<_, _> = gateways.chain(rules).collect();
    let mut differences = Vec::new();
    for (key, wanted) in &expected {
        let own = found.get(key).cloned().unwrap_or_default();
        if canonical(&own) != canonical(wanted) {
            let (kind, name) = key;
            differences.push(format!(
                "{kind} {name}:\n    expected {}\n    got      {}",
                canonical(wanted),
                canonical(&own)
            ));
        }
    }
    let extra = found.keys().filter(|key| !expected.contains_key(key));
    differences.extend(extra.map(|(kind, name)| format!("{kind} {name}: not expected")));
    differences
}

/// Through our own types, so that what is left out and what is a default are one.
fn canonical(value: &Value) -> Value {
    let mut value = value.clone();
    strip(&mut value);
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, inner| match inner {
                Value::Null => false,
                Value::Object(inner) => !inner.is_empty(),
                Value::Array(inner) => !inner.is_empty(),
                Value::Bool(inner) => *inner,
                Value::Number(inner) => inner.as_f64() != Some(0.0),
                Value::String(_) => true,
            });
            // An integer, or the same as a fraction.
            for inner in map.values_mut() {
                if let Some(number) = inner.as_f64() {
                    *inner = json!(number);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

#[test]
fn istio_s_conversion_cases_hold() {
    let Ok(entries) = std::fs::read_dir(folder().join("cases")) else {
        println!("skipped: ../shared/peer/gateway-api is not there");
        return;
    };
    let (registry, known) = registry();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 25, "only {} cases found", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let catalogue = catalogue(&read(&case.join("input.yaml")), &known);
        let mut differences = status_differences(case, &catalogue, &registry);
        differences.extend(conversion_differences(case, &convert(&catalogue, DOMAIN)));
        if let Some((_, words, reason)) = EXCEPTIONS.iter().find(|(own, _, _)| *own == name) {
            let before = differences.len();
            differences.retain(|difference| !words.iter().any(|word| difference.contains(word)));
            if differences.len() == before {
                failures.push(format!("{name}: nothing of it is excused by {reason:?}"));
            }
        }
        if !differences.is_empty() {
            failures.push(format!("{name}:\n  {}", differences.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases differ:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// What a CRD would refuse is marked so in the data; everything else must pass our validation.
#[test]
fn what_the_crds_accept_is_accepted() {
    let Ok(entries) = std::fs::read_dir(folder().join("cases")) else {
        println!("skipped: ../shared/peer/gateway-api is not there");
        return;
    };
    let mut wrong = Vec::new();
    for entry in entries {
        let case = entry.unwrap().path();
        let marked: Value = serde_saphyr::from_str(&read(&case.join("case.yaml"))).unwrap();
        let marked: Vec<String> = marked["invalid_by_crd_schema"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|own| own.as_str().unwrap().to_owned())
            .collect();
        for document in parse_documents("input.yaml", &read(&case.join("input.yaml"))) {
            let name = document.key.as_ref().map(|key| format!("{}/{}", key.namespace, key.name)).unwrap_or_default();
            let excused = marked.iter().any(|own| name.starts_with(&own.replace('^', "")));
            let errors =
                document.check().into_iter().filter(|problem| problem.severity == meltemi_config::Severity::Error);
            // Names are the API server's to check, not the CRD's.
            let errors = errors.filter(|problem| problem.path != "metadata.name");
            if !excused {
                wrong.extend(errors.map(|problem| format!("{}: {problem}", case.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
