//! Types, sizes, patterns and choices: all but rules in CEL.

use serde_json::{Map, Value};

use super::{Checks, Reason, Refusal, Schema, Type, format};
use crate::path::Path;

/// What a value is, in the words of JSON schemas.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A path and a field of it, written as `Path` does.
fn field(path: &str, name: &str) -> String {
    Path::root(path).field(name).to_string()
}

struct Found<'a> {
    path: &'a str,
    out: &'a mut Vec<Refusal>,
}

impl Found<'_> {
    fn add(&mut self, reason: Reason, detail: String) {
        self.out.push(Refusal { path: self.path.to_owned(), reason, detail });
    }

    fn invalid(&mut self, detail: String) {
        self.add(Reason::Invalid, detail);
    }
}

impl Schema {
    pub(super) fn check(&self, value: &Value, path: &str, out: &mut Vec<Refusal>) {
        let mut found = Found { path, out };
        if !self.is_of_type(value) {
            let (wanted, is) = self.words_of_type(value);
            found.add(Reason::WrongType, format!("must be of type {wanted}: {is:?}"));
        }
        if value.is_null() {
            self.checks.choice(value, &mut found);
            return;
        }
        self.logic(value, &mut found);
        self.checks.scalar(value, self.of, &mut found);
        self.checks.choice(value, &mut found);
        match value {
            Value::Array(items) => self.check_items(items, path, out),
            Value::Object(fields) => self.check_fields(fields, path, out),
            _ => {}
        }
    }

    /// The type that is wanted, and that which is found. Where a format is wanted, servers tell of formats, but for texts
    /// and lists.
    fn words_of_type(&self, value: &Value) -> (&str, &'static str) {
        match (&self.checks.format, value) {
            (Some(format), Value::Bool(_) | Value::Object(_)) => (format, ""),
            (Some(format), Value::Number(number)) => (format, if number.is_i64() { "int64" } else { "float64" }),
            _ if self.int_or_string => ("integer,string", kind_of(value)),
            _ => (self.of.map_or("", Type::as_str), kind_of(value)),
        }
    }

    fn is_of_type(&self, value: &Value) -> bool {
        let kind = kind_of(value);
        if kind == "null" {
            return self.nullable || (self.of.is_none() && !self.int_or_string);
        }
        if self.int_or_string {
            return matches!(kind, "integer" | "string");
        }
        let Some(of) = self.of else { return true };
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() < 9.0e15);
        of.as_str() == kind
            || (of == Type::Number && kind == "integer")
            || (of == Type::Integer && kind == "number" && whole)
            // A list passes for a string that has a format: API servers look no closer.
            || (of == Type::String && kind == "array" && self.checks.format.as_deref().is_some_and(format::is_known))
    }

    fn logic(&self, value: &Value, found: &mut Found<'_>) {
        let fits = |schema: &Schema| {
            let mut refusals = Vec::new();
            schema.check(value, "", &mut refusals);
            refusals.is_empty()
        };
        if !self.any_of.is_empty() && !self.any_of.iter().any(fits) {
            found.invalid("must validate at least one schema (anyOf)".to_owned());
        }
        let valid = self.one_of.iter().filter(|schema| fits(schema)).count();
        if !self.one_of.is_empty() && valid != 1 {
            let count = if valid == 0 { "none valid".to_owned() } else { format!("{valid} valid alternatives") };
            found.invalid(format!("must validate one and only one schema (oneOf). Found {count}"));
        }
        for schema in &self.all_of {
            let path = found.path;
            schema.check(value, path, found.out);
        }
        if !self.all_of.iter().all(fits) {
            let none = if self.all_of.iter().any(fits) { "" } else { ". None validated" };
            found.invalid(format!("must validate all the schemas (allOf){none}"));
        }
        if self.not.as_deref().is_some_and(fits) {
            found.invalid("must not validate the schema (not)".to_owned());
        }
    }

    fn check_items(&self, items: &[Value], path: &str, out: &mut Vec<Refusal>) {
        let mut found = Found { path, out };
        let (least, most) = self.checks.sizes.items;
        if let Some(least) = least.filter(|least| items.len() < *least) {
            found.invalid(format!("should have at least {least} items"));
        }
        if let Some(most) = most.filter(|most| items.len() > *most) {
            found.add(Reason::TooMany, format!("{}: must have at most {most} items", items.len()));
        }
        if self.checks.unique && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
            found.invalid("shouldn't contain duplicates".to_owned());
        }
        if let Some(schema) = &self.items {
            for (i, item) in items.iter().enumerate() {
                schema.check(item, &format!("{path}[{i}]"), out);
            }
        }
    }

    fn check_fields(&self, fields: &Map<String, Value>, path: &str, out: &mut Vec<Refusal>) {
        let mut found = Found { path, out };
        let (least, most) = self.checks.sizes.properties;
        if let Some(least) = least.filter(|least| fields.len() < *least) {
            found.invalid(format!("should have at least {least} properties"));
        }
        if let Some(most) = most.filter(|most| fields.len() > *most) {
            found.add(Reason::TooMany, format!("{}: must have at most {most} items", fields.len()));
        }
        for name in self.checks.required.iter().filter(|name| !fields.contains_key(name.as_str())) {
            out.push(Refusal { path: field(path, name), reason: Reason::Required, detail: String::new() });
        }
        for (name, inner) in fields {
            if let Some(schema) = self.within(name) {
                schema.check(inner, &field(path, name), out);
            }
        }
    }
}

