//! Equal values held once: names that several resources repeat, settings that most clusters share.
//!
//! A table knows its values weakly; what nobody holds any more is forgotten when the table has doubled since it last looked. An
//! entry costs some 30 bytes, a look-up a hash and a comparison. Not for request paths: there is one lock.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Values of one kind by a hash of what tells them apart.
#[derive(Debug)]
pub struct Table<T: ?Sized>(Mutex<Entries<T>>);

#[derive(Debug)]
struct Entries<T: ?Sized> {
    by_hash: BTreeMap<u64, Weak<T>>,
    /// The dead are dropped when there are this many entries.
    prune_at: usize,
}

const SMALL: usize = 64;

impl<T: ?Sized> Table<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Entries { by_hash: BTreeMap::new(), prune_at: SMALL }))
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of this hash, if it `is` the wanted one.
    pub fn find(&self, hash: u64, is: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        self.entries().by_hash.get(&hash).and_then(Weak::upgrade).filter(|known| is(known))
    }

    /// Makes a value known. Of two with one hash the later is; the other is merely not shared any more.
    pub fn insert(&self, hash: u64, value: &Arc<T>) {
        let mut entries = self.entries();
        if entries.by_hash.len() >= entries.prune_at {
            entries.by_hash.retain(|_, known| known.strong_count() > 0);
            entries.prune_at = (entries.by_hash.len() * 2).max(SMALL);
        }
        entries.by_hash.insert(hash, Arc::downgrade(value));
    }
}

impl<T: ?Sized> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Eq + Hash> Table<T> {
    /// `value`, or its equal that is held already.
    pub fn share(&self, value: T) -> Arc<T> {
        let hash = hash_of(&value);
        self.find(hash, |known| *known == value).unwrap_or_else(|| {
            let value = Arc::new(value);
            self.insert(hash, &value);
            value
        })
    }
}

/// A value held once for all that were made from the same bytes.
#[derive(Debug)]
pub struct Shared<T>(Arc<Made<T>>);

/// A value and what it was made from.
#[derive(Debug)]
pub struct Made<T> {
    from: Box<[u8]>,
    value: T,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Held by nobody else.
impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Made { from: Box::default(), value }))
    }
}

impl<T> Shared<T> {
    pub fn ptr_eq(one: &Self, other: &Self) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }
}

impl<T> Table<Made<T>> {
    /// What was made from these bytes before and is still held, else what `make` gives.
    pub fn made_from<E>(&self, bytes: &[u8], make: impl FnOnce() -> Result<T, E>) -> Result<Shared<T>, E> {
        let hash = hash_of(bytes);
        if let Some(known) = self.find(hash, |known| *known.from == *bytes) {
            return Ok(Shared(known));
        }
        let made = Arc::new(Made { from: bytes.into(), value: make()? });
        self.insert(hash, &made);
        Ok(Shared(made))
    }
}

/// A hash for [`Table::find`]; the same in one process.
pub fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The text, shared with all who hold the same.
pub fn intern(text: &str) -> Arc<str> {
    static TEXTS: Table<str> = Table::new();
    if text.is_empty() {
        return Arc::default();
    }
    let hash = hash_of(text);
    TEXTS.find(hash, |known| known == text).unwrap_or_else(|| {
        let text = Arc::from(text);
        TEXTS.insert(hash, &text);
        text
    })
}
