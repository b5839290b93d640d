//! What a supervised Envoy tells of itself, asked of its admin port.
//!
//! Nothing is kept: each question is one connection over loopback, with a limit of time and size.

use crate::environment::Role;
use crate::status::{ProxyState, Told};
use crate::termination::connections;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);
/// Statistics of a mesh of thousands of clusters.
const MAX_BYTES: usize = 256 << 20;

pub struct EnvoyAdmin {
    pub port: u16,
    pub role: Role,
    /// Ports that Envoy serves for the agent.
    pub own_ports: Vec<u16>,
}

impl EnvoyAdmin {
    async fn exchange(&self, method: Method, path: &str) -> io::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Once this is done its sender is gone, and with it the connection.
        let exchange = async move {
            let request = Request::builder().method(method).uri(path).header(hyper::header::HOST, "admin");
            let request = request.body(Empty::<Bytes>::new());
            let response = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        tokio::join!(exchange, connection).0
    }

    async fn ask(&self, method: Method, path: &str) -> Result<String, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path)).await {
            Ok(Ok((StatusCode::OK, body))) => Ok(String::from_utf8_lossy(&body).into_owned()),
            Ok(Ok((status, body))) => Err(format!("envoy: {status}: {}", String::from_utf8_lossy(&body).trim())),
            Ok(Err(error)) => Err(format!("envoy: {error}")),
            Err(_) => Err("envoy does not answer".to_owned()),
        }
    }
}

impl ProxyState for EnvoyAdmin {
    fn ready(&self) -> Told<'_, Result<(), String>> {
        Box::pin(async { self.ask(Method::GET, "/ready").await.map(drop) })
    }

    fn metrics(&self) -> Told<'_, String> {
        Box::pin(async {
            self.ask(Method::GET, "/stats/prometheus").await.unwrap_or_else(|reason| {
                tracing::warn!(reason, "no statistics");
                String::new()
            })
        })
    }

    fn connections(&self) -> Told<'_, Result<u64, String>> {
        Box::pin(async {
            let text = self.ask(Method::GET, "/stats?usedonly&filter=downstream_cx_active$").await?;
            Ok(connections(&text, &self.own_ports))
        })
    }

    /// Of a sidecar the inbound side alone: what the application still has to ask goes on as it was.
    fn drain(&self) -> Told<'_, ()> {
        let path = match self.role {
            Role::Sidecar => "/drain_listeners?inboundonly&graceful&skip_exit",
            Role::Router => "/drain_listeners?graceful&skip_exit",
        };
        Box::pin(async move {
            if let Err(reason) = self.ask(Method::POST, path).await {
                tracing::warn!(reason, "envoy could not be asked to drain");
            }
        })
    }

    /// Envoy's readiness is its own.
    fn ending(&self) {}
}
