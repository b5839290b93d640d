//! RateLimitPolicy, and the configuration of a rate limit server.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Validation, common, http};
use crate::names;
use crate::path::Path;
use crate::rate_limit::{
    LimitBlock, LimitDescriptor, RateLimit, RateLimitConfiguration, RateLimitKey, RateLimitMatch, RateLimitPolicy,
    RateLimitProvider, RateLimitResponse, RateLimitRule, RateLimitScope, RateLimitUnit, claim_path,
};

/// Descriptors of a request are as long as a document is deep; nobody's are.
const MAX_DEPTH: usize = 16;

/// Of one policy.
const MAX_RULES: usize = 64;
const MAX_KEYS: usize = 8;
/// Envoy's own limit.
const MAX_RESPONSE_HEADERS: usize = 10;
/// Envoy refills no bucket more often.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn rate_limit_policy(spec: &RateLimitPolicy, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), None, &spec.target_refs, at, v);
    let targets = at.field("targetRefs");
    for (i, target) in spec.target_refs.iter().enumerate() {
        v.require(
            &targets.index(i).field("kind"),
            &*target.kind == "Gateway",
            "only Gateways are limited by reference",
        );
    }
    let rules = at.field("rules");
    v.require(&rules, spec.rules.len() <= MAX_RULES, format_args!("at most {MAX_RULES} rules"));
    if spec.rules.is_empty() {
        v.warn(&rules, "without rules nothing is limited");
    }
    let mut names = BTreeSet::new();
    for (i, one) in spec.rules.iter().enumerate() {
        let at = rules.index(i);
        let fresh = one.name.is_empty() || names.insert(&one.name);
        v.require(&at.field("name"), fresh, format_args!("another rule is named {:?}", &*one.name));
        rule(one, &at, v);
    }
}

fn rule(rule: &RateLimitRule, at: &Path<'_>, v: &mut Validation) {
    if !rule.name.is_empty() {
        v.check(&at.field("name"), names::dns_label(&rule.name));
        // A rule without a name has its place for one.
        let number = rule.name.bytes().all(|byte| byte.is_ascii_digit());
        v.require(&at.field("name"), !number, "must not be a number");
    }
    if let Some(matches) = &rule.matches {
        rule_match(matches, &at.field("match"), v);
    }
    match &rule.limit {
        Some(own) => rule_limit(own, rule.scope, &at.field("limit"), v),
        None => v.error(&at.field("limit"), "required"),
    }
    keys(&rule.by, &at.field("by"), v);
    match (&rule.provider, rule.scope) {
        (None, RateLimitScope::Local) => {}
        (Some(_), RateLimitScope::Local) => v.error(&at.field("provider"), "only of scope GLOBAL"),
        (None, RateLimitScope::Global) => v.error(&at.field("provider"), "scope GLOBAL needs a provider"),
        (Some(own), RateLimitScope::Global) => provider(own, &at.field("provider"), v),
    }
    if let Some(own) = &rule.response {
        response(own, &at.field("response"), v);
    }
}

fn rule_match(matches: &RateLimitMatch, at: &Path<'_>, v: &mut Validation) {
    for (field, list) in [("hosts", &matches.hosts), ("methods", &matches.methods), ("paths", &matches.paths)] {
        let at = at.field(field);
        for (i, pattern) in list.iter().enumerate() {
            let inner = pattern.strip_prefix('*').or_else(|| pattern.strip_suffix('*')).unwrap_or(pattern);
            let fine = !pattern.is_empty() && !inner.contains('*');
            v.require(&at.index(i), fine, "must not be empty, and * stands alone, first or last");
        }
    }
    let headers = at.field("headers");
    for (name, value) in &matches.headers {
        let at = headers.field(name);
        v.check(&at, names::header_name(name));
        http::string_match(value, &at, v);
    }
    let any = matches.hosts.is_empty() && matches.methods.is_empty() && matches.paths.is_empty();
    v.require(at, !any || !matches.headers.is_empty(), "is empty; leave it out to match every request");
}

fn rule_limit(limit: &RateLimit, scope: RateLimitScope, at: &Path<'_>, v: &mut Validation) {
    if limit.unit.is_some() == limit.interval.is_some() {
        v.error(at, "needs one of unit and interval");
    }
    let interval = at.field("interval");
    common::duration(limit.interval, &interval, v);
    let global = scope == RateLimitScope::Global;
    v.require(&interval, !global || limit.interval.is_none(), "scope GLOBAL counts by unit");
    let long = limit.interval.is_none_or(|own| own >= SHORTEST_INTERVAL);
    v.require(&interval, long, "must be at least 50ms");
    let requests = global || limit.requests > 0;
    v.require(&at.field("requests"), requests, "must be at least 1; an AuthorizationPolicy refuses everything");
    let burst = at.field("burst");
    v.require(&burst, !global || limit.burst.is_none(), "only of scope LOCAL");
    let enough = limit.burst.is_none_or(|burst| burst >= limit.requests);
    v.require(&burst, enough, "must be no less than requests, or these never fit");
}

