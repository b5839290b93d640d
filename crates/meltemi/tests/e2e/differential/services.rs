//! What filters of both proxies ask: an issuer's keys, authorization over HTTP/1 and over gRPC, and rate limits.
//!
//! What an authorization service answers is in the header `x-authz` of the request that it is asked about, as words separated by
//! commas; what it was told it puts into the header `x-told`.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meltemi_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use meltemi_proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use meltemi_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a service takes that is to be too slow: twice what the filters give it, which is far more than any other answer takes.
const SLOW: Duration = Duration::from_secs(4);

pub struct Services {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

impl Services {
    pub fn start(keys: String) -> Self {
        let [http, grpc] = [(); 2].map(|()| {
            let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            socket
        });
        let [at_http, at_grpc] = [&http, &grpc].map(|socket| socket.local_addr().expect("bound"));
        let keys: Arc<str> = keys.into();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let [http, grpc] = [http, grpc].map(|socket| TcpListener::from_std(socket).expect("a socket"));
                tokio::join!(serve_http(http, keys), serve_grpc(grpc));
            });
        });
        Self { http: at_http, grpc: at_grpc }
    }
}

async fn serve_http(socket: TcpListener, keys: Arc<str>) {
    while let Ok((stream, _)) = socket.accept().await {
        let keys = keys.clone();
        let answer = service_fn(move |request: Request<Incoming>| over_http(request, keys.clone()));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn serve_grpc(socket: TcpListener) {
    while let Ok((stream, _)) = socket.accept().await {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(over_grpc)));
    }
}

/// Headers that a proxy adds to a question of its own.
fn is_own(name: &str) -> bool {
    let own = ["content-length", "x-request-id", "x-forwarded-for", "user-agent", "connection", "transfer-encoding"];
    own.contains(&name) || name.starts_with("x-envoy-e") || name.starts_with("x-envoy-i")
}

async fn over_http(request: Request<Incoming>, keys: Arc<str>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/keys" {
        return Ok(Response::new(Full::new(Bytes::copy_from_slice(keys.as_bytes()))));
    }
    let mut names: Vec<_> =
        request.headers().keys().map(|name| name.as_str().to_owned()).filter(|name| !is_own(name)).collect();
    names.sort();
    let words = text(request.headers().get("x-authz"));
    let partial = text(request.headers().get("x-envoy-auth-partial-body"));
    let told = format!("{} {} {} {partial}", request.method(), request.uri(), names.join(" "));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let told = format!("{told} {}", String::from_utf8_lossy(&body));
    let has = |word: &str| words.split(',').any(|have| have == word);
    if has("slow") {
        tokio::time::sleep(SLOW).await;
    }
    let status = if has("error") {
        503
    } else if has("deny") {
        403
    } else if has("login") {
        302
    } else {
        200
    };
    let mut response = Response::builder().status(status).header("x-told", told).header("x-one", "changed");
    response =
        response.header("x-up", "up").header("x-down", "down").header("x-both", "both").header("location", "/login");
    if has("remove") {
        response = response.header("x-envoy-auth-headers-to-remove", "x-gone, x-other");
    }
    let body = if status == 200 { "" } else { "not for you" };
    Ok(response.body(Full::new(body.into())).expect("a response"))
}

fn text(value: Option<&HeaderValue>) -> String {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

type Framed = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn over_grpc(request: Request<Incoming>) -> Result<Response<Framed>, Infallible> {
    let limits = request.uri().path().ends_with("ShouldRateLimit");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = body.get(5..).unwrap_or_default();
    let (message, status) = if limits {
        limit(&meltemi_proto::decode(asked).expect("a request"))
    } else {
        let asked: CheckRequest = meltemi_proto::decode(asked).expect("a request");
        authorize(&asked.attributes.unwrap_or_default()).await
    };
    let mut framed = BytesMut::new();
    if status == 0 {
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("small"));
        framed.put_slice(&message);
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from(status))]);
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc").body(body.boxed());
    Ok(response.expect("a response"))
}

