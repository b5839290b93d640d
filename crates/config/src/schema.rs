//! Documents judged by the structural schema of their definition, as an API server judges them: what is unknown is
//! dropped, defaults are put in, then structure, keys of lists and rules in CEL are checked.
//!
//! Owns what is refused, where, and in which words: an API server's. Definitions are read whole or not at all: a keyword
//! that is not known here refuses them. Rules about a change of an object (`oldSelf`) say nothing about one document, and
//! are passed over. Linear in the document but for the rules, which have a budget.

mod definitions;
mod format;
mod lenient;
mod list;
mod read;
mod rules;
mod settle;
mod structure;

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use serde_json::Value;

pub use self::definitions::Definitions;
use self::rules::Rule;

/// Why a document is refused, in one place of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `spec.http[0].timeout`; empty for the whole document.
    pub path: String,
    pub reason: Reason,
    /// What is wrong, where the reason does not say it all.
    pub detail: String,
}

/// The kind of a refusal, as Kubernetes tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Required,
    Unsupported,
    TooLong,
    TooMany,
    WrongType,
    Invalid,
    Duplicate,
    Forbidden,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Unsupported => "Unsupported value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::WrongType | Self::Invalid => "Invalid value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
        }
    }

    /// Rules are not evaluated on a document that is refused for such a reason.
    fn blocks(self) -> bool {
        matches!(self, Self::Required | Self::Unsupported | Self::TooLong | Self::TooMany | Self::WrongType)
    }
}

/// Without the path: `Unsupported value: "a": supported values: "b"`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// What a definition demands of a value.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Empty: any.
    of: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserves: bool,
    embedded: bool,
    properties: BTreeMap<String, Schema>,
    /// Of the entries of a map.
    entries: Option<Box<Schema>>,
    items: Option<Box<Schema>>,
    default: Option<Value>,
    checks: Checks,
    list: ListKind,
    rules: Vec<Rule>,
    one_of: Vec<Schema>,
    any_of: Vec<Schema>,
    all_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What is demanded of one value apart from its type.
#[derive(Debug, Clone, Default)]
struct Checks {
    required: Vec<String>,
    choices: Option<Vec<Value>>,
    format: Option<String>,
    pattern: Option<Regex>,
    least: Option<f64>,
    most: Option<f64>,
    above: bool,
    below: bool,
    multiple_of: Option<f64>,
    unique: bool,
    /// Items, characters or properties, by the type of the value.
    sizes: Sizes,
}

#[derive(Debug, Clone, Default)]
struct Sizes {
    items: (Option<usize>, Option<usize>),
    characters: (Option<usize>, Option<usize>),
    properties: (Option<usize>, Option<usize>),
}

/// What tells the elements of a list apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A definition that cannot be read: the path of the keyword in it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    pub path: String,
    pub message: String,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for SchemaError {}

impl Schema {
    /// Reads the `openAPIV3Schema` of a version of a definition.
    pub fn read(schema: &Value) -> Result<Self, SchemaError> {
        read::schema(schema, "")
    }

    /// All that an API server would refuse a new document for. What it would drop in silence is not among it.
    pub fn judge(&self, document: &Value) -> Vec<Refusal> {
        let mut document = document.clone();
        self.settle(&mut document);
        let mut refusals = Vec::new();
        self.check(&document, "", &mut refusals);
        self.check_lists(&document, "", &mut refusals);
        if refusals.iter().any(|refusal| refusal.reason.blocks()) {
            return refusals;
        }
        self.check_rules(&document, &mut refusals);
        refusals
    }
}

#[cfg(test)]
mod tests;
