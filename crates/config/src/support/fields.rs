//! Every field that a type can hold, asked of the type itself: its `Deserialize` is run against a source that says yes
//! to every field and keeps the paths.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::kind::{Kind, Shape};
use crate::object::Spec;

/// Whether the type keeps the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Used,
    NotUsed,
}

/// A string that is also a duration and base64.
const TEXT: &str = "00ms";

/// Deeper types would be recursive; there are none.
const MAX_DEPTH: usize = 32;

/// The leaves of a kind, in the order of its type.
pub(super) fn of_kind(kind: Kind) -> Vec<(String, Usage)> {
    let found = RefCell::default();
    let start = match kind.info().shape {
        Shape::Spec => "spec",
        Shape::Document => "",
    };
    let probe = Probe { path: start.into(), depth: 0, found: &found };
    // What cannot be read from the probe ends there; the test sees that nothing is missing.
    let _ = Spec::deserialize(kind, probe);
    found.into_inner()
}

/// The leaves of a type.
pub(super) fn of_type<T: for<'de> Deserialize<'de>>(start: &str) -> Vec<(String, Usage)> {
    let found = RefCell::default();
    let _ = T::deserialize(Probe { path: start.into(), depth: 0, found: &found });
    found.into_inner()
}

/// A value of whatever type is asked for.
struct Probe<'a> {
    path: String,
    depth: usize,
    found: &'a RefCell<Vec<(String, Usage)>>,
}

impl<'a> Probe<'a> {
    fn leaf(&self, usage: Usage) {
        self.found.borrow_mut().push((self.path.clone(), usage));
    }

    fn inner(&self, suffix: &str) -> Probe<'a> {
        let dot = if suffix.starts_with(['[', '{']) || self.path.is_empty() { "" } else { "." };
        Probe { path: format!("{}{dot}{suffix}", self.path), depth: self.depth + 1, found: self.found }
    }
}

#[derive(Debug)]
pub(super) struct ProbeError(String);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProbeError {}

impl de::Error for ProbeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $zero:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
            self.leaf(Usage::Used);
            visitor.$visit($zero)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.leaf(Usage::Used);
        visitor.visit_str(TEXT)
    }

    numbers! {
        deserialize_bool visit_bool false;
        deserialize_i32 visit_i32 0;
        deserialize_i64 visit_i64 0;
        deserialize_u32 visit_u32 0;
        deserialize_u64 visit_u64 0;
        deserialize_f64 visit_f64 0.0;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_seq(Once { of: self, done: false })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_map(Once { of: self, done: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        if fields.is_empty() {
            self.leaf(Usage::Used);
        }
        let fields = if self.depth < MAX_DEPTH { fields } else { &[] };
        visitor.visit_map(EachField { of: self, fields, next: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.leaf(Usage::Used);
        visitor.visit_enum(First(variants.first().copied().unwrap_or_default()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.leaf(Usage::NotUsed);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier i128 u128
    }
}

struct EachField<'a> {
    of: Probe<'a>,
    fields: &'static [&'static str],
    next: usize,
}

impl<'de> MapAccess<'de> for EachField<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        // Aliases follow the name that they stand for and contain an underscore.
        while self.fields.get(self.next).is_some_and(|f| f.contains('_')) {
            self.next += 1;
        }
        self.fields.get(self.next).map(|field| seed.deserialize(Word(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        let inner = self.of.inner(self.fields.get(self.next).copied().unwrap_or_default());
        self.next += 1;
        seed.deserialize(inner)
    }
}

/// A list or map with one element.
struct Once<'a> {
    of: Probe<'a>,
    done: bool,
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ProbeError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        seed.deserialize(self.of.inner("[]")).map(Some)
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        seed.deserialize(Word("1")).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        seed.deserialize(self.of.inner("{}"))
    }
}

/// The name of a field or variant, or the key of a map.
struct Word(&'static str);

impl<'de> Deserializer<'de> for Word {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_u32(1)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any i128 u128
    }
}

struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = ProbeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ProbeError> {
        seed.deserialize(Word(self.0)).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for First {
    type Error = ProbeError;

    fn unit_variant(self) -> Result<(), ProbeError> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, ProbeError> {
        Err(ProbeError("no content".into()))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ProbeError> {
        Err(ProbeError("no content".into()))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, ProbeError> {
        Err(ProbeError("no content".into()))
    }
}
