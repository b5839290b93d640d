//! How long a host takes to answer: a peak-sensitive moving average, for the peak-EWMA balancer.
//!
//! A sample above the average replaces it at once; below, the average falls exponentially with time, and sooner where many samples
//! say so: one slow answer must not mark a busy host for the rest of the window. It falls without samples too, so that a host
//! which nobody picks is tried again. One word a host, shared by all workers and written without a lock:
//! of two samples at the same moment one may be lost. Only clusters with that balancer write it or read it.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A failure counts as an answer that took so many times the average: each further one while it lasts adds to it.
const FAILURE: f32 = 4.0;
/// Longest time that failures add up to, in microseconds: a host that has failed for long is tried again after some six decay times.
const LONGEST_US: f32 = 1_000_000.0;
/// The least weight of a sample below the average; one a millisecond counts.
const LEAST_WEIGHT: f32 = 1.0 / 32.0;
/// An average below is as good as none, in microseconds.
const SHORTEST_US: f32 = 1.0;

/// Envoy's `PeakEwma`, in the part that is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakEwma {
    /// After which an observation has at most 1/e of its weight left.
    pub decay: Duration,
    /// Of a host that has not answered yet, once it has requests.
    pub default_rtt: Duration,
}

impl PeakEwma {
    /// What is left of an average after so many milliseconds.
    fn left(self, elapsed_ms: u32) -> f32 {
        let decay_ms = (self.decay.as_secs_f64() * 1000.0).max(1.0);
        (-f64::from(elapsed_ms) / decay_ms).exp() as f32
    }

    /// The expected wait behind `active` requests, in microseconds for a host of weight 1. A host that nobody has asked yet costs
    /// nothing until its first answer is under way: each is tried, none is flooded.
    pub(crate) fn cost(self, latency: &Latency, active: u32, now: Instant) -> f64 {
        let average = match latency.load() {
            Some((average, at)) => average * self.left(millis(now).wrapping_sub(at)),
            None if active == 0 => return 0.0,
            None => micros(self.default_rtt),
        };
        f64::from(average.max(SHORTEST_US)) * f64::from(active + 1)
    }
}

/// A host's average: its `f32` in microseconds above the millisecond of the last sample; 0: none yet.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

fn millis(at: Instant) -> u32 {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Wraps after seven weeks; only differences are read.
    at.saturating_duration_since(*EPOCH).as_millis() as u32
}

fn micros(time: Duration) -> f32 {
    (time.as_secs_f32() * 1e6).max(SHORTEST_US)
}

impl Latency {
    fn load(&self) -> Option<(f32, u32)> {
        let word = self.0.load(Relaxed);
        (word != 0).then(|| (f32::from_bits((word >> 32) as u32), word as u32))
    }

    fn store(&self, average: f32, at: u32) {
        self.0.store(u64::from(average.to_bits()) << 32 | u64::from(at), Relaxed);
    }

    /// Takes in the time from a request's start to the head of its response.
    pub fn observe(&self, settings: PeakEwma, sample: Duration, now: Instant) {
        let (sample, now) = (micros(sample), millis(now));
        let average = match self.load() {
            Some((average, at)) if sample < average => {
                // Within a millisecond nothing falls, and the time goes on counting from the sample before.
                let elapsed = now.wrapping_sub(at);
                if elapsed == 0 {
                    return;
                }
                let left = settings.left(elapsed).min(1.0 - LEAST_WEIGHT);
                average * left + sample * (1.0 - left)
            }
            Some(_) | None => sample,
        };
        self.store(average, now);
    }

    /// Takes in a request that failed, however fast.
    pub fn failed(&self, settings: PeakEwma, now: Instant) {
        let now = millis(now);
        let average = match self.load() {
            Some((average, at)) => average * settings.left(now.wrapping_sub(at)),
            None => micros(settings.default_rtt),
        };
        self.store((average.max(SHORTEST_US) * FAILURE).min(LONGEST_US), now);
    }
}
