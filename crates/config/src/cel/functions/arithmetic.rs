//! `+`, `-`, `*`, `/` and `%`.

use std::sync::Arc;

use crate::cel::evaluate::{Budget, Outcome, no_overload};
use crate::cel::parser::Operator;
use crate::cel::value::Value;

pub(crate) fn arithmetic(operator: Operator, left: &Value, right: &Value, budget: &Budget) -> Outcome {
    let result = match (left, right) {
        (Value::Int(a), Value::Int(b)) => return whole(operator, *a, *b),
        (Value::UInt(a), Value::UInt(b)) => return unsigned(operator, *a, *b),
        (Value::Double(a), Value::Double(b)) => double(operator, *a, *b).map(Value::Double),
        _ if operator == Operator::Add => return joined(left, right, budget),
        _ if operator == Operator::Subtract => subtracted(left, right),
        _ => None,
    };
    result.ok_or_else(|| no_overload(symbol(operator), &[left, right]))
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "_+_",
        Operator::Subtract => "_-_",
        Operator::Multiply => "_*_",
        Operator::Divide => "_/_",
        _ => "_%_",
    }
}

/// Of either kind of whole numbers, in which nothing wraps.
macro_rules! checked {
    ($operator:expr, $a:expr, $b:expr) => {
        match $operator {
            Operator::Divide | Operator::Remainder if $b == 0 => return Err("division by zero".into()),
            Operator::Add => $a.checked_add($b),
            Operator::Subtract => $a.checked_sub($b),
            Operator::Multiply => $a.checked_mul($b),
            Operator::Divide => $a.checked_div($b),
            _ => $a.checked_rem($b),
        }
    };
}

fn whole(operator: Operator, a: i64, b: i64) -> Outcome {
    checked!(operator, a, b).map(Value::Int).ok_or_else(|| "integer overflow".into())
}

fn unsigned(operator: Operator, a: u64, b: u64) -> Outcome {
    checked!(operator, a, b).map(Value::UInt).ok_or_else(|| "unsigned integer overflow".into())
}

fn double(operator: Operator, a: f64, b: f64) -> Option<f64> {
    match operator {
        Operator::Add => Some(a + b),
        Operator::Subtract => Some(a - b),
        Operator::Multiply => Some(a * b),
        Operator::Divide => Some(a / b),
        _ => None,
    }
}

fn joined(left: &Value, right: &Value, budget: &Budget) -> Outcome {
    let overflow = || "timestamp or duration overflow".into();
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => {
            budget.spend(a.len() + b.len())?;
            Ok(Value::text(&[&**a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.spend(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            budget.spend(a.len() + b.len())?;
            let items: Arc<[Value]> = a.iter().chain(b.iter()).cloned().collect();
            Ok(Value::List(items))
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            at.checked_add(*by).map(Value::Timestamp).map_err(|_| overflow())
        }
        _ => Err(no_overload("_+_", &[left, right])),
    }
}

fn subtracted(left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration),
        (Value::Timestamp(at), Value::Duration(by)) => at.checked_sub(*by).ok().map(Value::Timestamp),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(Value::Duration(a.duration_since(*b))),
        _ => None,
    }
}
