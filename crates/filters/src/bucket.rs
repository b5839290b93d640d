//! A token bucket.

use std::time::Instant;

use meltemi_plan::filter as plan;
use parking_lot::Mutex;

/// Filled by so many tokens each interval, up to its size; time is given.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    config: plan::TokenBucket,
    state: Mutex<(u32, Instant)>,
}

impl TokenBucket {
    pub fn new(config: plan::TokenBucket, now: Instant) -> Self {
        Self { config, state: Mutex::new((config.max_tokens, now)) }
    }

    /// Tokens a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.config.tokens_per_fill) / self.config.fill_interval.as_secs_f64()
    }

    pub fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let (tokens, filled) = &mut *state;
        let interval = self.config.fill_interval.as_nanos().max(1);
        let fills = now.saturating_duration_since(*filled).as_nanos() / interval;
        if fills > 0 {
            let fills = fills.min(u128::from(u32::MAX)) as u32;
            *tokens =
                tokens.saturating_add(self.config.tokens_per_fill.saturating_mul(fills)).min(self.config.max_tokens);
            *filled += self.config.fill_interval.saturating_mul(fills);
        }
        if *tokens == 0 {
            return false;
        }
        *tokens -= 1;
        true
    }
}
