//! Whether to try again, and when.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::StatusCode;
use meltemi_filters::{RequestFields, ResponseFields, ResponseFlags};
use meltemi_http::{ResetReason, name};
use meltemi_plan::{
    HeaderMatcher, VirtualHost,
    route::{Forward, RetryOn, RetryPolicy},
};
use meltemi_upstream::{Permit, Resource};

use super::{
    attempt::{Answer, Sending},
    failure::Failure,
    target::Target,
    timers::Expired,
};
use crate::hcm::Exchange;

/// The most specific policy that exists.
pub(super) fn policy(
    forward: &Forward,
    host: &VirtualHost,
    cluster: &meltemi_plan::Cluster,
) -> Option<Arc<RetryPolicy>> {
    forward.retry_policy.clone().or_else(|| host.retry_policy.clone()).or_else(|| cluster.http.retry_policy.clone())
}

/// What is left of a request's retries.
pub(super) struct Retries {
    policy: Option<Arc<RetryPolicy>>,
    on: RetryOn,
    left: u32,
    made: u32,
    /// Besides the policy's.
    status_codes: Vec<u16>,
    /// The host of this attempt.
    host: Option<u64>,
    tried: Vec<u64>,
    permit: Option<Permit>,
}

impl Retries {
    pub fn new(policy: Option<Arc<RetryPolicy>>, exchange: &mut Exchange<'_>) -> Self {
        let mut retries = Self {
            on: policy.as_ref().map_or_else(RetryOn::default, |p| p.on),
            left: policy.as_ref().map_or(1, |p| p.num_retries),
            made: 0,
            status_codes: Vec::new(),
            host: None,
            tried: Vec::new(),
            permit: None,
            policy,
        };
        retries.read_headers(exchange);
        let wanted = retries.policy.as_ref().map_or(&[][..], |p| &p.retriable_request_headers);
        let view = RequestFields(&exchange.request);
        if !wanted.is_empty() && !wanted.iter().any(|matcher| matcher.matches(&view)) {
            retries.on = RetryOn::default();
        }
        retries
    }

    /// `x-envoy-retry-on` and its kin; they do not travel on.
    fn read_headers(&mut self, exchange: &mut Exchange<'_>) {
        let headers = &mut exchange.request.headers;
        if !headers.iter().any(|(name, _)| name.as_str().starts_with("x-envoy-")) {
            return;
        }
        for key in [name::X_ENVOY_RETRY_ON, name::X_ENVOY_RETRY_GRPC_ON] {
            if let Some(value) = headers.remove(&key) {
                self.on = self.on.with(RetryOn::parse(value.to_str().unwrap_or_default()));
            }
        }
        if let Some(most) = headers.remove(&name::X_ENVOY_MAX_RETRIES).and_then(|v| v.to_str().ok()?.parse().ok()) {
            self.left = most;
        }
        if let Some(codes) = headers.remove(&name::X_ENVOY_RETRIABLE_STATUS_CODES) {
            let codes =
                codes.to_str().unwrap_or_default().split(',').filter_map(|code| code.trim().parse::<u16>().ok());
            self.status_codes.extend(codes);
        }
    }

