//! Consistent hashing: Envoy's ring (ketama) and Maglev tables, bit for bit, so that a mesh of both kinds of proxy agrees on
//! which host serves a key.
//!
//! Tables are built when hosts or their health change and shared by all workers; a look-up is a binary search or one index.

mod murmur;
#[cfg(test)]
mod tests;

pub use murmur::murmur2;

use xxhash_rust::xxh64::xxh64;

/// Largest ring Envoy accepts.
pub const RING_LIMIT: u64 = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashFunction {
    #[default]
    XxHash,
    Murmur2,
}

impl HashFunction {
    fn hash(self, key: &[u8]) -> u64 {
        match self {
            Self::XxHash => xxh64(key, 0),
            Self::Murmur2 => murmur2(key, murmur::STD_HASH_SEED),
        }
    }
}

/// A host as the tables see it: what is hashed, and its weight (any scale).
#[derive(Clone, Debug)]
pub struct Keyed<'a> {
    pub key: &'a str,
    pub weight: f64,
}

/// Weights that sum to 1; the smallest and largest of them.
fn normalised(hosts: &[Keyed<'_>]) -> (Vec<f64>, f64, f64) {
    let sum: f64 = hosts.iter().map(|h| h.weight).sum();
    let weights: Vec<f64> = hosts.iter().map(|h| h.weight / sum).collect();
    let min = weights.iter().copied().fold(1.0, f64::min);
    let max = weights.iter().copied().fold(0.0, f64::max);
    (weights, min, max)
}

/// Points on a circle, each owned by a host.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Sorted by hash.
    points: Vec<(u64, u32)>,
}

impl Ring {
    pub fn new(hosts: &[Keyed<'_>], min_size: u64, max_size: u64, function: HashFunction) -> Self {
        let hosts_with_weight: Vec<usize> = (0..hosts.len()).filter(|i| hosts[*i].weight > 0.0).collect();
        if hosts_with_weight.is_empty() {
            return Self::default();
        }
        let (weights, ..) = normalised(hosts);
        let min_weight = hosts_with_weight.iter().map(|i| weights[*i]).fold(1.0, f64::min);
        // The least of the hosts gets a whole number of points, unless that exceeds the largest ring.
        let scale = ((min_weight * min_size as f64).ceil() / min_weight).min(max_size.min(RING_LIMIT) as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        let mut key = Vec::with_capacity(64);
        for index in hosts_with_weight {
            target += scale * weights[index];
            key.clear();
            key.extend_from_slice(hosts[index].key.as_bytes());
            key.push(b'_');
            let prefix = key.len();
            let mut i = 0u64;
            while current < target {
                key.truncate(prefix);
                key.extend_from_slice(i.to_string().as_bytes());
                points.push((function.hash(&key), index as u32));
                i += 1;
                current += 1.0;
            }
        }
        points.sort_by_key(|p| p.0);
        Self { points }
    }

    /// The owner of the first point at or after `hash`. `attempt` above zero walks on from there, for retries.
    pub fn find(&self, hash: u64, attempt: usize) -> Option<usize> {
        if self.points.is_empty() {
            return None;
        }
        let at = self.points.partition_point(|p| p.0 < hash) % self.points.len();
        Some(self.points[(at + attempt) % self.points.len()].1 as usize)
    }

    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// Google's Maglev table with Envoy's permutation and weighting.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    table: Vec<u32>,
}

struct Permutation {
    index: u32,
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

impl Permutation {
    fn slot(&self, size: u64) -> usize {
        ((self.offset + self.skip * self.next) % size) as usize
    }
}

impl Maglev {
    /// `size` is a prime (65537 unless configured).
    pub fn new(hosts: &[Keyed<'_>], size: u64) -> Self {
        const FREE: u32 = u32::MAX;
        if size < 2 || hosts.iter().all(|h| h.weight <= 0.0) {
            return Self::default();
        }
        let (weights, _, max_weight) = normalised(hosts);
        let mut sorted: Vec<usize> = (0..hosts.len()).filter(|i| weights[*i] > 0.0).collect();
        // Filling order decides collisions, so it must not depend on the order of an update.
        sorted.sort_by(|a, b| hosts[*a].key.cmp(hosts[*b].key));
        let mut entries: Vec<Permutation> = sorted
            .into_iter()
            .map(|i| Permutation {
                index: i as u32,
                offset: xxh64(hosts[i].key.as_bytes(), 0) % size,
                skip: xxh64(hosts[i].key.as_bytes(), 1) % (size - 1) + 1,
                weight: weights[i],
                target: 0.0,
                next: 0,
            })
            .collect();
        let mut table = vec![FREE; size as usize];
        let mut filled = 0;
        let mut iteration = 1.0;
        while filled < size {
            for entry in &mut entries {
                if filled == size {
                    break;
                }
                // The heaviest is taken in every round, one of a third of its weight in every third.
                if iteration * entry.weight < entry.target {
                    continue;
                }
                entry.target += max_weight;
                while table[entry.slot(size)] != FREE {
                    entry.next += 1;
                }
                table[entry.slot(size)] = entry.index;
                entry.next += 1;
                filled += 1;
            }
            iteration += 1.0;
        }
        Self { table }
    }

    pub fn find(&self, hash: u64, attempt: usize) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        // A retry looks elsewhere in the table, as Envoy does.
        let hash = if attempt > 0 { hash ^ (u64::MAX - attempt as u64 + 1) } else { hash };
        Some(self.table[(hash % self.table.len() as u64) as usize] as usize)
    }
}
