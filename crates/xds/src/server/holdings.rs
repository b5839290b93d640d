//! What one client asked for by name and what it holds, of one type; shared by all sessions in which that is the same.
//!
//! Owns the lists and the [`Shelf`] on which equal ones meet. A list is sorted and immutable once shared; its key is a sum of
//! keyed hashes of its entries, so that the key of the next list follows from the entries that differ. Of a thousand sessions
//! that take the same push one makes the next list, the others find it on the shelf: each costs a look-up and the list is in
//! memory once. An entry costs 24 bytes beside its name.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use xxhash_rust::xxh3::xxh3_64;

/// Shorter lists are not worth a look at the shelf.
const SHARED_FROM: usize = 16;

/// What is known of one name: whether it was asked for by name, and what the client has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark(u64);

impl Mark {
    const EXPLICIT: u64 = 1 << 63;
    const ABSENT: u64 = 1;

    pub fn is_explicit(self) -> bool {
        self.0 & Self::EXPLICIT != 0
    }

    pub fn explicit(self) -> Self {
        Self(self.0 | Self::EXPLICIT)
    }

    pub fn implicit(self) -> Self {
        Self(self.0 & !Self::EXPLICIT)
    }

    /// The client has this version once it has read what we sent.
    pub fn holding(self, version: &str) -> Self {
        // Versions are hashes already; two that differ fall together once in 2^62.
        Self(self.0 & Self::EXPLICIT | xxh3_64(version.as_bytes()) & !Self::EXPLICIT | 2)
    }

    /// The client was told that there is none.
    pub fn told_absent(self) -> Self {
        Self(self.0 & Self::EXPLICIT | Self::ABSENT)
    }

    /// Nothing is known of what the client has.
    pub fn unknown(self) -> Self {
        Self(self.0 & Self::EXPLICIT)
    }

    pub fn is_held(self) -> bool {
        self.implicit().0 > Self::ABSENT
    }

    pub fn holds(self, version: &str) -> bool {
        self == self.holding(version)
    }

    /// What stands for the version that is held.
    pub fn version(self) -> u64 {
        self.implicit().0
    }

    /// Asked for, and neither sent nor said to be absent.
    pub fn is_missing(self) -> bool {
        self.0 == Self::EXPLICIT
    }
}

#[derive(Debug, Clone)]
struct Entry {
    name: Arc<str>,
    mark: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    key: u128,
    len: usize,
    explicit: usize,
    held: usize,
    missing: usize,
}

#[derive(Debug, Default)]
struct List {
    /// By name. No entry has the default mark.
    entries: Vec<Entry>,
    totals: Totals,
}

/// Where equal lists of different sessions meet. Bounded by the sessions alive: it keeps no list itself.
#[derive(Debug, Default)]
pub struct Shelf {
    lists: Mutex<Shelved>,
    /// Clients choose names, so they must not be able to choose keys.
    hashers: [RandomState; 2],
}

#[derive(Debug, Default)]
struct Shelved {
    by_key: HashMap<u128, Weak<List>>,
    /// Lists that are gone are swept out when there are this many.
    sweep_at: usize,
}

impl Shelf {
    fn hash(&self, name: &str, mark: Mark) -> u128 {
        if mark == Mark::default() {
            return 0;
        }
        let [high, low] = [0, 1].map(|which: usize| self.hashers[which].hash_one((name, mark.0)));
        u128::from(high) << 64 | u128::from(low)
    }

