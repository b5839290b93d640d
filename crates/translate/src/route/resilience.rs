//! What ResiliencePolicies make of a route: two routes with the retries that each method can bear, and word of what is watched.
//!
//! In Envoy's terms, so that any proxy does it: a request whose method is idempotent (RFC 9110, 9.2.2) takes the first route, which
//! repeats after everything that may pass; every other takes the second, which repeats only what no application can have seen.
//! Anomalies are watched by our own proxy alone; others leave metadata that they do not know alone.

use meltemi_model::{Anomalies, Resilience, Retries};
use meltemi_proto::envoy::config::core::v3::Metadata;
use meltemi_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use meltemi_proto::envoy::config::route::v3::{HeaderMatcher, RetryPolicy, Route, route};
use meltemi_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::retry;
use super::spec::Policy;
use crate::wire;

const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";
/// For idempotent methods: the answer may be lost, a second one does the same.
const REPEATABLE: &str = "gateway-error,reset,reset-before-request,connect-failure,refused-stream";
/// For all others: no application has seen the request.
const UNSEEN: &str = "reset-before-request,connect-failure,refused-stream";

/// Metadata that names the policy behind a route's retries, and whether the route is the one for idempotent methods.
pub const RETRIES: &str = "meltemi.automatic_retries";

/// Metadata of what is watched for anomalies: `sensitivity` (`low`, `medium`, `high`), `eject`, and the policy.
pub const ANOMALIES: &str = "meltemi.anomaly_detection";

pub fn apply(mut route: Route, resilience: &Resilience, policy: &Policy) -> Vec<Route> {
    // A gRPC library has only POST, repeats by itself what no server has seen, and watches nothing.
    if policy.proxyless || !matches!(route.action, Some(route::Action::Route(_))) {
        return vec![route];
    }
    if let Some(anomalies) = &resilience.anomalies {
        watch(route.metadata.get_or_insert_default(), anomalies);
    }
    let Some(retries) = &resilience.retries else { return vec![route] };
    let mut repeatable = route.clone();
    repeatable.r#match.get_or_insert_default().headers.push(idempotent_method());
    vec![with_retries(repeatable, retries, true), with_retries(route, retries, false)]
}

/// Says in a route's or a cluster's metadata that it is watched.
pub fn watch(metadata: &mut Metadata, anomalies: &Anomalies) {
    let policy = anomalies.policy.to_string();
    let eject = if anomalies.eject { "true" } else { "false" };
    let fields = [("sensitivity", anomalies.sensitivity.as_str()), ("eject", eject), ("policy", &policy)];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), wire::string_value(value))).collect();
    metadata.filter_metadata.insert(ANOMALIES.to_owned(), meltemi_proto::prost_types::Struct { fields });
}

fn idempotent_method() -> HeaderMatcher {
    let pattern = MatchPattern::SafeRegex(wire::regex(IDEMPOTENT));
    HeaderMatcher {
        name: ":method".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ignore_case: false,
        })),
        ..HeaderMatcher::default()
    }
}

fn with_retries(mut route: Route, retries: &Retries, idempotent: bool) -> Route {
    if let Some(route::Action::Route(action)) = &mut route.action {
        let base = retry::outbound(None, !action.hash_policy.is_empty()).unwrap_or_default();
        action.retry_policy = (retries.max_attempts > 1).then(|| RetryPolicy {
            retry_on: if idempotent { REPEATABLE } else { UNSEEN }.into(),
            num_retries: Some(retries.max_attempts - 1),
            ..base
        });
    }
    let methods = if idempotent { "idempotent" } else { "other" };
    let policy = retries.policy.to_string();
    let fields = [("policy", &*policy), ("methods", methods)];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), wire::string_value(value))).collect();
    let metadata = route.metadata.get_or_insert_default();
    metadata.filter_metadata.insert(RETRIES.to_owned(), meltemi_proto::prost_types::Struct { fields });
    route
}
