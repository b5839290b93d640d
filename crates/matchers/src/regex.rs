//! Regular expressions as RE2 reads them in Envoy: `safe_regex` must match the whole input.

use regex::bytes::{Regex, RegexBuilder};
use std::sync::Arc;

/// Bound on a compiled program, so that a hostile pattern costs memory in kilobytes.
const SIZE_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    #[error("invalid regular expression {pattern:?}: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("substitution {substitution:?}: {reason}")]
    Substitution { substitution: String, reason: String },
}

fn compile(pattern: &str, anchored: bool) -> Result<Regex, RegexError> {
    let text = if anchored { format!("^(?:{pattern})$") } else { pattern.to_owned() };
    // RE2's `.` and classes work on code points but input bytes may be Latin-1: unicode stays on, the haystack is bytes.
    RegexBuilder::new(&text)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| RegexError::Pattern { pattern: pattern.to_owned(), reason: last_line(&error.to_string()) })
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A regular expression that must match its whole input.
#[derive(Debug, Clone)]
pub struct FullRegex {
    regex: Regex,
    pattern: Arc<str>,
}

impl FullRegex {
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        // A pattern with unbalanced groups must not become valid by being wrapped.
        compile(pattern, false)?;
        Ok(Self { regex: compile(pattern, true)?, pattern: pattern.into() })
    }

    /// Input that is not UTF-8 is read as Latin-1: no byte in it may keep `.` from matching, as a rule that denies would then let
    /// it pass.
    pub fn matches(&self, input: &[u8]) -> bool {
        if self.regex.is_match(input) {
            return true;
        }
        std::str::from_utf8(input).is_err() && {
            let text: String = input.iter().copied().map(char::from).collect();
            self.regex.is_match(text.as_bytes())
        }
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}
impl Eq for FullRegex {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Group(usize),
}

/// Envoy's `RegexMatchAndSubstitute`: every match in the input is replaced, `\0` to `\9` name the groups.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    regex: Regex,
    pattern: Arc<str>,
    parts: Arc<[Part]>,
}

impl RegexRewrite {
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, RegexError> {
        let regex = compile(pattern, false)?;
        let parts = substitution_parts(substitution, regex.captures_len())?;
        Ok(Self { regex, pattern: pattern.into(), parts: parts.into() })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The input with every match replaced.
    pub fn apply(&self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(input.len());
        let mut from = 0;
        for found in self.regex.captures_iter(input) {
            let Some(whole) = found.get(0) else { continue };
            out.extend_from_slice(&input[from..whole.start()]);
            for part in self.parts.iter() {
                match part {
                    Part::Literal(bytes) => out.extend_from_slice(bytes),
                    Part::Group(index) => {
                        out.extend_from_slice(found.get(*index).map_or(&[][..], |group| group.as_bytes()))
                    }
                }
            }
            from = whole.end();
        }
        out.extend_from_slice(&input[from..]);
        out
    }

    /// As [`RegexRewrite::apply`] for text; bytes that a byte-wise pattern split are replaced.
    pub fn apply_str(&self, input: &str) -> String {
        String::from_utf8(self.apply(input.as_bytes()))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.parts == other.parts
    }
}
impl Eq for RegexRewrite {}

fn substitution_parts(text: &str, groups: usize) -> Result<Vec<Part>, RegexError> {
    let wrong = |reason: String| RegexError::Substitution { substitution: text.to_owned(), reason };
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            literal.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => literal.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    return Err(wrong(format!("group \\{group} does not exist")));
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Group(group));
            }
            _ => return Err(wrong("a backslash must be followed by a digit or a backslash".into())),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// The text as a regular expression that matches it and nothing else.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
