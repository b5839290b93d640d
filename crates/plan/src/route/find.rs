//! Route selection: virtual host by domain, then the first route whose every condition holds.

mod mismatch;

pub use mismatch::Mismatch;

use super::{CookieMatcher, PathRule, QueryMatcher, Route, RouteConfiguration, RouteMatch, RouteRequest, VirtualHost};
use crate::header::{HeaderKey, HeaderMatcher};
use http::header;
use meltemi_matchers::FullRegex;
use std::sync::Arc;

impl RouteConfiguration {
    pub fn find(&self, request: &RouteRequest<'_>) -> Option<(Arc<VirtualHost>, Arc<Route>)> {
        let host = self.find_host(request)?;
        let route = self.find_route(host, request)?;
        Some((host.clone(), route.clone()))
    }

    pub fn find_host(&self, request: &RouteRequest<'_>) -> Option<&Arc<VirtualHost>> {
        match &self.vhost_header {
            None => self.hosts.find(self.trimmed(request.host)),
            Some(key) => {
                let value = request.headers.value(key)?;
                self.hosts.find(self.trimmed(std::str::from_utf8(&value).ok()?))
            }
        }
    }

    fn trimmed<'a>(&self, host: &'a str) -> &'a str {
        if self.ignore_port { without_port(host) } else { host }
    }

    pub fn find_route<'h>(&self, host: &'h VirtualHost, request: &RouteRequest<'_>) -> Option<&'h Arc<Route>> {
        let path = path_for_matching(request.path, self.ignore_path_parameters);
        host.routes.find(request, path)
    }
}

/// The host without a trailing `:port`; an IPv6 literal keeps its brackets.
pub fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if host.len() > at + 1 && host[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            let bare = &host[..at];
            // `::1` is an address without brackets, not a host with a port.
            if bare.contains(':') && !bare.ends_with(']') { host } else { bare }
        }
        _ => host,
    }
}

fn path_for_matching(path: &str, ignore_parameters: bool) -> &str {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let path = &path[..end];
    if ignore_parameters { path.split(';').next().unwrap_or(path) } else { path }
}

impl RouteMatch {
    /// Whether it holds of a request by itself, outside a route configuration.
    pub fn holds(&self, request: &RouteRequest<'_>) -> bool {
        self.matches(request, path_for_matching(request.path, false))
    }

    pub(super) fn matches(&self, request: &RouteRequest<'_>, path: &str) -> bool {
        if !self.path.matches(path, request) {
            return false;
        }
        if let Some(fraction) = self.fraction
            && !fraction.hits(request.random)
        {
            return false;
        }
        HeaderMatcher::all_match(&self.headers, request.headers)
            && (!self.grpc || is_grpc(request))
            && (self.query.is_empty() || query_matches(&self.query, request.path))
            && (self.cookies.is_empty() || cookies_match(&self.cookies, request))
            && self.tls_presented.is_none_or(|wanted| wanted == request.tls_presented)
            && self.tls_validated.is_none_or(|wanted| wanted == request.tls_validated)
            && self.dynamic_metadata.iter().all(|matcher| {
                let value = request.metadata.and_then(|have| have.value(&matcher.filter, &matcher.path));
                matcher.value.matches(value) != matcher.invert
            })
    }
}

impl PathRule {
    fn matches(&self, path: &str, request: &RouteRequest<'_>) -> bool {
        if let Self::Connect = self {
            return request.is_connect;
        }
        if request.path.is_empty() {
            return false;
        }
        match self {
            Self::Prefix { prefix, ignore_case } => starts_with(path, prefix, *ignore_case),
            Self::Exact { path: wanted, ignore_case: true } => path.eq_ignore_ascii_case(wanted),
            Self::Exact { path: wanted, ignore_case: false } => path == &**wanted,
            Self::SeparatedPrefix { prefix, ignore_case } => {
                starts_with(path, prefix, *ignore_case)
                    && (path.len() == prefix.len() || path.as_bytes()[prefix.len()] == b'/')
            }
            Self::Regex(regex) => FullRegex::matches(regex, path.as_bytes()),
            Self::Connect => request.is_connect,
        }
    }

    /// The length of what a prefix rewrite replaces in `path` (without query).
    pub fn matched_len(&self, path: &str) -> usize {
        match self {
            Self::Prefix { prefix, .. } | Self::SeparatedPrefix { prefix, .. } => prefix.len().min(path.len()),
            Self::Exact { .. } | Self::Regex(_) => path.len(),
            Self::Connect => 0,
        }
    }
}

fn starts_with(path: &str, prefix: &str, ignore_case: bool) -> bool {
    match path.as_bytes().get(..prefix.len()) {
        Some(head) if ignore_case => head.eq_ignore_ascii_case(prefix.as_bytes()),
        Some(head) => head == prefix.as_bytes(),
        None => false,
    }
}

fn is_grpc(request: &RouteRequest<'_>) -> bool {
    let Some(value) = request.headers.value(&HeaderKey::Name(header::CONTENT_TYPE)) else { return false };
    value.strip_prefix(b"application/grpc").is_some_and(|rest| rest.is_empty() || rest[0] == b'+')
}

/// The parameters of a path's query as they stand: Envoy does not decode them for matching.
pub fn query_parameters(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = path.find('?').map_or("", |at| &path[at + 1..]);
    let query = query.split('#').next().unwrap_or(query);
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

pub fn query_matches(matchers: &[QueryMatcher], path: &str) -> bool {
    matchers.iter().all(|matcher| {
        let found = query_parameters(path).find(|(name, _)| *name == &*matcher.name);
        match (found, &matcher.value) {
            (None, _) => matcher.absent,
            (Some(_), None) => !matcher.absent,
            (Some((_, value)), Some(wanted)) => wanted.matches(value),
        }
    })
}

fn cookies_match(matchers: &[CookieMatcher], request: &RouteRequest<'_>) -> bool {
    let header = request.headers.value(&HeaderKey::Name(header::COOKIE));
    let text = header.as_deref().unwrap_or_default();
    matchers
        .iter()
        .all(|matcher| cookie(text, &matcher.name).is_some_and(|value| matcher.value.matches(value)) != matcher.invert)
}

/// The value of the first cookie of this name in a Cookie header.
pub fn cookie<'a>(header: &'a [u8], name: &'a str) -> Option<&'a [u8]> {
    cookies(header, name).next()
}

/// The values of all cookies of this name.
pub fn cookies<'a>(header: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    header.split(|byte| matches!(byte, b';' | b',')).filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let value = &pair[at + 1..];
        let quoted = value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"");
        (&pair[..at] == name.as_bytes()).then(|| if quoted { &value[1..value.len() - 1] } else { value })
    })
}

#[cfg(test)]
mod tests;
