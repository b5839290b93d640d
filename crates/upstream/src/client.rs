//! One request to a cluster from the main runtime: what telemetry sends to collectors.
//!
//! A connection each; off the request path, so that simplicity wins over reuse. The caller sets the deadline.

#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::balance::{LbState, PickContext};
use crate::cluster::{Cluster, Transport};
use crate::health::exchange_h2;

/// How much of an answer is read.
const LIMIT: usize = 64 * 1024;

/// A POST to a collector.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    pub authority: &'a str,
    pub path: &'a str,
    pub content_type: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub http2: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Pick(#[from] crate::PickError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("malformed response")]
    Malformed,
    #[error("status {0}")]
    Status(u16),
    #[error("grpc-status {0}")]
    Grpc(String),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Cluster {
    /// Sends `body` to some host and wants a 2xx, and for gRPC status 0.
    pub async fn post(&self, post: Post<'_>, body: Bytes) -> Result<(), PostError> {
        let host = self.pick(&PickContext::default(), &mut LbState::default())?;
        self.stats.traffic.upstream_rq_total().inc();
        let options = meltemi_net::ConnectOptions { timeout: Some(self.plan.connect_timeout), ..Default::default() };
        let mut stream = meltemi_net::connect(&host.address, &options).await?;
        if let Some(version) = self.proxy_protocol(&host) {
            stream.write_all(&meltemi_net::proxy_protocol::encode(version, None, &stream)).await?;
        }
        let stream: Box<dyn Duplex> = match self.transport(&host) {
            Transport::Plain => Box::new(stream),
            Transport::Tls(tls) => {
                let connector = tokio_rustls::TlsConnector::from(tls.config());
                Box::new(connector.connect(tls.server_name(), stream).await?)
            }
        };
        let status = if post.http2 { send_h2(stream, post, body).await? } else { send_h1(stream, post, body).await? };
        self.stats.traffic.response(status);
        if (200..300).contains(&status) { Ok(()) } else { Err(PostError::Status(status)) }
    }
}

async fn send_h1(mut stream: Box<dyn Duplex>, post: Post<'_>, body: Bytes) -> Result<u16, PostError> {
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n",
        post.path,
        post.authority,
        post.content_type,
        body.len()
    );
    for (name, value) in post.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    let mut read = bytes::BytesMut::new();
    while !read.windows(4).any(|w| w == b"\r\n\r\n") {
        if read.len() >= LIMIT || stream.read_buf(&mut read).await? == 0 {
            return Err(PostError::Malformed);
        }
    }
    crate::health::parse_status(&String::from_utf8_lossy(&read)).ok_or(PostError::Malformed)
}

async fn send_h2(stream: Box<dyn Duplex>, post: Post<'_>, body: Bytes) -> Result<u16, PostError> {
    let mut request = http::Request::post(format!("http://{}{}", post.authority, post.path))
        .header("content-type", post.content_type)
        .header("te", "trailers");
    for (name, value) in post.headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    let (response, trailers) = exchange_h2(stream, request, Some(body)).await?;
    let grpc = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    match trailers.as_ref().and_then(grpc).or_else(|| grpc(response.headers())) {
        Some(status) if status != "0" => Err(PostError::Grpc(status)),
        _ => Ok(response.status().as_u16()),
    }
}
