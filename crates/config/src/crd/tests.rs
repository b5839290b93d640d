use std::collections::{BTreeMap, BTreeSet};

use super::rules::{ROWS, Rule, Subject};
use super::*;
use crate::shape::Shape;

fn spec_schema(definition: &Value, version: usize) -> &Value {
    &definition["spec"]["versions"][version]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

fn served(of: Kind) -> Value {
    let position = catalog::SERVED.iter().position(|served| served.kind == of).expect("served");
    bare(custom_resource_definitions().swap_remove(position))
}

/// Without what is said to people.
fn bare(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, inner| name != "description" || !inner.is_string());
            fields.values_mut().for_each(|inner| *inner = bare(inner.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| *inner = bare(inner.take())),
        _ => {}
    }
    value
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
fn every_field_has_words_and_no_words_are_about_nothing() {
    let mut known = Known::default();
    for one in catalog::SERVED {
        known.walk(one.kind, &Shape::of_kind(one.kind), "", "", "");
    }
    let fields = known.fields.iter().filter(|(of, field)| !of.is_empty() && !field.contains(['[', '{']));
    let mut wanted: BTreeSet<_> = fields.map(|(of, field)| format!("{of}.{field}")).collect();
    let aliases = ROWS.iter().flat_map(|row| row.rules.iter().map(move |rule| (row.about, rule)));
    wanted.extend(aliases.filter_map(|(about, rule)| match (about, rule) {
        (Subject::Struct(of), Rule::Alias(_, alias)) => Some(format!("{of}.{alias}")),
        _ => None,
    }));
    let said: BTreeSet<_> = words::subjects().into_iter().map(str::to_owned).collect();
    let (mute, idle): (Vec<_>, Vec<_>) = (wanted.difference(&said).collect(), said.difference(&wanted).collect());
    assert!(mute.is_empty() && idle.is_empty(), "without words: {mute:?}; about nothing: {idle:?}");
}

/// `kubectl apply` keeps the whole definition in an annotation, and annotations have 256 KiB together.
#[test]
fn definitions_fit_into_an_annotation() {
    for definition in custom_resource_definitions() {
        let size = definition.to_string().len();
        assert!(size < 250 << 10, "{}: {size} bytes", definition["metadata"]["name"]);
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

/// Documents of Istio's tests of its definitions, and the text of the refusal that they should get.
fn documents() -> Vec<(String, Value, Option<String>)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/api-validation");
    if !root.is_dir() {
        eprintln!("skipped: no ../shared");
        return Vec::new();
    }
    let mut found = Vec::new();
    for folder in ["api-testdata", "istio-crds-testdata"] {
        for file in std::fs::read_dir(root.join(folder)).expect("a folder") {
            let file = file.expect("an entry");
            let text = std::fs::read_to_string(file.path()).expect("readable");
            for (i, part) in text.split("\n---").enumerate() {
                let Ok(mut document) = serde_saphyr::from_str::<Value>(part) else { continue };
                let Some(fields) = document.as_object_mut() else { continue };
                let error = fields.shift_remove("_err").and_then(|text| text.as_str().map(str::to_owned));
                found.push((format!("{}#{i}", file.file_name().display()), document, error));
            }
        }
    }
    found
}

/// Documents that cannot be judged as they stand, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("reqauth-invalid.yaml#19", "its field, presence, is in no published definition: it is dropped"),
    ("serviceentry-valid.yaml#0", "an address that ends in colons is a key without a value in YAML 1.2"),
];

/// True if a refusal says what is wanted. Newer servers than those of the data show a wrong value, not its type, and take
/// null for absent.
fn says(refusal: &str, wanted: &str) -> bool {
    let parts = wanted.split(": Invalid value: ").collect::<Vec<_>>();
    let words = parts.last().and_then(|last| last.rsplit(": ").next()).unwrap_or(wanted);
    let words = words.rsplit(" in body ").next().unwrap_or(words);
    refusal.contains(words) || (wanted.contains(": \"null\"") && refusal.contains("Required value"))
}

#[test]
fn documents_are_judged_as_istios_definitions_judge_them() {
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    let documents = documents();
    for (source, document, error) in &documents {
        if OTHERWISE.iter().any(|(other, _)| other == source) {
            continue;
        }
        let group = document["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(g, _)| g);
        let kind = Kind::find(group, document["kind"].as_str().unwrap_or_default()).expect("a kind of ours");
        let found = schema(kind).expect("served").judge(document);
        let said: Vec<_> = found.iter().map(|refusal| format!("{}: {refusal}", refusal.path)).collect();
        let fits = match error {
            None => said.is_empty(),
            Some(error) => said.iter().any(|said| says(said, error)),
        };
        if !fits {
            wrong.push(format!("{source}: should be {error:?}: {}", said.join("; ")));
        }
        *if error.is_some() { &mut refused } else { &mut taken } += 1;
    }
    println!("{taken} taken, {refused} refused");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(documents.is_empty() || (taken > 60 && refused > 100), "{taken} {refused}");
}
