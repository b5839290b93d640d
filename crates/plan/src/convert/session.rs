//! Stateful sessions.

use super::common::{duration_or, resolve, unknown_type, unpack};
use super::header::header_name;
use crate::error::{At, PlanError, Result, refuse};
use crate::filter::{FilterOverride, SessionState, StatefulSession};
use meltemi_base::intern::intern;
use meltemi_proto::envoy::extensions::filters::http::stateful_session::v3 as filter;
use meltemi_proto::envoy::extensions::http::stateful_session as state;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn stateful_session(value: &filter::StatefulSession) -> Result<StatefulSession> {
    let state = value.session_state.as_ref().map(|any| match &any.typed_config {
        Some(any) => session_state(&resolve(any).at("typed_config")?).at("typed_config"),
        None => refuse("typed_config: is required"),
    });
    Ok(StatefulSession { state: state.transpose().at("session_state")?, strict: value.strict })
}

pub(super) fn per_route(value: &filter::StatefulSessionPerRoute) -> Result<FilterOverride> {
    use filter::stateful_session_per_route::Override;
    match &value.r#override {
        Some(Override::Disabled(true)) => Ok(FilterOverride::Disabled),
        Some(Override::Disabled(false)) => refuse("disabled: must be true"),
        Some(Override::StatefulSession(own)) => {
            stateful_session(own).at("stateful_session").map(|own| FilterOverride::StatefulSession(Arc::new(own)))
        }
        None => refuse("override: one of disabled and stateful_session is required"),
    }
}

fn session_state(any: &meltemi_proto::Any) -> Result<SessionState> {
    if any.is::<state::header::v3::HeaderBasedSessionState>() {
        let config: state::header::v3::HeaderBasedSessionState = unpack(any)?;
        return header_name(&config.name).at("name").map(SessionState::Header);
    }
    if !any.is::<state::cookie::v3::CookieBasedSessionState>() {
        return unknown_type(any);
    }
    let config: state::cookie::v3::CookieBasedSessionState = unpack(any)?;
    let cookie = config.cookie.ok_or_else(|| PlanError::new("cookie: is required"))?;
    if cookie.name.is_empty() {
        return refuse("name: is required").at("cookie");
    }
    Ok(SessionState::Cookie {
        name: intern(&cookie.name),
        path: intern(&cookie.path),
        ttl: duration_or(cookie.ttl.as_ref(), Duration::ZERO).at("ttl").at("cookie")?,
        attributes: cookie.attributes.iter().map(|own| (intern(&own.name), intern(&own.value))).collect(),
    })
}

#[cfg(test)]
mod tests;
