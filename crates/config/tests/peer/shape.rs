//! What fields a kind has and what each may hold, as far as it helps to make values.

use std::collections::BTreeMap;

use meltemi_config::crd::custom_resource_definitions;
use meltemi_config::support;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Default)]
pub enum Shape {
    #[default]
    Any,
    Text,
    Duration,
    Number,
    Flag,
    Choice(Vec<String>),
    List(Box<Shape>),
    Map(Box<Shape>),
    Fields(BTreeMap<String, Shape>),
}

/// Of every kind by its name, that of whole documents.
pub fn all() -> BTreeMap<String, Shape> {
    let mut shapes = BTreeMap::new();
    for definition in custom_resource_definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().expect("a name").to_owned();
        let spec = of_schema(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
        if definition["spec"]["group"].as_str().is_some_and(|group| group.ends_with(".istio.io")) {
            shapes.insert(kind, Shape::Fields([("spec".to_owned(), spec)].into()));
        }
    }
    let mut mesh = Shape::default();
    for field in support::mesh_fields() {
        mesh.add(&field.path);
    }
    if let Shape::Fields(fields) = &mesh {
        shapes.insert(super::seeds::PROXY.to_owned(), fields["defaultConfig"].clone());
    }
    shapes.insert("MeshConfig".to_owned(), mesh);
    let mut networks = Shape::default();
    for path in
        ["endpoints[].fromCidr", "endpoints[].fromRegistry", "gateways[].registryServiceName", "gateways[].address"]
            .into_iter()
            .chain(["gateways[].port", "gateways[].locality"])
    {
        networks.add(&format!("networks{{}}.{path}"));
    }
    shapes.insert("MeshNetworks".to_owned(), networks);
    shapes
}

fn of_schema(schema: &Value) -> Shape {
    if let Some(choices) = schema["enum"].as_array() {
        return Shape::Choice(choices.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    match schema["type"].as_str() {
        Some("object") => match (schema["properties"].as_object(), schema.get("additionalProperties")) {
            (Some(properties), _) => {
                Shape::Fields(properties.iter().map(|(name, of)| (name.clone(), of_schema(of))).collect())
            }
            (None, Some(entries)) => Shape::Map(Box::new(of_schema(entries))),
            (None, None) => Shape::Any,
        },
        Some("array") => Shape::List(Box::new(of_schema(&schema["items"]))),
        Some("string") if schema.to_string().contains("duration(") => Shape::Duration,
        Some("string") => Shape::Text,
        Some("integer" | "number") => Shape::Number,
        Some("boolean") => Shape::Flag,
        _ => Shape::Any,
    }
}

impl Shape {
    /// Puts in the field at the end of a path such as `a.b[].c{}`, whose type is not known.
    fn add(&mut self, path: &str) {
        if path.is_empty() {
            return;
        }
        if let Some(rest) = path.strip_prefix("[]") {
            if !matches!(self, Shape::List(_)) {
                *self = Shape::List(Box::default());
            }
            let Shape::List(items) = self else { return };
            return items.add(rest);
        }
        if let Some(rest) = path.strip_prefix("{}") {
            if !matches!(self, Shape::Map(_)) {
                *self = Shape::Map(Box::default());
            }
            let Shape::Map(entries) = self else { return };
            return entries.add(rest);
        }
        let path = path.strip_prefix('.').unwrap_or(path);
        let (name, rest) = path.split_at(path.find(['.', '[', '{']).unwrap_or(path.len()));
        if !matches!(self, Shape::Fields(_)) {
            *self = Shape::Fields(BTreeMap::new());
        }
        if let Shape::Fields(fields) = self {
            fields.entry(name.to_owned()).or_default().add(rest);
        }
    }

    /// What may be at one step into a value.
    pub fn within(&self, step: &str) -> &Shape {
        const ANY: &Shape = &Shape::Any;
        match self {
            Shape::List(inner) | Shape::Map(inner) => inner,
            Shape::Fields(fields) => fields.get(step).unwrap_or(ANY),
            _ => ANY,
        }
    }

    /// Values with which a field of this shape may be added: the least one, and one for each field within.
    pub fn samples(&self, depth: usize) -> Vec<Value> {
        match self {
            Shape::Any => vec![json!("a"), json!(1), json!(true), json!("1s"), json!({})],
            Shape::Text => vec![json!("a"), json!("a.b"), json!("")],
            Shape::Duration => vec![json!("1s"), json!("0s")],
            Shape::Number => vec![json!(1), json!(0), json!(200)],
            Shape::Flag => vec![json!(true), json!(false)],
            Shape::Choice(names) => names.iter().map(|name| json!(name)).collect(),
            Shape::List(inner) => {
                std::iter::once(json!([])).chain(inner.samples(depth).into_iter().map(|one| json!([one]))).collect()
            }
            Shape::Map(inner) => std::iter::once(json!({}))
                .chain(inner.samples(depth).into_iter().map(|one| json!({"a": one})))
                .collect(),
            Shape::Fields(fields) if depth > 0 => {
                let each = fields.iter().flat_map(|(name, of)| {
                    of.samples(depth - 1).into_iter().map(|one| Map::from_iter([(name.clone(), one)]).into())
                });
                std::iter::once(json!({})).chain(each).collect()
            }
            Shape::Fields(_) => vec![json!({})],
        }
    }
}
