//! Buckets of one configured descriptor: a single one, or one for each value that requests bring.
//!
//! Of the latter no more than the configuration says are kept; the least recently used gives way, and begins full when its value
//! comes again. A look-up takes one lock and time in the logarithm of how many there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use meltemi_plan::filter as plan;
use meltemi_plan::rate_limit::LocalDescriptor;
use parking_lot::Mutex;

use super::TokenBucket;
use crate::descriptor::Descriptor;

pub(super) enum Buckets {
    One(Arc<TokenBucket>),
    ForEach(Values),
}

impl Buckets {
    pub fn new(descriptor: &LocalDescriptor, most: usize, now: Instant) -> Self {
        if descriptor.entries.iter().any(|(_, value)| value.is_empty()) {
            Self::ForEach(Values { most, recent: Mutex::default() })
        } else {
            Self::One(Arc::new(TokenBucket::new(descriptor.bucket, now)))
        }
    }
}

/// At most so many buckets, by the values of a descriptor.
pub(super) struct Values {
    most: usize,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// Counts uses.
    clock: u64,
    /// With when it was used last.
    buckets: HashMap<Arc<[String]>, (u64, Arc<TokenBucket>)>,
    by_use: BTreeMap<u64, Arc<[String]>>,
}

impl Values {
    pub fn bucket(&self, descriptor: &Descriptor, config: plan::TokenBucket, now: Instant) -> Arc<TokenBucket> {
        let values: Arc<[String]> = descriptor.iter().map(|(_, value)| value.clone()).collect();
        let recent = &mut *self.recent.lock();
        recent.clock += 1;
        let known = recent.buckets.remove(&values);
        let bucket = match known {
            Some((used, bucket)) => {
                recent.by_use.remove(&used);
                bucket
            }
            None => Arc::new(TokenBucket::new(config, now)),
        };
        if recent.buckets.len() >= self.most
            && let Some((_, oldest)) = recent.by_use.pop_first()
        {
            recent.buckets.remove(&oldest);
        }
        recent.by_use.insert(recent.clock, values.clone());
        recent.buckets.insert(values, (recent.clock, bucket.clone()));
        bucket
    }
}

#[cfg(test)]
mod tests;