    pub fn are_possible(&self) -> bool {
        self.on != RetryOn::default() && self.left > 0
    }

    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|p| p.per_try_timeout)
    }

    pub fn per_try_idle_timeout(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|p| p.per_try_idle_timeout)
    }

    /// An attempt at a host begins.
    pub fn attempts(&mut self, host: u64) {
        self.host = Some(host);
    }

    /// Hosts to avoid.
    pub fn tried(&self) -> &[u64] {
        &self.tried
    }

    /// After how many attempts their priorities are left out.
    pub fn leave_priorities(&self) -> Option<NonZeroU32> {
        self.policy.as_ref().and_then(|policy| policy.avoid_previous_priorities)
    }

    /// How often a host is picked again to avoid those.
    pub fn reselect(&self) -> usize {
        match &self.policy {
            Some(policy) if policy.avoid_previous_hosts && !self.tried.is_empty() => {
                policy.host_selection_attempts.max(1) as usize
            }
            Some(_) | None => 0,
        }
    }

    /// How long to wait before trying again after this response; `None` passes it on.
    pub fn after_response(
        &mut self,
        exchange: &mut Exchange<'_>,
        target: &Target,
        answer: &Answer,
        sending: &Sending,
    ) -> Option<Duration> {
        let traffic = &target.cluster.stats.traffic;
        if self.on == RetryOn::default() || !self.wants_response(answer) {
            self.permit = None;
            if self.made > 0 {
                traffic.upstream_rq_retry_success().inc();
            }
            return None;
        }
        let wait = self.allowed(exchange, target, sending)?;
        traffic.retried(answer.head.status.as_u16());
        let outcome = meltemi_upstream::Outcome::Status(answer.head.status.as_u16());
        target.cluster.report(&answer.endpoint, outcome);
        self.tried.extend(self.host.take());
        Some(wait)
    }

    pub fn after_failure(
        &mut self,
        exchange: &mut Exchange<'_>,
        target: &Target,
        failure: &Failure,
        sending: &Sending,
    ) -> Option<Duration> {
        if self.on == RetryOn::default() || !self.wants_failure(failure, sending) {
            return None;
        }
        let wait = self.allowed(exchange, target, sending)?;
        if let Failure::Expired(expired) = failure {
            expired.count(&target.cluster.stats.traffic);
        }
        self.tried.extend(self.host.take());
        Some(wait)
    }

    fn wants_response(&self, answer: &Answer) -> bool {
        let (on, head) = (self.on, &answer.head);
        let status = head.status.as_u16();
        if head.headers.contains(&name::X_ENVOY_RATELIMITED) {
            return on.has(RetryOn::ENVOY_RATE_LIMITED);
        }
        let by_status = (on.has(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (on.has(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504))
            || (on.has(RetryOn::RETRIABLE_4XX) && head.status == StatusCode::CONFLICT)
            || (on.has(RetryOn::RETRIABLE_STATUS_CODES) && self.is_retriable(status));
        by_status || self.wants_headers(answer) || self.wants_grpc(head.headers.get_str(&name::GRPC_STATUS))
    }

    fn is_retriable(&self, status: u16) -> bool {
        let of_policy = self.policy.as_ref().is_some_and(|policy| policy.retriable_status_codes.contains(&status));
        of_policy || self.status_codes.contains(&status)
    }

    fn wants_headers(&self, answer: &Answer) -> bool {
        let matchers: &[HeaderMatcher] = self.policy.as_ref().map_or(&[], |p| &p.retriable_headers);
        let view = ResponseFields(&answer.head);
        self.on.has(RetryOn::RETRIABLE_HEADERS) && matchers.iter().any(|matcher| matcher.matches(&view))
    }

    fn wants_grpc(&self, status: Option<&str>) -> bool {
        let condition = match status {
            Some("1") => RetryOn::GRPC_CANCELLED,
            Some("4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
            Some("8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            Some("13") => RetryOn::GRPC_INTERNAL,
            Some("14") => RetryOn::GRPC_UNAVAILABLE,
            Some(_) | None => return false,
        };
        self.on.has(condition)
    }

    fn wants_failure(&self, failure: &Failure, sending: &Sending) -> bool {
        let any_reset = self.on.has(RetryOn::RESET) || self.on.has(RetryOn::SERVER_ERROR);
        let gateway = self.on.has(RetryOn::GATEWAY_ERROR);
        match failure {
            // Envoy retries neither: another attempt would meet the same.
            Failure::NoHealthyHost | Failure::Overflow | Failure::Unsupported => false,
            Failure::Connect(_) => {
                let before = self.on.has(RetryOn::RESET_BEFORE_REQUEST);
                any_reset || gateway || before || self.on.has(RetryOn::CONNECT_FAILURE)
            }
            Failure::Reset(ResetReason::Refused) => any_reset || gateway || self.on.has(RetryOn::REFUSED_STREAM),
            Failure::Reset(ResetReason::Local) => false,
            Failure::Reset(ResetReason::ConnectionClosed | ResetReason::Remote | ResetReason::Protocol) => {
                any_reset || gateway || (self.on.has(RetryOn::RESET_BEFORE_REQUEST) && !sending.sent_any)
            }
            Failure::Expired(Expired::PerTry | Expired::PerTryIdle) => any_reset || gateway,
            Failure::Expired(Expired::Request | Expired::StreamIdle | Expired::MaxDuration) => false,
        }
    }

    /// Takes one retry if there is one, the request can be sent again and the cluster's breaker lets it.
    fn allowed(&mut self, exchange: &mut Exchange<'_>, target: &Target, sending: &Sending) -> Option<Duration> {
        self.permit = None;
        let traffic = &target.cluster.stats.traffic;
        if self.left == 0 {
            exchange.info.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
            traffic.upstream_rq_retry_limit_exceeded().inc();
            return None;
        }
        if !sending.can_replay() {
            return None;
        }
        let Some(permit) = target.cluster.breakers.acquire(target.priority, Resource::Retry) else {
            exchange.info.flags |= ResponseFlags::UPSTREAM_OVERFLOW;
            traffic.upstream_rq_retry_overflow().inc();
            return None;
        };
        self.permit = Some(permit);
        self.left -= 1;
        self.made += 1;
        traffic.upstream_rq_retry().inc();
        traffic.upstream_rq_retry_backoff_exponential().inc();
        Some(self.backoff(exchange.context.worker.random()))
    }

    /// Fully jittered and exponential: anything below base × (2^n − 1), at most the maximum.
    fn backoff(&self, random: u64) -> Duration {
        let (base, max) = match &self.policy {
            Some(policy) => (policy.backoff_base, policy.backoff_max),
            None => (Duration::from_millis(25), Duration::from_millis(250)),
        };
        let steps = (1u64 << self.made.min(20)) - 1;
        let ceiling = u64::try_from(base.as_millis()).unwrap_or(u64::MAX).saturating_mul(steps).max(1);
        Duration::from_millis(random % ceiling).min(max)
    }
}
