use super::*;
use crate::call::{Answer, Call, CallError};
use crate::testing::{self, Answering};
use bytes::Bytes;
use meltemi_http::{Frame, Headers};
use meltemi_plan::HttpFilterConfig;
use meltemi_plan::ext_authz::AuthzPerRoute;
use meltemi_proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use serde_json::{Value, json};

const KIND: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

fn filter(mut config: Value, rest: Value) -> ExtAuthz {
    config["@type"] = json!(KIND);
    config["transportApiVersion"] = json!("V3");
    config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let HttpFilterConfig::ExtAuthz(plan) = testing::http_filter(config) else { panic!("another filter") };
    ExtAuthz::new(plan, &ChainScope::default(), &testing::context())
}

fn grpc(rest: Value) -> ExtAuthz {
    filter(json!({ "grpcService": { "envoyGrpc": { "clusterName": "authz" } } }), rest)
}

fn http(service: Value, rest: Value) -> ExtAuthz {
    let mut own = json!({ "serverUri": { "uri": "http://authz", "cluster": "authz", "timeout": "1s" } });
    own.as_object_mut().unwrap().extend(service.as_object().unwrap().clone());
    filter(json!({ "httpService": own }), rest)
}

/// An answer over gRPC, from the message's JSON.
fn says(message: Value) -> Result<Answer, CallError> {
    let message: CheckResponse = meltemi_proto::json::from_value(&message).unwrap();
    let message = meltemi_proto::encode(&message);
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    answers(200, &[("grpc-status", "0")], &body)
}

