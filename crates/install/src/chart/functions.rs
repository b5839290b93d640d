//! The functions that our charts use, of those that Helm and Sprig add to Go's templates.
//!
//! Owns: their meaning, which is Helm's. A function that no chart of ours uses is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{Result, Template, TemplateError, Value, to_value};
use serde_json::Value as Json;

use crate::merge::overlay;
use crate::yaml;

type Function = fn(&[Value]) -> Result<Value>;

const FUNCTIONS: [(&str, Function); 19] = [
    ("contains", |args| Ok(Value::Bool(text(args, 1)?.contains(&text(args, 0)?)))),
    ("default", |args| {
        Ok(args.iter().rev().find(|value| value.is_truthy()).or(args.first()).cloned().unwrap_or(Value::Nil))
    }),
    ("dict", dict),
    ("fail", |args| Err(TemplateError::Exec(text(args, 0)?))),
    ("has", |args| Ok(Value::Bool(list(args, 1).iter().any(|member| json(member) == json(&args[0]))))),
    ("hasKey", |args| Ok(Value::Bool(argument(args, 0)?.field(&text(args, 1)?).is_some()))),
    ("indent", |args| Ok(Value::from(indent(&text(args, 1)?, number(args, 0)?)))),
    ("int", |args| Ok(Value::Int(integer(argument(args, 0)?)))),
    ("join", join),
    ("list", |args| Ok(Value::from(args.to_vec()))),
    ("mergeOverwrite", merge_overwrite),
    ("nindent", |args| Ok(Value::from(format!("\n{}", indent(&text(args, 1)?, number(args, 0)?))))),
    ("pick", pick),
    ("quote", quote),
    ("ternary", |args| Ok(argument(args, if argument(args, 2)?.is_truthy() { 0 } else { 1 })?.clone())),
    ("toPrettyJson", to_pretty_json),
    ("toYaml", |args| Ok(Value::from(yaml::write(&json(argument(args, 0)?)).trim_end_matches('\n').to_owned()))),
    ("trim", |args| Ok(Value::from(text(args, 0)?.trim().to_owned()))),
    ("trimPrefix", trim_prefix),
];

/// Gives a template the functions.
pub(super) fn register(template: Template) -> Template {
    FUNCTIONS.iter().fold(template, |template, (name, function)| template.func(name, *function))
}

fn argument(args: &[Value], index: usize) -> Result<&Value> {
    args.get(index).ok_or_else(|| TemplateError::Exec(format!("argument {} is missing", index + 1)))
}

/// An argument as Sprig prints it.
fn text(args: &[Value], index: usize) -> Result<String> {
    Ok(match argument(args, index)? {
        Value::Nil => String::new(),
        value => value.to_string(),
    })
}

fn list(args: &[Value], index: usize) -> &[Value] {
    match args.get(index) {
        Some(Value::List(members)) => members,
        _ => &[],
    }
}

fn integer(value: &Value) -> i64 {
    // Texts that are no number are zero, as in Sprig.
    value.as_int().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or_default()
}

fn number(args: &[Value], index: usize) -> Result<usize> {
    let value = integer(argument(args, index)?);
    usize::try_from(value).map_err(|_| TemplateError::Exec(format!("{value} is no width")))
}

fn indent(text: &str, width: usize) -> String {
    let pad = " ".repeat(width);
    text.split('\n').map(|line| format!("{pad}{line}")).collect::<Vec<_>>().join("\n")
}

/// Functions and trusted texts never come from values.
fn json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => Json::from(*flag),
        Value::Int(number) => Json::from(*number),
        Value::Uint(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) => Json::from(&**text),
        Value::List(members) => members.iter().map(json).collect(),
        Value::Map(map) => map.iter().map(|(key, value)| (key.to_string(), json(value))).collect(),
        _ => Json::Null,
    }
}

fn dict(args: &[Value]) -> Result<Value> {
    let mut map: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    for pair in args.chunks(2) {
        map.insert(text(pair, 0)?.into(), pair.get(1).cloned().unwrap_or(Value::from("")));
    }
    Ok(Value::from(map))
}

fn join(args: &[Value]) -> Result<Value> {
    let members: Vec<String> = list(args, 1).iter().map(Value::to_string).collect();
    Ok(Value::from(members.join(&text(args, 0)?)))
}

fn merge_overwrite(args: &[Value]) -> Result<Value> {
    let mut merged = json(argument(args, 0)?);
    for over in &args[1..] {
        overlay(&mut merged, &json(over));
    }
    to_value(&merged)
}

fn pick(args: &[Value]) -> Result<Value> {
    let mut map: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    for index in 1..args.len() {
        let key = text(args, index)?;
        if let Some(value) = argument(args, 0)?.field(&key) {
            map.insert(key.into(), value.clone());
        }
    }
    Ok(Value::from(map))
}

fn quote(args: &[Value]) -> Result<Value> {
    Ok(Value::from(Json::from(text(args, 0)?).to_string()))
}

/// Go writes the characters that HTML knows as escapes.
fn to_pretty_json(args: &[Value]) -> Result<Value> {
    let pretty = serde_json::to_string_pretty(&json(argument(args, 0)?));
    let pretty = pretty.map_err(|error| TemplateError::Exec(error.to_string()))?;
    Ok(Value::from(pretty.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")))
}

fn trim_prefix(args: &[Value]) -> Result<Value> {
    let (prefix, text) = (text(args, 0)?, text(args, 1)?);
    Ok(Value::from(text.strip_prefix(&prefix).unwrap_or(&text).to_owned()))
}
