//! Local rate limiting: one token bucket for all workers.

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
use crate::flags::ResponseFlags;
use crate::format::Scope as FormatScope;
use crate::headers;
use crate::info::StreamInfo;
use crate::reply::{Flow, LocalReply};

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
    stats: LimitStats,
}

impl Limit {
    fn new(config: Arc<plan::LocalRateLimit>, context: &Context) -> Arc<Self> {
        let metrics = Scope {
            prefix: Prefix::Plain(format!("{}.http_local_rate_limit.", config.stat_prefix).into()),
            prometheus: format!("envoy_{}_http_local_rate_limit_", config.stat_prefix).into(),
            ..Scope::default()
        };
        let bucket = config.bucket.map(|b| TokenBucket::new(b, Instant::now()));
        Arc::new(Self { bucket, stats: LimitStats::new(&context.registry, metrics), config })
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

    pub fn on_request(&self, filter: &str, head: &mut RequestHead, info: &mut StreamInfo) -> Flow {
        let limit = self.limit(filter, info);
        let Some(bucket) = &limit.bucket else { return Flow::Continue };
        if !limit.config.enabled.hits(rand::random()) {
            return Flow::Continue;
        }
        limit.stats.enabled().inc();
        if bucket.take(Instant::now()) {
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
