//! Redirect routes.

use http::{HeaderValue, StatusCode, header};
use meltemi_filters::LocalReply;
use meltemi_http::RequestHead;
use meltemi_plan::{
    Route,
    route::{Redirect, RedirectPath, find::without_port},
};

use crate::hcm::{self, Exchange};

/// The answer of a redirect route.
pub fn reply(exchange: &Exchange<'_>, redirect: &Redirect, route: &Route) -> LocalReply {
    let request = &exchange.request;
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme.as_str());
    let host = host(request, redirect, scheme);
    let path = path(exchange, redirect, route);
    moved(redirect.status, &format!("{scheme}://{host}{path}"))
}

/// The answer to a plain request where the virtual host requires TLS.
pub fn to_https(request: &RequestHead) -> LocalReply {
    let bare = without_port(&request.authority);
    moved(301, &format!("https://{bare}{}", request.path))
}

fn moved(status: u16, location: &str) -> LocalReply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut reply = LocalReply::new(status, "", "direct_response");
    if let Ok(value) = HeaderValue::from_str(location) {
        reply.headers.append(header::LOCATION, value);
    }
    reply
}

fn host(request: &RequestHead, redirect: &Redirect, scheme: &str) -> String {
    let current = request.authority.as_str();
    let bare = without_port(current);
    let host = redirect.host.as_deref().unwrap_or(bare);
    let own_port = current.get(bare.len() + 1..).filter(|_| redirect.host.is_none());
    match (redirect.port, own_port) {
        (Some(port), _) => format!("{host}:{port}"),
        // A change of scheme leaves the old scheme's default port behind.
        (None, Some(port)) if redirect.scheme.is_some() && is_default(port, scheme) => host.to_owned(),
        (None, Some(port)) => format!("{host}:{port}"),
        (None, None) => host.to_owned(),
    }
}

fn is_default(port: &str, new_scheme: &str) -> bool {
    matches!((port, new_scheme), ("80", "https") | ("443", "http"))
}

fn path(exchange: &Exchange<'_>, redirect: &Redirect, route: &Route) -> String {
    let request = &exchange.request;
    let whole = request.path.as_str();
    let (only, query) = whole.split_at(request.path_only().len());
    let query = if redirect.strip_query { "" } else { query };
    match &redirect.path {
        RedirectPath::Keep => format!("{only}{query}"),
        RedirectPath::Full(format) => {
            let new = format.as_literal().map_or_else(|| hcm::text(format, request, &exchange.info), str::to_owned);
            // A path that brings a query keeps its own.
            if new.contains('?') { new } else { new + query }
        }
        RedirectPath::Prefix(prefix) => format!("{prefix}{}{query}", &only[route.matcher.path.matched_len(only)..]),
        RedirectPath::Regex(rewrite) => format!("{}{query}", rewrite.apply_str(only)),
    }
}
