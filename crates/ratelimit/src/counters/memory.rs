//! Counts in this process, in a table that never grows.
//!
//! A key has a place among eight, found by its hash under random keys. Where all eight are taken by windows that are not over,
//! the one with the fewest hits gives way and begins again at zero: many keys cannot make the table larger, and cost the busy
//! ones nothing. Memory is 34 bytes a key; an addition takes one uncontended lock.

use std::hash::{BuildHasher as _, RandomState};

use meltemi_telemetry::Counter;
use parking_lot::Mutex;

use super::Hit;

const WAYS: usize = 8;

/// A free place has a window that is long over.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    tag: u128,
    ends: u64,
    count: u64,
}

/// The table.
pub(crate) struct Memory {
    buckets: Box<[Mutex<[Place; WAYS]>]>,
    hashers: [RandomState; 2],
    /// Windows that were forgotten before they were over.
    evicted: Counter,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} keys)", self.buckets.len() * WAYS)
    }
}

impl Memory {
    /// For about so many keys at once.
    pub fn new(keys: usize, evicted: Counter) -> Self {
        Self {
            buckets: (0..keys.div_ceil(WAYS).max(1)).map(|_| Mutex::default()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
            evicted,
        }
    }

    /// The count of the key after these hits.
    pub fn add(&self, hit: &Hit, now: u64) -> u64 {
        let [low, high] = &self.hashers;
        let tag = u128::from(low.hash_one(&*hit.key)) | (u128::from(high.hash_one(&*hit.key)) << 64);
        let bucket = usize::try_from(tag % self.buckets.len() as u128).unwrap_or_default();
        let mut places = self.buckets[bucket].lock();
        let known = places.iter().position(|place| place.tag == tag && place.ends == hit.ends);
        let index = known.unwrap_or_else(|| self.make_room(&places, now));
        let place = &mut places[index];
        if known.is_none() {
            *place = Place { tag, ends: hit.ends, count: 0 };
        }
        place.count = place.count.saturating_add(hit.hits);
        place.count
    }

    fn make_room(&self, places: &[Place; WAYS], now: u64) -> usize {
        let free = places.iter().position(|place| place.ends <= now);
        free.unwrap_or_else(|| {
            self.evicted.inc();
            (0..WAYS).min_by_key(|index| places[*index].count).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests;
