use super::*;
use crate::call::{Answer, CallError};
use crate::jwt::tests::Signer;
use crate::testing::{self, Answering};
use bytes::Bytes;
use meltemi_http::Headers;
use meltemi_plan::HttpFilterConfig;
use serde_json::{Value, json};

/// The filter of a configuration as Envoy has it, with one provider `p` of `keys`, and the context that it lives in.
fn filter(signer: &Signer, provider: Value, rest: Value) -> (JwtAuthn, Arc<Context>) {
    let mut p =
        json!({ "issuer": "i", "localJwks": { "inlineString": json!({ "keys": [signer.jwk("k")] }).to_string() } });
    merge(&mut p, provider);
    let mut config = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": { "p": p }, "rules": [{ "match": { "prefix": "/" }, "requires": { "providerName": "p" } }] });
    merge(&mut config, rest);
    built(config)
}

fn built(config: Value) -> (JwtAuthn, Arc<Context>) {
    let HttpFilterConfig::JwtAuthn(plan) = testing::http_filter(config) else { panic!("another filter") };
    let context = testing::context();
    (JwtAuthn::new(plan, &ChainScope::default(), &context), context)
}

fn merge(into: &mut Value, from: Value) {
    let (into, Value::Object(from)) = (into.as_object_mut().unwrap(), from) else { panic!("no object") };
    into.extend(from);
}

fn claims() -> Value {
    json!({ "iss": "i", "sub": "s", "aud": ["a"], "exp": now() + 600, "scope": "read write", "deep": { "er": 7 } })
}

fn sign(signer: &Signer, claims: Value) -> String {
    signer.sign(&json!({ "alg": "ES256", "kid": "k" }), &claims)
}

fn with(token: &str) -> RequestHead {
    testing::request(&[("authorization", &format!("Bearer {token}")), ("x-forwarded-proto", "https")])
}

/// The status and body of a refusal; `OK` if it went on.
async fn ask(filter: &JwtAuthn, head: &mut RequestHead, info: &mut StreamInfo) -> (StatusCode, String) {
    match filter.on_request("jwt", head, info).await {
        Flow::Reply(reply) => (reply.status, reply.body.to_string()),
        Flow::Continue | Flow::Reroute => (StatusCode::OK, String::new()),
        Flow::Body(_) => panic!("asks for a body"),
    }
}

async fn text(filter: &JwtAuthn, token: &str) -> String {
    ask(filter, &mut with(token), &mut testing::info()).await.1
}

#[tokio::test]
async fn a_request_without_a_good_token_is_refused_in_envoys_words() {
    let signer = Signer::ec("P-256");
    let (filter, _) = filter(&signer, json!({ "audiences": ["a"] }), json!({}));
    let Flow::Reply(reply) = filter.on_request("jwt", &mut testing::request(&[]), &mut testing::info()).await else {
        panic!("went on");
    };
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "Jwt is missing"));
    assert_eq!(reply.details, "jwt_authn_access_denied{Jwt_is_missing}");
    let realm = reply.headers.get_str("www-authenticate").unwrap();
    assert_eq!(realm, "Bearer realm=\"://reviews:9080/reviews/0?x=1\"");
    let mut other = claims();
    other["iss"] = json!("j");
    assert_eq!(text(&filter, &sign(&signer, other)).await, "Jwt issuer is not configured");
    let mut late = claims();
    late["exp"] = json!(1);
    assert_eq!(text(&filter, &sign(&signer, late)).await, "Jwt is expired");
    let mut foreign = claims();
    foreign["aud"] = json!("b");
    let token = sign(&signer, foreign);
    let (status, body) = ask(&filter, &mut with(&token), &mut testing::info()).await;
    assert_eq!((status, &*body), (StatusCode::FORBIDDEN, "Audiences in Jwt are not allowed"));
    assert_eq!(text(&filter, &sign(&Signer::ec("P-256"), claims())).await, "Jwt verification fails");
    let Flow::Reply(reply) = filter.on_request("jwt", &mut with("nonsense"), &mut testing::info()).await else {
        panic!("went on");
    };
    let realm = reply.headers.get_str("www-authenticate").unwrap();
    assert_eq!(realm, "Bearer realm=\"https://reviews:9080/reviews/0?x=1\", error=\"invalid_token\"");
    assert_eq!(text(&filter, &sign(&signer, claims())).await, "");
}

