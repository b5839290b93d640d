//! What is wrong with a document, and where: file, line, object, field path, and what was probably meant.

use std::fmt;

use crate::object::Key;
use crate::wire::Str;

/// Where a document was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    pub file: Str,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing to do: a document that has no meaning for a mesh was skipped.
    Notice,
    /// The document takes effect, but not all of it, or not as its author may think.
    Warning,
    /// The document is refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding about one place of one document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    pub severity: Severity,
    pub source: Source,
    /// The object, where its kind and name could be read.
    pub object: Option<Key>,
    /// `spec.http[0].route[1].weight`; empty for the whole document.
    pub path: String,
    pub message: String,
    /// What was probably meant, when that is known: the whole replacement for the field name or value.
    pub suggestion: Option<String>,
}

/// A problem of severity `Error`.
pub type ConfigError = Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.source, self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(text) => write!(f, "; did you mean `{text}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// The candidate nearest to `word`, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let budget = (word.chars().count() / 3).clamp(1, 4);
    let folded = word.to_lowercase().replace(['_', '-'], "");
    candidates
        .into_iter()
        .map(|c| (distance(&folded, &c.to_lowercase().replace(['_', '-'], "")), c))
        .filter(|(d, _)| *d <= budget)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// The legal value that a wrong one was probably meant to be: a slip of the hand, or its beginning.
pub(crate) fn meant<'a>(word: &str, values: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let upper = word.to_uppercase();
    let begun = |value: &&str| word.len() >= 3 && value.to_uppercase().starts_with(&upper);
    nearest(word, values.clone()).or_else(|| values.into_iter().filter(begun).min_by_key(|value| value.len()))
}

/// Edit distance with transpositions; words longer than 64 are never near.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
