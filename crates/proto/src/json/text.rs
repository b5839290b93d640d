//! JSON and YAML text to values, and the line of a field path.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::JsonError;
use super::path::{Step, steps};

/// Deeper than any bootstrap we have seen; prost stops at 100 messages.
const MAX_DEPTH: usize = 256;
/// A static configuration of some thousand clusters has a few million nodes.
const MAX_NODES: usize = 8_000_000;

pub(super) fn parse(text: &str) -> Result<Value, JsonError> {
    if text.trim_start().starts_with(['{', '[']) {
        // JSON proper is read by the faster parser; flow-style YAML falls through to the other.
        if let Ok(value) = serde_json::from_str(text) {
            return Ok(value);
        }
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| JsonError {
        path: String::new(),
        line: error.location().map(|l| l.line()).filter(|line| *line > 0),
        message: error.without_snippet().to_string(),
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
    }
}

/// Adds to `error` the line of its path, as near as `text` has it. The text is read a second time: errors are rare.
pub(super) fn locate(mut error: JsonError, text: &str) -> JsonError {
    let Ok(mut node) = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options()) else { return error };
    let mut line = node.referenced.line();
    for step in steps(&error.path) {
        let next = match (step, node.value) {
            (Step::Field(name), Node::Map(entries)) => {
                entries.into_iter().find(|(key, _)| same_field(&key.value, &name))
            }
            (Step::Index(index), Node::List(items)) => items
                .into_iter()
                .nth(index)
                .map(|item| (Spanned::new(String::new(), item.referenced, item.defined), item)),
            _ => None,
        };
        let Some((key, value)) = next else { break };
        line = key.referenced.line();
        node = value;
    }
    error.line = Some(line).filter(|line| *line > 0);
    error
}

/// A path names fields as the document did or as the .proto does.
fn same_field(key: &str, name: &str) -> bool {
    let folded = |text: &str| text.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect::<String>();
    key == name || folded(key) == folded(name)
}

/// A document with the line of everything.
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {$(
        fn $visit<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Scalar)
        }
    )*};
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str, visit_bytes: &[u8] }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Node::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
