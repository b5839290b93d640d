//! The leniences of protojson and Kubernetes, in one place: durations as Go writes them, doubles that can be hashed, a
//! port that is a number or a name, base64 bytes, and the two macros from which every document type is made.
//!
//! Owns no document type and never logs a value. Costs nothing at run time beyond the parse itself.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Every string of a document. Cheap to clone into the model.
pub type Str = std::sync::Arc<str>;

/// True for the value that protojson leaves out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares document structs: camelCase on the wire, every field optional, unknown fields refused, equality and hash.
macro_rules! message {
    ($( $(#[$meta:meta])* struct $name:ident { $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[$fmeta])* #[serde(skip_serializing_if = "crate::wire::is_default")] pub $field: $ty, )*
        }
    )*};
}

/// As `message!`, for structs whose defaults are not all zero: the caller implements `Default`, nothing is left out
/// when the value is written.
macro_rules! settings {
    ($( $(#[$meta:meta])* struct $name:ident { $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }
    )*};
}

/// Declares an enum as protobuf's: values in the order of their numbers, so that a number is accepted for a name.
macro_rules! enumeration {
    ($( $(#[$meta:meta])* enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $text:literal ),* $(,)? } )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[$vmeta])* #[serde(rename = $text)] $variant, )* }

        impl $name {
            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

pub(crate) use {enumeration, message, settings};

/// A protobuf `double` that can be compared and hashed (by its bits; -0 is stored as 0).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Double(u64);

impl Double {
    /// Wraps a number; -0 becomes 0 so that equal numbers are equal values.
    pub fn new(value: f64) -> Self {
        Self(if value == 0.0 { 0 } else { value.to_bits() })
    }

    /// The number.
    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Double {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value())
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}

/// Kubernetes' `IntOrString`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    Text(Str),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = IntOrString;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(|_| E::custom("number out of range"))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(|_| E::custom("number out of range"))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::Text(value.into()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// A field that is known and has no meaning for a mesh: accepted with any content, not kept. `config::support` lists
/// it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ignored;

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Bytes written as base64 (standard or URL alphabet, padding optional), as protojson and Kubernetes Secrets do.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Base64Bytes(pub std::sync::Arc<[u8]>);

/// Only the length is shown: it may be a key.
impl fmt::Debug for Base64Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64_encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Base64Text(text) = Base64Text::deserialize(deserializer)?;
        base64_decode(&text).map(|b| Self(b.into())).ok_or_else(|| de::Error::custom("not valid base64"))
    }
}

/// What the types of durations and bytes are called: to a description of a type they are more than strings.
pub(crate) const DURATION: &str = "DurationText";
pub(crate) const BYTES: &str = "Base64Text";

#[derive(Deserialize)]
struct DurationText(String);

#[derive(Deserialize)]
struct Base64Text(String);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let symbol = BASE64[(word >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { symbol } else { '=' });
        }
    }
    out
}

pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits, mut padded) = (0u32, 0u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let digit = match byte {
            b'=' => {
                padded += 1;
                continue;
            }
            b'-' => 62,
            b'_' => 63,
            other => BASE64.iter().position(|b| *b == other)? as u32,
        };
        if padded > 0 {
            return None;
        }
        word = (word << 6) | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    (padded <= 2 && bits < 6 && word == 0).then_some(out)
}

/// Reads a duration as Go writes it (`1m30s`, `0.5s`, `100ms`, `0`); protojson's `3.5s` is a subset. Never negative.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    if text.starts_with('-') {
        return Err("a duration cannot be negative");
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err("an empty duration; write it like 10s, 1m30s or 250ms");
    }
    let mut total = 0u128;
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or("a unit is missing; write 10s, not 10")?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err("unknown unit; use ns, us, ms, s, m or h"),
        };
        total += decimal_nanos(number, scale)?;
        rest = tail;
    }
    match u64::try_from(total) {
        Ok(nanos) if nanos <= i64::MAX as u64 => Ok(Duration::from_nanos(nanos)),
        _ => Err("duration out of range"),
    }
}

fn decimal_nanos(number: &str, scale: u128) -> Result<u128, &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return Err("not a duration; write it like 10s, 1m30s or 250ms");
    }
    let mut nanos = whole.parse::<u128>().unwrap_or(0) * scale;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        nanos += u128::from(digit - b'0') * unit;
    }
    Ok(nanos)
}

/// Writes a duration as protojson does: seconds with as many decimals as needed.
pub fn format_duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos => {
            let decimals = format!("{nanos:09}");
            format!("{}.{}s", duration.as_secs(), decimals.trim_end_matches('0'))
        }
    }
}

/// `#[serde(deserialize_with = "crate::wire::not_empty")]` for a map that is left out rather than written empty.
pub(crate) fn not_empty<'de, D, K, V>(deserializer: D) -> Result<std::collections::BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    let map = std::collections::BTreeMap::deserialize(deserializer)?;
    if map.is_empty() { Err(de::Error::custom("must have at least one element if it is there")) } else { Ok(map) }
}

/// `#[serde(with = "crate::wire::duration")]` for `Option<Duration>`.
pub(crate) mod duration {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(format_duration).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<DurationText>::deserialize(deserializer)?;
        let parse = |DurationText(t)| parse_duration(&t).map_err(|e| de::Error::custom(format_args!("{t:?}: {e}")));
        text.map(parse).transpose()
    }
}

/// `#[serde(with = "crate::wire::gateway_duration")]`: the Gateway API's `Duration` (GEP-2257), up to four whole numbers with
/// their units.
pub(crate) mod gateway_duration {
    use super::*;

    pub use super::duration::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let Some(DurationText(text)) = Option::<DurationText>::deserialize(deserializer)? else { return Ok(None) };
        let refuse = |why: &str| de::Error::custom(format_args!("{text:?}: {why}"));
        let mut rest = text.as_str();
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let after = &rest[digits..];
            let unit = ["ms", "h", "m", "s"].into_iter().find(|unit| after.starts_with(unit));
            let (1..=5, Some(unit)) = (digits, unit) else {
                return Err(refuse("up to four whole numbers of at most five digits, each with h, m, s or ms"));
            };
            rest = &after[unit.len()..];
            parts += 1;
        }
        if !(1..=4).contains(&parts) {
            return Err(refuse("a duration has one to four parts, such as 1h30m or 500ms"));
        }
        parse_duration(&text).map(Some).map_err(refuse)
    }
}

/// `#[serde(with = "crate::wire::required_duration")]` for a `Duration` with a default of its own.
pub(crate) mod required_duration {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        format_duration(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let DurationText(text) = DurationText::deserialize(deserializer)?;
        parse_duration(&text).map_err(|e| de::Error::custom(format_args!("{text:?}: {e}")))
    }
}

#[cfg(test)]
mod tests;
