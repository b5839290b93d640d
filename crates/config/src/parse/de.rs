//! A serde deserializer over the tree: knows the path and line of every value, reports every unknown field with what
//! was probably meant, and has protojson's leniences (integers as strings, enum values by number, `snake_case` names).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::removed;
use super::tree::{Entry, Node, Value, camel_case};
use crate::path::Path;
use crate::problem::{Severity, meant, nearest};

/// Something found while reading, not yet tied to a file.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub severity: Severity,
    pub line: u32,
    pub path: String,
    pub message: String,
    pub suggestion: Option<String>,
}

/// What the whole reading of one document shares.
pub(super) struct Context {
    /// Accept `snake_case` for `camelCase` (protobuf types; Kubernetes' own do not).
    pub snake_case: bool,
    pub findings: RefCell<Vec<Finding>>,
    /// Paths of values that are wrong, and are passed over in the next reading.
    refused: RefCell<BTreeSet<String>>,
}

/// Of one document; reading is repeated for each.
const MAX_ERRORS: usize = 50;

impl Context {
    pub fn new(snake_case: bool) -> Self {
        Self { snake_case, findings: RefCell::default(), refused: RefCell::default() }
    }

    fn is_refused(&self, path: &Path<'_>) -> bool {
        let refused = self.refused.borrow();
        !refused.is_empty() && refused.contains(&path.to_string())
    }

    /// Reads again and again, each time without the values that were wrong, until everything that is wrong is found:
    /// serde ends a reading at the first error.
    pub fn read<T>(&self, read: impl Fn() -> Result<T, Error>) -> Option<T> {
        let known = self.findings.borrow().len();
        let mut errors: Vec<Finding> = Vec::new();
        let value = loop {
            // What is not an error was found by the reading before, and is found again.
            self.findings.borrow_mut().truncate(known);
            let error: Finding = match read() {
                Ok(value) => break Some(value),
                Err(error) => error.into(),
            };
            // The same value again: it cannot be passed over.
            if !self.refused.borrow_mut().insert(error.path.clone()) {
                break None;
            }
            errors.push(error);
            if errors.len() >= MAX_ERRORS {
                break None;
            }
        };
        let value = value.filter(|_| errors.is_empty());
        self.findings.borrow_mut().extend(errors);
        value
    }
}

impl From<Error> for Finding {
    fn from(error: Error) -> Self {
        let (path, line) = error.place.unwrap_or((String::new(), 1));
        Finding { severity: Severity::Error, line, path, message: error.message, suggestion: error.suggestion }
    }
}

/// The first error of a reading.
#[derive(Debug)]
pub(super) struct Error {
    /// Set once the innermost value is known.
    pub place: Option<(String, u32)>,
    pub message: String,
    pub suggestion: Option<String>,
}

impl Error {
    fn new(message: String) -> Self {
        Self { place: None, message, suggestion: None }
    }

