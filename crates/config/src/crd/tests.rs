use std::collections::{BTreeMap, BTreeSet};

use super::rules::{ROWS, Rule, Subject};
use super::*;
use crate::shape::Shape;

fn spec_schema(definition: &Value, version: usize) -> &Value {
    &definition["spec"]["versions"][version]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

fn served(of: Kind) -> Value {
    let position = catalog::SERVED.iter().position(|served| served.kind == of).expect("served");
    custom_resource_definitions().swap_remove(position)
}

/// The paths of a schema, as `fields::of_kind` writes those of a type.
fn schema_leaves(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            schema_leaves(inner, &format!("{path}.{name}"), out);
        }
    } else if schema["items"].is_object() {
        schema_leaves(&schema["items"], &format!("{path}[]"), out);
    } else if schema["additionalProperties"].is_object() {
        schema_leaves(&schema["additionalProperties"], &format!("{path}{{}}"), out);
    } else if schema["x-kubernetes-preserve-unknown-fields"] == true {
        out.insert(format!("{path}{{}}"));
    } else {
        out.insert(path.to_owned());
    }
}

#[test]
fn a_schema_has_exactly_the_fields_that_the_parser_knows() {
    for one in catalog::SERVED {
        let definition = served(one.kind);
        let mut schema = BTreeSet::new();
        schema_leaves(spec_schema(&definition, 0), "spec", &mut schema);
        schema.retain(|path| !path.contains('_'));
        let parsed: BTreeSet<_> = crate::support::fields_of(one.kind).map(|field| field.path).collect();
        assert_eq!(schema, parsed, "{}", one.kind);
    }
}