fn answers(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, CallError> {
    let status = StatusCode::from_u16(status).unwrap();
    Ok(Answer {
        status,
        headers: testing::headers(headers),
        body: Bytes::copy_from_slice(body),
        trailers: Headers::new(),
    })
}

/// The request that was asked about.
fn asked(call: &Call) -> CheckRequest {
    meltemi_proto::decode(&call.body[5..]).unwrap()
}

struct Asked {
    flow: Flow,
    head: RequestHead,
    info: StreamInfo,
    edits: ResponseEdits,
    calls: Vec<Call>,
}

impl Asked {
    fn refusal(&self) -> (u16, &str, &str) {
        match &self.flow {
            Flow::Reply(reply) => (reply.status.as_u16(), &*reply.body, &*reply.details),
            other => panic!("{other:?}"),
        }
    }
}

async fn ask(filter: &ExtAuthz, answer: Result<Answer, CallError>, early: Option<&Early>) -> Asked {
    let mut head = testing::request(&[("authorization", "secret"), ("x-one", "1")]);
    let mut info = testing::info();
    info.route = Some(testing::route(vec![]));
    let caller = Answering::new(move |_| answer.clone());
    let mut edits = Vec::new();
    let around = Around { caller: &caller, early };
    let flow = filter.on_request("authz", (&mut head, &mut info), around, &mut edits).await;
    Asked { flow, head, info, edits, calls: caller.calls() }
}

#[tokio::test]
async fn a_service_over_grpc_is_told_and_changes_the_request() {
    let filter =
        grpc(json!({ "clearRouteCache": true, "disallowedHeaders": { "patterns": [{ "exact": "authorization" }] } }));
    let ok = json!({ "dynamicMetadata": { "who": "me" }, "okResponse": {
        "headers": [{ "header": { "key": "x-new", "value": "n" } }, { "header": { "key": "x-one", "value": "2" }, "append": true },
            { "header": { "key": ":path", "value": "/changed" }, "append": false }],
        "headersToRemove": ["authorization", ":method"],
        "responseHeadersToAdd": [{ "header": { "key": "x-answer", "value": "a" } }] } });
    let asked_for = ask(&filter, says(ok), None).await;
    assert!(matches!(asked_for.flow, Flow::Reroute));
    let headers = &asked_for.head.headers;
    assert_eq!((headers.get_str("x-new"), headers.get_str("x-one")), (Some("n"), Some("1,2")));
    assert_eq!((&*asked_for.head.path, headers.contains("authorization")), ("/changed", false));
    assert_eq!(asked_for.info.found(NAMESPACE, &["who"]), Some(&json!("me")));
    let mut response = ResponseHead::new(StatusCode::OK);
    asked_for.edits.iter().for_each(|edit| edit.on_response(&mut response));
    assert_eq!(response.headers.get_str("x-answer"), Some("a"));
    let told = asked(&asked_for.calls[0]).attributes.unwrap();
    let request = told.request.unwrap().http.unwrap();
    assert_eq!((request.path.as_str(), request.host.as_str()), ("/reviews/0?x=1", "reviews:9080"));
    assert!(request.headers.contains_key("x-one") && !request.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_denial_is_the_services_own_words() {
    let denied = json!({ "status": { "code": 7 }, "deniedResponse": { "status": { "code": "Unauthorized" }, "body": "who are you",
        "headers": [{ "header": { "key": "www-authenticate", "value": "Basic" } }] } });
    let filter = grpc(json!({ "maxDeniedResponseBodyBytes": 3 }));
    let asked_for = ask(&filter, says(denied), None).await;
    assert_eq!(asked_for.refusal(), (401, "who", "ext_authz_denied"));
    let Flow::Reply(reply) = &asked_for.flow else { panic!("went on") };
    assert_eq!(reply.headers.get_str("www-authenticate"), Some("Basic"));
    assert!(reply.flags.contains(ResponseFlags::UNAUTHORIZED_EXTERNAL));
    let bare = ask(&filter, says(json!({ "status": { "code": 7 } })), None).await;
    assert_eq!(bare.refusal(), (403, "", "ext_authz_denied"));
}

#[tokio::test]
async fn without_an_answer_a_request_fails_closed_or_open_as_configured() {
    let closed = grpc(json!({ "statusOnError": { "code": "ServiceUnavailable" } }));
    for answer in [Err(CallError::Timeout), answers(200, &[("grpc-status", "14")], b""), answers(200, &[], b"junk")] {
        assert_eq!(ask(&closed, answer, None).await.refusal(), (503, "", "ext_authz_error"));
    }
    let open = grpc(json!({ "failureModeAllow": true, "failureModeAllowHeaderAdd": true }));
    let asked_for = ask(&open, Err(CallError::Timeout), None).await;
    assert!(matches!(asked_for.flow, Flow::Continue));
    assert_eq!(asked_for.head.headers.get_str("x-envoy-auth-failure-mode-allowed"), Some("true"));
}

#[tokio::test]
async fn a_service_over_http_sees_what_it_may_and_decides_what_passes() {
    let list = |name: &str| json!({ "patterns": [{ "exact": name }] });
    let service = json!({ "pathPrefix": "/check",
        "authorizationRequest": { "headersToAdd": [{ "key": "x-added", "value": "a" }] },
        "authorizationResponse": { "allowedUpstreamHeaders": list("x-up"), "allowedClientHeaders": list("x-down"),
            "allowedClientHeadersOnSuccess": list("x-both") } });
    let filter = http(service, json!({}));
    let fine = [("x-up", "u"), ("x-both", "b"), ("x-down", "d"), ("x-envoy-auth-headers-to-remove", "x-one, host")];
    let asked_for = ask(&filter, answers(200, &fine, b""), None).await;
    assert!(matches!(asked_for.flow, Flow::Continue));
    let headers = &asked_for.head.headers;
    assert_eq!((headers.get_str("x-up"), headers.get_str("x-down"), headers.get_str("x-one")), (Some("u"), None, None));
    assert_eq!(asked_for.edits.len(), 1);
    let call = &asked_for.calls[0];
    assert_eq!(&*call.head.path, "/check/reviews/0?x=1");
    let told = &call.head.headers;
    assert_eq!((told.get_str("authorization"), told.get_str("x-one")), (Some("secret"), None));
    assert_eq!((told.get_str("x-added"), told.get_str("content-length")), (Some("a"), Some("0")));
    let denied =
        ask(&filter, answers(302, &[("location", "/login"), ("x-up", "u"), ("x-down", "d")], b"go"), None).await;
    assert_eq!(denied.refusal(), (302, "go", "ext_authz_denied"));
    let Flow::Reply(reply) = &denied.flow else { panic!("went on") };
    assert_eq!((reply.headers.get_str("location"), reply.headers.get_str("x-up")), (Some("/login"), None));
    assert_eq!(ask(&filter, answers(500, &[], b""), None).await.refusal(), (403, "", "ext_authz_error"));
}

#[tokio::test]
async fn a_body_is_told_up_to_its_limit() {
    let early = Early { frames: vec![Frame::Data(Bytes::from_static(b"hello"))], complete: true };
    let body = |partial: bool| json!({ "withRequestBody": { "maxRequestBytes": 3, "allowPartialMessage": partial } });
    let asked_for = ask(&grpc(body(true)), says(json!({})), None).await;
    assert!(matches!(asked_for.flow, Flow::Body(3)) && asked_for.calls.is_empty());
    let asked_for = ask(&grpc(body(true)), says(json!({})), Some(&early)).await;
    let told = asked(&asked_for.calls[0]).attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!((told.body.as_str(), told.headers[PARTIAL].as_str()), ("hel", "true"));
    assert_eq!(ask(&grpc(body(false)), says(json!({})), Some(&early)).await.refusal().0, 413);
    let none = Early { frames: vec![], complete: true };
    let asked_for = ask(&grpc(body(false)), says(json!({})), Some(&none)).await;
    let told = asked(&asked_for.calls[0]).attributes.unwrap().request.unwrap().http.unwrap();
    assert!(!told.headers.contains_key(PARTIAL));
}

#[tokio::test]
async fn metadata_turns_it_on() {
    let matcher = json!({ "filter": "rbac", "path": [{ "key": "id" }], "value": { "stringMatch": { "prefix": "istio-ext-authz" } } });
    let filter = grpc(json!({ "filterEnabledMetadata": matcher }));
    let caller = Answering::new(|_| says(json!({ "status": { "code": 7 } })));
    let around = Around { caller: &caller, early: None };
    for (id, fine) in [("istio-ext-authz-ns[a]", false), ("other", true)] {
        let mut info = testing::info();
        info.route = Some(testing::route(vec![]));
        info.find_out("rbac", serde_json::Map::from_iter([("id".to_owned(), json!(id))]));
        let mut head = testing::request(&[]);
        let flow = filter.on_request("authz", (&mut head, &mut info), around, &mut Vec::new()).await;
        assert_eq!(matches!(flow, Flow::Continue), fine, "{id}");
    }
    assert_eq!(caller.calls().len(), 1);
    let deny = grpc(
        json!({ "filterEnabled": { "defaultValue": {} }, "denyAtDisable": { "runtimeKey": "k", "defaultValue": true } }),
    );
    assert_eq!(ask(&deny, says(json!({})), None).await.refusal(), (403, "", "ext_authz_error"));
}

#[tokio::test]
async fn a_route_adds_what_the_service_is_told() {
    let filter = grpc(json!({}));
    let own =
        AuthzPerRoute { context_extensions: [("a".to_owned(), "b".to_owned())].into(), ..AuthzPerRoute::default() };
    let mut info = testing::info();
    info.route = Some(testing::route(vec![("authz", FilterOverride::ExtAuthz(Arc::new(own)))]));
    let caller = Answering::new(|_| says(json!({})));
    let around = Around { caller: &caller, early: None };
    filter.on_request("authz", (&mut testing::request(&[]), &mut info), around, &mut Vec::new()).await;
    assert_eq!(asked(&caller.calls()[0]).attributes.unwrap().context_extensions["a"], "b");
}
