//! Calls to the application beside the proxy, past the proxy.
//!
//! A connection to one of the workload's own addresses comes from 127.0.0.6 (or ::6), which capture rules leave alone, as
//! istio-agent's do: it reaches the application and not the proxy. Each call has a connection of its own; its time is
//! bounded by the caller, its size here.

use crate::environment::Settings;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::http::{response, uri};
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meltemi_proto::prost::Message as _;
use meltemi_tls::{ClientOptions, ClientTls};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

const FROM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const FROM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// Of a gRPC answer's body, which has two bytes.
const MAX_HEALTH: usize = 64 << 10;

/// Whether this is the address that calls past the proxy come from. What the proxy passes on comes from it, too, whoever
/// sent it.
pub fn is_passed_on(address: IpAddr) -> bool {
    [FROM_V4, FROM_V6].contains(&address.to_canonical())
}

/// Where an HTTP call goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub host: &'a str,
    pub port: u16,
    /// TLS, whose certificate is not looked at.
    pub secure: bool,
}

/// An answer, of whose body no more was read than was asked for.
pub struct Answer {
    pub head: response::Parts,
    pub body: Vec<u8>,
    /// Nothing of the body was left unread.
    pub is_whole: bool,
}

#[derive(Clone, Debug)]
pub struct Caller {
    /// The workload's addresses.
    own: Vec<IpAddr>,
    socket_mark: Option<u32>,
}

impl Caller {
    pub fn new(settings: &Settings) -> Self {
        Self { own: settings.addresses.clone(), socket_mark: settings.socket_mark }
    }

    /// The workload's first address.
    pub fn own_host(&self) -> String {
        self.own.first().map_or_else(|| "localhost".to_owned(), IpAddr::to_string)
    }

    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in tokio::net::lookup_host((host, port)).await? {
            match self.dial(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let (socket, from) = match address {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, FROM_V4),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, FROM_V6),
        };
        if let Some(mark) = self.socket_mark {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark)?;
        }
        let is_own = address.ip().is_loopback() || self.own.contains(&address.ip());
        if is_own && let Err(error) = socket.bind(SocketAddr::new(from, 0)) {
            // ::6 is there only where somebody gave it to the loopback device.
            tracing::debug!(%error, %from, "the call comes from another address");
        }
        socket.connect(address).await
    }

    /// Sends a request that names a path and a `Host`. Over TLS it is HTTP/2 where the application wants that.
    pub async fn http(
        &self,
        target: Target<'_>,
        request: Request<Empty<Bytes>>,
        max_body: usize,
    ) -> Result<Answer, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = self.connect(target.host, target.port).await.map_err(|e| text(&e))?;
        if !target.secure {
            return over_http1(stream, request, max_body).await;
        }
        let alpn = vec![H2.to_vec(), HTTP1.to_vec()];
        let options = ClientOptions { sni: Some(target.host.to_owned()), alpn, ..ClientOptions::default() };
        let tls = ClientTls::new(options).map_err(|e| text(&e))?;
        let stream = TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await;
        let stream = stream.map_err(|e| text(&e))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(H2) => over_http2(stream, request, max_body).await,
            _ => over_http1(stream, request, max_body).await,
        }
    }

    /// `grpc.health.v1.Health/Check`; only SERVING is good.
    pub async fn grpc_health(&self, target: Target<'_>, service: &str, user_agent: &str) -> Result<(), String> {
        let stream = self.connect(target.host, target.port).await.map_err(|e| e.to_string())?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let exchange = async move {
            let request = Request::post(format!("http://localhost:{}/grpc.health.v1.Health/Check", target.port))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header(header::USER_AGENT, user_agent)
                .body(Full::new(check_request(service)))
                .map_err(|e| e.to_string())?;
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.headers().get("grpc-status").cloned();
            let body = Limited::new(response.into_body(), MAX_HEALTH).collect().await.map_err(|e| e.to_string())?;
            let status = status.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()));
            judge_grpc(status.as_ref().map(|status| status.as_bytes()), &body.to_bytes())
        };
        until_answered(exchange, connection).await
    }
}

/// Drives a connection until the exchange on it is over. A connection may end with the answer already there.
async fn until_answered<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Empty<Bytes>>,
    max_body: usize,
) -> Result<Answer, String> {
    request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async move { answer(sender.send_request(request).await, max_body).await };
    until_answered(exchange, connection).await
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Empty<Bytes>>,
    max_body: usize,
) -> Result<Answer, String> {
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTPS);
    parts.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| e.to_string())?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let exchange = async move { answer(sender.send_request(request).await, max_body).await };
    until_answered(exchange, connection).await
}

async fn answer(response: hyper::Result<Response<Incoming>>, max_body: usize) -> Result<Answer, String> {
    let (head, mut incoming) = response.map_err(|e| e.to_string())?.into_parts();
    let mut answer = Answer { head, body: Vec::new(), is_whole: true };
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() else { continue };
        let room = max_body - answer.body.len();
        answer.body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            answer.is_whole = false;
            break;
        }
    }
    Ok(answer)
}

/// `HealthCheckRequest{service = 1}`, which a string by itself is encoded as, behind gRPC's five bytes.
fn check_request(service: &str) -> Bytes {
    let message = service.to_owned().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// `HealthCheckResponse{status = 1}`, where 1 is SERVING, under the status of the call.
fn judge_grpc(status: Option<&[u8]>, body: &[u8]) -> Result<(), String> {
    match (status, body) {
        (Some(b"0"), [0, 0, 0, 0, 2, 0x08, 0x01, ..]) => Ok(()),
        (Some(b"0"), _) => Err("not serving".to_owned()),
        (Some(b"12"), _) => Err("the service does not implement grpc.health.v1.Health".to_owned()),
        (Some(other), _) => Err(format!("status {} of the call", String::from_utf8_lossy(other))),
        (None, _) => Err("no gRPC status".to_owned()),
    }
}
