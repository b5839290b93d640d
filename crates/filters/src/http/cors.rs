//! CORS as Envoy does it: preflights answered here, other responses of an allowed origin marked.

use std::sync::Arc;

use ::http::header;
use meltemi_http::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode};
use meltemi_plan::FilterOverride;
use meltemi_plan::filter::CorsPolicy;
use meltemi_telemetry::{Spec, stats};

use crate::chain::ChainScope;
use crate::context::Context;
use crate::info::StreamInfo;
use crate::reply::{Flow, LocalReply};

stats! {
    struct CorsStats {
        origin_valid: Spec::counter("origin_valid"),
        origin_invalid: Spec::counter("origin_invalid"),
    }
}

const PRIVATE_NETWORK_REQUEST: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

pub(crate) struct Cors {
    stats: CorsStats,
}

/// An allowed origin, to be named in the response.
#[derive(Debug)]
pub(crate) struct CorsMatch {
    policy: Arc<CorsPolicy>,
    origin: HeaderValue,
}

impl Cors {
    pub fn new(scope: &ChainScope, context: &Context) -> Self {
        let metrics = scope.metrics(("cors.", "envoy_http_cors_"), "");
        Self { stats: CorsStats::new(&context.registry, metrics) }
    }

    pub fn on_request(
        &self,
        name: &str,
        head: &RequestHead,
        info: &StreamInfo,
        matched: &mut Option<CorsMatch>,
    ) -> Flow {
        let Some(FilterOverride::Cors(policy)) = info.filter_override(name) else { return Flow::Continue };
        if info.route.as_ref().is_none_or(|route| route.forward().is_none()) {
            // Envoy knows policies of routes that forward, no others.
            return Flow::Continue;
        }
        let enabled = policy.enabled.hits(rand::random());
        if !enabled && !policy.shadow.hits(rand::random()) {
            return Flow::Continue;
        }
        let Some(origin) = head.headers.get(&header::ORIGIN).filter(|o| !o.is_empty()) else { return Flow::Continue };
        let preflight = head.method == Method::OPTIONS && head.headers.contains(&header::ACCESS_CONTROL_REQUEST_METHOD);
        if !allows(policy, origin) {
            self.stats.origin_invalid().inc();
            return if enabled && preflight && !policy.forward_not_matching_preflights {
                preflight_reply(policy, head).into()
            } else {
                Flow::Continue
            };
        }
        self.stats.origin_valid().inc();
        if !enabled {
            return Flow::Continue;
        }
        *matched = Some(CorsMatch { policy: policy.clone(), origin: origin.clone() });
        if preflight { preflight_reply(policy, head).into() } else { Flow::Continue }
    }
}

fn allows(policy: &CorsPolicy, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    policy.allow_origins.iter().any(|matcher| matcher.matches("*") || matcher.matches(origin))
}

/// What is allowed; to whom, [`CorsMatch::on_response`] says.
fn preflight_reply(policy: &CorsPolicy, head: &RequestHead) -> LocalReply {
    let mut reply = LocalReply::new(StatusCode::OK, "", "cors_response");
    reply.header_rules = false;
    reply.customizable = false;
    for (allowed, name, asked) in [
        (&policy.allow_methods, header::ACCESS_CONTROL_ALLOW_METHODS, header::ACCESS_CONTROL_REQUEST_METHOD),
        (&policy.allow_headers, header::ACCESS_CONTROL_ALLOW_HEADERS, header::ACCESS_CONTROL_REQUEST_HEADERS),
    ] {
        // With credentials an asterisk would be a name like any other: what is asked for is said instead.
        if **allowed == *"*" {
            let asked = head.headers.get(&asked).cloned();
            reply.headers.insert(name, asked.unwrap_or_else(|| HeaderValue::from_static("")));
        } else if let (false, Ok(value)) = (allowed.is_empty(), HeaderValue::from_str(allowed)) {
            reply.headers.insert(name, value);
        }
    }
    let mut add = |name: HeaderName, value: &str| {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
            reply.headers.insert(name, value);
        }
    };
    add(header::ACCESS_CONTROL_MAX_AGE, &policy.max_age);
    if policy.allow_credentials {
        add(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    let asks = head.headers.get(&PRIVATE_NETWORK_REQUEST).is_some_and(|v| v == "true");
    if asks && policy.allow_private_network_access {
        add(PRIVATE_NETWORK, "true");
    }
    reply
}

impl CorsMatch {
    pub fn on_response(&self, head: &mut ResponseHead) {
        let headers = &mut head.headers;
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if self.policy.allow_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let (false, Ok(value)) =
            (self.policy.expose_headers.is_empty(), HeaderValue::from_str(&self.policy.expose_headers))
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, value);
        }
    }
}
