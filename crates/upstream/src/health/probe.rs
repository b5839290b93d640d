//! One probe of one host.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use meltemi_net::{
    Address, ConnectOptions, Stream,
    proxy_protocol::{self, Version},
};
use meltemi_plan::HeaderKey;
use meltemi_plan::cluster::{HealthCheck, HealthCheckKind, HttpHealthCheck};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cluster::Transport;
use crate::endpoint::Endpoint;

/// How much of an answer is read.
const LIMIT: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Healthy,
    /// Healthy, with `x-envoy-degraded`.
    Degraded,
    /// The host says so itself.
    Unhealthy(String),
    /// A status that is only believed when repeated.
    Retriable(String),
    Network(String),
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        Self::Network(error.to_string())
    }
}

/// Any byte stream; TLS or not is decided per cluster, off the request path.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Asks once. The caller sets the deadline.
pub(crate) async fn probe(
    check: &HealthCheck,
    host: &Endpoint,
    (transport, announced): (&Transport, Option<Version>),
    cluster: &str,
) -> Answer {
    let mut stream = match open(check, host, (transport, announced)).await {
        Ok(stream) => stream,
        Err(error) => return error.into(),
    };
    let answer = match &check.kind {
        HealthCheckKind::Tcp { send, receive } => tcp(&mut stream, send, receive).await,
        HealthCheckKind::Http(http) => {
            let authority = authority(host.check_hostname(), &http.host, cluster);
            if http.http2 {
                h2_status(stream, http, authority).await
            } else {
                h1_status(&mut stream, http, authority).await
            }
        }
        HealthCheckKind::Grpc { service, authority: configured } => {
            grpc(stream, service, authority(host.check_hostname(), configured, cluster)).await
        }
    };
    answer.unwrap_or_else(Answer::from)
}

/// The endpoint's own name, else the check's, else the cluster's: Envoy's order.
fn authority<'a>(host: &'a str, check: &'a str, cluster: &'a str) -> &'a str {
    [host, check].into_iter().find(|name| !name.is_empty()).unwrap_or(cluster)
}

async fn open(
    check: &HealthCheck,
    host: &Endpoint,
    (transport, announced): (&Transport, Option<Version>),
) -> io::Result<Box<dyn Duplex>> {
    let target = host.check.as_ref().and_then(|check| check.address.as_ref()).unwrap_or(&host.address);
    let target = match (target.socket(), check.alt_port) {
        (Some(socket), Some(port)) => Address::Socket(SocketAddr::new(socket.ip(), port)),
        _ => target.clone(),
    };
    let mut stream: Stream = meltemi_net::connect(&target, &ConnectOptions::default()).await?;
    if let Some(version) = announced {
        stream.write_all(&proxy_protocol::encode(version, None, &stream)).await?;
    }
    match transport {
        Transport::Plain => Ok(Box::new(stream)),
        Transport::Tls(tls) => {
            let connector = tokio_rustls::TlsConnector::from(tls.config());
            Ok(Box::new(connector.connect(tls.server_name(), stream).await?))
        }
    }
}

/// Sends, then wants every pattern in order somewhere in what comes back.
async fn tcp(stream: &mut dyn Duplex, send: &[u8], receive: &[Bytes]) -> io::Result<Answer> {
    stream.write_all(send).await?;
    let mut read = BytesMut::new();
    loop {
        if contains_in_order(&read, receive) {
            return Ok(Answer::Healthy);
        }
        if read.len() >= LIMIT || stream.read_buf(&mut read).await? == 0 {
            return Ok(Answer::Unhealthy("unexpected answer".to_owned()));
        }
    }
}

pub(super) fn contains_in_order(mut text: &[u8], patterns: &[Bytes]) -> bool {
    patterns.iter().all(|pattern| {
        let found = pattern.is_empty() || text.windows(pattern.len()).any(|w| w == pattern);
        if found && !pattern.is_empty() {
            let at = text.windows(pattern.len()).position(|w| w == pattern).unwrap_or(0);
            text = &text[at + pattern.len()..];
        }
        found
    })
}

/// Header rules of a check in the part that depends on no stream: literal values.
fn extra_headers(http: &HttpHealthCheck) -> impl Iterator<Item = (&str, &str)> {
    http.headers.add.iter().filter_map(|add| match (&add.key, add.value.as_literal()) {
        (HeaderKey::Name(name), Some(value)) => Some((name.as_str(), value)),
        _ => None,
    })
}

