//! `envoy.service.ratelimit.v3.RateLimitService`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use meltemi_proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use meltemi_proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use meltemi_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

use crate::counters::{CounterError, Counters, Hit};
use crate::decision::{self, Count, Judged};
use crate::limits::{Found, Limit, Limits, Window, entry_name};
use crate::server::OnFailure;
use crate::stats::Stats;

/// Descriptors are made of headers, which are under 64 KiB.
const MAX_REQUEST_BYTES: usize = 128 * 1024;

/// How the service answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub on_failure: OnFailure,
    /// Say `RateLimit-*` to the client.
    pub headers: bool,
    /// Never refuse.
    pub shadow: bool,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

struct Inner {
    limits: Arc<ArcSwap<Limits>>,
    counters: Arc<Counters>,
    stats: Arc<Stats>,
    manners: Manners,
    /// Seconds since 1970.
    now: fn() -> u64,
}

impl Service {
    pub fn new(
        limits: Arc<ArcSwap<Limits>>,
        counters: Arc<Counters>,
        stats: Arc<Stats>,
        manners: Manners,
        now: fn() -> u64,
    ) -> Self {
        Self(Arc::new(Inner { limits, counters, stats, manners, now }))
    }

    /// The gRPC service, with its message size bounded.
    pub fn into_server(self) -> RateLimitServiceServer<Self> {
        RateLimitServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The answer at a time in seconds since 1970.
    pub async fn decide(&self, request: &RateLimitRequest, now: u64) -> Result<RateLimitResponse, Status> {
        let inner = &*self.0;
        check(request).inspect_err(|_| inner.stats.service_errors.inc())?;
        let found = self.find(request)?;
        let mut hits = Vec::new();
        for (descriptor, found) in request.descriptors.iter().zip(&found) {
            let Some((found, window)) = found.as_ref().and_then(|own| Some((own, own.limit.window?))) else { continue };
            let hit = hit(request, descriptor, found, window, now);
            found.limit.stats.total_hits(hit.hits);
            hits.push(hit);
        }
        let amounts: Vec<u64> = hits.iter().map(|hit| hit.hits).collect();
        let counts = match inner.counters.add(hits, now).await {
            Ok(counts) => counts,
            Err(error) => return self.failed(&error, request),
        };
        let mut counts = counts.into_iter().zip(amounts).map(|(after, hits)| Count { after, hits });
        let judged: Vec<_> = found.iter().map(|found| judge(found.as_ref(), &mut counts)).collect();
        let mut response = decision::respond(&judged, now, inner.manners.headers);
        if inner.manners.shadow && response.overall_code == Code::OverLimit as i32 {
            response.overall_code = Code::Ok as i32;
            inner.stats.global_shadow_mode.inc();
        }
        Ok(response)
    }

    /// The limit of each descriptor; none where another descriptor's limit replaces it.
    fn find(&self, request: &RateLimitRequest) -> Result<Vec<Option<Found>>, Status> {
        let limits = self.0.limits.load();
        let mut found = Vec::with_capacity(request.descriptors.len());
        for (index, descriptor) in request.descriptors.iter().enumerate() {
            let Some(configured) = limits.find(&request.domain, descriptor) else {
                self.0.stats.domain_not_found.inc();
                return Ok(request.descriptors.iter().map(|_| None).collect());
            };
            found.push(match descriptor.limit {
                Some(_) => Some(self.brought(request, index)?),
                None => configured,
            });
        }
        let replaced: Vec<_> = found.iter().flatten().flat_map(|found| found.limit.replaces.clone()).collect();
        for slot in &mut found {
            let is_replaced = |own: &Found| !own.limit.name.is_empty() && replaced.contains(&own.limit.name);
            *slot = slot.take_if(|own| !is_replaced(own));
        }
        Ok(found)
    }

    /// The limit that a descriptor brings with it.
    fn brought(&self, request: &RateLimitRequest, index: usize) -> Result<Found, Status> {
        let descriptor = &request.descriptors[index];
        let own = descriptor.limit.unwrap_or_default();
        let unit = decision::unit_of_wire(own.unit).ok_or_else(|| {
            self.0.stats.service_errors.inc();
            Status::invalid_argument(format!("descriptors[{index}].limit.unit: {} is no unit", own.unit))
        })?;
        let names: Vec<_> = descriptor.entries.iter().map(|entry| entry_name(&entry.key, &entry.value)).collect();
        let limit = Limit {
            window: Some(Window { requests: own.requests_per_unit, unit }),
            name: "".into(),
            replaces: Vec::new(),
            shadow: false,
            quota: false,
            stats: self.0.stats.limit(&request.domain, names.iter().map(|name| &**name)),
        };
        Ok(Found { limit: Arc::new(limit), shared: Vec::new() })
    }

    /// Nothing could be counted.
    fn failed(&self, error: &CounterError, request: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        self.0.stats.redis_errors.inc();
        let code = match self.0.manners.on_failure {
            OnFailure::Error => return Err(Status::unavailable(error.to_string())),
            OnFailure::Allow => Code::Ok,
            OnFailure::Deny => Code::OverLimit,
        };
        let mut response = decision::respond(&vec![Judged::Free; request.descriptors.len()], 0, false);
        response.overall_code = code as i32;
        Ok(response)
    }
}

fn check(request: &RateLimitRequest) -> Result<(), Status> {
    if request.domain.is_empty() {
        return Err(Status::invalid_argument("rate limit domain must not be empty"));
    }
    if request.descriptors.is_empty() {
        return Err(Status::invalid_argument("rate limit descriptor list must not be empty"));
    }
    match request.descriptors.iter().position(|descriptor| descriptor.is_negative_hits) {
        Some(index) => {
            Err(Status::invalid_argument(format!("descriptors[{index}].is_negative_hits: hits are never taken back")))
        }
        None => Ok(()),
    }
}

/// What a descriptor counts, under the reference server's key: both may share a Redis.
fn hit(request: &RateLimitRequest, descriptor: &RateLimitDescriptor, found: &Found, window: Window, now: u64) -> Hit {
    let length = window.unit.seconds();
    let begins = now - now % length;
    let mut key = format!("{}_", request.domain);
    for (index, entry) in descriptor.entries.iter().enumerate() {
        let shared = found.shared.get(index).and_then(Option::as_deref);
        key.extend([&*entry.key, "_", shared.unwrap_or(&entry.value), "_"]);
    }
    key.push_str(&begins.to_string());
    let hits = descriptor.hits_addend.unwrap_or_else(|| u64::from(request.hits_addend.max(1)));
    Hit { key, hits, ends: begins + length, length }
}

fn judge<'a>(found: Option<&'a Found>, counts: &mut impl Iterator<Item = Count>) -> Judged<'a> {
    let Some(found) = found else { return Judged::Free };
    let Some(window) = found.limit.window else { return Judged::Unlimited };
    match counts.next() {
        Some(count) => Judged::Counted { limit: &found.limit, window, count },
        None => Judged::Free,
    }
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.0.stats.requests.inc();
        self.decide(request.get_ref(), (self.0.now)()).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests;
