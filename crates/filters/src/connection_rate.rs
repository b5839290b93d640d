//! Limits on the rate of new connections (`local_ratelimit` of listeners and of networks): one bucket for all workers.

use std::sync::{Arc, Weak};
use std::time::Instant;

use meltemi_plan::listener::ConnectionRateLimit;
use meltemi_telemetry::metrics::{Prefix, Scope};
use meltemi_telemetry::{Spec, stats};

use crate::bucket::TokenBucket;
use crate::context::Context;

stats! {
    struct RateStats {
        rate_limited: Spec::counter("rate_limited"),
    }
}

/// Where a limit stands, and so under which name it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before the TLS handshake.
    Listener,
    Network,
}

/// A bucket of which each connection takes a token.
#[derive(Debug)]
pub struct ConnectionRate {
    plan: Arc<ConnectionRateLimit>,
    bucket: TokenBucket,
    stats: RateStats,
}

impl ConnectionRate {
    /// The limit's bucket, the same one for whoever asks while it lives. Limits with one key and one bucket share it.
    pub fn of(plan: &Arc<ConnectionRateLimit>, place: Place, context: &Context) -> Arc<Self> {
        let mut rates = context.rates.lock();
        rates.retain(|rate| rate.strong_count() > 0);
        let is_same = |rate: &Arc<Self>| {
            let shares = !plan.share_key.is_empty() && rate.plan.share_key == plan.share_key;
            Arc::ptr_eq(&rate.plan, plan) || (shares && rate.plan.bucket == plan.bucket)
        };
        if let Some(known) = rates.iter().filter_map(Weak::upgrade).find(is_same) {
            return known;
        }
        let kind = match place {
            Place::Listener => "listener_local_ratelimit",
            Place::Network => "local_rate_limit",
        };
        let scope = Scope {
            prefix: Prefix::Plain(format!("{kind}.{}.", plan.stat_prefix).into()),
            prometheus: format!("envoy_{kind}_{}_", plan.stat_prefix).into(),
            ..Scope::default()
        };
        let rate = Arc::new(Self {
            bucket: TokenBucket::new(plan.bucket, Instant::now()),
            stats: RateStats::new(&context.registry, scope),
            plan: plan.clone(),
        });
        rates.push(Arc::downgrade(&rate));
        rate
    }

    /// Whether a connection may go on.
    pub fn admits(&self) -> bool {
        let admitted = !self.plan.enabled || self.bucket.take(Instant::now());
        if !admitted {
            self.stats.rate_limited().inc();
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meltemi_plan::filter::TokenBucket as Bucket;
    use std::time::Duration;

    fn limit(share_key: &str, enabled: bool) -> Arc<ConnectionRateLimit> {
        let bucket = Bucket { max_tokens: 1, tokens_per_fill: 1, fill_interval: Duration::from_secs(3600) };
        Arc::new(ConnectionRateLimit { stat_prefix: "l".into(), bucket, enabled, share_key: share_key.into() })
    }

    #[test]
    fn workers_share_a_bucket_and_limits_one_by_key() {
        let context = crate::testing::context();
        let plan = limit("", true);
        let (a, b) =
            (ConnectionRate::of(&plan, Place::Network, &context), ConnectionRate::of(&plan, Place::Network, &context));
        assert_eq!((a.admits(), b.admits()), (true, false));
        let other = ConnectionRate::of(&limit("", true), Place::Network, &context);
        assert!(other.admits(), "another limit has a bucket of its own");
        let shared =
            [limit("k", true), limit("k", true)].map(|plan| ConnectionRate::of(&plan, Place::Network, &context));
        assert_eq!((shared[0].admits(), shared[1].admits()), (true, false));
        let off = ConnectionRate::of(&limit("", false), Place::Listener, &context);
        assert!(off.admits() && off.admits());
        assert_eq!(context.registry.total("envoy_local_rate_limit_l_rate_limited", &[]), 2);
    }
}
