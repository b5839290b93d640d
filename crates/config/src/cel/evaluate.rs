//! What an expression comes to.
//!
//! `&&`, `||`, `all` and `exists` take no heed of an error where the other side decides, as the language wants it. Each
//! step is counted against the budget, and so is what functions make.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use regex::Regex;

use super::functions;
use super::parser::{Comprehension, Expr, Macro, Operator};
use super::value::{Key, Value};

/// Why an expression comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

pub(super) type Outcome = Result<Value, Failure>;

/// How much may be done for one document, and the patterns that were compiled for it.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: Cell<u64>,
    patterns: RefCell<HashMap<String, Regex>>,
}

/// Of one document: far more than any rule of ours takes, and less than a second.
const MAX_STEPS: u64 = 10_000_000;
/// Of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Patterns of one document.
const MAX_PATTERNS: usize = 1_000;

impl Default for Budget {
    fn default() -> Self {
        Self { steps: Cell::new(MAX_STEPS), patterns: RefCell::default() }
    }
}

impl Budget {
    /// Counts work, in values or bytes.
    pub fn spend(&self, steps: usize) -> Result<(), Failure> {
        let left = self.steps.get().checked_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        self.steps.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| "the rules cost more than a document may".into())
    }

    /// A regular expression, compiled once.
    pub fn pattern<T>(&self, text: &str, used: impl FnOnce(&Regex) -> T) -> Result<T, Failure> {
        let mut patterns = self.patterns.borrow_mut();
        if !patterns.contains_key(text) {
            if patterns.len() >= MAX_PATTERNS {
                return Err("too many regular expressions".into());
            }
            let built = regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
            let built = built.map_err(|_| Failure(format!("{text:?} is no regular expression")))?;
            patterns.insert(text.to_owned(), built);
        }
        patterns.get(text).map(used).ok_or_else(|| "no such pattern".into())
    }
}

/// An evaluation: the variables in force, the innermost last.
pub(super) struct Evaluation<'a> {
    variables: Vec<(&'a str, Value)>,
    pub budget: &'a Budget,
}

pub(super) fn no_overload(function: &str, arguments: &[&Value]) -> Failure {
    let kinds: Vec<_> = arguments.iter().map(|value| value.kind()).collect();
    Failure(format!("no such overload: {function}({})", kinds.join(", ")))
}

impl<'a> Evaluation<'a> {
    pub fn new(variables: &[(&'a str, Value)], budget: &'a Budget) -> Self {
        Self { variables: variables.to_vec(), budget }
    }

    pub fn value(&mut self, expr: &'a Expr) -> Outcome {
        self.budget.spend(1)?;
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Name(name) => self.variable(name),
            Expr::Select(of, field) => {
                let of = self.value(of)?;
                selected(&of, field)?.ok_or_else(|| Failure(format!("no such key: {field}")))
            }
            Expr::Has(of, field) => {
                let of = self.value(of)?;
                Ok(Value::Bool(selected(&of, field)?.is_some()))
            }
            Expr::Index(of, at) => {
                let (of, at) = (self.value(of)?, self.value(at)?);
                indexed(&of, &at)
            }
            Expr::Call { function, receiver, arguments } => self.call(function, receiver.as_deref(), arguments),
            Expr::List(items) => items.iter().map(|item| self.value(item)).collect::<Result<_, _>>().map(Value::List),
            Expr::Map(entries) => self.map(entries),
            Expr::Message => Err("messages cannot be made here".into()),
            Expr::Or(parts) => self.joined(parts, true),
            Expr::And(parts) => self.joined(parts, false),
            Expr::Not(of) => match self.value(of)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(no_overload("!_", &[&other])),
            },
            Expr::Negative(of) => negative(&self.value(of)?),
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*operator, &left, &right)
            }
            Expr::Choice(parts) => self.choice(parts),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn variable(&self, name: &str) -> Outcome {
        let found = self.variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        found.or_else(|| Value::type_named(name)).ok_or_else(|| Failure(format!("no such attribute: {name}")))
    }

    fn call(&mut self, function: &str, receiver: Option<&'a Expr>, arguments: &'a [Expr]) -> Outcome {
        let all: Vec<_> =
            receiver.into_iter().chain(arguments).map(|argument| self.value(argument)).collect::<Result<_, _>>()?;
        functions::call(function, receiver.is_some(), &all, self.budget)
    }

