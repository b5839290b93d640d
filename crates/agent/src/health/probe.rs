//! One question to the application, by each of the four methods of a Kubernetes probe.

use super::{Health, ReadinessProbe};
use crate::call::{Caller, Target};
use crate::environment::Settings;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Uri, header};
use std::process::Stdio;
use std::time::Duration;

const USER_AGENT: &str = "istio-probe/1.0";

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
    caller: Caller,
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
        Ok(Self { method, timeout: probe.timeout(), caller: Caller::new(settings) })
    }

    /// The answer, within the timeout.
    pub async fn ask(&self) -> Health {
        let answer = async {
            match &self.method {
                Method::Http(http) => self.http(http).await,
                Method::Tcp(tcp) => self.tcp(tcp).await,
                Method::Exec(exec) => run(exec).await,
                Method::Grpc(grpc) => self.grpc(grpc).await,
            }
        };
        let late = || format!("no answer within {:?}", self.timeout);
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(late()))
    }

    fn host(&self, given: &str) -> String {
        if given.is_empty() { self.caller.own_host() } else { given.to_owned() }
    }

    async fn tcp(&self, tcp: &TcpProbe) -> Health {
        self.caller.connect(&self.host(&tcp.host), tcp.port).await.map(drop).map_err(|e| e.to_string())
    }

    async fn http(&self, http: &HttpProbe) -> Health {
        let secure = http.scheme.eq_ignore_ascii_case("https");
        let target = Target { host: &self.host(&http.host), port: http.port, secure };
        // Of the answer only the status is looked at.
        let answer = self.caller.http(target, self.http_request(http)?, 0).await?;
        match answer.head.status.as_u16() {
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
        request.body(Empty::new()).map_err(|e| e.to_string())
    }

    async fn grpc(&self, grpc: &GrpcProbe) -> Health {
        let target = Target { host: &self.host(""), port: grpc.port, secure: false };
        self.caller.grpc_health(target, &grpc.service, USER_AGENT).await
    }
}

async fn run(exec: &ExecProbe) -> Health {
    let Some((program, arguments)) = exec.command.split_first() else { return Err("no command".to_owned()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A command that takes longer than the timeout ends with it.
    let status = command.kill_on_drop(true).status().await.map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}