impl Checks {
    fn scalar(&self, value: &Value, of: Option<Type>, found: &mut Found<'_>) {
        match value {
            Value::String(text) => self.text(text, found),
            Value::Number(number) => {
                if let Some(name) = out_of_range(number, of, self.format.as_deref()) {
                    found.invalid(format!("Checked value must be of type {name}"));
                }
                self.number(number.as_f64().unwrap_or_default(), found);
            }
            _ => {}
        }
    }

    /// Of length and pattern, the first that is wrong is told.
    fn text(&self, text: &str, found: &mut Found<'_>) {
        let (least, most) = self.sizes.characters;
        let length = text.chars().count();
        if let Some(most) = most.filter(|most| length > *most) {
            found.add(Reason::TooLong, format!("may not be more than {most} bytes"));
        } else if let Some(least) = least.filter(|least| length < *least) {
            found.invalid(format!("should be at least {least} chars long"));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            found.invalid(format!("{text:?}: should match '{pattern}'"));
        }
        if let Some(name) = self.format.as_deref().filter(|name| !format::fits(name, text)) {
            found.add(Reason::WrongType, format!("must be of type {name}: {text:?}"));
        }
    }

    fn number(&self, number: f64, found: &mut Found<'_>) {
        if let Some(most) = self.most.filter(|most| number > *most || (self.below && number == *most)) {
            let or_equal = if self.below { "" } else { " or equal to" };
            found.invalid(format!("{number}: should be less than{or_equal} {most}"));
        }
        if let Some(least) = self.least.filter(|least| number < *least || (self.above && number == *least)) {
            let or_equal = if self.above { "" } else { " or equal to" };
            found.invalid(format!("{number}: should be greater than{or_equal} {least}"));
        }
        if let Some(factor) = self.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
            found.invalid(format!("{number}: should be a multiple of {factor}"));
        }
    }

    fn choice(&self, value: &Value, found: &mut Found<'_>) {
        let Some(choices) = &self.choices else { return };
        if !choices.contains(value) {
            let names: Vec<_> = choices.iter().map(Value::to_string).collect();
            found.add(Reason::Unsupported, format!("{value}: supported values: {}", names.join(", ")));
        }
    }
}

/// What a number should be, if it is too large for it or has a fraction.
fn out_of_range(number: &serde_json::Number, of: Option<Type>, format: Option<&str>) -> Option<String> {
    if of != Some(Type::Integer) {
        return None;
    }
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 9.2e18;
    let value = number.as_i64().or_else(|| number.as_f64().filter(whole).map(|number| number as i64));
    let fits = match format {
        Some("int32") => value.is_some_and(|value| i32::try_from(value).is_ok()),
        _ => value.is_some(),
    };
    let format = format.map_or(" (default format)".to_owned(), |format| format!(" with format {format}"));
    (!fits).then(|| format!("integer{format}"))
}
