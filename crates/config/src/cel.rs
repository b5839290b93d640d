//! The Common Expression Language, as API servers know it: the rules of definitions, and the filters of access logs.
//!
//! Owns syntax (`parser`), what an expression comes to (`evaluate`), and the functions: those of the language and, of
//! Kubernetes' own, those about lists, regular expressions, URLs and addresses. There is no check of types: where
//! an API server refuses a rule for them, evaluation ends in an error. Depth and steps are bounded.

mod evaluate;
mod functions;
mod literal;
mod parser;
mod tokens;
mod value;

pub(crate) use self::evaluate::{Budget, Failure};
pub(crate) use self::functions::{Url, duration};
pub(crate) use self::value::{Key, Value};

use self::evaluate::Evaluation;
use self::parser::Expr;

/// An expression that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    root: Expr,
}

impl Expression {
    /// Reads an expression; or what is wrong with its syntax.
    pub fn parse(text: &str) -> Result<Self, String> {
        parser::parse(text).map(|root| Self { root })
    }

    /// What stops it from being evaluated anywhere: a variable or a function that nobody knows.
    pub fn unknown(&self, variables: &[&str]) -> Option<String> {
        let mut known = variables.to_vec();
        unknown(&self.root, &mut known)
    }

    /// True if the expression names a variable.
    pub fn names(&self, variable: &str) -> bool {
        names(&self.root, variable)
    }

    /// What the expression comes to where these variables have these values.
    pub fn evaluate(&self, variables: &[(&str, Value)], budget: &Budget) -> Result<Value, Failure> {
        Evaluation::new(variables, budget).value(&self.root)
    }
}

fn names(expr: &Expr, variable: &str) -> bool {
    matches!(expr, Expr::Name(name) if name == variable)
        || expr.children().into_iter().any(|child| names(child, variable))
}

fn unknown<'a>(expr: &'a Expr, known: &mut Vec<&'a str>) -> Option<String> {
    match expr {
        Expr::Name(name) if !known.contains(&name.as_str()) && !value::is_type(name) => {
            return Some(format!("undeclared reference to {name:?}"));
        }
        Expr::Call { function, .. } if !functions::is_known(function) => {
            return Some(format!("no function {function:?}"));
        }
        Expr::Message => return Some("messages cannot be made here".to_owned()),
        Expr::Comprehension(comprehension) => {
            return unknown(&comprehension.over, known).or_else(|| {
                known.push(&comprehension.variable);
                let found = comprehension.body.iter().find_map(|part| unknown(part, known));
                known.pop();
                found
            });
        }
        _ => {}
    }
    expr.children().into_iter().find_map(|child| unknown(child, known))
}

#[cfg(test)]
mod tests;