    fn at(mut self, path: &Path<'_>, line: u32) -> Self {
        if self.place.is_none() {
            self.place = Some((path.to_string(), line));
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a> {
    pub node: &'a Node,
    pub path: &'a Path<'a>,
    pub context: &'a Context,
}

impl NodeDeserializer<'_> {
    fn wrong_type(&self, expected: &str) -> Error {
        let mut message = format!("expected {expected}, found {}", self.node.describe());
        let scalar = matches!(self.node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        if expected == "a string" && scalar {
            message.push_str("; put it in quotes");
        }
        Error::new(message).at(self.path, self.node.line)
    }

    fn integer(&self, min: i128, max: i128) -> Result<i128, Error> {
        let number = match &self.node.value {
            Value::Int(i) => Some(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e18 => Some(*f as i128),
            Value::Text(t) => t.parse().ok(),
            _ => None,
        };
        match number {
            Some(n) if (min..=max).contains(&n) => Ok(n),
            Some(n) => {
                Err(Error::new(format!("{n} is out of range, from {min} to {max}")).at(self.path, self.node.line))
            }
            None => Err(self.wrong_type("a whole number")),
        }
    }

    fn placed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|e| e.at(self.path, self.node.line))
    }
}

macro_rules! integers {
    ($($method:ident => $type:ident, $visit:ident as $wide:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer($type::MIN.into(), $type::MAX.into())?;
            self.placed(visitor.$visit(number as $wide))
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => match i64::try_from(*i) {
                Ok(i) => visitor.visit_i64(i),
                Err(_) => visitor.visit_f64(*i as f64),
            },
            Value::Float(f) => visitor.visit_f64(*f),
            Value::Text(t) => visitor.visit_str(t),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
        };
        self.placed(result)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Bool(b) => self.placed(visitor.visit_bool(b)),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    integers! {
        deserialize_i8 => i8, visit_i64 as i64;
        deserialize_i16 => i16, visit_i64 as i64;
        deserialize_i32 => i32, visit_i64 as i64;
        deserialize_i64 => i64, visit_i64 as i64;
        deserialize_u8 => u8, visit_u64 as u64;
        deserialize_u16 => u16, visit_u64 as u64;
        deserialize_u32 => u32, visit_u64 as u64;
        deserialize_u64 => u64, visit_u64 as u64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = match &self.node.value {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            Value::Text(t) => t.parse().ok(),
            _ => None,
        };
        match number.filter(|n: &f64| n.is_finite()) {
            Some(n) => self.placed(visitor.visit_f64(n)),
            None => Err(self.wrong_type("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(t) => self.placed(visitor.visit_str(t)),
            // `[2001:db8::]`: go-yaml reads an address where YAML 1.2 has a key without a value.
            Value::Map(entries)
                if let [Entry { key, node: Node { value: Value::Null, .. }, .. }] = &entries[..]
                    && key.ends_with(':') =>
            {
                self.placed(visitor.visit_str(&format!("{key}:")))
            }
            _ => Err(self.wrong_type("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(items) => self.placed(visitor.visit_seq(Items { of: self, items, next: 0 })),
            _ => Err(self.wrong_type("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => {
                let fields = Fields { of: self, entries, next: 0, known: None, current: String::new() };
                self.placed(visitor.visit_map(fields))
            }
            _ => Err(self.wrong_type("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => {
                let known = Some(Known { of: name, fields: known });
                self.placed(visitor.visit_map(Fields { of: self, entries, next: 0, known, current: String::new() }))
            }
            _ => Err(self.wrong_type("an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match &self.node.value {
            Value::Text(t) => variants.iter().find(|v| *v == t),
            Value::Int(i) => usize::try_from(*i).ok().and_then(|i| variants.get(i)),
            _ => return Err(self.wrong_type("the name of a value")),
        };
        match variant {
            Some(variant) => self.placed(visitor.visit_enum(Variant(variant))),
            None => {
                let mut error = Error::new(format!("{} is not one of {}", self.node.describe(), variants.join(", ")));
                error.suggestion = self.node.text().and_then(|t| meant(t, variants.iter().copied())).map(Into::into);
                Err(error.at(self.path, self.node.line))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct tuple tuple_struct identifier i128 u128 }
}

struct Items<'a> {
    of: NodeDeserializer<'a>,
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.items.get(self.next) {
            let path = self.of.path.index(self.next);
            self.next += 1;
            if self.of.context.is_refused(&path) {
                continue;
            }
            let element = seed.deserialize(NodeDeserializer { node, path: &path, context: self.of.context });
            return element.map(Some).map_err(|e| e.at(&path, node.line));
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Known {
    of: &'static str,
    fields: &'static [&'static str],
}

/// The fields of a struct (`known`: names are checked, null means absent) or the entries of a map.
struct Fields<'a> {
    of: NodeDeserializer<'a>,
    entries: &'a [Entry],
    next: usize,
    known: Option<Known>,
    current: String,
}

impl Fields<'_> {
    /// The name under which the struct knows this entry; reports an entry that it does not know.
    fn resolve(&self, known: &Known, entry: &Entry) -> Option<String> {
        if known.fields.contains(&entry.key.as_str()) {
            return Some(entry.key.clone());
        }
        let camel = camel_case(&entry.key);
        if self.of.context.snake_case && known.fields.contains(&camel.as_str()) {
            return Some(camel);
        }
        let path = self.of.path.field(&entry.key).to_string();
        let finding = match removed::note(known.of, &camel) {
            Some(note) => {
                Finding { severity: Severity::Warning, line: entry.line, path, message: note.into(), suggestion: None }
            }
            None => {
                let suggestion = nearest(&entry.key, known.fields.iter().copied()).map(str::to_owned);
                let mut message = String::from("unknown field");
                if suggestion.is_none() && known.fields.len() <= 12 {
                    message = format!("unknown field; known here: {}", known.fields.join(", "));
                }
                Finding { severity: Severity::Error, line: entry.line, path, message, suggestion }
            }
        };
        self.of.context.findings.borrow_mut().push(finding);
        None
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.entries.get(self.next) {
            self.current = match &self.known {
                None => entry.key.clone(),
                Some(known) => match self.resolve(known, entry) {
                    Some(name) if !matches!(entry.node.value, Value::Null) => name,
                    _ => {
                        self.next += 1;
                        continue;
                    }
                },
            };
            let path = self.of.path.field(&self.current);
            if self.of.context.is_refused(&path) {
                self.next += 1;
                continue;
            }
            let key = seed.deserialize(KeyDeserializer(&self.current)).map_err(|e| e.at(&path, entry.line))?;
            return Ok(Some(key));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.entries.get(self.next) else {
            return Err(Error::new("a value without a key".into()));
        };
        self.next += 1;
        let path = self.of.path.field(&self.current);
        let value = seed.deserialize(NodeDeserializer { node: &entry.node, path: &path, context: self.of.context });
        value.map_err(|e| e.at(&path, entry.node.line))
    }
}

/// Reads a map key: a string, or a number written as one.
struct KeyDeserializer<'a>(&'a str);

macro_rules! number_keys {
    ($($method:ident => $visit:ident as $type:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(Error::new(format!("expected a number as key, found {:?}", self.0))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for KeyDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    number_keys! {
        deserialize_u32 => visit_u32 as u32;
        deserialize_i32 => visit_i32 as i32;
    }

    forward_to_deserialize_any! {
        bool i8 i16 i64 u8 u16 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any i128 u128
    }
}

struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        seed.deserialize(KeyDeserializer(self.0)).map(|v| (v, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::new("this value has no content".into()))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::new("this value has no content".into()))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(Error::new("this value has no content".into()))
    }
}
