use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::documents::{MAX_BODY_BYTES, MAX_REDIRECTS};

/// A server of fixed answers by path, each a status line, headers and a body; it keeps the paths that it was asked for.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(tls: Option<tokio_rustls::TlsAcceptor>, answers: &[(&str, String)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: BTreeMap<String, String> =
            answers.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect();
        let (answers, log) = (Arc::new(answers), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, log) = (answers.clone(), log.clone());
                match tls.clone() {
                    Some(tls) => tokio::spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &answers, &log).await;
                        }
                    }),
                    None => tokio::spawn(async move { serve(stream, &answers, &log).await }),
                };
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answers: &BTreeMap<String, String>,
    log: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    log.lock().unwrap().push(path.clone());
    let answer = answers.get(&path).cloned().unwrap_or_else(|| "404 Not Found\r\n\r\n".to_owned());
    let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    format!("200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn moved(location: &str) -> String {
    format!("302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

fn source(issuer: &str, uri: &str) -> KeySource {
    KeySource { issuer: issuer.into(), uri: uri.into() }
}

async fn fetch(url: &str) -> Result<String, String> {
    let fetch = HttpFetch::new(ForbiddenAddresses::default(), Vec::new());
    fetch.fetch(&source("issuer", url)).await.map(|keys| keys.to_string()).map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_key_set_is_fetched_from_its_url_or_from_where_the_issuer_says() {
    let keys = ok("{ \"keys\" : [ {\"kty\":\"RSA\"} ] }");
    let server = Server::start(None, &[("/keys?v=1", keys)]).await;
    let expected = "{\"keys\":[{\"kty\":\"RSA\"}]}";
    assert_eq!(fetch(&server.url("/keys?v=1")).await.unwrap(), expected);
    let configuration = ok(&format!("{{\"jwks_uri\":\"{}\"}}", server.url("/keys?v=1")));
    let issuer = Server::start(None, &[("/realm/.well-known/openid-configuration", configuration)]).await;
    let fetcher = HttpFetch::new(ForbiddenAddresses::default(), Vec::new());
    let found = fetcher.fetch(&source(&issuer.url("/realm/"), "")).await.unwrap();
    assert_eq!(&*found, expected);
    assert_eq!(issuer.asked(), ["/realm/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn what_is_no_key_set_is_refused() {
    let big = ok(&format!("{{\"keys\":[\"{}\"]}}", "x".repeat(MAX_BODY_BYTES)));
    let answers = [
        ("/html", ok("<html>secret</html>")),
        ("/other", ok("{\"token\":\"secret\"}")),
        ("/list", ok("{\"keys\":{}}")),
        ("/error", "500 No\r\ncontent-length: 6\r\n\r\nsecret".to_owned()),
        ("/big", big),
    ];
    let server = Server::start(None, &answers).await;
    for (path, reason) in [
        ("/html", "not JSON"),
        ("/other", "no list of keys"),
        ("/list", "no list of keys"),
        ("/error", "status 500"),
        ("/big", "length limit exceeded"),
        ("/absent", "status 404"),
    ] {
        let error = fetch(&server.url(path)).await.unwrap_err();
        assert!(error.contains(reason) && !error.contains("secret"), "{path}: {error}");
    }
    let error = fetch(&format!("http://user:secret@{}/absent?token=secret", server.address)).await.unwrap_err();
    assert!(error.contains("/absent") && !error.contains("secret"), "{error}");
    assert!(fetch("ftp://127.0.0.1/").await.unwrap_err().contains("neither http nor https"));
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_never_to_a_forbidden_address() {
    let target = Server::start(None, &[("/keys", ok("{\"keys\":[]}"))]).await;
    let answers = [
        ("/there", moved(&target.url("/keys"))),
        ("/here", moved("/there")),
        ("/loop", moved("/loop")),
        ("/metadata", moved("http://169.254.169.254/latest")),
    ];
    let server = Server::start(None, &answers).await;
    assert_eq!(fetch(&server.url("/here")).await.unwrap(), "{\"keys\":[]}");
    assert!(fetch(&server.url("/loop")).await.unwrap_err().contains("more than 5 redirects"));
    assert_eq!(server.asked().iter().filter(|path| *path == "/loop").count(), MAX_REDIRECTS + 1);
    let error = fetch(&server.url("/metadata")).await.unwrap_err();
    assert!(error.contains("169.254.169.254, where keys may not be fetched"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_forbidden_is_not_connected_to_whatever_its_name() {
    let server = Server::start(None, &[("/keys", ok("{\"keys\":[]}"))]).await;
    let fetch = HttpFetch::new(ForbiddenAddresses::parse("127.0.0.0/8, ::1/128").unwrap(), Vec::new());
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/keys", server.address.port());
        let error = format!("{:#}", fetch.fetch(&source("issuer", &url)).await.unwrap_err());
        assert!(error.contains("where keys may not be fetched"), "{error}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_server_over_tls_must_prove_its_name_and_may_not_send_a_client_to_plaintext() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let slot = meltemi_tls::CertSlot::new(meltemi_tls::Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let settings = meltemi_tls::ServerOptions { certificates: vec![slot], ..meltemi_tls::ServerOptions::default() };
    let acceptor = tokio_rustls::TlsAcceptor::from(meltemi_tls::ServerTls::new(settings).unwrap().config());
    let plain = Server::start(None, &[("/keys", ok("{\"keys\":[]}"))]).await;
    let answers = [("/keys", ok("{\"keys\":[]}")), ("/down", moved(&plain.url("/keys")))];
    let server = Server::start(Some(acceptor), &answers).await;
    let trusting = HttpFetch::new(ForbiddenAddresses::default(), chain.into_bytes());
    let at = |host: &str, path: &str| format!("https://{host}:{}{path}", server.address.port());
    let ask = async |fetch: &HttpFetch, url: String| {
        fetch.fetch(&source("issuer", &url)).await.map_err(|error| format!("{error:#}"))
    };
    assert_eq!(&*ask(&trusting, at("localhost", "/keys")).await.unwrap(), "{\"keys\":[]}");
    assert!(ask(&trusting, at("127.0.0.1", "/keys")).await.unwrap_err().contains("TLS"));
    assert!(ask(&trusting, at("localhost", "/down")).await.unwrap_err().contains("from TLS to plaintext"));
    let other = HttpFetch::new(ForbiddenAddresses::default(), Vec::new());
    assert!(ask(&other, at("localhost", "/keys")).await.unwrap_err().contains("TLS"));
}
