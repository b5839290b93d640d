//! The application's probes and lifecycle handlers, asked by the agent for the kubelet, whose own questions would fail at
//! mutual TLS. Injection has turned them to the status port and says in `ISTIO_KUBE_APP_PROBERS` what they were.
//!
//! Like the kubelet: the workload's own address is asked, a certificate is not looked at, redirects are followed as long as
//! they stay at the address. Never without a bound of time and size.

use crate::call::{Answer, Caller, Target};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Of an answer that is passed on, as istio-agent.
const MAX_BODY: usize = 10 << 10;
/// As Go's client and the kubelet.
const MAX_REDIRECTS: usize = 10;
/// Where `timeoutSeconds` is absent: Kubernetes' default of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A handler before the end may take as long as the pod's `terminationGracePeriodSeconds`, which is not known here.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(3600);
/// Of one connection, and not of what is asked.
const PER_CONNECTION: [HeaderName; 6] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::HOST, header::TE, header::TRANSFER_ENCODING, header::UPGRADE];

/// What is asked, by the path at the status port: `/app-health/<container>/readyz` and the like.
#[derive(Clone, Debug, Default)]
pub struct AppProbes(BTreeMap<String, Probe>);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    /// Zero: none is given.
    #[serde(default)]
    timeout_seconds: u32,
}

/// Kubernetes' HTTPGetAction. Its headers are those of the kubelet's question, and its host is where the kubelet sends that.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default, rename = "host")]
    _host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default, rename = "httpHeaders")]
    _http_headers: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpSocket {
    port: u16,
    #[serde(default, rename = "host")]
    _host: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

/// `/app-health/<container>/{livez,readyz,startupz}` or `/app-lifecycle/<container>/{prestopz,poststartz}`; istio-agent takes
/// either kind's endings with either.
fn is_path(path: &str) -> bool {
    let endings = ["livez", "readyz", "startupz", "prestopz", "poststartz"];
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], ["", "app-health" | "app-lifecycle", container, ending]
        if !container.is_empty() && endings.contains(&ending))
}

impl AppProbes {
    /// The reason where the text is not what injection writes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let probes: BTreeMap<String, Probe> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        for (path, probe) in &probes {
            if !is_path(path) {
                return Err(format!("{path:?} is not a path such as /app-health/app/readyz"));
            }
            let Probe { http_get, tcp_socket, grpc, .. } = probe;
            let count = [http_get.is_some(), tcp_socket.is_some(), grpc.is_some()].into_iter().filter(|is| *is).count();
            if count != 1 {
                return Err(format!("{path}: exactly one of httpGet, tcpSocket and grpc must be set"));
            }
        }
        Ok(Self(probes))
    }

    /// Asks what stands behind `path`, in the name of whoever sent `headers` to `status_port`.
    pub async fn ask(
        &self,
        caller: &Caller,
        path: &str,
        headers: &HeaderMap,
        status_port: u16,
    ) -> (StatusCode, Vec<u8>) {
        let Some(probe) = self.0.get(path) else {
            return (StatusCode::BAD_REQUEST, format!("no probe of the application is known for {path}").into_bytes());
        };
        let timeout = match probe.timeout_seconds {
            0 if path.starts_with("/app-lifecycle/") => HANDLER_TIMEOUT,
            0 => PROBE_TIMEOUT,
            seconds => Duration::from_secs(seconds.into()),
        };
        let asked = tokio::time::timeout(timeout, probe.ask(caller, headers, status_port));
        match asked.await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}"))) {
            Ok(answer) => answer,
            Err(reason) => {
                tracing::info!(path, reason, "a probe of the application failed");
                (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
            }
        }
    }
}

impl Probe {
    async fn ask(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        status_port: u16,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let host = &caller.own_host();
        if let Some(http) = &self.http_get {
            return http.ask(caller, headers, status_port).await;
        }
        if let Some(tcp) = &self.tcp_socket {
            caller.connect(host, tcp.port).await.map_err(|e| e.to_string())?;
        }
        if let Some(grpc) = &self.grpc {
            let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
            let target = Target { host, port: grpc.port, secure: false };
            let service = grpc.service.as_deref().unwrap_or_default();
            caller.grpc_health(target, service, agent.unwrap_or("kube-probe")).await?;
        }
        Ok((StatusCode::OK, Vec::new()))
    }
}

impl HttpGet {
    async fn ask(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        status_port: u16,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let own = caller.own_host();
        let mut target = Target { host: &own, port: self.port, secure: self.scheme == "HTTPS" };
        let mut path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let mut host = self.host_header(headers, &own, status_port);
        for _ in 0..=MAX_REDIRECTS {
            let answer = caller.http(target, request(&path, &host, headers)?, MAX_BODY).await?;
            let Some(location) = redirect(&answer) else { return Ok(passed_on(answer)) };
            path = match location.parse::<Uri>() {
                Ok(elsewhere) if elsewhere.scheme().is_some() => {
                    let Some(authority) = elsewhere.authority().filter(|it| is_host(it.host(), &own)) else {
                        // Somebody else is not asked; that there is an answer is enough.
                        return Ok(passed_on(answer));
                    };
                    target.secure = elsewhere.scheme_str() == Some("https");
                    target.port = authority.port_u16().unwrap_or(if target.secure { 443 } else { 80 });
                    host = HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?;
                    elsewhere.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
                }
                _ => resolved(&path, location),
            };
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    /// What the kubelet asked for, with the application's port for the agent's.
    fn host_header(&self, headers: &HeaderMap, own: &str, status_port: u16) -> HeaderValue {
        let given = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let name = match given {
            Some(given) => match given.strip_suffix(&format!(":{status_port}")) {
                Some(name) => name.to_owned(),
                None => return HeaderValue::from_str(given).unwrap_or(HeaderValue::from_static("localhost")),
            },
            None if own.contains(':') => format!("[{own}]"),
            None => own.to_owned(),
        };
        let host = HeaderValue::from_str(&format!("{name}:{}", self.port));
        host.unwrap_or(HeaderValue::from_static("localhost"))
    }
}

fn request(path: &str, host: &HeaderValue, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, String> {
    let uri: Uri = path.parse().map_err(|e| format!("path {path:?}: {e}"))?;
    let mut request = Request::get(uri).body(Empty::new()).map_err(|e| e.to_string())?;
    let asked = request.headers_mut();
    asked.insert(header::HOST, host.clone());
    for (name, value) in headers.iter().filter(|(name, _)| !PER_CONNECTION.contains(name)) {
        asked.append(name, value.clone());
    }
    Ok(request)
}

/// Whether a URL's host, which has brackets around an IPv6 address, is this one.
fn is_host(host: &str, own: &str) -> bool {
    host.trim_matches(['[', ']']) == own
}

/// Where the answer leads, if it leads anywhere.
fn redirect(answer: &Answer) -> Option<&str> {
    let leads = matches!(answer.head.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    answer.head.headers.get(header::LOCATION).filter(|_| leads)?.to_str().ok()
}

/// A location without a host, which may be relative to where it was given.
fn resolved(from: &str, location: &str) -> String {
    if location.starts_with('/') {
        return location.to_owned();
    }
    let folder = from.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder);
    format!("{folder}/{location}")
}

/// A redirect that is not followed is a success, and would be wrong without its location.
fn passed_on(answer: Answer) -> (StatusCode, Vec<u8>) {
    if answer.head.status.is_redirection() {
        return (StatusCode::OK, Vec::new());
    }
    (answer.head.status, answer.body)
}
