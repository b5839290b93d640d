//! Budgets against floods: what a peer may make us do that is no use to anyone.
//!
//! Control frames and resets each draw on a bucket that time refills and useful work tops up. The clock is read only when a bucket
//! is empty, so a well-behaved peer costs a decrement a frame.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that carry no message: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA and CONTINUATION, unknown ones, and frames of
/// closed streams (CVE-2019-9511 to 9518).
const CONTROL: Rate = Rate { burst: 10_000, per_second: 200 };
/// What a frame of ours allows the peer in return: it answers each DATA with at most two WINDOW_UPDATEs.
const TOP_UP: u32 = 4;
/// Streams reset by the peer, or by us because it broke a rule (CVE-2023-44487, CVE-2025-8671); nghttp2's figures.
const RESETS: Rate = Rate { burst: 1000, per_second: 33 };

#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// The peer has done too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flood;

struct Bucket {
    rate: Rate,
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, left: rate.burst, filled: Instant::now() }
    }

    fn take(&mut self) -> Result<(), Flood> {
        if self.left == 0 {
            self.refill(Instant::now());
        }
        self.left = self.left.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }

    fn refill(&mut self, now: Instant) {
        let gone = now.duration_since(self.filled).min(Duration::from_secs(3600));
        let earned = gone.as_millis() as u64 * u64::from(self.rate.per_second) / 1000;
        if earned > 0 {
            self.filled = now;
            self.left = u64::from(self.rate.burst).min(u64::from(self.left) + earned) as u32;
        }
    }
}

pub(crate) struct Budgets {
    control: Bucket,
    resets: Bucket,
}

impl Budgets {
    pub fn new() -> Self {
        Self { control: Bucket::new(CONTROL), resets: Bucket::new(RESETS) }
    }

    pub fn control(&mut self) -> Result<(), Flood> {
        self.control.take()
    }

    pub fn reset(&mut self) -> Result<(), Flood> {
        self.resets.take()
    }

    /// A frame of a message came or went.
    pub fn useful(&mut self) {
        self.control.left = (self.control.left + TOP_UP).min(CONTROL.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_with_time_and_with_useful_work() {
        let mut budgets = Budgets::new();
        for _ in 0..RESETS.burst {
            assert_eq!(budgets.resets.take(), Ok(()));
        }
        budgets.resets.refill(budgets.resets.filled);
        assert_eq!(budgets.resets.left, 0);
        budgets.resets.refill(budgets.resets.filled + Duration::from_secs(1));
        assert_eq!(budgets.resets.left, RESETS.per_second);
        budgets.resets.refill(budgets.resets.filled + Duration::from_secs(3600));
        assert_eq!(budgets.resets.left, RESETS.burst);
        budgets.control.left = 0;
        budgets.useful();
        assert_eq!(budgets.control.left, TOP_UP);
    }
}
