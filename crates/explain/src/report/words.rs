//! Plans in words.

use std::time::Duration;

use meltemi_config::format_duration;
use meltemi_config::security::AuthorizationAction;
use meltemi_matchers::{StringMatcher, StringPattern};
use meltemi_model::{Snapshot, Workload};
use meltemi_plan::header::HeaderTest;
use meltemi_plan::listener::ChainCriteria;
use meltemi_plan::route::{PathRule, RetryOn, RetryPolicy, RouteMatch};
use meltemi_plan::{Fraction, HeaderMatcher};

use crate::request::{Protocol, Request, Security};

/// `GET http://catalog:8080/ to 10.96.1.2:8080`.
pub(super) fn request(request: &Request) -> String {
    let secured = match request.security {
        Security::Plaintext => "",
        Security::Tls => " over TLS",
        Security::Mtls => " over mutual TLS",
    };
    let Request { method, host, path, destination, .. } = request;
    match request.protocol {
        Protocol::Tcp if request.sni.is_empty() => format!("TCP{secured} to {destination}"),
        Protocol::Tcp => format!("TCP{secured} (SNI {}) to {destination}", request.sni),
        Protocol::Http1 | Protocol::Http2 => {
            let scheme = if request.is_encrypted() { "https" } else { "http" };
            format!("{method} {scheme}://{host}{path}{secured} to {destination}")
        }
    }
}

/// The policies that a workload holds what it receives against, in the order in which they are evaluated:
/// `DENY shop/no-writes, ALLOW shop/readers (dry run), limits of shop/api`. `None` where there are none.
pub(super) fn policies(snapshot: &Snapshot, workload: &Workload<'_>) -> Option<String> {
    use AuthorizationAction::{Allow, Audit, Custom, Deny};
    let authorization = snapshot.authorization_policies(workload);
    let with = |action: AuthorizationAction| {
        let own = authorization.iter().filter(move |policy| policy.spec.action == action);
        own.map(move |policy| {
            let dry_run = if meltemi_translate::authorization::is_dry_run(policy) { " (dry run)" } else { "" };
            format!("{action} {}{dry_run}", policy.key())
        })
    };
    let tokens = snapshot.request_authentications(workload);
    let mut names: Vec<String> = with(Custom).collect();
    names.extend(tokens.iter().map(|policy| format!("tokens of {}", policy.key())));
    names.extend([Audit, Deny, Allow].into_iter().flat_map(with));
    names.extend(snapshot.rate_limit_policies(workload).iter().map(|policy| format!("limits of {}", policy.key())));
    (!names.is_empty()).then(|| names.join(", "))
}

pub(super) fn duration(duration: Duration) -> String {
    if duration.subsec_millis() > 0 && duration.as_secs() == 0 {
        return format!("{}ms", duration.as_millis());
    }
    format_duration(duration)
}

/// `None` and zero are no limit.
pub(super) fn limit(limit: Option<Duration>) -> String {
    limit.filter(|limit| !limit.is_zero()).map_or_else(|| "none".to_owned(), duration)
}

pub(super) fn string(matcher: &StringMatcher) -> String {
    let text = match &matcher.pattern {
        StringPattern::Exact(text) => format!("{text:?}"),
        StringPattern::Prefix(text) => format!("beginning with {text:?}"),
        StringPattern::Suffix(text) => format!("ending in {text:?}"),
        StringPattern::Contains(text) => format!("containing {text:?}"),
        StringPattern::Regex(regex) => format!("like the regular expression {:?}", regex.pattern()),
    };
    if matcher.ignore_case { format!("{text} in any case") } else { text }
}

/// `header end-user "tester"`.
pub(super) fn header(matcher: &HeaderMatcher) -> String {
    let key = &matcher.key;
    let not = if matcher.invert { "no " } else { "" };
    match &matcher.test {
        HeaderTest::Present => format!("{not}header {key}"),
        HeaderTest::String(text) => format!("{not}header {key} {}", string(text)),
        HeaderTest::Range { start, end } => format!("{not}header {key} from {start} to below {end}"),
    }
}

