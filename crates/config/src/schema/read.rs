//! From the JSON of a definition to a schema.

use serde_json::{Map, Value};

use super::rules::Rule;
use super::{Checks, ListKind, Schema, SchemaError, Sizes, Type};

/// Words for people, and what has no bearing on whether a document is taken.
const WORDS: &[&str] = &["description", "title", "example", "externalDocs", "id", "$schema", "x-kubernetes-map-type"];
/// Of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

pub(super) fn schema(json: &Value, path: &str) -> Result<Schema, SchemaError> {
    let Value::Object(keywords) = json else { return Err(wrong(path, "a schema is an object")) };
    let mut schema = Schema::default();
    for (keyword, value) in keywords {
        let path = if path.is_empty() { keyword.clone() } else { format!("{path}.{keyword}") };
        let known = structural(&mut schema, keyword, value, &path)?
            || sizes(&mut schema.checks.sizes, keyword, value, &path)?
            || check(&mut schema.checks, keyword, value, &path)?;
        if !known {
            return Err(wrong(&path, "a keyword that is not known"));
        }
    }
    if let Some(keys) = keywords.get("x-kubernetes-list-map-keys") {
        schema.list = ListKind::Map(texts(keys, path)?);
    }
    Ok(schema)
}

fn wrong(path: &str, message: &str) -> SchemaError {
    SchemaError { path: path.to_owned(), message: message.to_owned() }
}

/// What says how a value is made. False if the keyword is another one.
fn structural(out: &mut Schema, keyword: &str, value: &Value, path: &str) -> Result<bool, SchemaError> {
    match keyword {
        "type" => out.of = Some(type_named(value, path)?),
        "nullable" => out.nullable = truth(value, path)?,
        "default" => out.default = Some(value.clone()),
        "properties" => {
            for (name, inner) in object(value, path)? {
                out.properties.insert(name.clone(), schema(inner, &format!("{path}.{name}"))?);
            }
        }
        // A map of anything.
        "additionalProperties" if value == &Value::Bool(true) => out.entries = Some(Box::new(anything())),
        "additionalProperties" => out.entries = Some(Box::new(schema(value, path)?)),
        "items" => out.items = Some(Box::new(schema(value, path)?)),
        "oneOf" => out.one_of = schemas(value, path)?,
        "anyOf" => out.any_of = schemas(value, path)?,
        "allOf" => out.all_of = schemas(value, path)?,
        "not" => out.not = Some(Box::new(schema(value, path)?)),
        "x-kubernetes-int-or-string" => out.int_or_string = truth(value, path)?,
        "x-kubernetes-preserve-unknown-fields" => out.preserves = truth(value, path)?,
        "x-kubernetes-embedded-resource" => out.embedded = truth(value, path)?,
        "x-kubernetes-list-type" => match value.as_str() {
            Some("atomic" | "map") => {}
            Some("set") => out.list = ListKind::Set,
            _ => return Err(wrong(path, "must be atomic, set or map")),
        },
        "x-kubernetes-list-map-keys" => {}
        "x-kubernetes-validations" => {
            for (i, rule) in list(value, path)?.iter().enumerate() {
                out.rules.push(Rule::read(rule).map_err(|message| wrong(&format!("{path}[{i}]"), &message))?);
            }
        }
        _ => return Ok(WORDS.contains(&keyword)),
    }
    Ok(true)
}

fn anything() -> Schema {
    Schema { preserves: true, ..Schema::default() }
}

fn sizes(out: &mut Sizes, keyword: &str, value: &Value, path: &str) -> Result<bool, SchemaError> {
    let place = match keyword {
        "minItems" => &mut out.items.0,
        "maxItems" => &mut out.items.1,
        "minLength" => &mut out.characters.0,
        "maxLength" => &mut out.characters.1,
        "minProperties" => &mut out.properties.0,
        "maxProperties" => &mut out.properties.1,
        _ => return Ok(false),
    };
    let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
    *place = Some(size.ok_or_else(|| wrong(path, "must be a whole number"))?);
    Ok(true)
}

/// What is demanded of one value. False if the keyword is another one.
fn check(out: &mut Checks, keyword: &str, value: &Value, path: &str) -> Result<bool, SchemaError> {
    match keyword {
        "required" => out.required = texts(value, path)?,
        "enum" => out.choices = Some(list(value, path)?.clone()),
        "format" => out.format = Some(text(value, path)?.to_owned()),
        "pattern" => {
            let pattern = regex::RegexBuilder::new(text(value, path)?).size_limit(MAX_PATTERN_BYTES).build();
            out.pattern = Some(pattern.map_err(|_| wrong(path, "is no regular expression"))?);
        }
        "minimum" => out.least = Some(number(value, path)?),
        "maximum" => out.most = Some(number(value, path)?),
        "exclusiveMinimum" => out.above = truth(value, path)?,
        "exclusiveMaximum" => out.below = truth(value, path)?,
        "multipleOf" => out.multiple_of = Some(number(value, path)?),
        "uniqueItems" => out.unique = truth(value, path)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn type_named(value: &Value, path: &str) -> Result<Type, SchemaError> {
    let types = [Type::Object, Type::Array, Type::String, Type::Integer, Type::Number, Type::Boolean];
    let found = types.into_iter().find(|of| value.as_str() == Some(of.as_str()));
    found.ok_or_else(|| wrong(path, "must be object, array, string, integer, number or boolean"))
}

fn schemas(value: &Value, path: &str) -> Result<Vec<Schema>, SchemaError> {
    list(value, path)?.iter().enumerate().map(|(i, one)| schema(one, &format!("{path}[{i}]"))).collect()
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, SchemaError> {
    value.as_object().ok_or_else(|| wrong(path, "must be an object"))
}

fn list<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, SchemaError> {
    value.as_array().ok_or_else(|| wrong(path, "must be a list"))
}

fn texts(value: &Value, path: &str) -> Result<Vec<String>, SchemaError> {
    list(value, path)?.iter().map(|item| text(item, path).map(str::to_owned)).collect()
}

fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, SchemaError> {
    value.as_str().ok_or_else(|| wrong(path, "must be a string"))
}

fn truth(value: &Value, path: &str) -> Result<bool, SchemaError> {
    value.as_bool().ok_or_else(|| wrong(path, "must be true or false"))
}

fn number(value: &Value, path: &str) -> Result<f64, SchemaError> {
    value.as_f64().ok_or_else(|| wrong(path, "must be a number"))
}
