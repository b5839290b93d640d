//! Texts and patterns. Positions are counted in characters.

use crate::cel::evaluate::{Budget, Failure, Outcome};
use crate::cel::value::Value;

pub(super) const METHODS: &[&str] = &[
    "charAt",
    "contains",
    "endsWith",
    "find",
    "findAll",
    "indexOf",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "replace",
    "split",
    "startsWith",
    "substring",
    "trim",
    "upperAscii",
];

/// `matches(text, pattern)` is also a function.
pub(super) const FUNCTIONS: &[&str] = &["matches"];

pub(super) fn method(name: &str, arguments: &[Value], budget: &Budget) -> Option<Outcome> {
    if let [Value::List(items), rest @ ..] = arguments {
        return if name == "join" { join(items, rest, budget) } else { None };
    }
    let (Value::Text(text), rest) = arguments.split_first()? else { return None };
    if let Err(failure) = budget.spend(text.len()) {
        return Some(Err(failure));
    }
    let truth = |value: bool| Some(Ok(Value::Bool(value)));
    match (name, rest) {
        ("contains", [Value::Text(part)]) => truth(text.contains(&**part)),
        ("startsWith", [Value::Text(part)]) => truth(text.starts_with(&**part)),
        ("endsWith", [Value::Text(part)]) => truth(text.ends_with(&**part)),
        ("matches", [Value::Text(pattern)]) => {
            Some(budget.pattern(pattern, |pattern| Value::Bool(pattern.is_match(text))))
        }
        ("find", [Value::Text(pattern)]) => {
            Some(budget.pattern(pattern, |pattern| Value::text(pattern.find(text).map_or("", |found| found.as_str()))))
        }
        ("findAll", [Value::Text(pattern), limit @ ..]) => find_all(text, pattern, limit, budget),
        ("lowerAscii", []) => Some(Ok(Value::text(&text.to_ascii_lowercase()))),
        ("upperAscii", []) => Some(Ok(Value::text(&text.to_ascii_uppercase()))),
        ("trim", []) => Some(Ok(Value::text(text.trim()))),
        ("charAt", [Value::Int(at)]) => Some(substring(text, *at, Some(at.saturating_add(1)), true)),
        ("substring", [Value::Int(from)]) => Some(substring(text, *from, None, false)),
        ("substring", [Value::Int(from), Value::Int(to)]) => Some(substring(text, *from, Some(*to), false)),
        ("indexOf" | "lastIndexOf", [Value::Text(part), from @ ..]) => index_of(name, text, part, from),
        ("replace", [Value::Text(from), Value::Text(to), limit @ ..]) => replace(text, from, to, limit, budget),
        ("split", [Value::Text(separator), limit @ ..]) => split(text, separator, limit),
        _ => None,
    }
}

/// How many at most: all where none or a negative number is given. `None`: an argument of another type.
fn limit(arguments: &[Value]) -> Option<usize> {
    match arguments {
        [] => Some(usize::MAX),
        [Value::Int(limit)] => Some(usize::try_from(*limit).unwrap_or(usize::MAX)),
        _ => None,
    }
}

fn find_all(text: &str, pattern: &str, most: &[Value], budget: &Budget) -> Option<Outcome> {
    let most = limit(most)?;
    Some(budget.pattern(pattern, |pattern| {
        Value::list(pattern.find_iter(text).take(most).map(|found| Value::text(found.as_str())))
    }))
}

/// `charAt` takes the end of the text, which is no character.
fn substring(text: &str, from: i64, to: Option<i64>, one: bool) -> Outcome {
    let characters: Vec<char> = text.chars().collect();
    let outside = |at: i64| Failure(format!("index out of range: {at}"));
    let start = usize::try_from(from).ok().filter(|start| *start <= characters.len()).ok_or_else(|| outside(from))?;
    let end = match to {
        Some(_) if one => characters.len().min(start + 1),
        Some(to) => usize::try_from(to).ok().filter(|end| *end <= characters.len()).ok_or_else(|| outside(to))?,
        None => characters.len(),
    };
    if start > end {
        return Err(Failure(format!("invalid substring range. start: {start}, end: {end}")));
    }
    Ok(Value::text(&characters[start..end].iter().collect::<String>()))
}

fn index_of(name: &str, text: &str, part: &str, from: &[Value]) -> Option<Outcome> {
    let text: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let last = name == "lastIndexOf";
    let from = match from {
        [] if last => text.len(),
        [] => 0,
        [Value::Int(from)] => match usize::try_from(*from).ok().filter(|from| *from <= text.len()) {
            Some(from) => from,
            None => return Some(Err(Failure(format!("index out of range: {from}")))),
        },
        _ => return None,
    };
    let fits = |at: &usize| text[*at..].starts_with(&part);
    let found = if last { (0..=from).rev().find(fits) } else { (from..=text.len()).find(fits) };
    Some(Ok(Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))))
}

fn replace(text: &str, from: &str, to: &str, most: &[Value], budget: &Budget) -> Option<Outcome> {
    let most = limit(most)?;
    let matches = text.matches(from).count().min(most);
    if let Err(failure) = budget.spend(text.len() + matches.saturating_mul(to.len())) {
        return Some(Err(failure));
    }
    Some(Ok(Value::text(&text.replacen(from, to, most))))
}

fn split(text: &str, separator: &str, most: &[Value]) -> Option<Outcome> {
    let most = limit(most)?;
    let parts: Vec<Value> = match (most, separator.is_empty()) {
        (0, _) => Vec::new(),
        (most, true) => {
            let each: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            let cut = each.len().min(most);
            let end = |i: usize| if i + 1 == cut { text.len() } else { each.get(i + 1).copied().unwrap_or(text.len()) };
            (0..cut).map(|i| Value::text(&text[each[i]..end(i)])).collect()
        }
        (most, false) => text.splitn(most, separator).map(Value::text).collect(),
    };
    Some(Ok(Value::List(parts.into())))
}

fn join(items: &[Value], separator: &[Value], budget: &Budget) -> Option<Outcome> {
    let separator = match separator {
        [] => "",
        [Value::Text(separator)] => separator,
        _ => return None,
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let Value::Text(text) = item else { return None };
        texts.push(&**text);
    }
    if let Err(failure) = budget.spend(texts.iter().map(|text| text.len() + separator.len()).sum()) {
        return Some(Err(failure));
    }
    Some(Ok(Value::text(&texts.join(separator))))
}
