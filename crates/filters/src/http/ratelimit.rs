//! `envoy.filters.http.ratelimit`: a service of its own counts requests by their descriptors, and says when it is too many.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::http::header;
use meltemi_http::{HeaderName, HeaderValue, Headers, RequestHead, StatusCode, name};
use meltemi_plan::header::AppendAction;
use meltemi_plan::rate_limit::{RateLimit as Config, RateLimitPerRoute, RequestKind};
use meltemi_plan::{FilterOverride, HeaderKey};
use meltemi_proto::envoy::config::core::v3::HeaderValue as ProtoHeader;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry};
use meltemi_proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit};
use meltemi_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use meltemi_telemetry::{Spec, stats};

use crate::authz::json_map;
use crate::call::{Around, Caller, Rpc};
use crate::chain::{ChainScope, dotted};
use crate::context::Context;
use crate::descriptor::{self, Counted, Descriptor};
use crate::edit::{Action, Edit, ResponseEdits};
use crate::flags::ResponseFlags;
use crate::format::Scope as FormatScope;
use crate::headers;
use crate::info::StreamInfo;
use crate::reply::{Flow, LocalReply};

stats! {
    struct LimitStats {
        ok: Spec::counter("ok"),
        error: Spec::counter("error"),
        over_limit: Spec::counter("over_limit"),
        failure_mode_allowed: Spec::counter("failure_mode_allowed"),
    }
}

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const NAMESPACE: &str = "envoy.filters.http.ratelimit";
const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// gRPC's `RESOURCE_EXHAUSTED`.
const RESOURCE_EXHAUSTED: u32 = 8;

pub(crate) struct RateLimit {
    config: Arc<Config>,
    service_cluster: Arc<str>,
    stats: LimitStats,
}

impl RateLimit {
    pub fn new(config: Arc<Config>, scope: &ChainScope, context: &Context) -> Self {
        let metrics = scope.metrics(("ratelimit.", "envoy_http_ratelimit_"), &dotted(&config.stat_prefix));
        let service_cluster = context.node.service_cluster.clone();
        Self { stats: LimitStats::new(&context.registry, metrics), service_cluster, config }
    }

    pub async fn on_request(
        &self,
        name: &str,
        (head, info): (&mut RequestHead, &mut StreamInfo),
        around: Around<'_>,
        edits: &mut ResponseEdits,
    ) -> Flow {
        let internal = head.headers.get_str(&name::X_ENVOY_INTERNAL) == Some("true");
        let wanted = match self.config.requests {
            RequestKind::Both => true,
            RequestKind::Internal => internal,
            RequestKind::External => !internal,
        };
        if !wanted || info.upstream.cluster.is_none() || !self.config.enabled.hits(rand::random()) {
            return Flow::Continue;
        }
        let own = match info.filter_override(name) {
            Some(FilterOverride::RateLimit(own)) => Some(own.clone()),
            _ => None,
        };
        let descriptors = self.descriptors(own.as_deref(), head, info);
        if descriptors.is_empty() {
            return Flow::Continue;
        }
        let domain = own.as_deref().map(|own| &own.domain).filter(|domain| !domain.is_empty());
        let domain = domain.unwrap_or(&self.config.domain).to_string();
        match self.ask(domain, descriptors, around.caller).await {
            Some(answer) => self.judge(answer, (head, info), edits),
            None => self.fail(),
        }
    }

    fn descriptors(&self, own: Option<&RateLimitPerRoute>, head: &RequestHead, info: &StreamInfo) -> Vec<Descriptor> {
        let counted = Counted {
            stage: self.config.stage,
            own: own.map_or(&[][..], |own| &own.policies),
            host: own.map(|own| own.host_policies).unwrap_or_default(),
            service_cluster: &self.service_cluster,
        };
        descriptor::all(counted, head, info)
    }

    async fn ask(&self, domain: String, all: Vec<Descriptor>, caller: &dyn Caller) -> Option<RateLimitResponse> {
        let entry = |(key, value): (Arc<str>, String)| Entry { key: key.to_string(), value };
        let message = |entries: Descriptor| RateLimitDescriptor {
            entries: entries.into_iter().map(entry).collect(),
            ..RateLimitDescriptor::default()
        };
        let descriptors = all.into_iter().map(message).collect();
        let request = RateLimitRequest { domain, descriptors, hits_addend: 0 };
        let target = &self.config.service;
        let rpc = Rpc::of(target, PATH);
        let answer = rpc.call(caller, &meltemi_proto::encode(&request)).await;
        let answer =
            answer.map_err(|error| tracing::debug!(cluster = %target.cluster, %error, "no rate limit")).ok()?;
        meltemi_proto::decode::<RateLimitResponse>(&answer)
            .ok()
            .filter(|answer| matches!(Code::try_from(answer.overall_code), Ok(Code::Ok | Code::OverLimit)))
    }

