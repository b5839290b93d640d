use super::*;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

fn read(value: Value) -> Result<JwtAuthn> {
    jwt_authn(&from_value::<proto::JwtAuthentication>(&value).unwrap())
}

fn with_provider(rest: Value) -> Value {
    let mut provider = json!({ "local_jwks": { "inline_string": "{}" } });
    provider.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({ "providers": { "p": provider } })
}

fn with_requirement(requires: Value) -> Value {
    let mut config = with_provider(json!({}));
    config["rules"] = json!([{ "match": { "prefix": "/" }, "requires": requires }]);
    config
}

#[test]
fn a_provider_without_more_looks_where_envoy_looks() {
    let config = read(with_provider(json!({}))).unwrap();
    let provider = &config.providers[0];
    let expected = [
        TokenLocation::Header { name: http::header::AUTHORIZATION, value_prefix: "Bearer ".into() },
        TokenLocation::Param("access_token".into()),
    ];
    assert_eq!(provider.locations, expected);
    assert_eq!((provider.clock_skew, provider.expiry), (CLOCK_SKEW, Expiry::Optional));
    let own = json!({ "from_headers": [{ "name": "X-Token" }], "from_cookies": ["c"], "jwt_cache_config": {},
        "require_expiration": true, "claim_to_headers": [{ "header_name": "x", "claim_name": "a.b" }] });
    let config = read(with_provider(own)).unwrap();
    let provider = &config.providers[0];
    assert_eq!(provider.locations.len(), 2);
    assert_eq!(provider.cache, Some(JwtCache { entries: 100, max_token_bytes: 4096 }));
    assert_eq!(provider.claim_to_headers[0].path, ["a".into(), "b".into()]);
}

#[test]
fn where_remote_keys_are() {
    let uri = json!({ "uri": "https://issuer.example:8443/a/keys?x", "cluster": "c", "timeout": "2s" });
    let config = json!({ "providers": { "p": { "remote_jwks": { "http_uri": uri, "async_fetch": {},
        "retry_policy": { "num_retries": 3, "retry_back_off": { "base_interval": "0.1s" } } } } } });
    let config = read(config).unwrap();
    let KeySource::Remote(keys) = &config.providers[0].keys else { panic!("local") };
    let expected = RemoteKeys {
        cluster: "c".into(),
        https: true,
        authority: "issuer.example:8443".into(),
        path: "/a/keys?x".into(),
        timeout: Duration::from_secs(2),
        cache_duration: Duration::from_secs(600),
        ahead: Some(Duration::from_secs(1)),
        retries: 3,
        backoff_base: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
    };
    assert_eq!(*keys, expected);
    assert_eq!(split("issuer").unwrap(), ("", "issuer", "/"));
}

#[test]
fn lenient_alternatives_are_a_property_of_them_all() {
    let any = |requirements: Value| {
        let config = with_requirement(json!({ "requires_any": { "requirements": requirements } }));
        read(config).unwrap().rules[0].requirement.clone().unwrap()
    };
    let p = Requirement::Provider { provider: 0, audiences: vec![] };
    assert_eq!(
        any(json!([{ "provider_name": "p" }, { "allow_missing": {} }])),
        Requirement::Any { of: vec![p.clone()], leniency: Leniency::Missing }
    );
    assert_eq!(
        any(json!([{ "allow_missing_or_failed": {} }, { "provider_name": "p" }, { "allow_missing": {} }])),
        Requirement::Any { of: vec![p], leniency: Leniency::MissingOrFailed }
    );
    assert_eq!(any(json!([{ "allow_missing": {} }, { "allow_missing": {} }])), Requirement::Lenient(Leniency::Missing));
}

#[test]
fn what_cannot_be_is_refused_with_its_path() {
    let mut deep = json!({ "provider_name": "p" });
    for _ in 0..MOST_DEPTH {
        deep = json!({ "requires_all": { "requirements": [deep, { "provider_name": "p" }] } });
    }
    let rule = |rule: Value| {
        let mut config = with_provider(json!({}));
        config["rules"] = json!([rule]);
        config
    };
    let uri = json!({ "uri": "https://a", "cluster": "c" });
    let cases = [
        (json!({ "providers": { "p": {} } }), "providers[\"p\"].local_jwks"),
        (with_provider(json!({ "from_headers": [{ "name": "a b" }] })), "providers[\"p\"].from_headers[0].name"),
        (
            with_provider(json!({ "jwt_cache_config": { "jwt_cache_size": 10_000_000 } })),
            "providers[\"p\"].jwt_cache_config: jwt_cache_size",
        ),
        (
            with_provider(json!({ "claim_to_headers": [{ "header_name": "x" }] })),
            "providers[\"p\"].claim_to_headers[0]: claim_name",
        ),
        (
            json!({ "providers": { "p": { "remote_jwks": { "http_uri": uri } } } }),
            "providers[\"p\"].remote_jwks.http_uri.timeout",
        ),
        (with_requirement(json!({ "provider_name": "q" })), "rules[0].requires.provider_name"),
        (
            with_requirement(json!({ "requires_all": { "requirements": [{ "provider_name": "p" }] } })),
            "rules[0].requires.requires_all: requirements",
        ),
        (with_requirement(deep), "rules[0].requires.requires_all.requirements[0]"),
        (rule(json!({ "match": { "prefix": "/" }, "requirement_name": "r" })), "rules[0].requirement_name"),
        (rule(json!({ "match": { "prefix": "/", "grpc": {} } })), "rules[0].match: grpc"),
        (rule(json!({})), "rules[0].match"),
    ];
    for (config, path) in cases {
        let error = read(config).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn a_route_names_a_requirement_or_asks_for_none() {
    let read = |value: Value| per_route(&from_value::<proto::PerRouteConfig>(&value).unwrap());
    assert_eq!(read(json!({ "disabled": true })).unwrap(), JwtPerRoute::Disabled);
    assert_eq!(read(json!({ "requirement_name": "r" })).unwrap(), JwtPerRoute::Named("r".into()));
    assert!(read(json!({})).is_err() && read(json!({ "disabled": false })).is_err());
}
