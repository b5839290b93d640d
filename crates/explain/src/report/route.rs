//! What a route does with a request besides sending it on.

use meltemi_plan::filter::{Fault, FaultAbortBy, FaultDelayBy, FilterOverride};
use meltemi_plan::route::{
    DirectResponse, Forward, HashBy, HostRewrite, MirrorCluster, PathRewrite, Redirect, RedirectPath, RouteAction,
};
use meltemi_plan::{Route, Sensitivity, VirtualHost};
use meltemi_translate::RETRIES;

use super::words;

type Fact = (&'static str, String);

/// Timeouts, retries and changes, by name.
pub(super) fn facts(host: &VirtualHost, route: &Route) -> Vec<Fact> {
    let mut facts = match &route.action {
        RouteAction::Forward(forward) => forwarded(host, forward),
        RouteAction::Redirect(redirect) => vec![("redirect", redirected(redirect))],
        RouteAction::DirectResponse(response) => vec![("answer", answered(response))],
        RouteAction::NonForwarding => vec![("action", "nothing is forwarded".to_owned())],
    };
    if let Some(policy) = automatic_retries(route) {
        facts.push(("retries by", policy));
    }
    if let Some(watch) = &route.watch {
        let sensitivity = match watch.detection.sensitivity {
            Sensitivity::Low => "low",
            Sensitivity::Medium => "medium",
            Sensitivity::High => "high",
        };
        let policy = &watch.detection.policy;
        facts.push(("watched by", format!("ResiliencePolicy {policy}, for anomalies, with {sensitivity} sensitivity")));
    }
    for (_, own) in &route.per_filter.0 {
        match own {
            FilterOverride::Fault(fault) => facts.extend(fault_words(fault).into_iter().map(|text| ("fault", text))),
            FilterOverride::Cors(_) => facts.push(("CORS", "a policy is in force".to_owned())),
            _ => {}
        }
    }
    let changed = route.request_headers.add.len() + route.request_headers.remove.len();
    let answered = route.response_headers.add.len() + route.response_headers.remove.len();
    if changed + answered > 0 {
        facts.push(("headers", format!("{changed} changes to the request's, {answered} to the response's")));
    }
    facts
}

/// The policy that decided the retries, and for which requests these are.
fn automatic_retries(route: &Route) -> Option<String> {
    let metadata = route.metadata.as_deref()?;
    let field = |name| metadata.value(RETRIES, &[name]).and_then(|value| value.as_str());
    let methods = match field("methods")? {
        "idempotent" => "of idempotent methods",
        _ => "of methods that are not idempotent",
    };
    Some(format!("ResiliencePolicy {}, for requests {methods}", field("policy")?))
}

fn forwarded(host: &VirtualHost, forward: &Forward) -> Vec<Fact> {
    let retries = forward.retry_policy.as_ref().or(host.retry_policy.as_ref());
    let mut facts =
        vec![("timeout", words::limit(forward.timeout)), ("retries", words::retries(retries.map(|policy| &**policy)))];
    if let Some(idle) = forward.idle_timeout {
        facts.push(("idle timeout", words::limit(Some(idle))));
    }
    match &forward.path_rewrite {
        PathRewrite::None => {}
        PathRewrite::Prefix(prefix) => facts.push(("path", format!("what matched becomes {prefix:?}"))),
        PathRewrite::Regex(rewrite) => facts.push(("path", format!("rewritten by {:?}", rewrite.pattern()))),
        PathRewrite::Format(_) => facts.push(("path", "rewritten as a whole".to_owned())),
    }
    match &forward.host_rewrite {
        HostRewrite::None => {}
        HostRewrite::Literal(text) => {
            facts.push(("host", format!("becomes {:?}", text.as_literal().unwrap_or("a format"))))
        }
        HostRewrite::Auto => facts.push(("host", "becomes the endpoint's host name".to_owned())),
        HostRewrite::Header(key) => facts.push(("host", format!("becomes what header {key} says"))),
        HostRewrite::PathRegex(_) => facts.push(("host", "becomes a part of the path".to_owned())),
    }
    for mirror in &forward.mirrors {
        let cluster = match &mirror.cluster {
            MirrorCluster::Named(name) => name.to_string(),
            MirrorCluster::Header(key) => format!("what header {key} names"),
        };
        facts.push(("mirror", format!("{} to {cluster}", words::fraction(mirror.fraction))));
    }
    for policy in &forward.hash_policy {
        facts.push((
            "hash",
            match &policy.by {
                HashBy::Header { key, .. } => format!("by header {key}"),
                HashBy::Cookie { name, .. } => format!("by cookie {name}"),
                HashBy::SourceIp => "by the client's address".to_owned(),
                HashBy::QueryParameter(name) => format!("by query parameter {name}"),
                HashBy::FilterState(name) => format!("by filter state {name}"),
            },
        ));
    }
    facts
}

/// `301 to https://…`.
pub(super) fn redirected(redirect: &Redirect) -> String {
    let mut text = format!("{} to", redirect.status);
    for (what, value) in [("scheme", &redirect.scheme), ("host", &redirect.host)] {
        if let Some(value) = value {
            text = format!("{text} {what} {value}");
        }
    }
    if let Some(port) = redirect.port {
        text = format!("{text} port {port}");
    }
    match &redirect.path {
        RedirectPath::Keep => text,
        RedirectPath::Full(path) => format!("{text} path {}", path.as_literal().unwrap_or("by a format")),
        RedirectPath::Prefix(prefix) => format!("{text} a path with {prefix:?} for what matched"),
        RedirectPath::Regex(rewrite) => format!("{text} a path rewritten by {:?}", rewrite.pattern()),
    }
}

/// `404`, or `200 "hello"`.
pub(super) fn answered(response: &DirectResponse) -> String {
    let body = response.body.as_ref().and_then(|body| std::str::from_utf8(body).ok()).filter(|body| !body.is_empty());
    match body {
        Some(body) if body.len() <= 60 => format!("{} {body:?}", response.status),
        Some(body) => format!("{} with {} bytes", response.status, body.len()),
        None => response.status.to_string(),
    }
}

fn fault_words(fault: &Fault) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(delay) = &fault.delay {
        let by = match &delay.by {
            FaultDelayBy::Fixed(time) => format!("delayed by {}", words::duration(*time)),
            FaultDelayBy::Header => "delayed as a header says".to_owned(),
        };
        all.push(format!("{} {by}", words::fraction(delay.fraction)));
    }
    if let Some(abort) = &fault.abort {
        let by = match &abort.by {
            FaultAbortBy::Http(status) => format!("answered with {status}"),
            FaultAbortBy::Grpc(status) => format!("answered with gRPC status {status}"),
            FaultAbortBy::Header => "answered as a header says".to_owned(),
        };
        all.push(format!("{} {by}", words::fraction(abort.fraction)));
    }
    all
}
