//! Sizes and lists.

use crate::cel::evaluate::{Budget, Outcome, no_overload};
use crate::cel::parser::Operator;
use crate::cel::value::Value;

use super::arithmetic::arithmetic;

pub(super) const METHODS: &[&str] = &["indexOf", "isSorted", "lastIndexOf", "max", "min", "size", "sum"];

/// Of anything that has one: characters of a text, bytes, elements, entries.
pub(super) fn size(value: &Value) -> Option<Value> {
    let size = match value {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        _ => return None,
    };
    i64::try_from(size).ok().map(Value::Int)
}

pub(super) fn method(name: &str, arguments: &[Value], budget: &Budget) -> Option<Outcome> {
    match (name, arguments) {
        ("size", [value]) => size(value).map(Ok),
        ("indexOf", [Value::List(items), item]) => {
            Some(Ok(position(items.iter().position(|other| other.equals(item)))))
        }
        ("lastIndexOf", [Value::List(items), item]) => {
            Some(Ok(position(items.iter().rposition(|other| other.equals(item)))))
        }
        (_, [Value::List(items)]) => whole_list(name, items, budget),
        _ => None,
    }
}

fn position(found: Option<usize>) -> Value {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn whole_list(name: &str, items: &[Value], budget: &Budget) -> Option<Outcome> {
    if let Err(failure) = budget.spend(items.len()) {
        return Some(Err(failure));
    }
    Some(match name {
        "isSorted" => {
            let sorted = |pair: &[Value]| pair[0].compare(&pair[1]).is_some_and(std::cmp::Ordering::is_le);
            Ok(Value::Bool(items.windows(2).all(sorted)))
        }
        "sum" => sum(items, budget),
        "min" => extreme(items, std::cmp::Ordering::is_lt),
        "max" => extreme(items, std::cmp::Ordering::is_gt),
        _ => return None,
    })
}

fn sum(items: &[Value], budget: &Budget) -> Outcome {
    let Some((first, rest)) = items.split_first() else { return Ok(Value::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| arithmetic(Operator::Add, &sum, item, budget))
}

fn extreme(items: &[Value], better: fn(std::cmp::Ordering) -> bool) -> Outcome {
    let Some((first, rest)) = items.split_first() else { return Err("min or max called on an empty list".into()) };
    let mut best = first;
    for item in rest {
        let order = item.compare(best).ok_or_else(|| no_overload("min or max", &[item, best]))?;
        if better(order) {
            best = item;
        }
    }
    Ok(best.clone())
}
