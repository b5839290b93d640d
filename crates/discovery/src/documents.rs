//! JSON documents over HTTP/1, for what is to be trusted with keys.
//!
//! Never connects to a forbidden address: what a name resolves to is what is checked and what is connected to, for each
//! redirect anew. Answers, redirects and what is shown of a URL are bounded; how long an exchange may take is the caller's.

use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use http::response::Parts;
use http::uri::{Authority, Scheme};
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use meltemi_tls::{ClientOptions, ClientTls, TrustAnchors, TrustSlot, Validation};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::keys::ForbiddenAddresses;

pub(crate) const MAX_REDIRECTS: usize = 5;

/// An answer longer than this is none. A key is some 400 bytes, and an issuer has a few of them.
pub(crate) const MAX_BODY_BYTES: usize = 256 * 1024;

/// Who vouches for servers over TLS, in PEM.
#[derive(Debug, Clone)]
pub enum Roots {
    /// The system's, and these.
    SystemAnd(Vec<u8>),
    Only(Vec<u8>),
}

impl Roots {
    fn anchors(&self) -> Result<TrustAnchors> {
        let anchors = match self {
            Self::SystemAnd(more) => TrustAnchors::system_with(more),
            Self::Only(pem) => TrustAnchors::from_pem(pem, &[]),
        };
        anchors.context("roots of servers with keys")
    }
}

/// Gets documents from wherever it is allowed to.
pub struct Documents {
    forbidden: ForbiddenAddresses,
    roots: Roots,
    max_redirects: usize,
    /// Read when the first server over TLS is asked.
    tls: OnceLock<ClientTls>,
}

impl Documents {
    pub fn new(forbidden: ForbiddenAddresses, roots: Roots) -> Self {
        Self { forbidden, roots, max_redirects: MAX_REDIRECTS, tls: OnceLock::new() }
    }

    pub fn without_redirects(self) -> Self {
        Self { max_redirects: 0, ..self }
    }

    /// The document of a successful answer.
    pub async fn json(&self, url: &str) -> Result<Value> {
        // Not shown whole in messages: it may have a password, or a token among its parameters.
        let mut at: Uri = url.parse().context("not a URL")?;
        for _ in 0..=self.max_redirects {
            let Answer { head, body } = self.get(&at).await.with_context(|| shown(&at))?;
            if head.status.is_redirection() {
                at = redirected(&at, &head).with_context(|| shown(&at))?;
                continue;
            }
            ensure!(head.status.is_success(), "{}: status {}", shown(&at), head.status.as_u16());
            return serde_json::from_slice(&body).map_err(|_| anyhow!("{}: the answer is not JSON", shown(&at)));
        }
        bail!("{}: more than {} redirects", shown(&at), self.max_redirects)
    }

    async fn get(&self, url: &Uri) -> Result<Answer> {
        let authority = url.authority().context("no host")?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => bail!("the scheme is neither http nor https"),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = self.connect(host, authority.port_u16().unwrap_or(if tls { 443 } else { 80 })).await?;
        if !tls {
            return ask(stream, url, authority).await;
        }
        let settings = self.tls()?.with(None, Some(host));
        let connector = TlsConnector::from(settings.config());
        let stream = connector.connect(settings.server_name(), stream).await.context("TLS")?;
        ask(stream, url, authority).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        let found = tokio::net::lookup_host((host, port)).await.with_context(|| format!("cannot resolve {host}"))?;
        let (forbidden, allowed): (Vec<SocketAddr>, Vec<SocketAddr>) =
            found.partition(|address| self.forbidden.contains(address.ip()));
        if let ([address, ..], []) = (forbidden.as_slice(), allowed.as_slice()) {
            bail!("{host} is at {}, where keys may not be fetched", address.ip());
        }
        TcpStream::connect(allowed.as_slice()).await.with_context(|| format!("cannot connect to {host}:{port}"))
    }

    fn tls(&self) -> Result<&ClientTls> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let anchors = TrustSlot::new(self.roots.anchors()?);
        let validation = Validation { anchors, server_name: true, ..Validation::default() };
        let tls = ClientTls::new(ClientOptions { validation: Some(validation), ..ClientOptions::default() })?;
        Ok(self.tls.get_or_init(|| tls))
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("max_redirects", &self.max_redirects).finish_non_exhaustive()
    }
}

/// Scheme, host and path.
fn shown(url: &Uri) -> String {
    let host = url.authority().map_or("", |authority| authority.host());
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme_str().unwrap_or_default(), url.path())
}

/// Where an answer sends its client.
fn redirected(from: &Uri, head: &Parts) -> Result<Uri> {
    let location = head.headers.get(header::LOCATION).context("a redirect without a location")?;
    let location = location.to_str().context("a redirect to a location that is no text")?;
    let to: Uri = location.parse().context("a redirect to what is no URL")?;
    let to = if to.authority().is_none() {
        let mut parts = to.into_parts();
        (parts.scheme, parts.authority) = (from.scheme().cloned(), from.authority().cloned());
        Uri::from_parts(parts)?
    } else {
        to
    };
    let downgrade = from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS);
    ensure!(!downgrade, "a redirect from TLS to plaintext");
    Ok(to)
}

struct Answer {
    head: Parts,
    /// Of a success only.
    body: Bytes,
}

async fn ask<S>(stream: S, url: &Uri, authority: &Authority) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let host = match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        if !head.status.is_success() {
            return Ok(Answer { head, body: Bytes::new() });
        }
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| anyhow!("{error}"))?;
        Ok(Answer { head, body: body.to_bytes() })
    };
    // The connection works for the exchange, and lives no longer.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}
