//! What fields are, for `kubectl explain`: `words.txt` has a line for each, `Struct.field: words`.
//!
//! A line about nothing, and a field without a line, are test failures.

use std::collections::BTreeMap;
use std::sync::LazyLock;

static WORDS: LazyLock<BTreeMap<&str, &str>> =
    LazyLock::new(|| include_str!("words.txt").lines().filter_map(|line| line.split_once(": ")).collect());

/// The words about a field of a struct.
pub(super) fn about(of: &str, field: &str) -> Option<&'static str> {
    WORDS.get(format!("{of}.{field}").as_str()).copied()
}

/// All that there is something about.
#[cfg(test)]
pub(super) fn subjects() -> Vec<&'static str> {
    WORDS.keys().copied().collect()
}
