//! A YAML or JSON document as a tree in which every node knows its line.
//!
//! Owns no meaning. One allocation per node; depth, aliases and node count are bounded by `options`, those of a JSON value that
//! was read elsewhere by `Budget`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

/// Deeper documents are refused: nothing that a mesh reads comes near.
const MAX_DEPTH: usize = 128;
const MAX_NODES: usize = 2_000_000;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Counted from 1 in the file.
    pub line: u32,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document; keys are unique.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub line: u32,
    pub node: Node,
}

/// Why a text is not a document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub line: u32,
    pub message: String,
}

impl Node {
    /// Reads one document. `first_line` is the line in the file at which `text` starts. `None`: nothing in it.
    pub fn parse(text: &str, first_line: u32) -> Result<Option<Node>, SyntaxError> {
        let parsed = serde_saphyr::from_str_with_options::<Option<Node>>(text, options());
        match parsed {
            Ok(Some(mut node)) => {
                node.shift(first_line - 1);
                Ok(Some(node).filter(|n| !matches!(n.value, Value::Null)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(syntax_error(&error, text, first_line)),
        }
    }

    /// Takes over a JSON value, within the bounds of a text: what would be read from it, written on one line.
    pub fn of_json(value: serde_json::Value, line: u32) -> Result<Option<Node>, SyntaxError> {
        let mut budget = Budget { nodes: MAX_NODES, line };
        let node = budget.node(value, MAX_DEPTH)?;
        Ok(Some(node).filter(|node| !matches!(node.value, Value::Null)))
    }

    fn shift(&mut self, by: u32) {
        self.line += by;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|n| n.shift(by)),
            Value::Map(entries) => entries.iter_mut().for_each(|e| {
                e.line += by;
                e.node.shift(by);
            }),
            _ => {}
        }
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.node)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The line of a field path such as `spec.http[0].match`, or of the nearest node above it that was written.
    pub fn line_of(&self, path: &str) -> u32 {
        let (mut node, mut line) = (self, self.line);
        for segment in segments(path) {
            let next = match (&node.value, segment) {
                (Value::List(items), Segment::Index(i)) => items.get(i).map(|n| (n, n.line)),
                (Value::Map(entries), Segment::Index(i)) => find(entries, &i.to_string()),
                (Value::Map(entries), Segment::Key(key)) => find(entries, key),
                _ => None,
            };
            let Some(found) = next else { break };
            (node, line) = found;
        }
        line
    }

    /// The value as JSON, as Kubernetes' tools make it of YAML: what they read as an address is one.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => (*number as f64).into(),
            },
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Map(entries) => match &entries[..] {
                [Entry { key, node: Node { value: Value::Null, .. }, .. }] if key.ends_with(':') => {
                    format!("{key}:").into()
                }
                entries => entries.iter().map(|entry| (entry.key.clone(), entry.node.json())).collect(),
            },
        }
    }

    /// What a reader would call this value.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Int(i) => format!("the number {i}"),
            Value::Float(f) => format!("the number {f}"),
            Value::Text(t) if t.chars().count() <= 40 => format!("the string {t:?}"),
            Value::Text(_) => "a string".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "an object".into(),
        }
    }
}

/// What a JSON value may still have, and the line that it is said to stand on.
struct Budget {
    nodes: usize,
    line: u32,
}