    fn judge(
        &self,
        answer: RateLimitResponse,
        (head, info): (&mut RequestHead, &mut StreamInfo),
        edits: &mut ResponseEdits,
    ) -> Flow {
        if let Some(metadata) = &answer.dynamic_metadata {
            info.find_out(NAMESPACE, json_map(metadata));
        }
        edits.extend(answer.response_headers_to_add.iter().filter_map(added));
        if self.config.quota_headers {
            edits.extend(quota(&answer.statuses));
        }
        let limited = answer.overall_code == Code::OverLimit as i32;
        if limited {
            self.stats.over_limit().inc();
        } else {
            self.stats.ok().inc();
        }
        if limited && self.config.enforced.hits(rand::random()) {
            return self.limited(&answer.raw_body, head, info);
        }
        if !limited {
            answer.request_headers_to_add.iter().filter_map(added).for_each(|edit| edit.on_request(head));
        }
        Flow::Continue
    }

    fn limited(&self, body: &[u8], head: &RequestHead, info: &StreamInfo) -> Flow {
        let status = StatusCode::from_u16(self.config.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let body = String::from_utf8_lossy(body).into_owned();
        let mut reply = LocalReply::new(status, body, "request_rate_limited").with_flags(ResponseFlags::RATE_LIMITED);
        reply.grpc_status = self.config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        if self.config.marks_limited {
            reply.headers.insert(LIMITED, HeaderValue::from_static("true"));
        }
        let scope = FormatScope { request: Some(head), ..FormatScope::new(info) };
        let mut extra = Headers::new();
        headers::add_to(&self.config.response_headers, &mut extra, &scope);
        reply.headers.extend(extra);
        reply.into()
    }

    fn fail(&self) -> Flow {
        self.stats.error().inc();
        if !self.config.failure_mode_deny {
            self.stats.failure_mode_allowed().inc();
            return Flow::Continue;
        }
        let status = StatusCode::from_u16(self.config.status_on_error).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        LocalReply::new(status, "", "rate_limiter_error").with_flags(ResponseFlags::RATE_LIMIT_SERVICE_ERROR).into()
    }
}

/// A header that the service adds; not one that would change what is sent how.
fn added(header: &ProtoHeader) -> Option<Edit> {
    let text = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let key = HeaderKey::parse(&header.key).ok()?;
    let of_framing = |name: &HeaderName| [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
    match &key {
        HeaderKey::Name(name) if !of_framing(name) => {}
        _ => return None,
    }
    let value = HeaderValue::from_bytes(text).ok()?;
    Some(Edit { key, value, action: Action::As(AppendAction::AppendIfExistsOrAdd) })
}

/// The tightest limit, and the policies of all (draft-polli-ratelimit-headers-03).
fn quota(statuses: &[DescriptorStatus]) -> Vec<Edit> {
    let known: Vec<_> =
        statuses.iter().filter_map(|status| status.current_limit.as_ref().map(|limit| (status, limit))).collect();
    let Some((tightest, limit)) = known.iter().min_by_key(|(status, _)| status.limit_remaining) else { return vec![] };
    let mut text = limit.requests_per_unit.to_string();
    for (_, limit) in &known {
        if let Some(window) = window(limit.unit) {
            text += &format!(", {};w={window}", limit.requests_per_unit);
            if !limit.name.is_empty() {
                text += &format!(";name=\"{}\"", limit.name);
            }
        }
    }
    let reset = tightest.duration_until_reset.as_ref().map_or(0, |until| until.seconds);
    let pairs = [(LIMIT, text), (REMAINING, tightest.limit_remaining.to_string()), (RESET, reset.to_string())];
    let edit = |(name, text): (HeaderName, String)| {
        let value = HeaderValue::from_str(&text).ok()?;
        let action = Action::As(AppendAction::AppendIfExistsOrAdd);
        Some(Edit { key: HeaderKey::Name(name), value, action })
    };
    pairs.into_iter().filter_map(edit).collect()
}

/// Seconds of a unit.
fn window(unit: i32) -> Option<u32> {
    const DAY: u32 = 86_400;
    match Unit::try_from(unit).ok()? {
        Unit::Unknown => None,
        Unit::Second => Some(1),
        Unit::Minute => Some(60),
        Unit::Hour => Some(3600),
        Unit::Day => Some(DAY),
        Unit::Week => Some(7 * DAY),
        Unit::Month => Some(30 * DAY),
        Unit::Year => Some(365 * DAY),
    }
}
