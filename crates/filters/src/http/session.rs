//! `envoy.filters.http.stateful_session`: a client goes back to the host that served it.
//!
//! The client keeps the host's address, in a cookie or a header; nothing is kept here. What a client sends is only a wish: the
//! cluster looks for a member with that address.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::{HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_http::{RequestHead, ResponseHead};
use meltemi_net::Address;
use meltemi_plan::FilterOverride;
use meltemi_plan::filter::{SessionState, StatefulSession as Config};
use meltemi_proto::session::SessionCookie;

use crate::info::StreamInfo;

/// An address in Base64 within a cookie; longer values are nobody's.
const MAX_VALUE: usize = 512;

/// The session of one request.
#[derive(Clone, Debug)]
pub struct Session {
    config: Arc<Config>,
    /// What the client said, where it said anything.
    wanted: Option<Wanted>,
}

/// The host that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: what the client sent is no address.
    pub address: Option<Address>,
    /// No other host will do.
    pub strict: bool,
}

impl Session {
    pub fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }
}

pub(crate) struct StatefulSession(Arc<Config>);

impl StatefulSession {
    pub fn new(config: Arc<Config>) -> Self {
        Self(config)
    }

    pub fn on_request(&self, filter: &str, head: &RequestHead, info: &mut StreamInfo) {
        let config = match info.filter_override(filter) {
            Some(FilterOverride::StatefulSession(own)) => own,
            _ => &self.0,
        };
        let Some(state) = config.state.as_ref().filter(|state| is_for(state, &head.path)) else { return };
        let wanted = address(state, head, SystemTime::now())
            .map(|text| Wanted { address: text.parse().ok().map(Address::Socket), strict: config.strict });
        let config = config.clone();
        info.upstream.session = Some(Box::new(Session { config, wanted }));
    }

    pub fn on_response(head: &mut ResponseHead, info: &StreamInfo) {
        let (Some(session), Some(host)) = (&info.upstream.session, &info.upstream.host) else { return };
        let known = session.wanted.as_ref().and_then(|wanted| wanted.address.as_ref());
        if known == Some(host) {
            return;
        }
        if let Some(state) = &session.config.state {
            tell(state, &host.to_string(), head, SystemTime::now());
        }
    }
}

/// A cookie's path is the beginning of the request's, at a slash.
fn is_for(state: &SessionState, target: &str) -> bool {
    let SessionState::Cookie { path, .. } = state else { return true };
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.strip_prefix(&**path) {
        Some(rest) => path.is_empty() || path.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// What the client says its host is.
fn address(state: &SessionState, head: &RequestHead, now: SystemTime) -> Option<String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|text| !text.is_empty());
    match state {
        SessionState::Header(name) => {
            let value = head.headers.get(name)?.as_bytes();
            text(STANDARD.decode(Some(value).filter(|value| value.len() <= MAX_VALUE)?).ok()?)
        }
        SessionState::Cookie { name, .. } => {
            let cookies = head.headers.joined(&header::COOKIE)?;
            let value = meltemi_plan::route::find::cookie(&cookies, name).filter(|value| value.len() <= MAX_VALUE)?;
            let bytes = STANDARD.decode(value).ok()?;
            match meltemi_proto::decode::<SessionCookie>(&bytes) {
                Ok(kept) => {
                    let valid = kept.expires == 0 || seconds(now) <= kept.expires;
                    Some(kept.address).filter(|address| valid && !address.is_empty())
                }
                // As Envoy wrote them before it had a message for it.
                Err(_) => text(bytes),
            }
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Gives the client its host's address to keep.
fn tell(state: &SessionState, address: &str, head: &mut ResponseHead, now: SystemTime) {
    match state {
        SessionState::Header(name) => {
            if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(address)) {
                head.headers.insert(name.clone(), value);
            }
        }
        SessionState::Cookie { name, path, ttl, attributes } => {
            let expires = if ttl.is_zero() { 0 } else { seconds(now) + ttl.as_secs() };
            // Seconds since 1970, as several proxies may serve one client.
            let kept = SessionCookie { address: address.to_owned(), expires };
            let value = STANDARD.encode(meltemi_proto::encode(&kept));
            if let Ok(value) = HeaderValue::from_str(&set_cookie(name, &value, (*ttl, path), attributes)) {
                head.headers.append(header::SET_COOKIE, value);
            }
        }
    }
}

/// A `set-cookie` field, in Envoy's order.
pub fn set_cookie(
    name: &str,
    value: &str,
    (ttl, path): (Duration, &str),
    attributes: &[(Arc<str>, Arc<str>)],
) -> String {
    let mut text = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        text += &format!("; Max-Age={}", ttl.as_secs());
    }
    if !path.is_empty() {
        text += &format!("; Path={path}");
    }
    for (key, value) in attributes {
        text += &if value.is_empty() { format!("; {key}") } else { format!("; {key}={value}") };
    }
    text + "; HttpOnly"
}