impl Budget {
    fn node(&mut self, value: serde_json::Value, depth: usize) -> Result<Node, SyntaxError> {
        self.take()?;
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => of_number(&number),
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(items) => {
                let depth = self.below(depth)?;
                Value::List(items.into_iter().map(|item| self.node(item, depth)).collect::<Result<_, _>>()?)
            }
            serde_json::Value::Object(fields) => {
                let depth = self.below(depth)?;
                Value::Map(fields.into_iter().map(|field| self.entry(field, depth)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Node { line: self.line, value })
    }

    /// Keys count, as they do in a text.
    fn entry(&mut self, (key, value): (String, serde_json::Value), depth: usize) -> Result<Entry, SyntaxError> {
        self.take()?;
        Ok(Entry { key, line: self.line, node: self.node(value, depth)? })
    }

    fn take(&mut self) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.checked_sub(1).ok_or_else(|| self.broken(too_many()))?;
        Ok(())
    }

    fn below(&self, depth: usize) -> Result<usize, SyntaxError> {
        depth.checked_sub(1).ok_or_else(|| self.broken(too_deep()))
    }

    fn broken(&self, message: String) -> SyntaxError {
        SyntaxError { line: self.line, message }
    }
}

fn of_number(number: &serde_json::Number) -> Value {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    // Every number has one of the three forms.
    whole.map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
}

fn too_deep() -> String {
    format!("deeper than {MAX_DEPTH} levels")
}

fn too_many() -> String {
    format!("more than {MAX_NODES} values")
}

fn find<'a>(entries: &'a [Entry], key: &str) -> Option<(&'a Node, u32)> {
    entries.iter().find(|e| e.key == key || camel_case(&e.key) == key).map(|e| (&e.node, e.line))
}

/// `snake_case` to `camelCase`, as protobuf names its JSON fields.
pub(crate) fn camel_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.extend(c.to_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// Splits `a.b[0]["c.d"]`.
fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, tail) = quoted.split_once("\"]")?;
            rest = tail;
            return Some(Segment::Key(key));
        }
        if let Some(index) = rest.strip_prefix('[') {
            let (number, tail) = index.split_once(']')?;
            rest = tail;
            return Some(number.parse().map_or(Segment::Key(number), Segment::Index));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(end);
        rest = tail;
        (!key.is_empty()).then_some(Segment::Key(key))
    })
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_events: 3 * MAX_NODES,
    };
    serde_saphyr::options! {
        budget: budget,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn syntax_error(error: &serde_saphyr::Error, text: &str, first_line: u32) -> SyntaxError {
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((0, 0), |l| (l.line().saturating_sub(1), l.column()));
    // JSON may be indented with tabs.
    let written = text.lines().nth(line as usize).filter(|_| !text.trim_start().starts_with(['{', '[']));
    let (column, message) = in_our_words(error, written.unwrap_or_default(), column);
    let message = if column == 0 { message } else { format!("column {column}: {message}") };
    SyntaxError { line: first_line + u32::try_from(line).unwrap_or(0), message }
}

/// What a reader of YAML should be told, with the column; `written` is the line of the error, where it may have no
/// tabs.
fn in_our_words(error: &serde_saphyr::Error, written: &str, column: u64) -> (u64, String) {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach as Breach;
    let error = match error {
        Error::AliasError { error, .. } => error.without_snippet(),
        error => error,
    };
    let message = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("key `{key}` stands twice"),
        Error::DuplicateMappingKey { .. } => "a key stands twice".to_owned(),
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "too many aliases".to_owned(),
        Error::Budget { breach, .. } => match breach {
            Breach::Depth { .. } => too_deep(),
            Breach::Nodes { .. } | Breach::Events { .. } => too_many(),
            Breach::ScalarBytes { .. } | Breach::InputBytes { .. } => "too long".to_owned(),
            _ => "too many aliases".to_owned(),
        },
        error => {
            let indentation = written.len() - written.trim_start().len();
            if let Some(tab) = written[..indentation].find('\t') {
                return (tab as u64 + 1, "a tab; YAML is indented with spaces".to_owned());
            }
            let text = error.to_string();
            // The parser counts lines from the start of its document: its own position would mislead.
            text.split(" at line ").next().unwrap_or(&text).trim_end_matches(',').to_owned()
        }
    };
    (column, message)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { line: u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i128::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value::<Node>()?;
            let line = u32::try_from(key.referenced.line()).unwrap_or(u32::MAX);
            entries.push(Entry { key: key.value, line, node });
        }
        Ok(Value::Map(entries))
    }
}
