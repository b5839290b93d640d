//! Local rate limiting: token buckets for all workers, of all requests and of those with a descriptor.

mod values;

use std::sync::Arc;
use std::time::Instant;

use meltemi_http::{Headers, RequestHead, StatusCode};
use meltemi_plan::FilterOverride;
use meltemi_plan::filter as plan;
use meltemi_telemetry::metrics::{Prefix, Scope};
use meltemi_telemetry::{Spec, stats};
use parking_lot::Mutex;

use crate::bucket::TokenBucket;
use crate::context::Context;
use crate::descriptor::{self, Counted, Descriptor};
use crate::flags::ResponseFlags;
use crate::format::Scope as FormatScope;
use crate::headers;
use crate::info::StreamInfo;
use crate::reply::{Flow, LocalReply};
use values::Buckets;

stats! {
    struct LimitStats {
        enabled: Spec::counter("enabled"),
        enforced: Spec::counter("enforced"),
        ok: Spec::counter("ok"),
        rate_limited: Spec::counter("rate_limited"),
    }
}

struct Limit {
    config: Arc<plan::LocalRateLimit>,
    bucket: Option<TokenBucket>,
    /// In the order of the configuration's descriptors.
    by_descriptor: Vec<Buckets>,
    stats: LimitStats,
}

impl Limit {
    fn new(config: Arc<plan::LocalRateLimit>, context: &Context) -> Arc<Self> {
        let metrics = Scope {
            prefix: Prefix::Plain(format!("{}.http_local_rate_limit.", config.stat_prefix).into()),
            prometheus: format!("envoy_{}_http_local_rate_limit_", config.stat_prefix).into(),
            ..Scope::default()
        };
        let now = Instant::now();
        let bucket = config.bucket.map(|b| TokenBucket::new(b, now));
        let most = usize::try_from(config.most_values).unwrap_or(usize::MAX);
        let by_descriptor = config.descriptors.iter().map(|own| Buckets::new(own, most, now)).collect();
        Arc::new(Self { bucket, by_descriptor, stats: LimitStats::new(&context.registry, metrics), config })
    }

    /// Whether a request with these descriptors may go on: every bucket that it is of has a token for it.
    fn admits(&self, descriptors: &[Descriptor], now: Instant) -> bool {
        let mut buckets: Vec<_> = descriptors.iter().filter_map(|own| self.bucket_of(own, now)).collect();
        // The tightest first, so that a request that it refuses costs the others nothing.
        buckets.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        let counts_all = buckets.is_empty() || self.config.always_counts_all;
        buckets.iter().map(|bucket| &**bucket).chain(self.bucket.iter().filter(|_| counts_all)).all(|own| own.take(now))
    }

    /// That of the descriptor itself, else of the first that stands for each value.
    fn bucket_of(&self, descriptor: &Descriptor, now: Instant) -> Option<Arc<TokenBucket>> {
        let own = || self.config.descriptors.iter().zip(&self.by_descriptor);
        let exact = own().find_map(|(wanted, buckets)| match buckets {
            Buckets::One(bucket) if descriptor::is(descriptor, &wanted.entries) => Some(bucket.clone()),
            _ => None,
        });
        exact.or_else(|| {
            own().find_map(|(wanted, buckets)| match buckets {
                Buckets::ForEach(values) => {
                    descriptor::fits(descriptor, &wanted.entries).then(|| values.bucket(descriptor, wanted.bucket, now))
                }
                Buckets::One(_) => None,
            })
        })
    }
}

/// The filter, with a bucket for each override seen.
pub(crate) struct LocalRateLimit {
    own: Arc<Limit>,
    context: Arc<Context>,
    overrides: Mutex<Vec<(Arc<plan::LocalRateLimit>, Arc<Limit>)>>,
}

/// Overrides that keep a bucket at once; configuration beyond that replaces the oldest.
const OVERRIDES: usize = 1024;

impl LocalRateLimit {
    pub fn new(config: Arc<plan::LocalRateLimit>, context: &Arc<Context>) -> Self {
        Self { own: Limit::new(config, context), context: context.clone(), overrides: Mutex::default() }
    }