async fn h1_status(stream: &mut dyn Duplex, http: &HttpHealthCheck, authority: &str) -> io::Result<Answer> {
    let mut request =
        format!("{} {} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: Envoy/HC\r\n", http.method, http.path);
    for (name, value) in extra_headers(http) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut read = BytesMut::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() >= LIMIT || stream.read_buf(&mut read).await? == 0 {
            return Ok(Answer::Network("no HTTP response".to_owned()));
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let Some(status) = parse_status(&head) else { return Ok(Answer::Network("malformed HTTP response".to_owned())) };
    let mut body = read.split_off(end);
    while !http.receive.is_empty() && !contains_in_order(&body, &http.receive) {
        if body.len() >= LIMIT || stream.read_buf(&mut body).await? == 0 {
            return Ok(Answer::Unhealthy("unexpected body".to_owned()));
        }
    }
    let degraded = head.lines().any(|l| l.to_ascii_lowercase().starts_with("x-envoy-degraded:"));
    Ok(judge(http, status, degraded))
}

/// The status of `HTTP/1.x NNN`.
pub(crate) fn parse_status(head: &str) -> Option<u16> {
    let rest = head.strip_prefix("HTTP/1.")?;
    let (minor, rest) = rest.split_at_checked(2)?;
    let status = rest.get(..3)?;
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let ended = rest[3..].starts_with([' ', '\r']);
    (matches!(minor, "0 " | "1 ") && digits(status) && ended).then(|| status.parse().ok()).flatten()
}

pub(super) fn judge(http: &HttpHealthCheck, status: u16, degraded: bool) -> Answer {
    let within = |ranges: &[(u16, u16)]| ranges.iter().any(|(start, end)| (*start..*end).contains(&status));
    let expected = if http.expected.is_empty() { status == 200 } else { within(&http.expected) };
    match (expected, degraded) {
        (true, true) => Answer::Degraded,
        (true, false) => Answer::Healthy,
        (false, _) if within(&http.retriable) => Answer::Retriable(format!("status {status}")),
        (false, _) => Answer::Unhealthy(format!("status {status}")),
    }
}

fn from_h2(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

async fn h2_status(stream: Box<dyn Duplex>, http: &HttpHealthCheck, authority: &str) -> io::Result<Answer> {
    let mut request = http::Request::builder()
        .method(http.method.clone())
        .uri(format!("http://{authority}{}", http.path))
        .header("user-agent", "Envoy/HC");
    for (name, value) in extra_headers(http) {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    let (response, _) = exchange_h2(stream, request, None).await?;
    let degraded = response.headers().contains_key("x-envoy-degraded");
    if !contains_in_order(response.body(), &http.receive) {
        return Ok(Answer::Unhealthy("unexpected body".to_owned()));
    }
    Ok(judge(http, response.status().as_u16(), degraded))
}

/// `grpc.health.v1.Health/Check`; SERVING is healthy.
async fn grpc(stream: Box<dyn Duplex>, service: &str, authority: &str) -> io::Result<Answer> {
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "Envoy/HC")
        .body(())
        .map_err(io::Error::other)?;
    let (response, _) = exchange_h2(stream, request, Some(grpc_request(service))).await?;
    Ok(judge_grpc(response.status().as_u16(), response.body()))
}

/// `HealthCheckRequest{service = 1}` behind gRPC's five bytes.
pub(super) fn grpc_request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 6);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// `HealthCheckResponse{status = 1}`: 1 is SERVING.
pub(super) fn judge_grpc(status: u16, body: &[u8]) -> Answer {
    match body {
        _ if status != 200 => Answer::Unhealthy(format!("status {status}")),
        [0, 0, 0, 0, 2, 0x08, 0x01, ..] => Answer::Healthy,
        [] => Answer::Unhealthy("no message".to_owned()),
        _ => Answer::Unhealthy("not serving".to_owned()),
    }
}

/// One request over a connection of its own; the body is read up to the limit. With the response come its trailers.
pub(crate) async fn exchange_h2(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: http::Request<()>,
    body: Option<Bytes>,
) -> io::Result<(http::Response<BytesMut>, Option<http::HeaderMap>)> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(from_h2)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(from_h2)?;
        let (response, mut send) = sender.send_request(request, body.is_none()).map_err(from_h2)?;
        if let Some(body) = body {
            send.send_data(body, true).map_err(from_h2)?;
        }
        let (parts, mut incoming) = response.await.map_err(from_h2)?.into_parts();
        let mut read = BytesMut::new();
        while let Some(chunk) = incoming.data().await {
            let chunk = chunk.map_err(from_h2)?;
            let _ = incoming.flow_control().release_capacity(chunk.len());
            if read.len() + chunk.len() > LIMIT {
                break;
            }
            read.extend_from_slice(&chunk);
        }
        let trailers = incoming.trailers().await.map_err(from_h2)?;
        Ok((http::Response::from_parts(parts, read), trailers))
    };
    // The connection must be polled for the exchange to go on, and dies with it.
    tokio::pin!(connection);
    tokio::select! {
        answer = exchange => answer,
        ended = &mut connection => Err(match ended {
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => from_h2(error),
        }),
    }
}
