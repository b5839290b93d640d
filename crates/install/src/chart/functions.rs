//! The functions of our charts: those of sprig, as injection templates have them, and of Helm's own the few that charts use.

use gotmpl::{Result, Template, TemplateError, Value};
use serde_json::Value as Json;

use crate::yaml;

type Function = fn(&[Value]) -> Result<Value>;

const OWN: [(&str, Function); 3] = [
    ("contains", |args| Ok(Value::Bool(text(args, 1)?.contains(&text(args, 0)?)))),
    ("indent", indent),
    ("toYaml", |args| Ok(Value::from(yaml::write(&json(argument(args, 0)?)).trim_end_matches('\n').to_owned()))),
];

/// Gives a template the functions.
pub(super) fn register(template: Template) -> Template {
    let template = template.funcs(meltemi_webhook::inject::sprig_functions());
    OWN.iter().fold(template, |template, (name, function)| template.func(name, *function))
}

fn argument(args: &[Value], index: usize) -> Result<&Value> {
    args.get(index).ok_or_else(|| TemplateError::Exec(format!("argument {} is missing", index + 1)))
}

/// An argument as sprig prints it.
fn text(args: &[Value], index: usize) -> Result<String> {
    Ok(match argument(args, index)? {
        Value::Nil => String::new(),
        value => value.to_string(),
    })
}

fn indent(args: &[Value]) -> Result<Value> {
    let width = argument(args, 0)?.as_int().and_then(|width| usize::try_from(width).ok());
    let pad = " ".repeat(width.ok_or_else(|| TemplateError::Exec("no width of an indent".to_owned()))?);
    let lines: Vec<String> = text(args, 1)?.split('\n').map(|line| format!("{pad}{line}")).collect();
    Ok(Value::from(lines.join("\n")))
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
