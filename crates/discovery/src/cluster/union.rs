//! Two stores as one: a folder beside a cluster. Where both have an object of one name, the first one's counts.

use std::sync::Arc;

use meltemi_store::{ChangeSet, Changes, ConfigSet, ConfigStore, MemoryStore};

/// What both hold, kept while [`Union::follow`] runs.
pub(crate) struct Union {
    first: Arc<dyn ConfigStore>,
    second: Arc<dyn ConfigStore>,
    both: MemoryStore,
}

impl Union {
    pub fn new(first: Arc<dyn ConfigStore>, second: Arc<dyn ConfigStore>) -> Self {
        let mut set = ConfigSet::clone(&second.snapshot());
        first.snapshot().iter().for_each(|object| set.insert(object.clone()));
        Self { first, second, both: MemoryStore::new(set) }
    }

    /// Takes over what changes in either, for as long as both are there.
    pub async fn follow(&self) {
        let (mut first, mut second) = (self.first.changes(), self.second.changes());
        // Whatever changed before we listened.
        let missed = self.both.snapshot();
        let now = Self::new(self.first.clone(), self.second.clone()).both.snapshot();
        self.take(&missed.diff(&now), first.seen(), second.seen());
        loop {
            let next = tokio::select! {
                next = first.next() => next,
                next = second.next() => next,
            };
            let Some((_, changes)) = next else { return };
            self.take(&changes, first.seen(), second.seen());
        }
    }

    fn take(&self, changes: &ChangeSet, first: &ConfigSet, second: &ConfigSet) {
        let of = |key| first.get(key).or_else(|| second.get(key));
        let there: Vec<_> = changes.keys().filter_map(of).cloned().collect();
        let gone: Vec<_> = changes.keys().filter(|key| of(key).is_none()).collect();
        if !there.is_empty() {
            self.both.apply(there);
        }
        if !gone.is_empty() {
            self.both.remove(gone);
        }
    }
}

impl ConfigStore for Union {
    fn snapshot(&self) -> Arc<ConfigSet> {
        self.both.snapshot()
    }

    fn changes(&self) -> Changes {
        self.both.changes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meltemi_config::networking::WorkloadEntry;
    use meltemi_config::{Key, Kind, Meta, Object, Spec};

    use super::*;

    fn entry(name: &str, address: &str) -> Object {
        let meta = Meta { name: name.into(), namespace: "app".into(), ..Meta::default() };
        let spec = WorkloadEntry { address: address.into(), ..WorkloadEntry::default() };
        Object::new(meta, Spec::WorkloadEntry(Arc::new(spec)))
    }

    fn addresses(set: &ConfigSet) -> Vec<String> {
        set.list::<WorkloadEntry>().map(|(_, spec)| spec.address.to_string()).collect()
    }

    #[tokio::test]
    async fn the_first_store_wins_and_what_it_gives_up_is_the_seconds_again() {
        let (first, second) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        first.apply([entry("a", "1")]);
        second.apply([entry("a", "2"), entry("b", "3")]);
        let union = Arc::new(Union::new(first.clone(), second.clone()));
        assert_eq!(addresses(&union.snapshot()), ["1", "3"]);
        let mut changes = union.changes();
        // Before anybody follows.
        second.apply([entry("c", "4")]);
        let following = union.clone();
        let task = tokio::spawn(async move { following.follow().await });
        let mut next = async || tokio::time::timeout(Duration::from_secs(30), changes.next()).await.unwrap().unwrap().0;
        assert_eq!(addresses(&*next().await), ["1", "3", "4"]);
        first.remove([&Key::new(Kind::WorkloadEntry, "app", "a")]);
        assert_eq!(addresses(&*next().await), ["2", "3", "4"]);
        second.remove([&Key::new(Kind::WorkloadEntry, "app", "b")]);
        assert_eq!(addresses(&*next().await), ["2", "4"]);
        task.abort();
    }
}