    fn limit(&self, filter: &str, info: &StreamInfo) -> Arc<Limit> {
        let Some(FilterOverride::LocalRateLimit(config)) = info.filter_override(filter) else {
            return self.own.clone();
        };
        let mut overrides = self.overrides.lock();
        if let Some((_, limit)) = overrides.iter().find(|(c, _)| Arc::ptr_eq(c, config)) {
            return limit.clone();
        }
        if overrides.len() >= OVERRIDES {
            overrides.remove(0);
        }
        let limit = Limit::new(config.clone(), &self.context);
        overrides.push((config.clone(), limit.clone()));
        limit
    }

    fn descriptors(&self, config: &plan::LocalRateLimit, head: &RequestHead, info: &StreamInfo) -> Vec<Descriptor> {
        if config.descriptors.is_empty() {
            return Vec::new();
        }
        let counted = Counted {
            stage: config.stage,
            own: &config.policies,
            host: config.host_policies,
            service_cluster: &self.context.node.service_cluster,
        };
        descriptor::all(counted, head, info)
    }

    pub fn on_request(&self, filter: &str, head: &mut RequestHead, info: &mut StreamInfo) -> Flow {
        let limit = self.limit(filter, info);
        if limit.bucket.is_none() && limit.by_descriptor.is_empty() {
            return Flow::Continue;
        }
        if !limit.config.enabled.hits(rand::random()) {
            return Flow::Continue;
        }
        limit.stats.enabled().inc();
        let descriptors = self.descriptors(&limit.config, head, info);
        if limit.admits(&descriptors, Instant::now()) {
            limit.stats.ok().inc();
            return Flow::Continue;
        }
        limit.stats.rate_limited().inc();
        if !limit.config.enforced.hits(rand::random()) {
            headers::add_to_request(&limit.config.request_headers_when_not_enforced, head, info);
            return Flow::Continue;
        }
        limit.stats.enforced().inc();
        let status = StatusCode::from_u16(limit.config.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let mut reply = LocalReply::new(status, "local_rate_limited", "local_rate_limited");
        reply.late_flags = ResponseFlags::RATE_LIMITED;
        reply.grpc_status = limit.config.resource_exhausted.then_some(8);
        let scope = FormatScope { request: Some(head), ..FormatScope::new(info) };
        let mut extra = Headers::new();
        headers::add_to(&limit.config.response_headers, &mut extra, &scope);
        reply.headers.extend(extra);
        reply.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use meltemi_plan::HttpFilterConfig;
    use serde_json::{Value, json};

    fn filter(always_counts_all: bool) -> LocalRateLimit {
        let bucket = |tokens: u32| json!({ "maxTokens": tokens, "fillInterval": "3600s" });
        let always = json!({ "defaultValue": { "numerator": 100 } });
        let descriptor = |user: &str, tokens: u32| json!({ "entries": [{ "key": "user", "value": user }], "tokenBucket": bucket(tokens) });
        let by_user: Value =
            json!([{ "actions": [{ "requestHeaders": { "headerName": "x-user", "descriptorKey": "user" } }] }]);
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "statPrefix": "local", "tokenBucket": bucket(3), "filterEnabled": always, "filterEnforced": always,
            "alwaysConsumeDefaultTokenBucket": always_counts_all, "rateLimits": by_user,
            "descriptors": [descriptor("a", 1), descriptor("b", 100)] });
        let HttpFilterConfig::LocalRateLimit(plan) = testing::http_filter(config) else { panic!("another filter") };
        LocalRateLimit::new(plan, &testing::context())
    }

    /// Which of these users' requests were limited.
    fn limited(filter: &LocalRateLimit, users: &[&str]) -> Vec<bool> {
        let ask = |user: &&str| {
            let flow = filter.on_request("limit", &mut testing::request(&[("x-user", user)]), &mut testing::info());
            matches!(flow, Flow::Reply(_))
        };
        users.iter().map(ask).collect()
    }

    #[test]
    fn a_descriptor_has_a_bucket_of_its_own_beside_that_of_all() {
        let users = ["a", "a", "b", "b", "b", "c"];
        assert_eq!(limited(&filter(true), &users), [false, true, false, false, true, true]);
        assert_eq!(limited(&filter(false), &users), [false, true, false, false, false, false]);
    }
}
