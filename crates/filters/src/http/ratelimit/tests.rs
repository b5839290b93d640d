use super::*;
use crate::call::{Answer, CallError};
use crate::testing::{self, Answering};
use bytes::Bytes;
use meltemi_http::ResponseHead;
use meltemi_plan::HttpFilterConfig;
use meltemi_plan::rate_limit::{DescriptorAction, HostPolicies, RateLimitPolicy};
use serde_json::{Value, json};

fn filter(rest: Value) -> RateLimit {
    let mut config = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit", "domain": "d",
        "rateLimitService": { "transportApiVersion": "V3", "grpcService": { "envoyGrpc": { "clusterName": "limits" } } } });
    config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let HttpFilterConfig::RateLimit(plan) = testing::http_filter(config) else { panic!("another filter") };
    RateLimit::new(plan, &ChainScope::default(), &testing::context())
}

fn says(message: Value) -> Result<Answer, CallError> {
    let message: RateLimitResponse = meltemi_proto::json::from_value(&message).unwrap();
    let message = meltemi_proto::encode(&message);
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let headers = testing::headers(&[("grpc-status", "0")]);
    Ok(Answer { status: StatusCode::OK, headers, body: Bytes::from(body), trailers: Headers::new() })
}

fn info(actions: Vec<DescriptorAction>) -> StreamInfo {
    let own = RateLimitPerRoute {
        host_policies: HostPolicies::Override,
        policies: vec![RateLimitPolicy { stage: 0, actions }],
        domain: "".into(),
    };
    let mut info = testing::info();
    info.route = Some(testing::route(vec![("limit", FilterOverride::RateLimit(Arc::new(own)))]));
    info.upstream.cluster = Some(testing::cluster("reviews", json!({})));
    info
}

async fn ask(filter: &RateLimit, answer: Result<Answer, CallError>) -> (Flow, RequestHead, ResponseEdits, Answering) {
    let caller = Answering::new(move |_| answer.clone());
    let (mut head, mut edits) = (testing::request(&[]), Vec::new());
    let around = Around { caller: &caller, early: None };
    let mut info = info(vec![DescriptorAction::RemoteAddress]);
    let flow = filter.on_request("limit", (&mut head, &mut info), around, &mut edits).await;
    (flow, head, edits, caller)
}

#[tokio::test]
async fn a_service_counts_and_its_limit_holds() {
    let filter = filter(json!({ "enableXRatelimitHeaders": "DRAFT_VERSION_03" }));
    let status = |remaining: u32, name: &str| {
        json!({ "code": "OK", "limitRemaining": remaining, "durationUntilReset": "7s",
        "currentLimit": { "requestsPerUnit": remaining + 10, "unit": "MINUTE", "name": name } })
    };
    let statuses = json!([status(5, "a"), status(2, "")]);
    let ok = json!({ "overallCode": "OK", "statuses": statuses, "requestHeadersToAdd": [{ "key": "x-counted", "value": "1" }] });
    let (flow, head, edits, caller) = ask(&filter, says(ok)).await;
    assert!(matches!(flow, Flow::Continue));
    assert_eq!(head.headers.get_str("x-counted"), Some("1"));
    let mut response = ResponseHead::new(StatusCode::OK);
    edits.iter().for_each(|edit| edit.on_response(&mut response));
    assert_eq!(response.headers.get_str(&LIMIT), Some("12, 15;w=60;name=\"a\", 12;w=60"));
    assert_eq!((response.headers.get_str(&REMAINING), response.headers.get_str(&RESET)), (Some("2"), Some("7")));
    let asked: RateLimitRequest = meltemi_proto::decode(&caller.calls()[0].body[5..]).unwrap();
    assert_eq!((asked.domain.as_str(), asked.descriptors.len()), ("d", 1));
    assert_eq!(asked.descriptors[0].entries[0].key, "remote_address");
    let over = json!({ "overallCode": "OVER_LIMIT", "rawBody": "c2xvd2x5", "responseHeadersToAdd": [{ "key": "x-more", "value": "m" }] });
    let (flow, _, edits, _) = ask(&filter, says(over)).await;
    let Flow::Reply(reply) = flow else { panic!("went on") };
    assert_eq!((reply.status.as_u16(), &*reply.body, &*reply.details), (429, "slowly", "request_rate_limited"));
    assert_eq!((reply.headers.get_str(&LIMITED), edits.len()), (Some("true"), 1));
}

#[tokio::test]
async fn without_an_answer_requests_go_on_unless_told_otherwise() {
    for answer in [Err(CallError::Timeout), says(json!({ "overallCode": "UNKNOWN" }))] {
        let (flow, ..) = ask(&filter(json!({})), answer.clone()).await;
        assert!(matches!(flow, Flow::Continue));
        let (flow, ..) = ask(&filter(json!({ "failureModeDeny": true })), answer).await;
        let Flow::Reply(reply) = flow else { panic!("went on") };
        assert_eq!((reply.status.as_u16(), &*reply.details), (500, "rate_limiter_error"));
    }
}

#[tokio::test]
async fn nobody_is_asked_about_what_is_not_counted() {
    let caller = Answering::new(|_| panic!("asked"));
    let around = Around { caller: &caller, early: None };
    let external = filter(json!({ "requestType": "internal" }));
    let absent = DescriptorAction::RequestHeader {
        header: HeaderKey::parse("x-absent").unwrap(),
        key: "k".into(),
        skip_if_absent: false,
    };
    for (filter, actions) in [(external, vec![DescriptorAction::RemoteAddress]), (filter(json!({})), vec![absent])] {
        let (mut head, mut info) = (testing::request(&[]), info(actions));
        let flow = filter.on_request("limit", (&mut head, &mut info), around, &mut Vec::new()).await;
        assert!(matches!(flow, Flow::Continue));
    }
}