pub(super) fn path(rule: &PathRule) -> String {
    match rule {
        PathRule::Prefix { prefix, .. } if &**prefix == "/" => "any path".to_owned(),
        PathRule::Prefix { prefix, .. } => format!("a path beginning with {prefix:?}"),
        PathRule::Exact { path, .. } => format!("the path {path:?}"),
        PathRule::SeparatedPrefix { prefix, .. } => format!("the path {prefix:?} and what lies below it"),
        PathRule::Regex(regex) => format!("a path like the regular expression {:?}", regex.pattern()),
        PathRule::Connect => "CONNECT".to_owned(),
    }
}

pub(super) fn fraction(fraction: Fraction) -> String {
    percent(f64::from(fraction.numerator) * 100.0 / f64::from(fraction.denominator.max(1)))
}

pub(super) fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// All conditions of a route: `any path with header end-user "tester"`.
pub(super) fn conditions(rule: &RouteMatch) -> String {
    let mut with: Vec<String> = rule.headers.iter().map(header).collect();
    with.extend(rule.query.iter().map(|query| match &query.value {
        Some(value) => format!("query parameter {} {}", query.name, string(value)),
        None if query.absent => format!("no query parameter {}", query.name),
        None => format!("query parameter {}", query.name),
    }));
    with.extend(rule.cookies.iter().map(|cookie| format!("cookie {} {}", cookie.name, string(&cookie.value))));
    if rule.grpc {
        with.push("gRPC".to_owned());
    }
    let mut text = path(&rule.path);
    if !with.is_empty() {
        text = format!("{text} with {}", with.join(" and "));
    }
    match rule.fraction {
        Some(part) => format!("{text}, {} of it", fraction(part)),
        None => text,
    }
}

/// `2 times at most, 2s each, on connect-failure, reset`.
pub(super) fn retries(policy: Option<&RetryPolicy>) -> String {
    let Some(policy) = policy.filter(|policy| policy.num_retries > 0) else { return "none".to_owned() };
    let on: Vec<&str> =
        RetryOn::NAMES.iter().filter(|(_, condition)| policy.on.has(*condition)).map(|(name, _)| *name).collect();
    let mut text = format!("up to {}", policy.num_retries);
    if let Some(timeout) = policy.per_try_timeout.filter(|timeout| !timeout.is_zero()) {
        text = format!("{text}, {} a try", duration(timeout));
    }
    let codes = policy.retriable_status_codes.iter().map(u16::to_string);
    let codes = codes.collect::<Vec<_>>().join("/");
    let codes = if codes.is_empty() { codes } else { format!(" ({codes})") };
    format!("{text}, on {}{codes}", on.join(", "))
}

/// `port 443, server name *.example.com`; empty where anything is taken.
pub(super) fn criteria(criteria: &ChainCriteria) -> String {
    let mut parts = Vec::new();
    let joined = |list: &[std::sync::Arc<str>]| list.iter().map(|text| &**text).collect::<Vec<_>>().join(" or ");
    if let Some(port) = criteria.destination_port {
        parts.push(format!("port {port}"));
    }
    if !criteria.prefixes.is_empty() {
        let prefixes: Vec<String> = criteria.prefixes.iter().map(ToString::to_string).collect();
        parts.push(format!("destination {}", prefixes.join(" or ")));
    }
    if !criteria.server_names.is_empty() {
        parts.push(format!("SNI {}", joined(&criteria.server_names)));
    }
    match &*criteria.transport_protocol {
        "" => {}
        "tls" => parts.push("TLS".to_owned()),
        "raw_buffer" => parts.push("no TLS".to_owned()),
        other => parts.push(other.to_owned()),
    }
    if !criteria.application_protocols.is_empty() {
        parts.push(format!("ALPN {}", joined(&criteria.application_protocols)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_told_in_words() {
        assert_eq!(duration(Duration::from_millis(250)), "250ms");
        assert_eq!(duration(Duration::from_secs(5)), "5s");
        assert_eq!(limit(Some(Duration::ZERO)), "none");
        assert_eq!(percent(33.333), "33.33%");
        assert_eq!(percent(90.0), "90%");
        assert_eq!(string(&StringMatcher::prefix("x").ignoring_case(true)), "beginning with \"x\" in any case");
        assert_eq!(retries(None), "none");
        let only =
            ChainCriteria { destination_port: Some(443), transport_protocol: "tls".into(), ..ChainCriteria::default() };
        assert_eq!(criteria(&only), "port 443, TLS");
    }
}