#[tokio::test]
async fn a_good_token_tells_those_behind_what_it_says() {
    let signer = Signer::ec("P-256");
    let provider = json!({
        "forwardPayloadHeader": "x-payload", "padForwardPayloadHeader": true, "payloadInMetadata": "payload",
        "headerInMetadata": "header", "normalizePayloadInMetadata": { "spaceDelimitedClaims": ["scope"] },
        "claimToHeaders": [{ "headerName": "x-sub", "claimName": "sub" }, { "headerName": "x-deep", "claimName": "deep.er" }],
        "clearRouteCache": true });
    let (filter, _) = filter(&signer, provider, json!({}));
    let (mut head, mut info) = (with(&sign(&signer, claims())), testing::info());
    head.headers.append(meltemi_http::HeaderName::from_static("x-sub"), HeaderValue::from_static("forged"));
    assert!(matches!(filter.on_request("jwt", &mut head, &mut info).await, Flow::Reroute));
    assert!(!head.headers.contains(&header::AUTHORIZATION), "the token was not for those behind");
    assert_eq!(head.headers.get_all("x-sub").collect::<Vec<_>>(), ["s"]);
    assert_eq!(head.headers.get_str("x-deep"), Some("7"));
    assert_eq!(head.headers.get("x-payload").unwrap().len() % 4, 0);
    assert_eq!(info.found(NAMESPACE, &["payload", "scope"]), Some(&json!(["read", "write"])));
    assert_eq!(info.found(NAMESPACE, &["header", "kid"]), Some(&json!("k")));
}

#[tokio::test]
async fn what_is_asked_of_a_subject_and_a_lifetime_holds() {
    let signer = Signer::ec("P-256");
    let good = sign(&signer, claims());
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    let endless = sign(&signer, endless);
    for (provider, token, fine) in [
        (json!({ "subjects": { "prefix": "s" } }), &good, true),
        (json!({ "subjects": { "prefix": "t" } }), &good, false),
        (json!({}), &endless, true),
        (json!({ "requireExpiration": true }), &endless, false),
        (json!({ "maxLifetime": "60s" }), &good, false),
        (json!({ "maxLifetime": "3600s" }), &good, true),
        (json!({ "maxLifetime": "3600s" }), &endless, false),
    ] {
        let (filter, _) = filter(&signer, provider.clone(), json!({}));
        assert_eq!(text(&filter, token).await.is_empty(), fine, "{provider}");
    }
}

#[tokio::test]
async fn requirements_combine() {
    let signer = Signer::ec("P-256");
    let good = sign(&signer, claims());
    let any =
        |leniency: &str| json!({ "requiresAny": { "requirements": [{ "providerName": "p" }, { leniency: {} }] } });
    let p = json!({ "providerName": "p" });
    let foreign = json!({ "providerAndAudiences": { "providerName": "p", "audiences": ["z"] } });
    let cases = [
        (any("allowMissing"), None, true),
        (any("allowMissing"), Some("bad"), false),
        (any("allowMissing"), Some(&*good), true),
        (any("allowMissingOrFailed"), Some("bad"), true),
        (json!({ "allowMissing": {} }), None, true),
        (json!({ "allowMissing": {} }), Some("bad"), false),
        (json!({ "allowMissingOrFailed": {} }), Some("bad"), true),
        (json!({ "requiresAll": { "requirements": [p, foreign] } }), Some(&*good), false),
        (json!({ "requiresAny": { "requirements": [foreign, p] } }), Some(&*good), true),
        (foreign.clone(), Some(&*good), false),
        (json!({}), None, true),
    ];
    for (requires, token, fine) in cases {
        let rules = json!({ "rules": [{ "match": { "prefix": "/" }, "requires": requires }] });
        // Forwarded, as the second of two requirements is to find it as well.
        let (filter, _) = filter(&signer, json!({ "forward": true }), rules);
        let mut head = token.map_or_else(|| testing::request(&[]), with);
        let status = ask(&filter, &mut head, &mut testing::info()).await.0;
        assert_eq!(status == StatusCode::OK, fine, "{requires} {token:?}");
    }
}

