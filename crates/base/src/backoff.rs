//! How long to wait before what failed is tried again. The waiting is the caller's.

use rand::RngExt as _;
use std::time::Duration;

/// Exponential backoff with full jitter over the upper half: each wait lies between half of the step and the step, and
/// the step doubles up to the longest.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    step: Duration,
}

impl Backoff {
    /// `first` must not be zero.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), step: first }
    }

    /// The next wait.
    #[allow(clippy::should_implement_trait)] // An iterator's `next` ends; this one never does.
    pub fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.longest);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// After a success: the next failure waits shortly again.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for step in [100, 200, 350, 350] {
            let wait = backoff.next().as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} of {step}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
