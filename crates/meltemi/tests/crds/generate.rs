//! Documents made from a schema: some right, most of them wrong in a place or two.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Texts that some field or another looks at.
const TEXTS: &[&str] = &[
    "",
    "*",
    "*.b",
    "/a",
    "1.2.3.4",
    "10.0.0.0/8",
    "2001:db8::/32",
    "2026-01-02T03:04:05Z",
    "HTTP",
    "NONE",
    "YQ==",
    "YQ",
    "a",
    "a b",
    "a*",
    "a-b.c/d",
    "a.b.c",
    "a/b",
    "file:///a",
    "ftp://a",
    "http://a.b:80/c?d",
    "http://a b/",
    "https://[::1]/",
    "mailto:a",
    "oci://a.b/c:v1",
    "unix:///a",
    "unix:///a/",
    "unix://@a",
    "unix://a",
    "äöü",
];
const DURATIONS: &[&str] = &["1s", "0s", "1ms", "999us", "1h30m", "0.5s", "-1s", "1", "1d", "", "2562048h"];
const KEYS: &[&str] = &["a", "app", "80", "0", "65536", "a*", "", "x.y/z", "a-b"];
const NUMBERS: &[i64] =
    &[0, 1, 2, 5, 50, 80, 100, 101, 200, 599, 600, 65535, 65536, -1, 4_294_967_295, 4_294_967_296, i64::MAX];

pub struct Generator {
    random: StdRng,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// A document's content by the schema of `spec`, with up to two places spoilt.
    pub fn document(&mut self, schema: &Value) -> Value {
        let mut spec = self.value(schema, 0);
        for _ in 0..self.random.random_range(0..3) {
            self.spoil(&mut spec);
        }
        spec
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("not empty").clone()
    }

    fn value(&mut self, schema: &Value, depth: u32) -> Value {
        if let Some(choices) = schema["enum"].as_array() {
            return self.one(choices);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let most = if depth > 5 { 1 } else { 2 };
                let count = self.random.random_range(0..=most);
                (0..count).map(|_| self.value(&schema["items"], depth + 1)).collect()
            }
            Some("string") => self.text(schema),
            Some("integer") => json!(self.one(NUMBERS)),
            Some("number") => json!(self.one(&[0.0, 0.5, 50.0, 100.0, 100.5, -1.0])),
            Some("boolean") => json!(self.chance(50)),
            _ => json!({"a": [1, "b", null]}),
        }
    }

    fn object(&mut self, schema: &Value, depth: u32) -> Value {
        let Some(properties) = schema["properties"].as_object() else {
            let count = self.random.random_range(0..=2);
            let of = &schema["additionalProperties"];
            let entries = (0..count).map(|_| (self.one(KEYS).to_owned(), self.value(of, depth + 1)));
            return Value::Object(entries.collect());
        };
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // Few of many fields: what is wrong in one place hides what is wrong in others.
        let share = (300 / properties.len().max(1)).clamp(8, 60) as u32;
        let mut fields = Map::new();
        for (name, inner) in properties {
            if required.contains(&name.as_str()) || self.chance(share) {
                fields.insert(name.clone(), self.value(inner, depth + 1));
            }
        }
        Value::Object(fields)
    }

    fn text(&mut self, schema: &Value) -> Value {
        if schema.to_string().contains("duration(self)") && self.chance(90) {
            let share = if self.chance(70) { &DURATIONS[..1] } else { DURATIONS };
            return json!(self.one(share));
        }
        let plain = if self.chance(50) { "a" } else { self.one(TEXTS) };
        json!(plain)
    }

    /// Changes a place: its type, its size, or whether it is there.
    fn spoil(&mut self, value: &mut Value) {
        let deeper = match value {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if deeper > 0 && self.chance(85) {
            let at = self.random.random_range(0..deeper);
            let inner = match value {
                Value::Object(fields) => fields.values_mut().nth(at),
                Value::Array(items) => items.get_mut(at),
                _ => None,
            };
            return self.spoil(inner.expect("there"));
        }
        match (self.random.random_range(0..8), value) {
            (0, value) => *value = Value::Null,
            (1, Value::Object(fields)) => {
                let first = fields.keys().next().cloned();
                first.map(|name| fields.remove(&name));
            }
            (1, Value::Array(items)) => items.clear(),
            (2, Value::Array(items)) => items.extend(items.first().cloned()),
            (2, Value::Object(fields)) => drop(fields.insert("unknownField".to_owned(), json!(1))),
            (3, Value::Array(items)) => {
                let first = items.first().cloned().unwrap_or(json!("a"));
                items.resize(300, first);
            }
            (3, Value::String(text)) => *text = "a".repeat(400),
            (4, Value::Number(number)) => *number = (-1).into(),
            (5, value) => *value = json!({}),
            (6, value) => *value = json!([]),
            (_, value) => *value = self.one(&[json!("text"), json!(7), json!(1.5), json!(true), json!({"a": 1})]),
        }
    }
}
