use serde_json::{Value, json};

use super::{Definitions, Schema};
use crate::parse::parse_documents;

/// What a schema says of a value: each refusal in one line.
fn judged(schema: Value, value: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": schema}});
    let schema = Schema::read(&schema).unwrap_or_else(|error| panic!("{error}"));
    let refusals = schema.judge(&json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "spec": value}));
    refusals.iter().map(|refusal| format!("{}: {refusal}", refusal.path)).collect()
}

fn taken(schema: Value, value: Value) {
    assert_eq!(judged(schema.clone(), value.clone()), [""; 0], "{schema} {value}");
}

fn refused(schema: Value, value: Value, wanted: &str) {
    assert_eq!(judged(schema.clone(), value.clone()), [wanted], "{schema} {value}");
}

#[test]
fn types_are_told_apart_as_api_servers_do() {
    taken(json!({"type": "integer"}), json!(1.0));
    taken(json!({"type": "number"}), json!(1));
    taken(json!({"x-kubernetes-int-or-string": true}), json!("a"));
    taken(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1]));
    taken(json!({"type": "string", "format": "byte"}), json!([]));
    assert_eq!(
        judged(json!({"type": "integer"}), json!(1.5)),
        [
            "spec: Invalid value: must be of type integer: \"number\"",
            "spec: Invalid value: Checked value must be of type integer (default format)"
        ]
    );
    refused(
        json!({"type": "integer", "format": "int32"}),
        json!({}),
        "spec: Invalid value: must be of type int32: \"\"",
    );
    refused(json!({"type": "string"}), json!([]), "spec: Invalid value: must be of type string: \"array\"");
    refused(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        "spec: Invalid value: must be of type integer,string: \"boolean\"",
    );
}

#[test]
fn a_null_is_as_good_as_absent_but_in_a_list() {
    let field = |schema: Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    refused(field(json!({"type": "string"})), json!({"a": null}), "spec.a: Required value");
    taken(field(json!({"type": "string", "nullable": true})), json!({"a": null}));
    taken(field(json!({"type": "string", "default": "x"})), json!({"a": null}));
    refused(
        json!({"type": "array", "items": {"type": "string"}}),
        json!([null]),
        "spec[0]: Invalid value: must be of type string: \"null\"",
    );
}

#[test]
fn sizes_and_bounds_have_their_reasons() {
    refused(json!({"type": "string", "maxLength": 2}), json!("äöü"), "spec: Too long: may not be more than 2 bytes");
    taken(json!({"type": "string", "maxLength": 3}), json!("äöü"));
    refused(
        json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
        json!([1, 2]),
        "spec: Too many: 2: must have at most 1 items",
    );
    refused(
        json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
        json!(1),
        "spec: Invalid value: 1: should be greater than 1",
    );
    refused(
        json!({"type": "integer", "format": "int32"}),
        json!(3_000_000_000_u64),
        "spec: Invalid value: Checked value must be of type integer with format int32",
    );
    refused(
        json!({"type": "string", "enum": ["A", "B"]}),
        json!("C"),
        "spec: Unsupported value: \"C\": supported values: \"A\", \"B\"",
    );
}

#[test]
fn elements_of_sets_and_keyed_lists_differ() {
    let of = json!({"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}});
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": of});
    taken(keyed.clone(), json!([{"name": "a"}, {"name": "b"}]));
    refused(
        keyed,
        json!([{"name": "a"}, {"name": "a", "port": 1}, {"name": "a"}]),
        "spec[1]: Duplicate value: {\"name\":\"a\"}",
    );
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
    refused(set, json!([1, 2, 1]), "spec[2]: Duplicate value: 1");
}

#[test]
fn rules_are_evaluated_where_the_structure_is_right() {
    let rule = |rule: &str| {
        json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}},
            "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
        })
    };
    taken(rule("has(self.a) && self.a > 1"), json!({"a": 2}));
    refused(rule("has(self.a) && self.a > 1"), json!({"a": 1}), "spec: Invalid value: no");
    refused(rule("self.a > 1"), json!({}), "spec: Invalid value: no such key: a evaluating rule: no");
    refused(rule("self.a > 1"), json!({"a": "x"}), "spec.a: Invalid value: must be of type integer: \"string\"");
    taken(rule("self == oldSelf"), json!({"a": 1}));
    // Unknown fields are gone before rules see them.
    taken(rule("size(self) == 1"), json!({"a": 1, "c": 2}));
}

#[test]
fn rules_have_reasons_paths_and_messages_of_their_own() {
    let schema = json!({
        "type": "object",
        "properties": {"a-b": {"type": "string"}, "namespace": {"type": "string"}},
        "x-kubernetes-validations": [
            {"rule": "self.a__dash__b == 'x'", "messageExpression": "'not ' + self.a__dash__b", "fieldPath": ".a-b",
                "reason": "FieldValueForbidden"},
            {"rule": "self.namespace == 'y'"},
        ],
    });
    assert_eq!(
        judged(schema, json!({"a-b": "z", "namespace": ""})),
        ["spec.a-b: Forbidden: not z", "spec: Invalid value: failed rule: self.namespace == 'y'"]
    );
}