#[tokio::test]
async fn of_two_tokens_both_must_be_good() {
    let signer = Signer::ec("P-256");
    let provider = json!({ "fromHeaders": [{ "name": "x-token" }], "fromParams": ["t"], "fromCookies": ["c"] });
    let (filter, _) = filter(&signer, provider, json!({}));
    let good = sign(&signer, claims());
    let request =
        |header: &str, cookie: &str| testing::request(&[("x-token", header), ("cookie", &format!("c={cookie}"))]);
    for (mut head, fine) in
        [(request(&good, &good), true), (request(&good, "bad"), false), (request("bad", &good), false)]
    {
        let status = ask(&filter, &mut head, &mut testing::info()).await.0;
        assert_eq!(status == StatusCode::OK, fine);
    }
    for (first, second, fine) in [(&*good, &*good, true), (&good, "bad", false), ("bad", &good, false)] {
        let mut parameters = testing::request(&[]);
        parameters.path = meltemi_http::ByteStr::from(format!("/a?t={first}&t={second}"));
        let cookies = testing::request(&[("cookie", &format!("c={first}; c={second}"))]);
        for mut head in [parameters, cookies] {
            let status = ask(&filter, &mut head, &mut testing::info()).await.0;
            assert_eq!(status == StatusCode::OK, fine, "{head:?}");
        }
    }
    let mut head = testing::request(&[]);
    head.path = meltemi_http::ByteStr::from(format!("/a?t={good}&b=1"));
    assert_eq!(ask(&filter, &mut head, &mut testing::info()).await.0, StatusCode::OK);
    assert_eq!(&*head.path, "/a?b=1");
}

/// Whoever reads bytes more kindly than we do would take the token for one that was verified.
#[tokio::test]
async fn a_token_with_bytes_of_no_token_is_refused_and_not_overlooked() {
    let signer = Signer::ec("P-256");
    let provider = json!({ "fromHeaders": [{ "name": "Authorization", "valuePrefix": "Bearer " }, { "name": "x-token" }],
        "fromCookies": ["c"] });
    let requires = json!({ "requiresAny": { "requirements": [{ "providerName": "p" }, { "allowMissing": {} }] } });
    let (filter, _) =
        filter(&signer, provider, json!({ "rules": [{ "match": { "prefix": "/" }, "requires": requires }] }));
    let good = sign(&signer, claims());
    for (name, before) in [("authorization", "Bearer "), ("x-token", ""), ("cookie", "c=")] {
        for (after, expected) in [(&b""[..], StatusCode::OK), (b"\xff", StatusCode::UNAUTHORIZED)] {
            let value = [before.as_bytes(), good.as_bytes(), after].concat();
            let mut head = testing::request(&[]);
            head.headers.append(name.parse().unwrap(), HeaderValue::from_bytes(&value).unwrap());
            let status = ask(&filter, &mut head, &mut testing::info()).await.0;
            assert_eq!(status, expected, "{name} {after:?}");
        }
    }
}

#[tokio::test]
async fn a_failure_is_told_in_metadata_and_a_stripped_refusal_says_nothing() {
    let signer = Signer::ec("P-256");
    let provider = json!({ "failedStatusInMetadata": "failed" });
    let (filter, _) = filter(&signer, provider, json!({ "stripFailureResponse": true }));
    let mut info = testing::info();
    let Flow::Reply(reply) = filter.on_request("jwt", &mut with("bad"), &mut info).await else { panic!("went on") };
    assert!(reply.body.is_empty() && reply.headers.is_empty());
    assert_eq!(info.found(NAMESPACE, &["failed", "code"]), Some(&json!(4)));
}

#[tokio::test]
async fn a_route_may_ask_for_something_else() {
    use crate::testing::route;
    let signer = Signer::ec("P-256");
    let named = json!({ "requirementMap": { "free": {}, "strict": { "providerName": "p" } } });
    let (filter, _) = filter(&signer, json!({}), named);
    for (own, expected) in [
        (JwtPerRoute::Disabled, (StatusCode::OK, "")),
        (JwtPerRoute::Named("free".into()), (StatusCode::OK, "")),
        (JwtPerRoute::Named("strict".into()), (StatusCode::UNAUTHORIZED, "Jwt is missing")),
        (
            JwtPerRoute::Named("other".into()),
            (
                StatusCode::FORBIDDEN,
                "Failed JWT authentication: Wrong requirement_name: other. It should be one of [free,strict]",
            ),
        ),
    ] {
        let mut info = testing::info();
        info.route = Some(route(vec![("jwt", FilterOverride::JwtAuthn(own))]));
        let (status, body) = ask(&filter, &mut testing::request(&[]), &mut info).await;
        assert_eq!((status, &*body), expected);
    }
}

