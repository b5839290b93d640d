//! Calling further services: one connection a call, with the caller's trace context handed on.
//!
//! URLs: `http://` (HTTP/1.1), `h2://` (HTTP/2 with prior knowledge), `grpc://host:port/Method`, `tcp://host:port`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::grpc;

const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 1 << 20;

/// What an application must hand on for traces to be whole and for routing by user to reach the second hop.
const PROPAGATED: [&str; 15] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "end-user",
    "user-agent",
];

/// The outcome of a call, as part of a report.
pub async fn call(url: &str, asked: &HeaderMap) -> Value {
    let outcome = match tokio::time::timeout(PATIENCE, attempt(url, asked)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => json!({"error": format!("{error:#}")}),
        Err(_) => json!({"error": format!("no answer within {} s", PATIENCE.as_secs())}),
    };
    let mut with_url = json!({"url": url});
    if let (Value::Object(all), Value::Object(outcome)) = (&mut with_url, outcome) {
        all.extend(outcome);
    }
    with_url
}

async fn attempt(url: &str, asked: &HeaderMap) -> anyhow::Result<Value> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or_else(|| anyhow::anyhow!("no host in the URL"))?.clone();
    let scheme = uri.scheme_str().unwrap_or("http");
    let default_port = if scheme == "https" { 443 } else { 80 };
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(default_port));
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match scheme {
        "tcp" => tcp(stream, path).await,
        "http" => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut request = request(Method::GET, path, asked, Bytes::new())?;
            request.headers_mut().insert(header::HOST, authority.as_str().parse()?);
            http(sender.send_request(request).await?).await
        }
        "h2" | "http2" | "grpc" => {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            let full = format!("http://{authority}{path}");
            if scheme == "grpc" {
                let mut request = request(Method::POST, &full, asked, grpc::framed(&grpc::string_message("hello")))?;
                request.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse()?);
                request.headers_mut().insert(header::TE, "trailers".parse()?);
                answer_of_grpc(sender.send_request(request).await?).await
            } else {
                http(sender.send_request(request(Method::GET, &full, asked, Bytes::new())?).await?).await
            }
        }
        other => anyhow::bail!("scheme `{other}` is not one of http, h2, grpc, tcp"),
    }
}

fn request(method: Method, uri: &str, asked: &HeaderMap, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
    for name in PROPAGATED.map(HeaderName::from_static) {
        for value in asked.get_all(&name) {
            request.headers_mut().append(&name, value.clone());
        }
    }
    Ok(request)
}

async fn http(response: Response<Incoming>) -> anyhow::Result<Value> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
    Ok(json!({"status": status, "body": content(&body)}))
}

/// As JSON if it is that, else as text.
fn content(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body).trim_end()))
}

async fn answer_of_grpc(response: Response<Incoming>) -> anyhow::Result<Value> {
    let (parts, body) = response.into_parts();
    let collected = Limited::new(body, MAX_ANSWER).collect().await;
    let collected = collected.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?;
    let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status =
        status.or_else(|| parts.headers.get("grpc-status")).and_then(|status| status.to_str().ok()).map(str::to_owned);
    let message = parts.headers.get("grpc-message").and_then(|message| message.to_str().ok()).map(str::to_owned);
    let mut buffer = BytesMut::from(&collected.to_bytes()[..]);
    let reply = grpc::take_message(&mut buffer).map_err(anyhow::Error::msg)?.unwrap_or_default();
    let body = grpc::string_field(&reply).map_or_else(|| content(&reply), |text| content(text.as_bytes()));
    let mut outcome = json!({"status": parts.status.as_u16(), "grpcStatus": status, "body": body});
    if let Some(message) = message {
        outcome["grpcMessage"] = json!(message);
    }
    Ok(outcome)
}

/// Sends the URL's path as a line and takes the line that comes back.
async fn tcp(stream: TcpStream, path: &str) -> anyhow::Result<Value> {
    let mut stream = BufReader::new(stream);
    let word = path.trim_start_matches('/');
    let line = if word.is_empty() { "hello" } else { word };
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    (&mut stream).take(MAX_ANSWER as u64).read_until(b'\n', &mut answer).await?;
    anyhow::ensure!(!answer.is_empty(), "the connection was closed without an answer");
    Ok(json!({"body": String::from_utf8_lossy(&answer).trim_end()}))
}
