//! `?mask=`: which fields of a message are kept, as a protobuf `FieldMask` over its JSON.

use serde_json::{Map, Value};
use std::fmt;

pub struct Mask {
    text: String,
    paths: Vec<Vec<String>>,
}

impl Mask {
    /// Paths with commas between them, of field names with dots between them.
    pub fn parse(text: &str) -> Self {
        let path = |path: &str| path.split('.').map(str::to_owned).collect();
        Self { text: text.to_owned(), paths: text.split(',').map(path).collect() }
    }

    /// The fields that the mask names; none if it names none of them. The type of a message stays.
    pub fn apply(&self, value: &Value) -> Option<Value> {
        let paths: Vec<&[String]> = self.paths.iter().map(Vec::as_slice).collect();
        kept(value, &paths)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn kept(value: &Value, paths: &[&[String]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::Array(items) => {
            let items: Vec<Value> = items.iter().filter_map(|item| kept(item, paths)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(fields) => {
            let mut found = Map::new();
            for (name, value) in fields {
                let below: Vec<&[String]> =
                    paths.iter().filter(|path| path[0] == *name).map(|path| &path[1..]).collect();
                if !below.is_empty()
                    && let Some(value) = kept(value, &below)
                {
                    found.insert(name.clone(), value);
                }
            }
            if found.is_empty() {
                return None;
            }
            if let Some(kind) = fields.get("@type") {
                found.insert("@type".to_owned(), kind.clone());
            }
            Some(Value::Object(found))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mask_keeps_what_it_names_and_the_types() {
        let value = json!({ "@type": "T", "a": { "@type": "U", "b": 1, "c": 2 }, "d": [{ "e": 1, "f": 2 }, { "f": 3 }], "g": 4 });
        let check =
            |mask: &str, expected: Option<Value>| assert_eq!(Mask::parse(mask).apply(&value), expected, "{mask}");
        check("a.b", Some(json!({ "@type": "T", "a": { "@type": "U", "b": 1 } })));
        check("a.b,g", Some(json!({ "@type": "T", "a": { "@type": "U", "b": 1 }, "g": 4 })));
        check("a", Some(json!({ "@type": "T", "a": { "@type": "U", "b": 1, "c": 2 } })));
        check("d.f", Some(json!({ "@type": "T", "d": [{ "f": 2 }, { "f": 3 }] })));
        check("bogus", None);
        check("a.bogus", None);
        check("g.below", None);
    }
}