/// Every struct of the served kinds with its fields, and every path of each kind.
#[derive(Default)]
struct Known {
    structs: BTreeSet<&'static str>,
    fields: BTreeSet<(&'static str, String)>,
    paths: BTreeSet<(Kind, String)>,
}

impl Known {
    fn walk(&mut self, kind: Kind, shape: &Shape, path: &str, of: &'static str, field: &str) {
        self.paths.insert((kind, path.to_owned()));
        self.fields.insert((of, field.to_owned()));
        match shape {
            Shape::Optional(inner) => self.walk(kind, inner, path, of, field),
            Shape::List(inner) => self.walk(kind, inner, &format!("{path}[]"), of, &format!("{field}[]")),
            Shape::Map(inner) => self.walk(kind, inner, &format!("{path}{{}}"), of, &format!("{field}{{}}")),
            Shape::Struct(inner) => {
                self.structs.insert(inner.name);
                let dot = if path.is_empty() { "" } else { "." };
                for (name, shape) in &inner.fields {
                    self.walk(kind, shape, &format!("{path}{dot}{name}"), inner.name, name);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_rule_is_about_something_that_exists() {
    let mut known = Known::default();
    for one in catalog::SERVED {
        known.walk(one.kind, &Shape::of_kind(one.kind), "", "", "");
    }
    let mut seen = Vec::new();
    for row in ROWS {
        let found = match row.about {
            Subject::Struct(name) => known.structs.contains(name),
            Subject::Field(of, field) => known.fields.contains(&(of, field.to_owned())),
            Subject::Path(kind, path) => known.paths.contains(&(kind, path.to_owned())),
        };
        assert!(found, "{:?} is not there", row.about);
        assert!(!seen.contains(&row.about), "{:?} has two rows", row.about);
        seen.push(row.about);
        let Subject::Struct(name) = row.about else { continue };
        for rule in row.rules {
            let names: &[&str] = match rule {
                Rule::Required(names) | Rule::AtMostOne(names) => names,
                Rule::Alias(name, _) => &[name],
                _ => continue,
            };
            for field in names {
                assert!(known.fields.contains(&(name, (*field).to_owned())), "{name} has no {field}");
            }
        }
    }
}

#[test]
fn two_structs_of_one_name_are_one_struct() {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    fn walk<'a>(shape: &'a Shape, found: &mut BTreeMap<&'a str, Vec<&'a str>>) {
        match shape {
            Shape::Optional(inner) | Shape::List(inner) | Shape::Map(inner) => walk(inner, found),
            Shape::Struct(of) => {
                let fields: Vec<_> = of.fields.iter().map(|(name, _)| *name).collect();
                let before = found.entry(of.name).or_insert_with(|| fields.clone());
                assert_eq!(*before, fields, "{}", of.name);
                of.fields.iter().for_each(|(_, shape)| walk(shape, found));
            }
            _ => {}
        }
    }
    let shapes: Vec<_> = catalog::SERVED.iter().map(|one| Shape::of_kind(one.kind)).collect();
    shapes.iter().for_each(|shape| walk(shape, &mut found));
    assert!(found.len() > 100, "{}", found.len());
}

#[test]
fn each_kind_has_one_storage_version_among_those_it_serves() {
    for (definition, one) in custom_resource_definitions().iter().zip(catalog::SERVED) {
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        let stored: Vec<_> = versions.iter().filter(|v| v["storage"] == true).collect();
        assert_eq!(stored.len(), 1, "{}", one.kind);
        assert!(one.kind.info().versions.contains(&one.storage), "{}", one.kind);
    }
    let istio = Kind::all().filter(|kind| kind.is_istio() && kind.info().group != "config.istio.io");
    let missing: Vec<_> = istio.filter(|kind| !is_served(*kind)).collect();
    assert_eq!(missing, [Kind::FutureFeatures]);
}

#[test]
fn types_become_what_an_api_server_knows() {
    let route = served(Kind::VirtualService);
    let http = &spec_schema(&route, 0)["properties"]["http"]["items"]["properties"];
    assert_eq!(
        http["match"]["items"]["properties"]["port"],
        json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
    );
    assert_eq!(
        http["directResponse"]["properties"]["body"]["properties"]["bytes"],
        json!({"type": "string", "format": "byte"})
    );
    assert_eq!(http["mirror_percent"], http["mirrorPercent"]);
    assert_eq!(http["mirrorPercent"]["nullable"], true);
    assert_eq!(http["redirect"]["properties"]["port"].get("nullable"), None, "a choice is made by being there");
    let timeout = json!({"type": "string", "x-kubernetes-validations": [
        {"rule": "duration(self) >= duration('1ms')", "message": "must be a valid duration greater than 1ms"},
    ]});
    assert_eq!(http["timeout"], timeout);
    let rule = served(Kind::DestinationRule);
    let balancer = &spec_schema(&rule, 0)["properties"]["trafficPolicy"]["properties"]["loadBalancer"];
    assert_eq!(balancer["oneOf"][2], json!({"required": ["consistentHash"]}));
    let hash = &balancer["properties"]["consistentHash"];
    assert_eq!(hash["allOf"].as_array().map(Vec::len), Some(2));
    assert_eq!(hash["properties"]["httpCookie"]["properties"]["ttl"], json!({"type": "string"}));
    let patch = served(Kind::EnvoyFilter);
    let patch = &spec_schema(&patch, 0)["properties"]["configPatches"]["items"]["properties"]["patch"]["properties"];
    assert_eq!(patch["value"], json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
}

/// What a schema demands at each path, apart from words.
fn flatten(schema: &Value, path: &str, out: &mut BTreeMap<String, BTreeSet<String>>) {
    let Some(entries) = schema.as_object() else { return };
    let facts = out.entry(path.to_owned()).or_default();
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("properties" | "items" | "description", _) => {}
            ("additionalProperties", Value::Object(_)) => {}
            ("x-kubernetes-validations", Value::Array(rules)) => {
                // Two rules that say the same are proven to mean the same by documents (`tests/cluster`).
                facts
                    .extend(rules.iter().map(|rule| format!("rule: {}", rule["message"].as_str().unwrap_or_default())));
            }
            ("required" | "enum" | "oneOf" | "allOf", Value::Array(list)) => {
                let mut list: Vec<_> = list.iter().map(Value::to_string).collect();
                if key != "enum" {
                    list.sort();
                }
                facts.insert(format!("{key}: {}", list.join(" ")));
            }
            (key, value) => {
                facts.insert(format!("{key}: {value}"));
            }
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        flatten(inner, &format!("{path}.{name}"), out);
    }
    flatten(&schema["items"], &format!("{path}[]"), out);
    flatten(&schema["additionalProperties"], &format!("{path}{{}}"), out);
}

/// Everything about a definition by path: names and versions, then each version's schema.
fn facts(definition: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut out = BTreeMap::new();
    let names = &definition["spec"]["names"];
    let mut of = |path: &str, facts: Vec<String>| out.insert(path.to_owned(), facts.into_iter().collect());
    of("names", names.as_object().expect("names").iter().map(|(key, value)| format!("{key}: {value}")).collect());
    of("scope", vec![definition["spec"]["scope"].to_string()]);
    for version in definition["spec"]["versions"].as_array().expect("versions") {
        let name = version["name"].as_str().expect("a name");
        let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let mut about: Vec<_> =
            columns.map(|c| format!("column: {} {} {}", c["name"], c["jsonPath"], c["type"])).collect();
        for key in ["served", "storage", "subresources"] {
            about.push(format!("{key}: {}", version[key]));
        }
        out.insert(format!("version {name}"), about.into_iter().collect());
        flatten(&version["schema"]["openAPIV3Schema"], name, &mut out);
    }
    out
}

/// In what we differ from Istio's definitions, and why: the end of a path; the fact, `+` ours and `-` theirs; the reason.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        ".spec",
        r#"- oneOf: {"not":{"anyOf":[{"required":["provider"]}]}} {"required":["provider"]}"#,
        "a choice of one field is true of every document",
    ),
    (
        "[].tls",
        "- rule: only one of credentialName or tlsCertificates can be set",
        "it is the rule on credentialNames and tlsCertificates once more, under a message about another field",
    ),
];

#[test]
fn the_definitions_differ_from_istios_only_where_it_is_written_down() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peer/crds/customresourcedefinitions.gen.yaml");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: no ../shared");
        return;
    };
    let (mut compared, mut found, mut used) = (0, BTreeSet::new(), BTreeSet::new());
    for part in text.split("\n---\n") {
        let Ok(theirs) = serde_saphyr::from_str::<Value>(part) else { continue };
        let Some(name) = theirs["metadata"]["name"].as_str() else { continue };
        let all = custom_resource_definitions();
        let ours =
            all.iter().find(|one| one["metadata"]["name"] == name).unwrap_or_else(|| panic!("{name} is not there"));
        compared += 1;
        let (ours, theirs) = (facts(ours), facts(&theirs));
        let none = BTreeSet::new();
        for path in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let (our, their) = (ours.get(path).unwrap_or(&none), theirs.get(path).unwrap_or(&none));
            let both =
                our.difference(their).map(|f| format!("+ {f}")).chain(their.difference(our).map(|f| format!("- {f}")));
            for fact in both {
                match DIFFERENCES.iter().position(|(end, known, _)| path.ends_with(end) && fact == *known) {
                    Some(position) => drop(used.insert(position)),
                    None => drop(found.insert(format!("{name} {path} {fact}"))),
                }
            }
        }
    }
    let stale: Vec<_> = (0..DIFFERENCES.len()).filter(|i| !used.contains(i)).map(|i| DIFFERENCES[i]).collect();
    assert!(
        found.is_empty() && stale.is_empty(),
        "{}\nno longer different: {stale:?}",
        Vec::from_iter(found).join("\n")
    );
    assert_eq!(compared, 15);
}