    fn find(&self, totals: &Totals) -> Option<Arc<List>> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.by_key.get(&totals.key)?.upgrade().filter(|list| list.totals == *totals)
    }

    /// Takes a list down if nobody else has it, so that it may be changed in place.
    fn take_down(&self, list: &Arc<List>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |found: &Weak<List>| std::ptr::eq(found.as_ptr(), Arc::as_ptr(list));
        if Arc::strong_count(list) == 1 && lists.by_key.get(&list.totals.key).is_some_and(is_this) {
            lists.by_key.remove(&list.totals.key);
        }
    }

    fn put(&self, list: &Arc<List>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.by_key.len() >= lists.sweep_at {
            lists.by_key.retain(|_, list| list.strong_count() > 0);
            lists.sweep_at = 2 * lists.by_key.len() + 64;
        }
        lists.by_key.insert(list.totals.key, Arc::downgrade(list));
    }

    /// Distinct lists alive.
    pub fn len(&self) -> usize {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.by_key.values().filter(|list| list.strong_count() > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One session's list.
#[derive(Debug, Clone)]
pub(super) struct Holdings {
    shelf: Arc<Shelf>,
    list: Arc<List>,
}

impl Holdings {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, list: Arc::default() }
    }

    pub fn get(&self, name: &str) -> Mark {
        match self.list.place(name) {
            Ok(place) => self.list.entries[place].mark,
            Err(_) => Mark::default(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Mark)> {
        self.list.entries.iter().map(|entry| (&entry.name, entry.mark))
    }

    /// Names asked for one by one.
    pub fn explicit(&self) -> usize {
        self.list.totals.explicit
    }

    pub fn held(&self) -> usize {
        self.list.totals.held
    }

    /// Names held, and names asked for of which the client knows nothing.
    pub fn held_or_missing(&self) -> usize {
        self.list.totals.held + self.list.totals.missing
    }

    /// Gives each name its mark; of two marks for a name the later one counts. The default mark takes the name out.
    pub fn edit(&mut self, mut changes: Vec<(Arc<str>, Mark)>) {
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        changes.reverse();
        changes.dedup_by(|a, b| a.0 == b.0);
        changes.reverse();
        let mut totals = self.list.totals;
        changes.retain(|(name, mark)| {
            let old = self.get(name);
            if old != *mark {
                totals.take(self.shelf.hash(name, old), old, false);
                totals.take(self.shelf.hash(name, *mark), *mark, true);
            }
            old != *mark
        });
        if changes.is_empty() {
            return;
        }
        let shared = totals.len >= SHARED_FROM;
        if let Some(found) = shared.then(|| self.shelf.find(&totals)).flatten() {
            self.list = found;
            return;
        }
        self.shelf.take_down(&self.list);
        match Arc::get_mut(&mut self.list) {
            Some(own) if totals.len == own.totals.len && own.has_all(&changes) => own.replace(changes),
            _ => self.list = Arc::new(List { entries: self.list.with(changes), totals }),
        }
        if let Some(own) = Arc::get_mut(&mut self.list) {
            own.totals = totals;
        }
        if shared {
            self.shelf.put(&self.list);
        }
    }
}

impl Totals {
    fn take(&mut self, hash: u128, mark: Mark, add: bool) {
        let by = |total: &mut usize, yes: bool| match add {
            true => *total += usize::from(yes),
            false => *total -= usize::from(yes),
        };
        self.key = if add { self.key.wrapping_add(hash) } else { self.key.wrapping_sub(hash) };
        by(&mut self.len, mark != Mark::default());
        by(&mut self.explicit, mark.is_explicit());
        by(&mut self.held, mark.is_held());
        by(&mut self.missing, mark.is_missing());
    }
}

impl List {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.name).cmp(name))
    }

    fn has_all(&self, changes: &[(Arc<str>, Mark)]) -> bool {
        changes.iter().all(|(name, mark)| *mark != Mark::default() && self.place(name).is_ok())
    }

    /// New marks of names that are there.
    fn replace(&mut self, changes: Vec<(Arc<str>, Mark)>) {
        for (name, mark) in changes {
            if let Ok(place) = self.place(&name) {
                // The newer name is more likely one that others share.
                self.entries[place] = Entry { name, mark };
            }
        }
    }

    /// The entries with sorted changes merged in.
    fn with(&self, changes: Vec<(Arc<str>, Mark)>) -> Vec<Entry> {
        let mut merged = Vec::with_capacity(self.entries.len() + changes.len());
        let mut old = self.entries.iter().peekable();
        for (name, mark) in changes {
            while let Some(entry) = old.next_if(|entry| entry.name < name) {
                merged.push(entry.clone());
            }
            old.next_if(|entry| entry.name == name);
            if mark != Mark::default() {
                merged.push(Entry { name, mark });
            }
        }
        merged.extend(old.cloned());
        merged.shrink_to_fit();
        merged
    }
}