    fn map(&mut self, entries: &'a [(Expr, Expr)]) -> Outcome {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let key = self.value(key)?;
            let key = key.key().ok_or_else(|| Failure(format!("unsupported key type: {}", key.kind())))?;
            if map.insert(key, self.value(value)?).is_some() {
                return Err("a key stands twice".into());
            }
        }
        Ok(Value::Map(map.into()))
    }

    /// `||` where `decisive` is true, `&&` where it is false.
    fn joined(&mut self, parts: &'a [Expr], decisive: bool) -> Outcome {
        let mut failure = None;
        for part in parts {
            match self.value(part) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(value)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => failure = failure.or(Some(no_overload(if decisive { "_||_" } else { "_&&_" }, &[&other]))),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn choice(&mut self, [condition, then, other]: &'a [Expr; 3]) -> Outcome {
        match self.value(condition)? {
            Value::Bool(true) => self.value(then),
            Value::Bool(false) => self.value(other),
            value => Err(no_overload("_?_:_", &[&value])),
        }
    }

    fn binary(&self, operator: Operator, left: &Value, right: &Value) -> Outcome {
        let ordered = |symbol, fits: fn(std::cmp::Ordering) -> bool| match left.compare(right) {
            Some(order) => Ok(Value::Bool(fits(order))),
            None if matches!((left, right), (Value::Double(_), Value::Double(_))) => Ok(Value::Bool(false)),
            None => Err(no_overload(symbol, &[left, right])),
        };
        match operator {
            Operator::Less => ordered("_<_", std::cmp::Ordering::is_lt),
            Operator::LessOrEqual => ordered("_<=_", std::cmp::Ordering::is_le),
            Operator::Greater => ordered("_>_", std::cmp::Ordering::is_gt),
            Operator::GreaterOrEqual => ordered("_>=_", std::cmp::Ordering::is_ge),
            Operator::Equal => Ok(Value::Bool(left.equals(right))),
            Operator::Unequal => Ok(Value::Bool(!left.equals(right))),
            Operator::In => self.contains(left, right),
            operator => functions::arithmetic(operator, left, right, self.budget),
        }
    }

    fn contains(&self, item: &Value, of: &Value) -> Outcome {
        match of {
            Value::List(items) => {
                self.budget.spend(items.len())?;
                Ok(Value::Bool(items.iter().any(|other| other.equals(item))))
            }
            Value::Map(map) => Ok(Value::Bool(item.key().is_some_and(|key| map.contains_key(&key)))),
            other => Err(no_overload("@in", &[item, other])),
        }
    }

    fn comprehension(&mut self, of: &'a Comprehension) -> Outcome {
        let over = match self.value(&of.over)? {
            Value::List(items) => items,
            Value::Map(map) => map.keys().map(Key::value).collect(),
            other => return Err(no_overload("comprehension", &[&other])),
        };
        let depth = self.variables.len();
        let mut found = Found::default();
        for item in over.iter() {
            self.variables.push((&of.variable, item.clone()));
            let more = self.element(of, item, &mut found);
            self.variables.truncate(depth);
            if !more? {
                break;
            }
        }
        found.outcome(of.what)
    }

    /// Looks at one element; false if no other one counts.
    fn element(&mut self, of: &'a Comprehension, item: &Value, found: &mut Found) -> Result<bool, Failure> {
        let [condition, .., last] = &of.body[..] else {
            return self.single(of.what, of.body.first(), item, found);
        };
        if self.condition(condition)? {
            found.kept.push(self.value(last)?);
        }
        Ok(true)
    }

    fn single(
        &mut self,
        what: Macro,
        body: Option<&'a Expr>,
        item: &Value,
        found: &mut Found,
    ) -> Result<bool, Failure> {
        let Some(body) = body else { return Err("a macro without a body".into()) };
        match what {
            Macro::Map => found.kept.push(self.value(body)?),
            Macro::Filter if self.condition(body)? => found.kept.push(item.clone()),
            Macro::Filter => {}
            Macro::ExistsOne => found.count += usize::from(self.condition(body)?),
            Macro::All | Macro::Exists => match self.condition(body) {
                Ok(value) if value == (what == Macro::Exists) => {
                    found.decided = true;
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error) => found.failure = found.failure.take().or(Some(error)),
            },
        }
        Ok(true)
    }

    fn condition(&mut self, expr: &'a Expr) -> Result<bool, Failure> {
        match self.value(expr)? {
            Value::Bool(value) => Ok(value),
            other => Err(no_overload("condition", &[&other])),
        }
    }
}

/// What a comprehension has found so far.
#[derive(Default)]
struct Found {
    kept: Vec<Value>,
    count: usize,
    decided: bool,
    failure: Option<Failure>,
}

impl Found {
    fn outcome(self, what: Macro) -> Outcome {
        match what {
            Macro::Map | Macro::Filter => Ok(Value::List(self.kept.into())),
            Macro::ExistsOne => Ok(Value::Bool(self.count == 1)),
            Macro::All | Macro::Exists if self.decided => Ok(Value::Bool(what == Macro::Exists)),
            Macro::All | Macro::Exists => self.failure.map_or(Ok(Value::Bool(what == Macro::All)), Err),
        }
    }
}

fn selected(of: &Value, field: &str) -> Result<Option<Value>, Failure> {
    match of {
        Value::Map(map) => Ok(map.get(&Key::from(field)).cloned()),
        other => Err(no_overload("select", &[other])),
    }
}

fn indexed(of: &Value, at: &Value) -> Outcome {
    match (of, at) {
        (Value::List(items), at) => {
            let position = match at {
                Value::Int(at) => usize::try_from(*at).ok(),
                Value::UInt(at) => usize::try_from(*at).ok(),
                _ => return Err(no_overload("_[_]", &[of, at])),
            };
            let item = position.and_then(|position| items.get(position)).cloned();
            item.ok_or_else(|| "index out of bounds".into())
        }
        (Value::Map(map), at) => {
            let key = at.key().ok_or_else(|| no_overload("_[_]", &[of, at]))?;
            map.get(&key).cloned().ok_or_else(|| Failure(format!("no such key: {}", functions::shown(at))))
        }
        _ => Err(no_overload("_[_]", &[of, at])),
    }
}

fn negative(of: &Value) -> Outcome {
    match of {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| "integer overflow".into()),
        Value::Double(value) => Ok(Value::Double(-value)),
        other => Err(no_overload("-_", &[other])),
    }
}