/// Why an API server would refuse a value by a structural schema, its rules in CEL apart.
fn refusal(schema: &Value, value: &Value, path: &str) -> Option<String> {
    if value.is_null() && schema["nullable"] == true {
        return None;
    }
    let is = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    };
    let wanted = schema["type"].as_str().unwrap_or(is);
    if wanted != is && (wanted, is) != ("number", "integer") {
        return Some(format!("{path} must be of type {wanted}: {is}"));
    }
    own_refusal(schema, value, path).or_else(|| inner_refusal(schema, value, path))
}

fn own_refusal(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let text = value.as_str();
    let bounds = [
        ("minLength", "maxLength", text.map(|t| t.chars().count() as f64)),
        ("minItems", "maxItems", value.as_array().map(|list| list.len() as f64)),
        ("minProperties", "maxProperties", value.as_object().map(|map| map.len() as f64)),
        ("minimum", "maximum", value.as_f64()),
    ];
    for (least, most, size) in bounds {
        let Some(size) = size else { continue };
        if schema[least].as_f64().is_some_and(|least| size < least) {
            return Some(format!("{path} should be at least"));
        }
        if schema[most].as_f64().is_some_and(|most| size > most) {
            return Some(format!("{path} too many or too long"));
        }
    }
    let pattern = schema["pattern"].as_str().map(|pattern| regex::Regex::new(pattern).expect("a pattern"));
    if pattern.zip(text).is_some_and(|(pattern, text)| !pattern.is_match(text)) {
        return Some(format!("{path} should match"));
    }
    if schema["enum"].as_array().is_some_and(|names| !names.contains(value)) {
        return Some(format!("{path}: Unsupported value"));
    }
    let missing = |name: &&Value| value.get(name.as_str().unwrap_or_default()).is_none();
    if value.is_object() && schema["required"].as_array().into_iter().flatten().any(|name| missing(&name)) {
        return Some(format!("{path}: Required value"));
    }
    (!fits_logic(schema, value)).then(|| format!("{path} must validate one and only one schema (oneOf)"))
}

