//! Of whole numbers, and of the few decimal ones that charts have.

use gotmpl::{Result, Value};

use super::super::functions::{Function, arg, number, refuse};

/// Bound of the list that `until` makes.
const MAX_COUNT: i64 = 10_000;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("add", |args| fold(args, i64::checked_add)),
    ("atoi", |args| number(args, 0).map(Value::Int)),
    ("add1", |args| checked(number(args, 0)?.checked_add(1))),
    ("ceil", |args| rounded(args, f64::ceil)),
    ("biggest", |args| fold(args, |a, b| Some(a.max(b)))),
    ("div", |args| fold(args, i64::checked_div)),
    ("float64", |args| Ok(Value::Float(decimal(arg(args, 0)?)))),
    ("floor", |args| rounded(args, f64::floor)),
    ("int", |args| number(args, 0).map(Value::Int)),
    ("int64", |args| number(args, 0).map(Value::Int)),
    ("max", |args| fold(args, |a, b| Some(a.max(b)))),
    ("maxf", |args| folded(args, f64::max)),
    ("minf", |args| folded(args, f64::min)),
    ("min", |args| fold(args, |a, b| Some(a.min(b)))),
    ("mod", |args| fold(args, i64::checked_rem)),
    ("mul", |args| fold(args, i64::checked_mul)),
    ("seq", sequence),
    ("sub", |args| fold(args, i64::checked_sub)),
    ("until", |args| count(0, number(args, 0)?, 1)),
    ("untilStep", |args| count(number(args, 0)?, number(args, 1)?, number(args, 2)?)),
];

fn fold(args: &[Value], operation: impl Fn(i64, i64) -> Option<i64>) -> Result<Value> {
    let mut result = number(args, 0)?;
    for position in 1..args.len() {
        let Some(next) = operation(result, number(args, position)?) else { return checked(None) };
        result = next;
    }
    Ok(Value::Int(result))
}

fn folded(args: &[Value], operation: fn(f64, f64) -> f64) -> Result<Value> {
    let first = decimal(arg(args, 0)?);
    Ok(Value::Float(args[1..].iter().map(decimal).fold(first, operation)))
}

/// As the program `seq`: to `END`, from `START`, by `STEP`, separated by spaces.
fn sequence(args: &[Value]) -> Result<Value> {
    let (start, step, end) = match args.len() {
        0 => return Ok("".into()),
        1 => (1, None, number(args, 0)?),
        2 => (number(args, 0)?, None, number(args, 1)?),
        3 => (number(args, 0)?, Some(number(args, 1)?), number(args, 2)?),
        _ => return refuse("seq needs at most a start, a step and an end"),
    };
    let step = step.unwrap_or(if end < start { -1 } else { 1 });
    let list = count(start, end.saturating_add(step.signum()), step)?;
    let Value::List(numbers) = &list else { return Ok(list) };
    Ok(numbers.iter().map(Value::to_string).collect::<Vec<_>>().join(" ").into())
}

fn checked(result: Option<i64>) -> Result<Value> {
    result.map_or_else(|| refuse("no such number"), |result| Ok(Value::Int(result)))
}

pub fn decimal(value: &Value) -> f64 {
    value.to_string().parse().unwrap_or_default()
}

fn rounded(args: &[Value], how: fn(f64) -> f64) -> Result<Value> {
    Ok(Value::Float(how(decimal(arg(args, 0)?))))
}

fn count(start: i64, end: i64, step: i64) -> Result<Value> {
    let mut numbers = Vec::new();
    let mut next = start;
    while step != 0 && if step > 0 { next < end } else { next > end } {
        if i64::try_from(numbers.len()).unwrap_or(i64::MAX) >= MAX_COUNT {
            return refuse(format!("counts more than {MAX_COUNT} numbers"));
        }
        numbers.push(Value::Int(next));
        next = next.saturating_add(step);
    }
    Ok(numbers.into())
}