/// Whether it is too many, by what the descriptors say; the answer and the status of the call.
fn limit(asked: &RateLimitRequest) -> (Vec<u8>, u32) {
    let entries = |descriptor: &RateLimitDescriptor| {
        let pairs = descriptor.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
        pairs.collect::<Vec<_>>().join(",")
    };
    let told: Vec<String> = asked.descriptors.iter().map(entries).collect();
    let told = format!("{} {}", asked.domain, told.join(" "));
    let has = |word: &str| told.contains(&format!("want={word}"));
    let status = |remaining: u32| {
        json!({ "code": "OK", "limit_remaining": remaining, "duration_until_reset": "7s",
        "current_limit": { "requests_per_unit": 10, "unit": "MINUTE", "name": if remaining == 3 { "named" } else { "" } } })
    };
    let mut answer = json!({ "overall_code": if has("over") { "OVER_LIMIT" } else { "OK" }, "statuses": [status(5), status(3)],
        "request_headers_to_add": [{ "key": "x-told", "value": told }], "response_headers_to_add": [{ "key": "x-told-limit", "value": told }] });
    if has("over") {
        answer["raw_body"] = json!("c2xvd2x5");
    }
    let message: RateLimitResponse = meltemi_proto::json::from_value(&answer).expect("an answer");
    (meltemi_proto::encode(&message).to_vec(), if has("error") { 14 } else { 0 })
}

fn is_stranger(attributes: &AttributeContext) -> bool {
    let peer = attributes.source.as_ref().and_then(|source| source.address.as_ref());
    format!("{peer:?}").contains("127.91.")
}

/// The answer and the status of the call.
async fn authorize(attributes: &AttributeContext) -> (Vec<u8>, u32) {
    let http = attributes.request.as_ref().and_then(|request| request.http.clone()).unwrap_or_default();
    let words = http.headers.get("x-authz").cloned().unwrap_or_default();
    let has = |word: &str| words.split(',').any(|have| have == word);
    if has("slow") {
        tokio::time::sleep(SLOW).await;
    }
    let names: Vec<&str> = http.headers.keys().map(String::as_str).filter(|name| !is_own(name)).collect();
    let partial = http.headers.get("x-envoy-auth-partial-body").cloned().unwrap_or_default();
    let metadata = attributes.metadata_context.clone().unwrap_or_default();
    let told = format!(
        "{} {} {} {} {} {} {} {}{} {partial} {:?} {:?}",
        http.method,
        http.host,
        http.path,
        http.scheme,
        http.protocol,
        http.size,
        names.join(" "),
        http.body,
        String::from_utf8_lossy(&http.raw_body),
        attributes.context_extensions,
        metadata.filter_metadata.keys().collect::<Vec<_>>(),
    );
    // Of a connection without a request the client's network decides.
    let stranger = attributes.request.as_ref().is_none_or(|request| request.http.is_none()) && is_stranger(attributes);
    let denied = has("deny") || has("login") || stranger;
    let header = |key: &str, value: &str| json!({ "header": { "key": key, "value": value } });
    let with = |key: &str, value: &str, more: Value| {
        let mut option = header(key, value);
        option.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        option
    };
    let mut ok = json!({ "headers": [
        with("x-told", &told, json!({ "append": false })), header("x-one", "plain"),
        with("x-two", "joined", json!({ "append": true })), with("x-absent", "joined", json!({ "append": true })),
        with("x-three", "absent", json!({ "append_action": "ADD_IF_ABSENT" })),
        with("x-four", "over", json!({ "append_action": "OVERWRITE_IF_EXISTS" }))],
        "response_headers_to_add": [header("x-both", "both"), with("server", "authz", json!({ "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }))] });
    if has("remove") {
        ok["headers_to_remove"] = json!(["x-gone", "x-other", ":path", "host"]);
    }
    if has("query") {
        ok["query_parameters_to_set"] = json!([{ "key": "q", "value": "set" }]);
        ok["query_parameters_to_remove"] = json!(["r"]);
    }
    if has("path") {
        ok["headers"].as_array_mut().expect("a list").push(with(":path", "/changed", json!({ "append": false })));
    }
    let denial = json!({ "status": { "code": if has("login") { "Unauthorized" } else { "Forbidden" } }, "body": "not for you",
        "headers": [header("x-down", "down"), header("x-told", &told), header("www-authenticate", "Basic")] });
    let mut answer = if denied {
        json!({ "status": { "code": 7 }, "denied_response": denial })
    } else {
        json!({ "status": { "code": 0 }, "ok_response": ok })
    };
    if has("bare") {
        answer.as_object_mut().expect("an object").remove("denied_response");
        answer.as_object_mut().expect("an object").remove("ok_response");
    }
    if has("metadata") {
        answer["dynamic_metadata"] = json!({ "who": "me" });
    }
    let message: CheckResponse = meltemi_proto::json::from_value(&answer).expect("an answer");
    (meltemi_proto::encode(&message).to_vec(), if has("error") { 14 } else { 0 })
}
