//! From what the files contribute to the set in force: of several documents with one key the first in order of files stays.
//!
//! Owns the way from a key to the files that define it, so that a changed file costs work for its own keys alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use meltemi_config::{Key, Object, Problem, Severity, Source};

use super::load::FileState;
use crate::set::ConfigSet;

pub(super) type Files = BTreeMap<Arc<Path>, FileState>;

#[derive(Default)]
pub(super) struct Composer {
    /// Files that define a key, in order.
    holders: HashMap<Key, Vec<Arc<Path>>>,
    /// Keys that are defined more than once.
    contested: BTreeSet<Key>,
}

impl Composer {
    /// Takes note of a file that no longer defines `before` but `now`; gives the keys that it touches.
    pub fn moved(&mut self, file: &Arc<Path>, before: &[Object], now: &[Object]) -> BTreeSet<Key> {
        let before: BTreeSet<Key> = before.iter().map(Object::key).collect();
        let now: BTreeSet<Key> = now.iter().map(Object::key).collect();
        for key in before.difference(&now) {
            if let Some(files) = self.holders.get_mut(key) {
                files.retain(|own| own != file);
                if files.is_empty() {
                    self.holders.remove(key);
                }
            }
        }
        for key in now.difference(&before) {
            let files = self.holders.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
            if let Err(place) = files.binary_search(file) {
                files.insert(place, file.clone());
            }
        }
        before.into_iter().chain(now).collect()
    }

    /// Puts the first definition of each of these keys in force. The set stays the same `Arc` when nothing in force changed.
    pub fn settle(&mut self, keys: &BTreeSet<Key>, files: &Files, set: &mut Arc<ConfigSet>) {
        for key in keys {
            let definitions = self.definitions(key, files);
            let contested = definitions.len() > 1;
            match definitions.first() {
                Some(first) if set.get(key) == Some(*first) => {}
                Some(first) => Arc::make_mut(set).insert((*first).clone()),
                None if set.get(key).is_none() => {}
                None => drop(Arc::make_mut(set).remove(key)),
            }
            if contested {
                self.contested.insert(key.clone());
            } else {
                self.contested.remove(key);
            }
        }
    }

    fn definitions<'a>(&self, key: &Key, files: &'a Files) -> Vec<&'a Object> {
        let holders = self.holders.get(key).into_iter().flatten().filter_map(|file| files.get(file));
        holders.flat_map(|state| state.objects()).filter(|object| object.key() == *key).collect()
    }

    /// What is wrong with definitions beyond the first.
    pub fn duplicates(&self, files: &Files) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in &self.contested {
            if let [first, others @ ..] = &self.definitions(key, files)[..] {
                problems.extend(others.iter().map(|second| duplicate(second, first)));
            }
        }
        problems
    }
}

fn duplicate(second: &Object, first: &Object) -> Problem {
    let written = first.meta.source.as_ref().map_or_else(String::new, |s| format!(" at {s}"));
    Problem {
        severity: Severity::Error,
        source: second.meta.source.clone().unwrap_or_else(|| Source { file: "".into(), line: 0 }),
        object: Some(second.key()),
        path: String::new(),
        message: format!("already defined{written}; the first one stays in force"),
        suggestion: None,
    }
}
