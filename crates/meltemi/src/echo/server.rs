//! The HTTP side: HTTP/1.1 and HTTP/2 on one port, told apart by the preface; gRPC and WebSocket on top.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use super::identity::{self, Identity};
use super::{client, grpc, health, websocket};

#[cfg(test)]
mod tests;

/// Longer request bodies are counted only up to here, and refused.
pub const MAX_BODY: usize = 16 << 20;
/// Bodies up to here are shown in the report.
const SHOWN_BODY: usize = 16 << 10;
const MAX_BYTES: usize = 256 << 20;
const MAX_DELAY: Duration = Duration::from_secs(600);
const MAX_CALLS: usize = 16;
const CHUNK: usize = 64 << 10;

pub type Body = BoxBody<Bytes, hyper::Error>;

pub struct App {
    pub identity: Arc<Identity>,
    pub calls: Vec<String>,
    /// Becomes true once the program has been told to end.
    pub leaving: watch::Receiver<bool>,
}

/// Serves one connection until it ends; what breaks it is the client's business. Once the program is leaving, each answer tells
/// an HTTP/1 client that it is the last one, and an HTTP/2 client hears of it after its first request: before, it would only
/// try here again.
pub async fn connection(app: Arc<App>, stream: TcpStream) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let (mut leaving, multiplexed) = (app.leaving.clone(), Arc::new(Notify::new()));
    let seen = Arc::clone(&multiplexed);
    let service = service_fn(move |request| {
        let (app, seen) = (Arc::clone(&app), Arc::clone(&seen));
        async move {
            let version = request.version();
            if version == Version::HTTP_2 {
                seen.notify_one();
            }
            let response = answer(&app, request, peer, local.port()).await;
            let last = version < Version::HTTP_2 && *app.leaving.borrow();
            Ok::<_, Infallible>(if last { closing(response) } else { response })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let told = async {
        multiplexed.notified().await;
        let _ = leaving.wait_for(|leaving| *leaving).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = told => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// What a request asks this program to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    status: Option<u16>,
    delay: Duration,
    bytes: Option<usize>,
    calls: Vec<String>,
}

impl Wish {
    fn parse(path: &str, query: &str) -> Result<Self, String> {
        let mut wish = Wish::default();
        let mut segments = path.trim_start_matches('/').split('/');
        if let (Some(key @ ("status" | "delay" | "bytes")), Some(value)) = (segments.next(), segments.next()) {
            wish.set(key, value)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            wish.set(key, &unescape(value))?;
        }
        Ok(wish)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("{key}={value}: not understood");
        match key {
            "status" => self.status = Some(value.parse().map_err(|_| wrong())?),
            "delay" => self.delay = duration(value).filter(|delay| *delay <= MAX_DELAY).ok_or_else(wrong)?,
            "bytes" => self.bytes = Some(value.parse().ok().filter(|bytes| *bytes <= MAX_BYTES).ok_or_else(wrong)?),
            "call" | "url" if !value.is_empty() && self.calls.len() < MAX_CALLS => self.calls.push(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// `100ms` or `1.5s`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

fn unescape(text: &str) -> String {
    let (mut out, bytes) = (Vec::with_capacity(text.len()), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn answer(app: &App, request: Request<Incoming>, peer: SocketAddr, port: u16) -> Response<Body> {
    let headers = request.headers();
    let is = |name: header::HeaderName, wanted: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|text| text.to_ascii_lowercase().starts_with(wanted))
    };
    if is(header::CONTENT_TYPE, "application/grpc") {
        if health::method(request.uri().path()).is_some() {
            return health::serve(request, Identity::clone(&app.identity), app.leaving.clone());
        }
        let report = report(app, &request, peer, port, "gRPC");
        return grpc::serve(request, report);
    }
    if is(header::UPGRADE, "websocket") {
        return upgrade(request);
    }
    if request.uri().path() == "/echo" {
        let kind = headers.get(header::CONTENT_TYPE).cloned();
        let mut response = Response::new(request.into_body().boxed());
        if let Some(kind) = kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        return response;
    }
    let wish = match Wish::parse(request.uri().path(), request.uri().query().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let protocol = if request.version() == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
    let mut report = report(app, &request, peer, port, protocol);
    let asked = request.headers().clone();
    let at_root = request.uri().path() == "/";
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => describe_body(&mut report, &body.to_bytes()),
        Err(_) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long".to_owned()),
    }
    tokio::time::sleep(wish.delay).await;
    if let Some(bytes) = wish.bytes {
        return long(app, bytes);
    }
    let calls: Vec<&String> =
        if wish.calls.is_empty() && at_root { app.calls.iter().collect() } else { wish.calls.iter().collect() };
    if !calls.is_empty() {
        report["calls"] = make_calls(&calls, &asked).await;
    }
    finish(app, &report, wish.status)
}

async fn make_calls(urls: &[&String], asked: &HeaderMap) -> Value {
    let mut outcomes = Vec::new();
    for url in urls {
        outcomes.push(client::call(url, asked).await);
    }
    Value::Array(outcomes)
}

fn finish(app: &App, report: &Value, status: Option<u16>) -> Response<Body> {
    let mut content = serde_json::to_vec_pretty(report).unwrap_or_default();
    content.push(b'\n');
    let mut response = Response::new(full(content));
    if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
        *response.status_mut() = status;
    }
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    served_by(app, response)
}

/// Every answer says in a header who gave it, so that a load generator can count without reading bodies.
fn served_by(app: &App, mut response: Response<Body>) -> Response<Body> {
    let Identity { service, version, pod, .. } = &*app.identity;
    for (name, value) in [("x-served-by", format!("{service} {version}")), ("x-served-by-pod", pod.clone())] {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn report(app: &App, request: &Request<Incoming>, peer: SocketAddr, port: u16, protocol: &str) -> Value {
    let mut report = app.identity.json();
    let uri = request.uri();
    let authority = uri.authority().map(|authority| authority.to_string());
    let host = || request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    for (key, value) in [
        ("protocol", json!(protocol)),
        ("method", json!(request.method().as_str())),
        ("path", json!(uri.path_and_query().map_or("/", |path| path.as_str()))),
        ("authority", json!(authority.or_else(host))),
        ("port", json!(port)),
        ("peerAddress", json!(peer.to_string())),
        ("security", identity::security(request.headers())),
        ("headers", identity::headers(request.headers())),
    ] {
        report.insert(key.to_owned(), value);
    }
    Value::Object(report)
}

fn describe_body(report: &mut Value, body: &Bytes) {
    if body.is_empty() {
        return;
    }
    report["bodyBytes"] = json!(body.len());
    if body.len() <= SHOWN_BODY
        && let Ok(text) = std::str::from_utf8(body)
    {
        report["body"] = json!(text);
    }
}

fn text(status: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(full(message + "\n"));
    *response.status_mut() = status;
    response
}

/// So many bytes, made as they are sent.
fn long(app: &App, bytes: usize) -> Response<Body> {
    static ZEROS: [u8; CHUNK] = [b'0'; CHUNK];
    if bytes <= CHUNK {
        return served_by(app, Response::new(full(Bytes::from_static(&ZEROS[..bytes]))));
    }
    let chunks = futures_util::stream::unfold(bytes, |left| async move {
        let now = left.min(CHUNK);
        let chunk = Bytes::from_static(&ZEROS[..now]);
        (now > 0).then(|| (Ok(hyper::body::Frame::data(chunk)), left - now))
    });
    let body = http_body_util::StreamBody::new(chunks);
    let mut response = Response::new(BodyExt::boxed(body));
    response.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from(bytes));
    served_by(app, response)
}

fn upgrade(request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").and_then(|key| key.to_str().ok());
    let Some(accept) = key.map(websocket::accept) else {
        return text(StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key".to_owned());
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            websocket::serve(upgraded).await;
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-accept", accept)
        .body(full(Bytes::new()));
    response.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