#[test]
fn the_rules_of_one_document_have_a_budget() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
        {"rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))", "message": "x"},
    ]});
    let items: Vec<_> = (0..1000).collect();
    refused(schema, json!(items), "spec: Invalid value: the rules cost more than a document may evaluating rule: x");
}

#[test]
fn a_schema_that_cannot_be_read_is_refused_with_its_place() {
    let wrong = |schema: Value| Schema::read(&schema).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(wrong(json!({"type": "text"})), "type: must be object, array, string, integer, number or boolean");
    assert_eq!(wrong(json!({"properties": {"a": {"$ref": "b"}}})), "properties.a.$ref: a keyword that is not known");
    assert_eq!(wrong(json!({"items": {"pattern": "("}})), "items.pattern: is no regular expression");
    let rule = |rule: &str| wrong(json!({"x-kubernetes-validations": [{"rule": rule}]}));
    assert_eq!(rule("self."), "x-kubernetes-validations[0]: rule: expected a field, found the end");
    assert_eq!(rule("self.f()"), "x-kubernetes-validations[0]: rule: no function \"f\"");
    assert_eq!(rule("self.all(a, b)"), "x-kubernetes-validations[0]: rule: undeclared reference to \"b\"");
}

#[test]
fn every_definition_of_ours_can_be_read() {
    for definition in crate::crd::custom_resource_definitions() {
        for version in definition["spec"]["versions"].as_array().expect("versions") {
            let schema = Schema::read(&version["schema"]["openAPIV3Schema"]);
            assert!(schema.is_ok(), "{}: {:?}", definition["metadata"]["name"], schema.err());
        }
    }
}

#[test]
fn definitions_of_others_judge_documents_of_their_version() {
    let version = |name: &str, least: u32| {
        let spec = json!({"type": "object", "properties": {"size": {"type": "integer", "minimum": least}}});
        json!({"name": name, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}})
    };
    let definition = |versions: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"group": "example.com", "names": {"kind": "Box"}, "versions": versions}})
    };
    let mut definitions = Definitions::default();
    assert_eq!(definitions.add(&definition(json!([version("v1", 1), version("v2", 10)]))), Ok(true));
    assert_eq!(definitions.add(&json!({"kind": "Box"})), Ok(false));
    assert_eq!(definitions.len(), 2);
    let problems = |version: &str, kind: &str| {
        let text =
            format!("apiVersion: example.com/{version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{size: 5}}\n");
        let found = parse_documents("f", &text).iter().flat_map(|one| one.judge_by(&definitions)).collect::<Vec<_>>();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems("v1", "Box"), [""; 0]);
    assert_eq!(
        problems("v2", "Box"),
        ["f:4: error: spec.size: Invalid value: 5: should be greater than or equal to 10"]
    );
    assert_eq!(problems("v2", "Bag"), [""; 0]);
    let wrong = definition(json!([{"name": "v1", "schema": {"openAPIV3Schema": {"type": "a"}}}]));
    let error = definitions.add(&wrong).expect_err("no type").to_string();
    assert!(error.starts_with("spec.versions[0].schema.openAPIV3Schema.type: must be object"), "{error}");
}

#[test]
fn documents_of_files_may_have_protobufs_leniences_and_are_warned_about() {
    let problems = |spec: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec: {{hosts: [a.b], {spec}}}\n"
        );
        let found = parse_documents("f", &text).iter().flat_map(|one| one.check()).collect::<Vec<_>>();
        found.iter().map(|problem| (problem.severity.to_string(), problem.path.clone())).collect::<Vec<_>>()
    };
    let said = |severity: &str, path: &str| vec![(severity.to_owned(), path.to_owned())];
    assert_eq!(problems("resolution: DNS, ports: [{number: 80, name: a}]"), []);
    let number = problems("resolution: DNS, ports: [{number: '80', name: a}]");
    assert_eq!(number, said("warning", "spec.ports[0].number"));
    assert_eq!(problems("resolution: 2, ports: [{number: 80, name: a}]"), said("warning", "spec.resolution"));
    let snake = problems("resolution: DNS, export_to: ['.'], ports: [{number: 80, name: a}]");
    assert_eq!(snake, said("warning", "spec.export_to"));
    // Present and empty, which only the definition minds.
    let text = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {servers: [{hosts: [a.b], \
                port: {number: 443, name: a, protocol: TLS}, tls: {mode: PASSTHROUGH, credentialNames: []}}]}\n";
    let found = parse_documents("f", text).iter().flat_map(|one| one.check()).map(|p| p.path).collect::<Vec<_>>();
    assert_eq!(found, ["spec.servers[0].tls.credentialNames"]);
}
