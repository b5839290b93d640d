use super::*;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

fn read(value: Value) -> Result<StatefulSession> {
    stateful_session(&from_value::<filter::StatefulSession>(&value).unwrap())
}

fn state(kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.http.stateful_session.{kind}"));
    json!({ "session_state": { "name": "state", "typed_config": config } })
}

fn cookie(cookie: Value) -> Value {
    state("cookie.v3.CookieBasedSessionState", json!({ "cookie": cookie }))
}

#[test]
fn where_a_client_keeps_its_host() {
    assert_eq!(read(json!({ "strict": true })).unwrap(), StatefulSession { state: None, strict: true });
    let found = read(cookie(json!({ "name": "c", "path": "/p", "ttl": "90s", "attributes": [{ "name": "Secure" }] })));
    let expected = SessionState::Cookie {
        name: "c".into(),
        path: "/p".into(),
        ttl: Duration::from_secs(90),
        attributes: vec![("Secure".into(), "".into())],
    };
    assert_eq!(found.unwrap().state, Some(expected));
    let found = read(state("header.v3.HeaderBasedSessionState", json!({ "name": "x-mine" }))).unwrap();
    assert_eq!(found.state, Some(SessionState::Header(http::HeaderName::from_static("x-mine"))));
    for (wrong, path) in [
        (cookie(json!({ "path": "/" })), "session_state.typed_config.cookie: name"),
        (state("header.v3.HeaderBasedSessionState", json!({ "name": "a b" })), "session_state.typed_config.name"),
        (state("envelope.v3.EnvelopeSessionState", json!({})), "session_state.typed_config"),
        (json!({ "session_state": { "name": "state" } }), "session_state: typed_config"),
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn a_route_may_have_its_own_or_none() {
    let read = |value: Value| per_route(&from_value::<filter::StatefulSessionPerRoute>(&value).unwrap());
    assert!(matches!(read(json!({ "disabled": true })), Ok(FilterOverride::Disabled)));
    assert!(matches!(read(json!({ "stateful_session": {} })), Ok(FilterOverride::StatefulSession(_))));
    assert!(read(json!({})).is_err() && read(json!({ "disabled": false })).is_err());
}
