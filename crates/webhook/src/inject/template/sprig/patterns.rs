//! Of regular expressions, in Go's syntax, which this library reads, too: both are of RE2's kind and take time linear in the
//! text.

use gotmpl::{Result, Value};
use regex::{NoExpand, Regex, RegexBuilder};

use super::super::functions::{Function, number, refuse, text};
use super::bool_of;

/// Bound of what a compiled expression may take.
const MAX_SIZE: usize = 1 << 20;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("regexFind", find),
    ("mustRegexFind", find),
    ("regexFindAll", find_all),
    ("mustRegexFindAll", find_all),
    ("regexMatch", is_match),
    ("mustRegexMatch", is_match),
    ("regexQuoteMeta", |args| Ok(quoted(&text(args, 0)?).into())),
    ("regexReplaceAll", replaced),
    ("mustRegexReplaceAll", replaced),
    ("regexReplaceAllLiteral", replaced_literally),
    ("mustRegexReplaceAllLiteral", replaced_literally),
    ("regexSplit", split),
    ("mustRegexSplit", split),
];

fn pattern(args: &[Value]) -> Result<Regex> {
    let compiled = RegexBuilder::new(&text(args, 0)?).size_limit(MAX_SIZE).build();
    compiled.or_else(|error| refuse(error.to_string()))
}

fn is_match(args: &[Value]) -> Result<Value> {
    bool_of(pattern(args)?.is_match(&text(args, 1)?))
}

fn find(args: &[Value]) -> Result<Value> {
    let whole = text(args, 1)?;
    Ok(pattern(args)?.find(&whole).map_or("", |found| found.as_str()).into())
}

/// A negative count is none.
fn limit(args: &[Value], position: usize) -> Result<usize> {
    Ok(usize::try_from(number(args, position)?).unwrap_or(usize::MAX))
}

fn find_all(args: &[Value]) -> Result<Value> {
    let (pattern, whole, limit) = (pattern(args)?, text(args, 1)?, limit(args, 2)?);
    Ok(pattern.find_iter(&whole).take(limit).map(|found| Value::from(found.as_str())).collect::<Vec<_>>().into())
}

fn replaced(args: &[Value]) -> Result<Value> {
    let (whole, with) = (text(args, 1)?, text(args, 2)?);
    Ok(pattern(args)?.replace_all(&whole, with.as_str()).into_owned().into())
}

fn replaced_literally(args: &[Value]) -> Result<Value> {
    let (whole, with) = (text(args, 1)?, text(args, 2)?);
    Ok(pattern(args)?.replace_all(&whole, NoExpand(&with)).into_owned().into())
}

/// As Go's `Regexp.Split`: an empty match at the start separates nothing.
fn split(args: &[Value]) -> Result<Value> {
    let (pattern, whole, limit) = (pattern(args)?, text(args, 1)?, limit(args, 2)?);
    if limit == 0 {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if whole.is_empty() && !pattern.as_str().is_empty() {
        return Ok(vec![Value::from("")].into());
    }
    let (mut parts, mut begin, mut end): (Vec<Value>, _, _) = (Vec::new(), 0, 0);
    for found in pattern.find_iter(&whole).take(limit) {
        if parts.len() == limit - 1 {
            break;
        }
        end = found.start();
        if found.end() != 0 {
            parts.push(whole[begin..end].into());
        }
        begin = found.end();
    }
    if end != whole.len() {
        parts.push(whole[begin..].into());
    }
    Ok(parts.into())
}

/// Go's `QuoteMeta`, which quotes less than this library's.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}
