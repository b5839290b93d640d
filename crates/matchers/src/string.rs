//! `envoy.type.matcher.v3.StringMatcher`, and the path matcher built on it.

use crate::{FullRegex, RegexError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringPattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// Must match the whole input.
    Regex(FullRegex),
}

/// One string test. `ignore_case` folds ASCII, as Envoy does, and does not apply to regexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    pub pattern: StringPattern,
    pub ignore_case: bool,
}

impl StringMatcher {
    pub fn exact(text: &str) -> Self {
        Self { pattern: StringPattern::Exact(text.into()), ignore_case: false }
    }

    pub fn prefix(text: &str) -> Self {
        Self { pattern: StringPattern::Prefix(text.into()), ignore_case: false }
    }

    pub fn suffix(text: &str) -> Self {
        Self { pattern: StringPattern::Suffix(text.into()), ignore_case: false }
    }

    pub fn contains(text: &str) -> Self {
        Self { pattern: StringPattern::Contains(text.into()), ignore_case: false }
    }

    pub fn regex(pattern: &str) -> Result<Self, RegexError> {
        Ok(Self { pattern: StringPattern::Regex(FullRegex::new(pattern)?), ignore_case: false })
    }

    pub fn ignoring_case(mut self, ignore: bool) -> Self {
        self.ignore_case = ignore;
        self
    }

    pub fn matches(&self, input: impl AsRef<[u8]>) -> bool {
        let input = input.as_ref();
        let fold = self.ignore_case;
        match &self.pattern {
            StringPattern::Exact(text) => equal(input, text.as_bytes(), fold),
            StringPattern::Prefix(text) => {
                input.get(..text.len()).is_some_and(|head| equal(head, text.as_bytes(), fold))
            }
            StringPattern::Suffix(text) => {
                input.len().checked_sub(text.len()).is_some_and(|from| equal(&input[from..], text.as_bytes(), fold))
            }
            StringPattern::Contains(text) => contains(input, text.as_bytes(), fold),
            StringPattern::Regex(regex) => regex.matches(input),
        }
    }
}

fn equal(left: &[u8], right: &[u8], fold: bool) -> bool {
    if fold { left.eq_ignore_ascii_case(right) } else { left == right }
}

fn contains(input: &[u8], text: &[u8], fold: bool) -> bool {
    text.is_empty() || input.windows(text.len()).any(|window| equal(window, text, fold))
}

/// A test of a request's path; query and fragment are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMatcher(pub StringMatcher);

impl PathMatcher {
    pub fn matches(&self, path_and_query: impl AsRef<[u8]>) -> bool {
        let path = path_and_query.as_ref();
        let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
        self.0.matches(&path[..end])
    }
}

#[cfg(test)]
mod tests;
