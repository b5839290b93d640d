//! Key sets over HTTP: from their URL, or from where the issuer's OpenID configuration says that they are.
//!
//! Never connects to a forbidden address: what a name resolves to is what is checked and what is connected to, for each
//! redirect anew. Answers are bounded, and what is no key set is not taken, so that nothing else can be read through a proxy's
//! configuration.

use std::net::SocketAddr;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use meltemi_config::Str;
use meltemi_model::KeySource;
use meltemi_tls::{ClientOptions, ClientTls, TrustAnchors, TrustSlot, Validation};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Fetch, ForbiddenAddresses};

/// OpenID Connect Discovery 1.0, section 4.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

const MAX_REDIRECTS: usize = 5;

/// An answer longer than this is none. A key is some 400 bytes, and an issuer has a few of them.
const MAX_BODY_BYTES: usize = 256 * 1024;

pub(crate) struct HttpFetch {
    forbidden: ForbiddenAddresses,
    /// PEM roots besides the system's.
    extra_roots: Vec<u8>,
    /// Read when the first server over TLS is asked.
    tls: OnceLock<ClientTls>,
}

impl HttpFetch {
    pub fn new(forbidden: ForbiddenAddresses, extra_roots: Vec<u8>) -> Self {
        Self { forbidden, extra_roots, tls: OnceLock::new() }
    }

    async fn json(&self, url: &str) -> Result<Value> {
        let mut at: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get(&at).await.with_context(|| at.to_string())?;
            let status = response.status();
            if status.is_redirection() {
                at = redirected(&at, &response).with_context(|| at.to_string())?;
                continue;
            }
            ensure!(status.is_success(), "{at}: status {}", status.as_u16());
            let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            let body = body.map_err(|error| anyhow!("{at}: {error}"))?.to_bytes();
            return serde_json::from_slice(&body).map_err(|_| anyhow!("{at}: the answer is not JSON"));
        }
        bail!("{url}: more than {MAX_REDIRECTS} redirects")
    }

    async fn get(&self, url: &Uri) -> Result<Response<Incoming>> {
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
        let anchors = TrustAnchors::system_with(&self.extra_roots).context("roots of servers with keys")?;
        let validation = Validation { anchors: TrustSlot::new(anchors), server_name: true, ..Validation::default() };
        let tls = ClientTls::new(ClientOptions { validation: Some(validation), ..ClientOptions::default() })?;
        Ok(self.tls.get_or_init(|| tls))
    }
}

impl Fetch for HttpFetch {
    async fn fetch(&self, source: &KeySource) -> Result<Str> {
        if !source.uri.is_empty() {
            return key_set(&self.json(&source.uri).await?);
        }
        let configuration = self.json(&format!("{}{DISCOVERY_PATH}", source.issuer.trim_end_matches('/'))).await?;
        let uri = configuration["jwks_uri"].as_str().context("the issuer's OpenID configuration has no jwks_uri")?;
        key_set(&self.json(uri).await?)
    }
}

/// RFC 7517: an object with a list of keys. Written anew, so that the same keys are the same text.
fn key_set(answer: &Value) -> Result<Str> {
    ensure!(answer["keys"].is_array(), "the answer is no key set: it has no list of keys");
    Ok(answer.to_string().into())
}

/// Where an answer sends its client.
fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri> {
    let location = response.headers().get(header::LOCATION).context("a redirect without a location")?;
    let location = location.to_str().context("a redirect to a location that is no text")?;
    let to: Uri = location.parse().with_context(|| format!("a redirect to {location:?}"))?;
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

async fn ask<S>(stream: S, url: &Uri, authority: &Authority) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the body, or when its reader is dropped.
    tokio::spawn(connection);
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
    Ok(sender.send_request(request).await?)
}

#[cfg(test)]
mod tests;
