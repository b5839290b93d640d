//! What a type can hold, asked of the type itself: its `Deserialize` is run against a source that says yes to every
//! field and keeps what it was asked for.
//!
//! Owns the description, and no meaning: the support table and the CRDs are made of it, so neither can fall behind the
//! types. Costs one pass over the type.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::kind::Kind;
use crate::object::Spec;
use crate::wire::{BYTES, DURATION};

/// What a value may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Anything at all.
    #[default]
    Any,
    /// Anything at all, and it is not kept.
    Ignored,
    Bool,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Double,
    Text,
    Duration,
    /// Base64.
    Bytes,
    /// One of these names.
    Enum(&'static [&'static str]),
    /// Present or not, which are two things to say.
    Optional(Box<Shape>),
    List(Box<Shape>),
    Map(Box<Shape>),
    Struct(Struct),
}

/// A struct of named fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Struct {
    /// The name of the Rust type.
    pub name: &'static str,
    /// By their names on the wire, in the order of the type.
    pub fields: Vec<(&'static str, Shape)>,
}

impl Shape {
    /// The content of a kind's `spec`, or its whole document.
    pub fn of_kind(kind: Kind) -> Self {
        Self::probed(|probe| {
            // What cannot be read from the probe ends there; tests see that nothing is missing.
            let _ = Spec::deserialize(kind, probe);
        })
    }

    /// A type.
    pub fn of_type<T: for<'de> Deserialize<'de>>() -> Self {
        Self::probed(|probe| {
            let _ = T::deserialize(probe);
        })
    }

    fn probed(read: impl FnOnce(Probe<'_>)) -> Self {
        let found = RefCell::default();
        read(Probe { found: &found, depth: 0 });
        found.into_inner()
    }
}

/// A string that is also a duration and base64.
const TEXT: &str = "00ms";

/// Deeper types would be recursive; there are none.
const MAX_DEPTH: usize = 32;

/// A value of whatever type is asked for.
#[derive(Clone, Copy)]
struct Probe<'a> {
    found: &'a RefCell<Shape>,
    depth: usize,
}

impl<'a> Probe<'a> {
    fn is(self, shape: Shape) {
        self.found.replace(shape);
    }

    /// Runs a reading of what lies within, and returns its result and what was asked for.
    fn inner<T>(self, read: impl FnOnce(Probe<'_>) -> T) -> (T, Box<Shape>) {
        let found = RefCell::default();
        let result = read(Probe { found: &found, depth: self.depth + 1 });
        (result, Box::new(found.into_inner()))
    }
}

#[derive(Debug)]
pub(crate) struct ProbeError(String);

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

macro_rules! scalars {
    ($($method:ident $shape:ident $visit:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
            self.is(Shape::$shape);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    scalars! {
        deserialize_any Any visit_str TEXT;
        deserialize_bool Bool visit_bool false;
        deserialize_i32 Int32 visit_i32 0;
        deserialize_i64 Int64 visit_i64 0;
        deserialize_u32 UInt32 visit_u32 0;
        deserialize_u64 UInt64 visit_u64 0;
        deserialize_f64 Double visit_f64 0.0;
        deserialize_str Text visit_str TEXT;
        deserialize_string Text visit_str TEXT;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let (value, inner) = self.inner(|probe| visitor.visit_some(probe));
        self.is(Shape::Optional(inner));
        value
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let value = visitor.visit_newtype_struct(self);
        match name {
            DURATION => self.is(Shape::Duration),
            BYTES => self.is(Shape::Bytes),
            _ => {}
        }
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let (value, inner) = self.inner(|of| visitor.visit_seq(Once { of, done: false }));
        self.is(Shape::List(inner));
        value
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let (value, inner) = self.inner(|of| visitor.visit_map(Once { of, done: false }));
        self.is(Shape::Map(inner));
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let names = if self.depth < MAX_DEPTH { fields } else { &[] };
        let found = RefCell::default();
        let value = visitor.visit_map(EachField { names, next: 0, depth: self.depth, found: &found });
        self.is(Shape::Struct(Struct { name, fields: found.into_inner() }));
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.is(Shape::Enum(variants));
        visitor.visit_enum(First(variants.first().copied().unwrap_or_default()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.is(Shape::Ignored);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier i128 u128
    }
}

struct EachField<'a> {
    names: &'static [&'static str],
    next: usize,
    depth: usize,
    found: &'a RefCell<Vec<(&'static str, Shape)>>,
}

impl<'de> MapAccess<'de> for EachField<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        // Aliases follow the name that they stand for and contain an underscore.
        while self.names.get(self.next).is_some_and(|f| f.contains('_')) {
            self.next += 1;
        }
        self.names.get(self.next).map(|field| seed.deserialize(Word(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        let name = self.names.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        let found = RefCell::default();
        let value = seed.deserialize(Probe { found: &found, depth: self.depth + 1 });
        self.found.borrow_mut().push((name, found.into_inner()));
        value
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
        seed.deserialize(self.of).map(Some)
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
        seed.deserialize(self.of)
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
