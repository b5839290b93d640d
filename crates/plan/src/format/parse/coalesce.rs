//! `%COALESCE({"operators": ["NAME", {"command": "NAME", "param": "ARGUMENT", "max_length": 10}]})%`.

use crate::common::Value;
use crate::error::{At, Result, refuse};
use crate::format::Operator;

pub(super) fn coalesce(text: &str) -> Result<Operator> {
    let Ok(Value::Object(document)) = serde_json::from_str(text) else {
        return refuse("%COALESCE%: the argument is not a JSON object");
    };
    let operators = match document.get("operators") {
        Some(Value::Array(operators)) if !operators.is_empty() => operators,
        _ => return refuse("%COALESCE%: operators: a list that is not empty is needed"),
    };
    let one = |(index, value)| choice(value).at_index("%COALESCE%: operators", index);
    Ok(Operator::Coalesce(operators.iter().enumerate().map(one).collect::<Result<_>>()?))
}

/// A command and how much of it is kept.
fn choice(value: &Value) -> Result<(Operator, Option<usize>)> {
    let fields = match value {
        Value::String(name) => return Ok((super::operator(name, None)?, None)),
        Value::Object(fields) => fields,
        _ => return refuse("a command or an object is needed"),
    };
    let Some(Value::String(name)) = fields.get("command") else { return refuse("command: is required") };
    let argument = match fields.get("param") {
        None => None,
        Some(Value::String(argument)) => Some(argument.as_str()),
        Some(_) => return refuse("param: is not text"),
    };
    let limit = match fields.get("max_length") {
        None => None,
        Some(limit) => match limit.as_u64().and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0) {
            Some(limit) => Some(limit),
            None => return refuse("max_length: is not a positive number"),
        },
    };
    Ok((super::operator(name, argument)?, limit))
}
