//! Weighted round robin by earliest deadline first: smooth, exact in the long run, O(log n) a pick.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rand::Rng;

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Breaks ties in insertion order.
    order: u64,
    index: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

/// A schedule over indices. Each worker has its own, started at a random phase so that workers do not march in step.
#[derive(Debug, Default)]
pub struct Edf {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Edf {
    /// Entries of weight zero are never picked.
    pub fn new(weights: impl IntoIterator<Item = f64>, rng: &mut impl Rng) -> Self {
        let mut edf = Self::default();
        for (index, weight) in weights.into_iter().enumerate() {
            if weight > 0.0 {
                let phase = f64::from(rng.next_u32()) / f64::from(u32::MAX);
                edf.push(phase / weight, index);
            }
        }
        edf
    }

    fn push(&mut self, deadline: f64, index: usize) {
        self.heap.push(Entry { deadline, order: self.order, index });
        self.order += 1;
    }

    /// The next index; `weight` is its weight from now on.
    pub fn pick(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let entry = self.heap.pop()?;
        // Weights fall with load in least request; never so low that the entry is lost.
        let weight = weight(entry.index).max(f64::MIN_POSITIVE.sqrt());
        self.push(entry.deadline + 1.0 / weight, entry.index);
        Some(entry.index)
    }
}
