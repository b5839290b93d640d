//! Choices of the generator: the same for the same seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub struct Random(StdRng);

impl Random {
    /// Every scenario has a sequence of its own, so that a change of one leaves the others as they were.
    pub fn new(seed: u64, scenario: &str) -> Self {
        let salt = scenario.bytes().fold(0u64, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self(StdRng::seed_from_u64(seed ^ (salt << 20)))
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Some of these, in their order.
    pub fn some<T: Clone>(&mut self, from: &[T], percent: usize) -> Vec<T> {
        from.iter().filter(|_| self.chance(percent)).cloned().collect()
    }
}
