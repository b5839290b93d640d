//! Virtual host domains: exact, then the longest `*suffix`, then the longest `prefix*`, then `*`.

use std::collections::HashMap;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("domain {0:?} appears twice")]
    Duplicate(String),
    #[error("domain {0:?} has a wildcard in the middle")]
    Wildcard(String),
    #[error("domain is empty")]
    Empty,
}

#[derive(Debug, Clone)]
struct Wildcards<T> {
    /// (length of the literal part, literal → value), longest first.
    levels: Vec<(usize, HashMap<Box<str>, T>)>,
}

impl<T> Wildcards<T> {
    fn insert(&mut self, literal: String, value: T) -> bool {
        let length = literal.len();
        let at = match self.levels.iter().position(|(have, _)| *have == length) {
            Some(at) => at,
            None => {
                let at = self.levels.iter().position(|(have, _)| *have < length).unwrap_or(self.levels.len());
                self.levels.insert(at, (length, HashMap::new()));
                at
            }
        };
        self.levels[at].1.insert(literal.into(), value).is_none()
    }

    /// `cut` takes the part of the host that a literal of this length would have to equal.
    fn find(&self, host: &str, cut: impl Fn(&str, usize) -> Option<&str>) -> Option<&T> {
        // The wildcard stands for at least one character.
        self.levels
            .iter()
            .filter(|(length, _)| *length < host.len())
            .find_map(|(length, entries)| entries.get(cut(host, *length)?))
    }
}

/// Domain pattern → value. Patterns and hosts are compared without regard to ASCII case.
#[derive(Debug, Clone)]
pub struct DomainTrie<T> {
    exact: HashMap<Box<str>, T>,
    suffix: Wildcards<T>,
    prefix: Wildcards<T>,
    any: Option<T>,
}

impl<T> Default for DomainTrie<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            suffix: Wildcards { levels: Vec::new() },
            prefix: Wildcards { levels: Vec::new() },
            any: None,
        }
    }
}

impl<T> DomainTrie<T> {
    pub fn insert(&mut self, pattern: &str, value: T) -> Result<(), DomainError> {
        if pattern.is_empty() {
            return Err(DomainError::Empty);
        }
        let lower = pattern.to_ascii_lowercase();
        let new = if lower == "*" {
            self.any.replace(value).is_none()
        } else if let Some(suffix) = lower.strip_prefix('*') {
            if suffix.contains('*') {
                return Err(DomainError::Wildcard(pattern.to_owned()));
            }
            self.suffix.insert(suffix.to_owned(), value)
        } else if let Some(prefix) = lower.strip_suffix('*') {
            if prefix.contains('*') {
                return Err(DomainError::Wildcard(pattern.to_owned()));
            }
            self.prefix.insert(prefix.to_owned(), value)
        } else if lower.contains('*') {
            return Err(DomainError::Wildcard(pattern.to_owned()));
        } else {
            self.exact.insert(lower.into(), value).is_none()
        };
        if new { Ok(()) } else { Err(DomainError::Duplicate(pattern.to_owned())) }
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let wildcards = self.suffix.levels.iter_mut().chain(&mut self.prefix.levels);
        self.exact.values_mut().chain(wildcards.flat_map(|(_, entries)| entries.values_mut())).chain(&mut self.any)
    }

    /// Allocates only when the host holds upper-case letters.
    pub fn find(&self, host: &str) -> Option<&T> {
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lower(&host.to_ascii_lowercase());
        }
        self.find_lower(host)
    }

    fn find_lower(&self, host: &str) -> Option<&T> {
        self.exact
            .get(host)
            .or_else(|| self.suffix.find(host, |host, length| host.get(host.len() - length..)))
            .or_else(|| self.prefix.find(host, |host, length| host.get(..length)))
            .or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests;
