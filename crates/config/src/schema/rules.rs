//! Rules in CEL (`x-kubernetes-validations`) and the document as they see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Reason, Refusal, Schema, Type};
use crate::cel::{self, Budget, Expression, Key, Value};
use crate::path::Path;

/// A rule, and what is said where it does not hold.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    text: String,
    expression: Expression,
    message: Option<String>,
    /// Makes the message; where it cannot, `message` is used.
    dynamic: Option<Expression>,
    /// What follows the path of the value.
    field: String,
    reason: Reason,
}

impl Rule {
    pub fn read(json: &Json) -> Result<Self, String> {
        let fields = json.as_object().ok_or("a rule is an object")?;
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(|text| text.trim().to_owned());
        let known = ["rule", "message", "messageExpression", "fieldPath", "reason", "optionalOldSelf"];
        if let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{unknown}: a keyword that is not known"));
        }
        if json.get("optionalOldSelf").is_some_and(|value| value == true) {
            return Err("optionalOldSelf: such rules are not evaluated".to_owned());
        }
        let rule = text("rule").ok_or("rule: required")?;
        Ok(Self {
            expression: expression("rule", &rule)?,
            dynamic: text("messageExpression").map(|text| expression("messageExpression", &text)).transpose()?,
            text: rule,
            message: text("message").filter(|text| !text.is_empty()),
            field: text("fieldPath").unwrap_or_default(),
            reason: match text("reason").as_deref() {
                None | Some("FieldValueInvalid") => Reason::Invalid,
                Some("FieldValueForbidden") => Reason::Forbidden,
                Some("FieldValueRequired") => Reason::Required,
                Some("FieldValueDuplicate") => Reason::Duplicate,
                Some(other) => return Err(format!("reason: {other:?} is not known")),
            },
        })
    }

    fn check(&self, value: &Value, at: &Path<'_>, budget: &Budget) -> Option<Refusal> {
        let variables = [("self", value.clone())];
        let shown = self.message.as_ref().unwrap_or(&self.text);
        let refuse = |reason, field: &str, detail| Refusal { path: format!("{at}{field}"), reason, detail };
        match self.expression.evaluate(&variables, budget) {
            Ok(Value::Bool(true)) => None,
            Err(failure) => Some(refuse(Reason::Invalid, "", format!("{failure} evaluating rule: {shown}"))),
            Ok(_) => {
                let made = self.dynamic.as_ref().and_then(|dynamic| dynamic.evaluate(&variables, budget).ok());
                let made = match made {
                    Some(Value::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                        Some(text.trim().to_owned())
                    }
                    _ => self.message.clone(),
                };
                Some(refuse(self.reason, &self.field, made.unwrap_or_else(|| format!("failed rule: {}", self.text))))
            }
        }
    }
}

fn expression(keyword: &str, text: &str) -> Result<Expression, String> {
    let expression = Expression::parse(text).map_err(|error| format!("{keyword}: {error}"))?;
    match expression.unknown(&["self", "oldSelf"]) {
        Some(unknown) => Err(format!("{keyword}: {unknown}")),
        None => Ok(expression),
    }
}

impl Schema {
    /// Evaluates the rules on a document that has the right structure.
    pub(super) fn check_rules(&self, document: &Json, out: &mut Vec<Refusal>) {
        let budget = Budget::default();
        let value = self.value(document, true);
        self.apply(&value, &Path::root(""), &budget, out);
    }

    fn apply(&self, value: &Value, at: &Path<'_>, budget: &Budget, out: &mut Vec<Refusal>) {
        // A null is judged by what holds it.
        if matches!(value, Value::Null) {
            return;
        }
        let rules = self.rules.iter().filter(|rule| !rule.expression.names("oldSelf"));
        out.extend(rules.filter_map(|rule| rule.check(value, at, budget)));
        for schema in &self.all_of {
            schema.apply(value, at, budget, out);
        }
        match value {
            Value::List(items) => {
                if let Some(schema) = &self.items {
                    items.iter().enumerate().for_each(|(i, item)| schema.apply(item, &at.index(i), budget, out));
                }
            }
            Value::Map(fields) => self.apply_fields(fields, at, budget, out),
            _ => {}
        }
    }

    fn apply_fields(&self, fields: &BTreeMap<Key, Value>, at: &Path<'_>, budget: &Budget, out: &mut Vec<Refusal>) {
        for (name, schema) in &self.properties {
            if let Some(inner) = fields.get(&Key::from(&*escaped(name))) {
                schema.apply(inner, &at.field(name), budget, out);
            }
        }
        let Some(schema) = self.entries.as_deref().filter(|_| self.properties.is_empty()) else { return };
        for (key, inner) in fields {
            if let Key::Text(name) = key {
                schema.apply(inner, &at.field(name), budget, out);
            }
        }
    }

    /// A value as rules see it: by its schema, which says more than JSON does.
    fn value(&self, json: &Json, is_resource: bool) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) if self.of != Some(Type::Number) => Value::Int(number),
                _ => Value::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => {
                let any = Schema::default();
                let schema = self.items.as_deref().unwrap_or(&any);
                Value::list(items.iter().map(|item| schema.value(item, false)))
            }
            Json::Object(fields) => {
                let named = !self.properties.is_empty();
                let mut known = BTreeMap::new();
                for (name, inner) in fields {
                    let value = match self.within(name) {
                        Some(schema) => schema.value(inner, false),
                        None if is_resource || self.embedded || !named => Schema::default().value(inner, false),
                        // Kept, and out of the reach of rules.
                        None => continue,
                    };
                    let key = if named { escaped(name) } else { name.clone() };
                    known.insert(Key::from(&*key), value);
                }
                Value::Map(Arc::new(known))
            }
        }
    }

    fn text(&self, text: &str) -> Value {
        let typed = match self.checks.format.as_deref().filter(|_| self.of == Some(Type::String)) {
            Some("duration") => cel::duration(text).ok().map(Value::Duration),
            Some("date-time") => text.parse().ok().map(Value::Timestamp),
            Some("date") => format!("{text}T00:00:00Z").parse().ok().map(Value::Timestamp),
            Some("byte") => crate::wire::base64_decode(text).map(|bytes| Value::Bytes(bytes.into())),
            _ => None,
        };
        typed.unwrap_or_else(|| Value::text(text))
    }
}

/// What stands for characters that no name of the language has.
const ESCAPES: [(&str, &str); 4] = [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];
/// Words of the language that are names of fields.
const WORDS: [&str; 16] = [
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
    "null", "true", "var",
];

fn escaped(name: &str) -> String {
    if WORDS.contains(&name) {
        return format!("__{name}__");
    }
    ESCAPES.iter().fold(name.to_owned(), |name, (plain, escape)| name.replace(plain, escape))
}
