//! Kubernetes labels and selectors over them.

use std::collections::BTreeMap;
use std::sync::Arc;

pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// True when every pair of `selector` is in `labels`. An empty selector selects everything.
pub fn selects<'a>(selector: impl IntoIterator<Item = (&'a str, &'a str)>, labels: &Labels) -> bool {
    selector.into_iter().all(|(key, value)| labels.get(key).is_some_and(|found| &**found == value))
}

/// Copies string pairs into [`Labels`].
pub fn labels_of<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Labels {
    pairs.into_iter().map(|(key, value)| (Arc::from(key.as_ref()), Arc::from(value.as_ref()))).collect()
}

/// `labels` as borrowed pairs, for [`selects`].
pub fn pairs(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (&**key, &**value))
}
