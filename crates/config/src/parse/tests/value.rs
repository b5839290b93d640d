//! A JSON value is read as its text is.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Everything that others see of documents, and the lines of some fields.
fn seen(documents: &[Document]) -> Vec<String> {
    let line =
        |document: &Document| ["", "spec", "metadata.name", "spec.http[0].route"].map(|path| document.line_of(path));
    documents.iter().map(|d| format!("{:?}", (&d.source, &d.key, &d.object, d.check(), line(d)))).collect()
}

/// What is read of a value must be what is read of its text.
fn check_value(value: &Value) -> Result<(), TestCaseError> {
    let text = seen(&parse_part("cluster", 1, &value.to_string()));
    prop_assert_eq!(seen(&parse_value("cluster", value.clone())), text, "{}", value);
    Ok(())
}

/// Documents of all shapes: Istio's, Kubernetes' own with and without `spec`, one within another, lists.
fn documents() -> Vec<Value> {
    let sample = split_documents(include_str!("sample.yaml")).into_iter();
    let mut all: Vec<Value> = sample.map(|(_, part)| serde_saphyr::from_str(part).expect("a document")).collect();
    all.push(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "creationTimestamp": "2026-01-02T03:04:05Z" },
        "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80 }] }], "hostNetwork": true },
        "status": { "phase": "Running", "podIP": "2001:db8::", "podIPs": [{ "ip": "2001:db8::" }] },
    }));
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio", "namespace": "istio-system" },
        "data": { "mesh": "connectTimeout: 10\nrootNamespace: x\n# \"quoted\" \\ \t \u{1F600}", "other": "" },
    }));
    all.push(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "r", "labels": { "a": "b" } },
        "spec": { "parentRefs": [{ "name": "gw" }], "rules": [{ "backendRefs": [{ "name": "a", "port": 80, "weight": 1 }] }] },
    }));
    let items = all.clone();
    all.push(json!({ "apiVersion": "v1", "kind": "List", "items": items }));
    all
}

/// The places in a value.
fn places(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut below = |name: &str, inner: &Value| {
        let name = name.replace('~', "~0").replace('/', "~1");
        found.extend(places(inner).into_iter().map(|place| format!("/{name}{place}")));
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| below(&at.to_string(), item)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| below(name, field)),
        _ => {}
    }
    found
}

/// Anything that YAML reads as JSON means it: what it does not (a byte order mark, a merge key) is left out.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e20..1e20f64).prop_map(Value::from),
        "[ -~äß€😀\n\t]{0,12}".prop_map(Value::from),
        prop_oneof!["5s", "ALLOW", "0x10", "010", "~", "null", "1e3", "yes"].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let fields = proptest::collection::vec(("[a-zA-Z_.:/ -]{1,8}", inner.clone()), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_it_holds(value in anything()) {
        check_value(&value)?;
    }

    #[test]
    fn whatever_is_wrong_with_a_document(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[a-zA-Z]{1,8}", anything()), 0..4),
    ) {
        let documents = documents();
        let mut document = which.get(&documents).clone();
        for (place, name, value) in changes {
            let places = places(&document);
            match document.pointer_mut(&places[place.index(places.len())]).expect("a place") {
                Value::Object(fields) if value.is_object() => drop(fields.insert(name, value)),
                other => *other = value,
            }
        }
        check_value(&document)?;
    }
}

#[test]
fn every_sample_is_read_alike() {
    for document in documents() {
        check_value(&document).unwrap();
    }
}

/// Reading YAML takes more of the stack than a test has, in a build without optimisation.
fn of_text(text: String) -> Vec<Document> {
    let reading = std::thread::Builder::new().stack_size(32 << 20).spawn(move || parse_part("f", 1, &text));
    reading.expect("a thread").join().expect("an answer")
}

#[test]
fn depth_and_size_have_the_bounds_of_a_text() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let said = |documents: Vec<Document>| documents[0].problems[0].message.clone();
    let (deep, deeper) = (nested(128), nested(129));
    assert_eq!(said(parse_value("f", deep.clone())), said(of_text(deep.to_string())));
    assert!(said(parse_value("f", deep)).starts_with("expected a Kubernetes document"));
    assert!(said(of_text(deeper.to_string())).ends_with("deeper than 128 levels"));
    assert_eq!(said(parse_value("f", deeper)), "deeper than 128 levels");
    let many = Value::Array(vec![Value::Null; 2_000_000]);
    assert_eq!(said(parse_value("f", many)), "more than 2000000 values");
}
