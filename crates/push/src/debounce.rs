//! Merging of changes that come close together.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Istio's `PILOT_DEBOUNCE_AFTER`.
pub const QUIET: Duration = Duration::from_millis(100);
/// Istio's `PILOT_DEBOUNCE_MAX`.
pub const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debounce {
    /// A batch is complete once nothing has come for this long.
    pub quiet: Duration,
    /// A batch is complete this long after its first change, whatever still comes.
    pub longest: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self { quiet: QUIET, longest: LONGEST }
    }
}

/// Changes merged into one, how many they were, and when the first came.
#[derive(Debug)]
pub struct Batch<T> {
    pub change: T,
    pub merged: usize,
    pub since: Instant,
}

impl Debounce {
    /// Waits for a change, then for those that follow it closely. `None` once the channel is closed and empty.
    pub async fn next<T>(&self, changes: &mut mpsc::Receiver<T>, mut merge: impl FnMut(&mut T, T)) -> Option<Batch<T>> {
        let change = changes.recv().await?;
        let since = Instant::now();
        let mut batch = Batch { change, merged: 1, since };
        let deadline = since + self.longest;
        loop {
            let quiet_until = (Instant::now() + self.quiet).min(deadline);
            match timeout_at(quiet_until, changes.recv()).await {
                Ok(Some(change)) => {
                    merge(&mut batch.change, change);
                    batch.merged += 1;
                }
                Ok(None) | Err(_) => return Some(batch),
            }
            if Instant::now() >= deadline {
                return Some(batch);
            }
        }
    }
}