fn fits_logic(schema: &Value, value: &Value) -> bool {
    let fits = |schema: &Value| refusal(schema, value, "").is_none();
    let list = |key: &str| schema[key].as_array().map(Vec::as_slice);
    list("oneOf").is_none_or(|all| all.iter().filter(|one| fits(one)).count() == 1)
        && list("allOf").is_none_or(|all| all.iter().all(fits))
        && list("anyOf").is_none_or(|all| all.iter().any(fits))
        && (schema["not"].is_null() || !fits(&schema["not"]))
}

fn inner_refusal(schema: &Value, value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, inner)| {
            let known = [&schema["properties"][name], &schema["additionalProperties"]];
            let schema = known.into_iter().find(|schema| schema.is_object())?;
            refusal(schema, inner, &format!("{path}.{name}"))
        }),
        Value::Array(items) => {
            let key = schema["x-kubernetes-list-map-keys"][0].as_str();
            let twice = |i: usize| key.is_some_and(|key| items[..i].iter().any(|other| other[key] == items[i][key]));
            items.iter().enumerate().find_map(|(i, item)| {
                let path = format!("{path}[{i}]");
                if twice(i) { Some(format!("{path}: Duplicate value")) } else { refusal(&schema["items"], item, &path) }
            })
        }
        _ => None,
    }
}

/// Documents of Istio's tests of its definitions, and the text of the refusal that they should get.
fn documents() -> Vec<(Value, Option<String>)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peer/api-validation/api-testdata");
    let Ok(folder) = std::fs::read_dir(root) else {
        eprintln!("skipped: no ../shared");
        return Vec::new();
    };
    let mut found = Vec::new();
    for file in folder {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("readable");
        for part in text.split("\n---") {
            let Ok(mut document) = serde_saphyr::from_str::<Value>(part) else { continue };
            let Some(fields) = document.as_object_mut() else { continue };
            let error = fields.shift_remove("_err").and_then(|text| text.as_str().map(str::to_owned));
            found.push((document, error));
        }
    }
    found
}

/// What an API server says of structure. It says the rest, rules in CEL, where there is one (`meltemi/tests/crds.rs`).
const STRUCTURAL: &[&str] = &[
    "Required value",
    "should be at least",
    "should match",
    "Unsupported value",
    "Duplicate value",
    "oneOf",
    "of type",
];

#[test]
fn schemas_take_what_istios_take_and_refuse_what_these_refuse() {
    let documents = documents();
    let (mut taken, mut refused) = (0, 0);
    for (document, error) in &documents {
        let group = document["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(g, _)| g);
        let kind = Kind::find(group, document["kind"].as_str().unwrap_or_default()).expect("a kind of ours");
        let definition = served(kind);
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let said = refusal(schema, document, "");
        // An address that ends in colons is a key without a value in YAML 1.2.
        let misread = document.to_string().contains(":db8:\":null}");
        match error {
            None if !misread => {
                assert_eq!(said, None, "{document}");
                taken += 1;
            }
            Some(error) if STRUCTURAL.iter().any(|text| error.contains(text)) => {
                assert!(said.is_some(), "{error}: {document}");
                refused += 1;
            }
            _ => {}
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(documents.is_empty() || (taken > 30 && refused > 20), "{taken} {refused}");
}
