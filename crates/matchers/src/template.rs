//! Path templates, as Envoy's URI templates and Istio's `{*}` and `{**}` have them: `/users/{id}/files/**`.
//!
//! `*` is one segment, `**` any number of characters, slashes among them, after which only literals may stand; `{name}` and
//! `{name=pattern}` match as their pattern, `*` if there is none.

#[cfg(test)]
mod tests;

use crate::{FullRegex, RegexError, quoted};

/// Bytes of a template.
const MOST: usize = 1024;
/// Variables of a template.
const MOST_VARIABLES: usize = 5;
/// Whatever a client may write: a character that a template did not know would be a way around a rule (CVE-2025-46821).
const SEGMENT: &str = "[^/]";
const SEGMENTS: &str = "(?s:.)";

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(FullRegex);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("must start with / and have at most {MOST} bytes")]
    Shape,
    #[error("has an empty segment")]
    EmptySegment,
    #[error("an operator must be a segment of its own, or end one")]
    Operator,
    #[error("nothing but literals may follow **")]
    AfterAny,
    #[error("a variable must be {{name}} or {{name=pattern}}")]
    Variable,
    #[error("{0:?} appears twice")]
    Twice(String),
    #[error("has more than {MOST_VARIABLES} variables")]
    Variables,
    #[error("{0:?} cannot stand in a path")]
    Character(char),
    #[error(transparent)]
    Regex(#[from] RegexError),
}

impl PathTemplate {
    pub fn new(template: &str) -> Result<Self, TemplateError> {
        if !template.starts_with('/') || template.len() > MOST {
            return Err(TemplateError::Shape);
        }
        let mut compiler = Compiler::default();
        compiler.pattern(template)?;
        Ok(Self(FullRegex::new(&compiler.regex)?))
    }

    /// Of a path without query and fragment.
    pub fn matches(&self, path: &str) -> bool {
        self.0.matches(path.as_bytes())
    }
}

#[derive(Default)]
struct Compiler {
    regex: String,
    names: Vec<String>,
    /// `**` was seen.
    any: bool,
}

impl Compiler {
    /// A template, or what stands in a variable.
    fn pattern(&mut self, pattern: &str) -> Result<(), TemplateError> {
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '/' if rest[1..].starts_with('/') => return Err(TemplateError::EmptySegment),
                '/' => {
                    self.regex.push('/');
                    &rest[1..]
                }
                '*' => self.operator(rest)?,
                '{' => self.variable(rest)?,
                other => self.literal(other, rest)?,
            };
        }
        Ok(())
    }

    fn operator<'a>(&mut self, rest: &'a str) -> Result<&'a str, TemplateError> {
        if self.any {
            return Err(TemplateError::AfterAny);
        }
        let (class, many, rest) = match rest.strip_prefix("**") {
            Some(rest) => (SEGMENTS, '*', rest),
            None => (SEGMENT, '+', &rest[1..]),
        };
        if rest.starts_with(['*', '{']) {
            return Err(TemplateError::Operator);
        }
        self.any = many == '*';
        self.regex.push_str(class);
        self.regex.push(many);
        Ok(rest)
    }

    fn variable<'a>(&mut self, rest: &'a str) -> Result<&'a str, TemplateError> {
        let (inside, rest) = rest[1..].split_once('}').ok_or(TemplateError::Variable)?;
        let (name, pattern) = match inside {
            // Istio's spelling of the operators.
            "*" | "**" => ("", inside),
            inside => inside.split_once('=').unwrap_or((inside, "*")),
        };
        let named = inside == "*" || inside == "**" || is_name(name);
        if !named || pattern.is_empty() || pattern.contains('{') {
            return Err(TemplateError::Variable);
        }
        if !name.is_empty() {
            if self.names.iter().any(|known| known == name) {
                return Err(TemplateError::Twice(name.to_owned()));
            }
            self.names.push(name.to_owned());
            if self.names.len() > MOST_VARIABLES {
                return Err(TemplateError::Variables);
            }
        }
        if rest.starts_with(['*', '{']) {
            return Err(TemplateError::Operator);
        }
        self.pattern(pattern)?;
        Ok(rest)
    }

    fn literal<'a>(&mut self, character: char, rest: &'a str) -> Result<&'a str, TemplateError> {
        let fine = character.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(character);
        if !fine {
            return Err(TemplateError::Character(character));
        }
        self.regex.push_str(&quoted(&character.to_string()));
        Ok(&rest[1..])
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
