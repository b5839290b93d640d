//! One question to the application, by each of the four methods of a Kubernetes probe.
//!
//! A connection to one of the workload's own addresses comes from 127.0.0.6 (or ::6), which capture rules leave alone, as
//! istio-agent's do: it reaches the application and not the proxy.

use super::{Health, ReadinessProbe};
use crate::environment::Settings;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meltemi_tls::{ClientOptions, ClientTls};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

const FROM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const FROM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
const USER_AGENT: &str = "istio-probe/1.0";
/// Of an answer's body; the rest is nobody's concern.
const MAX_BODY: usize = 64 << 10;

/// Istio's HTTPHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpProbe {
    /// Empty: `/`.
    pub path: String,
    pub port: u16,
    /// Empty: the workload's first address.
    pub host: String,
    /// `HTTP` or `HTTPS`, whose certificate is not looked at; empty: `HTTP`.
    pub scheme: String,
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

/// Istio's TCPHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpProbe {
    /// Empty: the workload's first address.
    pub host: String,
    pub port: u16,
}

/// Istio's ExecHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecProbe {
    pub command: Vec<String>,
}

/// Istio's GrpcHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcProbe {
    pub port: u16,
    pub service: String,
}

#[derive(Clone, Debug)]
enum Method {
    Http(HttpProbe),
    Tcp(TcpProbe),
    Exec(ExecProbe),
    Grpc(GrpcProbe),
}

/// Asks by one method.
#[derive(Clone, Debug)]
pub struct Prober {
    method: Method,
    timeout: Duration,
    /// The workload's addresses.
    own: Vec<IpAddr>,
    socket_mark: Option<u32>,
}

impl Prober {
    /// An error where there is not exactly one method, or no command.
    pub fn new(probe: &ReadinessProbe, settings: &Settings) -> Result<Self, String> {
        let ReadinessProbe { http_get, tcp_socket, exec, grpc, .. } = probe.clone();
        let methods =
            [http_get.map(Method::Http), tcp_socket.map(Method::Tcp), exec.map(Method::Exec), grpc.map(Method::Grpc)];
        let mut methods = methods.into_iter().flatten();
        let (Some(method), None) = (methods.next(), methods.next()) else {
            return Err("exactly one of httpGet, tcpSocket, exec and grpc must be set".to_owned());
        };
        if matches!(&method, Method::Exec(exec) if exec.command.is_empty()) {
            return Err("exec.command is required".to_owned());
        }
        let own = settings.addresses.clone();
        Ok(Self { method, timeout: probe.timeout(), own, socket_mark: settings.socket_mark })
    }

    /// The answer, within the timeout.
    pub async fn ask(&self) -> Health {
        let answer = async {
            match &self.method {
                Method::Http(http) => self.http(http).await,
                Method::Tcp(tcp) => self.connect(&tcp.host, tcp.port).await.map(drop).map_err(|e| e.to_string()),
                Method::Exec(exec) => run(exec).await,
                Method::Grpc(grpc) => self.grpc(grpc).await,
            }
        };
        let late = || format!("no answer within {:?}", self.timeout);
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(late()))
    }

    fn host(&self, given: &str) -> String {
        match self.own.first() {
            Some(own) if given.is_empty() => own.to_string(),
            _ if given.is_empty() => "localhost".to_owned(),
            _ => given.to_owned(),
        }
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = self.host(host);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in tokio::net::lookup_host((host.as_str(), port)).await? {
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
            tracing::debug!(%error, %from, "the probe comes from another address");
        }
        socket.connect(address).await
    }

    async fn http(&self, http: &HttpProbe) -> Health {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = self.connect(&http.host, http.port).await.map_err(|e| text(&e))?;
        let request = self.http_request(http)?;
        let status = if http.scheme.eq_ignore_ascii_case("https") {
            let host = self.host(&http.host);
            let options = ClientOptions { sni: Some(host), ..ClientOptions::default() };
            let tls = ClientTls::new(options).map_err(|e| text(&e))?;
            let stream = TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await;
            get(stream.map_err(|e| text(&e))?, request).await?
        } else {
            get(stream, request).await?
        };
        match status.as_u16() {
            200..400 => Ok(()),
            other => Err(format!("status {other} is not between 200 and 399")),
        }
    }

    fn http_request(&self, http: &HttpProbe) -> Result<Request<Empty<Bytes>>, String> {
        let path = if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) };
        let uri: Uri = path.parse().map_err(|e| format!("path {path:?}: {e}"))?;
        let mut request = Request::get(uri);
        let named = |name: &str| http.http_headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
        if !named("host") {
            let host = self.host(&http.host);
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            request = request.header(header::HOST, format!("{host}:{}", http.port));
        }
        if !named("user-agent") {
            request = request.header(header::USER_AGENT, USER_AGENT);
        }
        for HttpHeader { name, value } in &http.http_headers {
            request = request.header(name, value);
        }
        request.header(header::CONNECTION, "close").body(Empty::new()).map_err(|e| e.to_string())
    }

    /// `grpc.health.v1.Health/Check`; only SERVING is good.
    async fn grpc(&self, grpc: &GrpcProbe) -> Health {
        let stream = self.connect("", grpc.port).await.map_err(|e| e.to_string())?;
        let io = TokioIo::new(stream);
        let handshake = http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let exchange = async move {
            let request = Request::post(format!("http://localhost:{}/grpc.health.v1.Health/Check", grpc.port))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header(header::USER_AGENT, USER_AGENT)
                .body(Full::new(check_request(&grpc.service)))
                .map_err(|e| e.to_string())?;
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.headers().get("grpc-status").cloned();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|e| e.to_string())?;
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

/// Sends a request over a connection of its own; the status.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<StatusCode, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let answer = until_answered(sender.send_request(request), connection).await;
    answer.map(|answer| answer.status()).map_err(|e| e.to_string())
}

async fn run(exec: &ExecProbe) -> Health {
    let Some((program, arguments)) = exec.command.split_first() else { return Err("no command".to_owned()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A command that takes longer than the timeout ends with it.
    let status = command.kill_on_drop(true).status().await.map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

/// `HealthCheckRequest{service = 1}` behind gRPC's five bytes.
fn check_request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 6);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// `HealthCheckResponse{status = 1}`, where 1 is SERVING, under the status of the call.
fn judge_grpc(status: Option<&[u8]>, body: &[u8]) -> Health {
    match (status, body) {
        (Some(b"0"), [0, 0, 0, 0, 2, 0x08, 0x01, ..]) => Ok(()),
        (Some(b"0"), _) => Err("not serving".to_owned()),
        (Some(b"12"), _) => Err("the service does not implement grpc.health.v1.Health".to_owned()),
        (Some(other), _) => Err(format!("status {} of the call", String::from_utf8_lossy(other))),
        (None, _) => Err("no gRPC status".to_owned()),
    }
}