fn keys(keys: &[RateLimitKey], at: &Path<'_>, v: &mut Validation) {
    v.require(at, keys.len() <= MAX_KEYS, format_args!("at most {MAX_KEYS}"));
    let mut known = BTreeSet::new();
    for (i, key) in keys.iter().enumerate() {
        let at = at.index(i);
        v.require(&at, key.sources().count() == 1, "needs exactly one source");
        if let Some(source) = key.source() {
            v.require(&at, known.insert(source), "is there already");
        }
        if !key.header.is_empty() {
            v.check(&at.field("header"), names::header_name(&key.header));
        }
        let claim = key.claim.is_empty() || claim_path(&key.claim).is_some();
        v.require(&at.field("claim"), claim, "is no claim; write sub, or [realm][group]");
    }
}

fn provider(provider: &RateLimitProvider, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("address"), names::host_port(&provider.address));
    common::duration(provider.timeout, &at.field("timeout"), v);
}

fn response(response: &RateLimitResponse, at: &Path<'_>, v: &mut Validation) {
    // Those that Envoy knows; it takes others for 429.
    let known = matches!(response.status, 0 | 400..=417 | 421..=424 | 426 | 428 | 429 | 431 | 500..=508 | 510 | 511);
    v.require(&at.field("status"), known, format_args!("{} is no status of an error", response.status));
    let headers = at.field("headers");
    let few = response.headers.len() <= MAX_RESPONSE_HEADERS;
    v.require(&headers, few, format_args!("at most {MAX_RESPONSE_HEADERS}"));
    for (name, value) in &response.headers {
        let at = headers.field(name);
        v.check(&at, names::header_name(name));
        v.check(&at, names::header_value(value));
    }
}

/// Validates one document of a rate limit server.
pub fn rate_limit_configuration(document: &RateLimitConfiguration) -> Validation {
    let mut out = Validation::default();
    let at = Path::root("");
    out.require(&at.field("domain"), !document.domain.is_empty(), "required");
    descriptors(&document.descriptors, &at.field("descriptors"), 1, &mut out);
    out
}

fn descriptors(list: &[LimitDescriptor], at: &Path<'_>, depth: usize, v: &mut Validation) {
    if depth > MAX_DEPTH {
        v.error(at, format_args!("more than {MAX_DEPTH} descriptors inside each other"));
        return;
    }
    let mut known = BTreeSet::new();
    for (i, one) in list.iter().enumerate() {
        let at = at.index(i);
        if !known.insert((&one.key, &one.value)) {
            v.error(&at, format_args!("another descriptor has key {:?} and value {:?}", &*one.key, &*one.value));
        }
        descriptor(one, &at, v);
        descriptors(&one.descriptors, &at.field("descriptors"), depth + 1, v);
    }
}

fn descriptor(one: &LimitDescriptor, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("key"), !one.key.is_empty(), "required");
    if let Some(block) = &one.rate_limit {
        limit(block, &at.field("rate_limit"), v);
    }
    let shared = !one.share_threshold || one.value.contains('*');
    v.require(&at.field("share_threshold"), shared, "only for a value with a *");
    for (field, is_set) in [("detailed_metric", one.detailed_metric), ("value_to_metric", one.value_to_metric)] {
        if is_set {
            v.warn(
                &at.field(field),
                "has no effect: metrics are by configured descriptor, never by a request's values",
            );
        }
    }
    if one.metadata.is_some() {
        v.warn(&at.field("metadata"), "has no effect: responses carry no dynamic metadata");
    }
}

fn limit(block: &LimitBlock, at: &Path<'_>, v: &mut Validation) {
    let unit = at.field("unit");
    let known = RateLimitUnit::parse(&block.unit).is_some();
    if block.unlimited {
        v.require(&unit, block.unit.is_empty(), "what is unlimited has no unit");
        v.require(&at.field("requests_per_unit"), block.requests_per_unit == 0, "what is unlimited has no number");
    } else {
        v.require(
            &unit,
            known,
            format_args!("{:?} is none of second, minute, hour, day, week, month, year", &*block.unit),
        );
    }
    let replaces = at.field("replaces");
    for (i, replaced) in block.replaces.iter().enumerate() {
        let at = replaces.index(i);
        let at = at.field("name");
        v.require(&at, !replaced.name.is_empty(), "required");
        v.require(&at, replaced.name.is_empty() || replaced.name != block.name, "a limit cannot replace itself");
    }
}