#[tokio::test]
async fn a_preflight_needs_no_token_where_it_is_let_through() {
    let signer = Signer::ec("P-256");
    let (filter, _) = filter(&signer, json!({}), json!({ "bypassCorsPreflight": true }));
    let mut head = testing::request(&[("origin", "http://a"), ("access-control-request-method", "GET")]);
    assert_eq!(ask(&filter, &mut head, &mut testing::info()).await.0, StatusCode::UNAUTHORIZED);
    head.method = Method::OPTIONS;
    assert_eq!(ask(&filter, &mut head, &mut testing::info()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_remembered_within_bounds_and_not_beyond_its_time() {
    let signer = Signer::ec("P-256");
    let provider = json!({ "jwtCacheConfig": { "jwtCacheSize": 2 }, "forward": true });
    let (filter, _) = filter(&signer, provider, json!({}));
    let tokens: Vec<String> =
        (0..3).map(|n| sign(&signer, json!({ "iss": "i", "n": n, "exp": now() + 600 }))).collect();
    let misses = || filter.stats.jwt_cache_miss().value();
    for (token, expected) in [(0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)] {
        assert_eq!(text(&filter, &tokens[token]).await, "");
        assert_eq!(misses(), expected, "token {token}");
    }
    let mut short = cache::TokenCache::new(meltemi_plan::jwt::JwtCache { entries: 4, max_token_bytes: 4096 });
    let keys =
        Arc::new(crate::jwt::KeySet::parse(json!({ "keys": [signer.jwk("k")] }).to_string().as_bytes()).unwrap());
    let token = Arc::new(Token::parse(&tokens[0]).unwrap());
    short.insert(token, keys.clone());
    assert!(short.find(&tokens[0], &keys, now(), 60).is_some());
    assert!(short.find(&tokens[0], &keys, now() + 6000, 60).is_none());
}

fn remote(ahead: bool) -> Value {
    let mut remote = json!({
        "httpUri": { "uri": "https://issuer/keys", "cluster": "c", "timeout": "1s" }, "cacheDuration": "600s",
        "retryPolicy": { "numRetries": 1, "retryBackOff": { "baseInterval": "0.001s" } } });
    if ahead {
        remote["asyncFetch"] = json!({});
    }
    json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": { "p": { "issuer": "i", "remoteJwks": remote } },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "providerName": "p" } }] })
}

fn document(signer: &Signer) -> Answer {
    let body = Bytes::from(json!({ "keys": [signer.jwk("k")] }).to_string());
    Answer { status: StatusCode::OK, headers: Headers::new(), body, trailers: Headers::new() }
}

/// Runs what is to be done beside the requests.
async fn beside(context: Arc<Context>, caller: Answering, requests: impl Future<Output = ()>) {
    let fetching = async {
        context.next_key_fetcher().await.run(caller).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = requests => {}
        () = fetching => {}
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_for_all_who_wait() {
    let signer = Signer::ec("P-256");
    let (filter, context) = built(remote(false));
    let answer = document(&signer);
    let caller = Answering::new(move |call| {
        assert_eq!((&*call.head.authority, &*call.head.path), ("issuer", "/keys"));
        Ok(answer.clone())
    });
    let token = sign(&signer, claims());
    beside(context, caller, async {
        let both = tokio::join!(text(&filter, &token), text(&filter, &token));
        assert_eq!(both, (String::new(), String::new()));
        assert_eq!(filter.stats.jwks_fetch_success().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_is_asked_again_after_a_pause_and_never_costs_the_last_good_keys() {
    let signer = Signer::ec("P-256");
    let (filter, context) = built(remote(true));
    let good = document(&signer);
    let count = std::cell::Cell::new(0);
    // Both tries of the first fetch fail, then one succeeds, then nothing but nonsense.
    let caller = Answering::new(move |_| {
        count.set(count.get() + 1);
        match count.get() {
            1 | 2 => Err(CallError::Connect),
            3 => Ok(good.clone()),
            _ => Ok(Answer { body: Bytes::from_static(b"{}"), ..good.clone() }),
        }
    });
    let token = sign(&signer, claims());
    beside(context, caller, async {
        assert_eq!(text(&filter, &token).await, "Jwks remote fetch is failed");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(text(&filter, &token).await, "");
        tokio::time::sleep(std::time::Duration::from_secs(700)).await;
        assert!(filter.stats.jwks_fetch_failed().value() > 2);
        assert_eq!(text(&filter, &token).await, "");
    })
    .await;
}

#[test]
fn the_more_telling_failure_counts() {
    use Status::{Expired, Missing, UnknownIssuer};
    for (before, status, expected) in [
        (Missing, UnknownIssuer, UnknownIssuer),
        (UnknownIssuer, Missing, UnknownIssuer),
        (Expired, UnknownIssuer, Expired),
        (UnknownIssuer, Expired, Expired),
    ] {
        assert_eq!(more_telling(before, status), expected);
    }
}
