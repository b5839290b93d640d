//! The functions of the sprig library that templates of pods and charts use. Those that look at a clock, make random values
//! or read files are not among them.

mod collections;
mod decimals;
mod digests;
mod durations;
mod letters;
mod lines;
mod numbers;
mod paths;
mod patterns;
mod strings;
mod versions;

use gotmpl::{FuncMap, Result, Value};

use super::functions::{arg, as_map, refuse, text};

/// Bound of texts that a function makes by repeating.
const MAX_TEXT: i64 = 1 << 16;

pub fn functions() -> FuncMap {
    let mut all = as_map(VALUES);
    all.extend(as_map(strings::FUNCTIONS));
    all.extend(as_map(numbers::FUNCTIONS));
    all.extend(as_map(collections::FUNCTIONS));
    all.extend(as_map(decimals::FUNCTIONS));
    all.extend(as_map(digests::FUNCTIONS));
    all.extend(as_map(durations::FUNCTIONS));
    all.extend(as_map(letters::FUNCTIONS));
    all.extend(as_map(lines::FUNCTIONS));
    all.extend(as_map(paths::FUNCTIONS));
    all.extend(as_map(patterns::FUNCTIONS));
    all.extend(as_map(versions::FUNCTIONS));
    for (strict, plain) in STRICT {
        let function = all.get(*plain).cloned();
        all.extend(function.map(|function| ((*strict).to_owned(), function)));
    }
    all
}

/// Other names of functions: what ends the rendering does so under both.
const STRICT: &[(&str, &str)] = &[
    ("mustAppend", "append"),
    ("mustChunk", "chunk"),
    ("mustCompact", "compact"),
    ("mustDeepCopy", "deepCopy"),
    ("mustFirst", "first"),
    ("mustHas", "has"),
    ("mustInitial", "initial"),
    ("mustLast", "last"),
    ("mustMerge", "merge"),
    ("mustMergeOverwrite", "mergeOverwrite"),
    ("mustPrepend", "prepend"),
    ("mustPush", "append"),
    ("mustRest", "rest"),
    ("mustReverse", "reverse"),
    ("mustSlice", "slice"),
    ("mustToJson", "toJson"),
    ("mustToPrettyJson", "toPrettyJson"),
    ("mustToRawJson", "toRawJson"),
    ("mustUniq", "uniq"),
    ("mustWithout", "without"),
    ("osBase", "base"),
    ("osClean", "clean"),
    ("osDir", "dir"),
    ("osExt", "ext"),
    ("osIsAbs", "isAbs"),
    ("push", "append"),
    ("trimall", "trimAll"),
];

const VALUES: &[(&str, super::functions::Function)] = &[
    ("all", |args| bool_of(args.iter().all(Value::is_truthy))),
    ("any", |args| bool_of(args.iter().any(Value::is_truthy))),
    ("coalesce", |args| Ok(args.iter().find(|value| value.is_truthy()).cloned().unwrap_or(Value::Nil))),
    ("default", |args| {
        let default = arg(args, 0)?;
        Ok(args.get(1).filter(|given| given.is_truthy()).unwrap_or(default).clone())
    }),
    ("deepEqual", |args| bool_of(arg(args, 0)? == arg(args, 1)?)),
    ("empty", |args| Ok(Value::Bool(!arg(args, 0)?.is_truthy()))),
    ("fail", |args| refuse(text(args, 0)?)),
    ("hello", |_| Ok("Hello!".into())),
    ("kindIs", |args| Ok(Value::Bool(kind(arg(args, 1)?) == text(args, 0)?))),
    ("kindOf", |args| Ok(kind(arg(args, 0)?).into())),
    ("required", |args| match arg(args, 1)? {
        Value::Nil => refuse(text(args, 0)?),
        value if value.as_str() == Some("") => refuse(text(args, 0)?),
        value => Ok(value.clone()),
    }),
    ("ternary", |args| Ok(arg(args, if arg(args, 2)?.is_truthy() { 0 } else { 1 })?.clone())),
    ("typeIs", |args| bool_of(type_of(arg(args, 1)?) == text(args, 0)?)),
    ("typeIsLike", |args| {
        let (wanted, is) = (text(args, 0)?, type_of(arg(args, 1)?));
        bool_of(wanted == is || wanted.strip_prefix('*') == Some(is))
    }),
    ("typeOf", |args| Ok(type_of(arg(args, 0)?).into())),
];

/// Go's name of a type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        other => other.type_name(),
    }
}

/// Go's `reflect.Kind`.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Uint(_) => "uint64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Function(_) => "func",
    }
}

pub fn spaces(count: i64) -> Result<String> {
    repeated(" ", count)
}

fn repeated(text: &str, count: i64) -> Result<String> {
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    match usize::try_from(count) {
        Ok(times) if length.saturating_mul(count) <= MAX_TEXT => Ok(text.repeat(times)),
        Ok(_) => refuse(format!("makes more than {MAX_TEXT} bytes")),
        Err(_) => Ok(String::new()),
    }
}

fn bool_of(value: bool) -> Result<Value> {
    Ok(Value::Bool(value))
}
