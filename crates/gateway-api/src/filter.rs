//! Filters of HTTPRoute and GRPCRoute in the terms of VirtualService.

use crate::error::{Problem, reason};
use meltemi_config::Str;
use meltemi_config::gateway_api::{
    Fraction, HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifierType, HttpRequestRedirectFilter,
    HttpUrlRewriteFilter,
};
use meltemi_config::networking::{
    CorsPolicy, HeaderOperations, Headers, HttpRedirect, HttpRewrite, Percent, RedirectPort, RegexRewrite, StringMatch,
    UnmatchedPreflights,
};
use meltemi_matchers::quoted;
use std::collections::BTreeMap;
use std::time::Duration;

/// The default of `statusCode` in the CRD.
const FOUND: u32 = 302;
/// The default of `maxAge` in the CRD, in seconds.
const CORS_MAX_AGE: i32 = 5;
/// Any origin of RFC 6454, so that what is no origin is not reflected.
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

pub fn unsupported(kind: &str) -> Problem {
    Problem::new(reason::INVALID_FILTER, format!("unsupported filter type {kind:?}"))
}

/// Adds what filters do to the headers of requests and of responses.
pub fn modify(
    headers: &mut Option<Headers>,
    request: Option<&HttpHeaderFilter>,
    response: Option<&HttpHeaderFilter>,
) -> Result<(), Problem> {
    if let Some(modifier) = request {
        headers.get_or_insert_default().request = Some(operations(modifier)?);
    }
    if let Some(modifier) = response {
        headers.get_or_insert_default().response = Some(operations(modifier)?);
    }
    Ok(())
}

fn operations(filter: &HttpHeaderFilter) -> Result<HeaderOperations, Problem> {
    let valid = |value: &str| value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    if let Some(wrong) = filter.set.iter().chain(&filter.add).find(|header| !valid(&header.value)) {
        let message = format!("header {:?} value contains invalid characters", wrong.name);
        return Err(Problem::new(reason::INVALID_FILTER, message));
    }
    Ok(HeaderOperations { set: by_name(&filter.set), add: by_name(&filter.add), remove: filter.remove.clone() })
}

/// Of one name the first counts.
fn by_name(headers: &[HttpHeader]) -> BTreeMap<Str, Str> {
    let mut all = BTreeMap::new();
    for header in headers {
        all.entry(header.name.to_lowercase().into()).or_insert_with(|| header.value.clone());
    }
    all
}

pub fn redirect(filter: &HttpRequestRedirectFilter) -> HttpRedirect {
    let derived = match filter.scheme {
        Some(_) => RedirectPort::FromProtocolDefault,
        None => RedirectPort::FromRequestPort,
    };
    let mut out = HttpRedirect {
        redirect_code: filter.status_code.unwrap_or(FOUND),
        authority: filter.hostname.clone().unwrap_or_default(),
        scheme: filter.scheme.map_or("", |scheme| scheme.as_str()).into(),
        port: filter.port,
        derive_port: filter.port.is_none().then_some(derived),
        ..HttpRedirect::default()
    };
    let path = filter.path.as_ref();
    match path.and_then(|path| path.modifier_type) {
        Some(HttpPathModifierType::ReplaceFullPath) => {
            out.uri = path.and_then(|path| path.replace_full_path.clone()).unwrap_or_default();
        }
        Some(HttpPathModifierType::ReplacePrefixMatch) => {
            out.prefix_rewrite = path.and_then(|path| path.replace_prefix_match.clone()).unwrap_or_default();
        }
        None => {}
    }
    out
}

/// `None` where nothing is rewritten.
pub fn rewrite(filter: &HttpUrlRewriteFilter) -> Option<HttpRewrite> {
    let mut out = HttpRewrite { authority: filter.hostname.clone().unwrap_or_default(), ..HttpRewrite::default() };
    if let Some(path) = &filter.path {
        match path.modifier_type {
            Some(HttpPathModifierType::ReplacePrefixMatch) => {
                let prefix = path.replace_prefix_match.as_deref().unwrap_or_default();
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                // Alone, `/` takes the prefix away.
                out.uri = if prefix.is_empty() { "/" } else { prefix }.into();
            }
            Some(HttpPathModifierType::ReplaceFullPath) => {
                let rewrite = path.replace_full_path.clone().unwrap_or_default();
                out.uri_regex_rewrite = Some(RegexRewrite { pattern: "/.*".into(), rewrite });
            }
            None => {}
        }
    }
    (out != HttpRewrite::default()).then_some(out)
}

pub fn cors(filter: &HttpCorsFilter) -> CorsPolicy {
    CorsPolicy {
        allow_origins: filter.allow_origins.iter().map(|origin| origin_match(origin)).collect(),
        allow_methods: filter.allow_methods.clone(),
        allow_headers: filter.allow_headers.clone(),
        expose_headers: filter.expose_headers.clone(),
        max_age: u64::try_from(filter.max_age.unwrap_or(CORS_MAX_AGE)).ok().map(Duration::from_secs),
        allow_credentials: filter.allow_credentials.filter(|allowed| *allowed),
        unmatched_preflights: UnmatchedPreflights::Ignore,
        ..CorsPolicy::default()
    }
}

fn origin_match(origin: &str) -> StringMatch {
    if origin == "*" {
        return StringMatch::regex(ANY_ORIGIN);
    }
    match (origin.matches('*').count(), origin.strip_suffix('*')) {
        (0, _) => StringMatch::exact(origin),
        (1, Some(prefix)) => StringMatch::prefix(prefix),
        _ => StringMatch::regex(&format!("^{}$", quoted(origin).replace(r"\*", ".*"))),
    }
}

/// How much is mirrored; `None`: all.
pub fn mirrored(percent: Option<i32>, fraction: Option<&Fraction>) -> Option<Percent> {
    let share = match (fraction, percent) {
        (Some(fraction), _) => 100.0 * f64::from(fraction.numerator) / f64::from(fraction.denominator.unwrap_or(100)),
        (None, Some(percent)) => f64::from(percent),
        (None, None) => return None,
    };
    Some(Percent { value: share.into() })
}
