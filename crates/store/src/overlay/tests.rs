use std::time::Duration;

use meltemi_config::networking::WorkloadEntry;
use meltemi_config::{Kind, Meta, Spec};

use super::*;
use crate::memory::MemoryStore;

fn entry(name: &str, address: &str) -> Object {
    let meta = Meta { name: name.into(), namespace: "app".into(), ..Meta::default() };
    let spec = WorkloadEntry { address: address.into(), ..WorkloadEntry::default() };
    Object::new(meta, Spec::WorkloadEntry(Arc::new(spec)))
}

fn addresses(set: &ConfigSet) -> Vec<(String, String)> {
    let entries = set.list::<WorkloadEntry>();
    entries.map(|(meta, spec)| (meta.name.to_string(), spec.address.to_string())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect()
}

#[tokio::test]
async fn added_objects_lie_over_those_below_and_never_hide_them() {
    let below = Arc::new(MemoryStore::default());
    below.apply([entry("written", "10.0.0.1")]);
    let store = Arc::new(OverlayStore::new(below.clone()));
    let mut changes = store.changes();
    store.put(entry("added", "10.0.0.2"));
    store.put(entry("written", "10.0.0.3"));
    let (set, change) = changes.next().await.unwrap();
    assert_eq!(addresses(&set), pairs(&[("added", "10.0.0.2"), ("written", "10.0.0.1")]));
    assert_eq!(change.upserted.len(), 1, "{change:?}");

    let following = store.clone();
    let task = tokio::spawn(async move { following.follow().await });
    below.remove([&Key::new(Kind::WorkloadEntry, "app", "written")]);
    let (set, _) = tokio::time::timeout(Duration::from_secs(30), changes.next()).await.unwrap().unwrap();
    assert_eq!(addresses(&set), pairs(&[("added", "10.0.0.2"), ("written", "10.0.0.3")]));

    for name in ["added", "written", "nobody"] {
        store.remove(&Key::new(Kind::WorkloadEntry, "app", name));
    }
    let (set, change) = changes.next().await.unwrap();
    assert!(set.is_empty() && change.removed.len() == 2, "{change:?}");
    assert_eq!(addresses(&below.snapshot()), [], "the store below is not written to");
    task.abort();
}
