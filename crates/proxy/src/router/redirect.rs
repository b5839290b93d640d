//! Redirect routes.

use http::{HeaderValue, StatusCode, header};
use meltemi_filters::LocalReply;
use meltemi_http::{RequestHead, name};
use meltemi_plan::{
    Route,
    route::{Redirect, RedirectPath, find::without_port},
};

use crate::hcm::{self, Exchange};

/// The answer of a redirect route.
pub fn reply(exchange: &mut Exchange<'_>, redirect: &Redirect, route: &Route) -> LocalReply {
    rewrite(exchange, redirect, route);
    let request = &exchange.request;
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme.as_str());
    let host = host(request, redirect, scheme);
    let path = path(exchange, redirect);
    let slash = if path.starts_with('/') { "" } else { "/" };
    moved(redirect.status, &format!("{scheme}://{host}{slash}{path}"))
}

/// Where the request is now, in full.
pub fn here(request: &RequestHead) -> String {
    format!("{}://{}{}", request.scheme.as_str(), request.authority, request.path)
}

/// The answer to a plain request where the virtual host requires TLS. The port of plaintext, where a client names it, is not that of
/// TLS; Envoy keeps it.
pub fn to_https(request: &RequestHead) -> LocalReply {
    let host = own_host(&request.authority, ("http", "https"), false);
    moved(301, &format!("https://{host}{}", request.path))
}

fn moved(status: u16, location: &str) -> LocalReply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut reply = LocalReply::new(status, "", "direct_response");
    locate(&mut reply, location);
    reply
}

/// Sets `location`.
pub fn locate(reply: &mut LocalReply, location: &str) {
    if let Ok(value) = HeaderValue::from_str(location) {
        reply.headers.append(header::LOCATION, value);
    }
}

fn host(request: &RequestHead, redirect: &Redirect, scheme: &str) -> String {
    let own = || {
        let old_scheme = request.headers.get_str(&name::X_FORWARDED_PROTO).unwrap_or_default();
        own_host(&request.authority, (old_scheme, scheme), redirect.port.is_some())
    };
    let host = redirect.host.as_deref().unwrap_or_else(own);
    redirect.port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The request's own host. Its port goes where another takes its place, and where it is the default of a scheme that is left.
fn own_host<'a>(authority: &'a str, (old, new): (&str, &str), replaced: bool) -> &'a str {
    let bare = without_port(authority);
    let left = old != new && matches!((old, &authority[bare.len()..]), ("http", ":80") | ("https", ":443"));
    if replaced || left { bare } else { authority }
}

/// Changes the request's own path, which header rules and logs see from here on.
fn rewrite(exchange: &mut Exchange<'_>, redirect: &Redirect, route: &Route) {
    let (only, query) = split(&exchange.request);
    let new = match &redirect.path {
        RedirectPath::Keep | RedirectPath::Full(_) => return,
        RedirectPath::Prefix(prefix) => format!("{prefix}{}{query}", &only[route.matcher.path.matched_len(only)..]),
        RedirectPath::Regex(rewrite) => format!("{}{query}", rewrite.apply_str(only)),
    };
    super::headers::set_path(exchange, new);
}

fn split(request: &RequestHead) -> (&str, &str) {
    request.path.as_str().split_at(request.path_only().len())
}

fn path(exchange: &Exchange<'_>, redirect: &Redirect) -> String {
    let request = &exchange.request;
    let (only, query) = split(request);
    let query = if redirect.strip_query { "" } else { query };
    match &redirect.path {
        RedirectPath::Keep | RedirectPath::Prefix(_) | RedirectPath::Regex(_) => format!("{only}{query}"),
        RedirectPath::Full(format) => {
            let new = format.as_literal().map_or_else(|| hcm::text(format, request, &exchange.info), str::to_owned);
            // A path that brings a query keeps its own.
            if new.contains('?') { new } else { new + query }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_the_port_but_the_default_of_the_old_scheme() {
        let cases = [
            ("a:8080", ("http", "https"), false, "a:8080"),
            ("a:80", ("http", "https"), false, "a"),
            ("a:443", ("https", "http"), false, "a"),
            ("a:443", ("http", "https"), false, "a:443"),
            ("a:80", ("http", "http"), false, "a:80"),
            ("a:8080", ("http", "https"), true, "a"),
            ("[::1]:80", ("http", "https"), false, "[::1]"),
            ("a", ("http", "https"), false, "a"),
        ];
        for (authority, schemes, replaced, expected) in cases {
            assert_eq!(own_host(authority, schemes, replaced), expected, "{authority} {schemes:?} {replaced}");
        }
    }
}
