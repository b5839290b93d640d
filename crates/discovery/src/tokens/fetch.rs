//! Small documents over HTTPS.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use meltemi_tls::{ClientOptions, ClientTls, TrustAnchors, TrustSlot, Validation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Name look-up, handshakes and answer together.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 256 * 1024;

/// Gets documents from servers that these roots vouch for. Redirections are not followed.
#[derive(Clone)]
pub struct Fetcher {
    roots: Option<Vec<u8>>,
}

impl Fetcher {
    /// `roots` is PEM; the system's without it.
    pub fn new(roots: Option<Vec<u8>>) -> Result<Self> {
        if let Some(pem) = &roots {
            TrustAnchors::from_pem(pem, &[])?;
        }
        Ok(Self { roots })
    }

    /// The body of a successful answer.
    pub(super) async fn get(&self, url: &str) -> Result<String> {
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch(url)).await;
        fetched.context("no answer in time").and_then(|fetched| fetched).with_context(|| url.to_owned())
    }

    async fn fetch(&self, url: &str) -> Result<String> {
        let uri: Uri = url.parse().context("not a URL")?;
        let host = uri.host().context("no host in it")?.trim_matches(['[', ']']);
        let secure = uri.scheme_str() == Some("https");
        // Who may change what is fetched may make tokens; on this machine's loopback that is nobody else.
        let local = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        ensure!(secure || uri.scheme_str() == Some("http") && local, "only https is taken");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if !secure {
            return exchange(stream, &uri).await;
        }
        let tls = self.tls(host)?;
        exchange(TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await?, &uri).await
    }

    fn tls(&self, host: &str) -> Result<ClientTls> {
        let anchors = match &self.roots {
            Some(pem) => TrustAnchors::from_pem(pem, &[])?,
            None => TrustAnchors::system()?,
        };
        let anchors = TrustSlot::new(anchors);
        Ok(ClientTls::new(ClientOptions {
            validation: Some(Validation { anchors, server_name: true, ..Validation::default() }),
            sni: Some(host.to_owned()),
            ..ClientOptions::default()
        })?)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("own_roots", &self.roots.is_some()).finish()
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri) -> Result<String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let authority = uri.authority().context("no host in it")?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
    let asking = async {
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if answer.status() != StatusCode::OK {
            bail!("answered {}", answer.status());
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok(String::from_utf8(body.into())?)
    };
    tokio::pin!(connection);
    tokio::pin!(asking);
    loop {
        tokio::select! {
            answered = &mut asking => return answered,
            ended = &mut connection => ended?,
        }
    }
}
