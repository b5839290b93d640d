//! Sends a probe to one proxy and tells what came back as a list of lines.

use super::backend::fields;
use super::pki::{Pki, Version};
use bytes::Bytes;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// Longer than any timeout of a generated configuration.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection and what is said on it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// For people.
    pub title: String,
    /// Index into the plan's listeners.
    pub listener: usize,
    pub to: Ipv4Addr,
    /// Unlike those of all other probes of the plan: access log entries are found by it.
    pub from: Ipv4Addr,
    /// 0 for any.
    pub from_port: u16,
    pub tls: Option<Tls>,
    pub action: Action,
}

impl Probe {
    pub fn new(title: &str, listener: usize, to: Ipv4Addr, action: Action) -> Self {
        Self { title: title.to_owned(), listener, to, from: Ipv4Addr::LOCALHOST, from_port: 0, tls: None, action }
    }
}

#[derive(Clone, Debug)]
pub struct Tls {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    pub certificate: Option<&'static str>,
    pub version: Version,
}

/// `@ID@` and `@PORT@` stand for the probe's id and the listener's port.
#[derive(Clone, Debug)]
pub enum Action {
    /// HTTP/1 bytes that are followed by this many answers.
    Http1 {
        bytes: String,
        answers: usize,
    },
    Http2(Call),
    Tcp(Vec<Step>),
}

/// An HTTP/2 request.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub method: String,
    pub scheme: String,
    pub authority: String,
    pub path: String,
    pub protocol: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub trailers: Vec<(String, String)>,
}

impl Call {
    pub fn get(authority: &str, path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            scheme: "http".to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: vec![("x-test-id".to_owned(), "@ID@".to_owned())],
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Send(String),
    /// Waits for this many bytes, or the end.
    Expect(usize),
    /// Ends our direction.
    Finish,
    ReadToEnd,
    Pause(u64),
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
type Stream = Box<dyn Io>;

/// What a proxy did with the probe.
pub async fn play(probe: &Probe, port: u16, id: &str, pki: &Pki) -> Vec<String> {
    let mut lines = Vec::new();
    let fill = |text: &str| text.replace("@ID@", id).replace("@PORT@", &port.to_string());
    let all = async {
        let stream = match connect(probe, port).await {
            Ok(stream) => stream,
            Err(error) => return lines.push(format!("connect: {}", error.kind())),
        };
        let stream: Stream = match &probe.tls {
            None => Box::new(stream),
            Some(tls) => match handshake(tls, stream, pki, &mut lines).await {
                Ok(stream) => stream,
                Err(_) => return lines.push("tls refused".to_owned()),
            },
        };
        let result = match &probe.action {
            Action::Http1 { bytes, answers } => http1(stream, &fill(bytes), *answers, &mut lines).await,
            Action::Http2(call) => http2(stream, call, &fill, &mut lines).await,
            Action::Tcp(steps) => tcp(stream, steps, &mut lines).await,
        };
        if let Err(reason) = result {
            lines.push(reason);
        }
    };
    let ended: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(all);
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        lines.push("no end in sight".to_owned());
    }
    let answered = lines.iter().any(|line| line.starts_with("status ") || line.starts_with("tcp "));
    let broke = lines
        .last()
        .is_some_and(|line| ["connection: ", "answer: ", "closed without"].iter().any(|start| line.starts_with(start)));
    if lines.iter().any(|line| line == "tls refused") || (probe.tls.is_some() && !answered && broke) {
        // Before or after the client's own end of the handshake: how soon a refusal shows is a matter of the version.
        lines = vec!["tls refused".to_owned()];
    }
    lines.iter().map(|line| line.replace(id, "@ID@").replace(&format!(":{port}"), ":@PORT@")).collect()
}

async fn connect(probe: &Probe, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Both sides may ask for the same port at once.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((probe.from, probe.from_port)))?;
    let stream = socket.connect(SocketAddr::from((probe.to, port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(tls: &Tls, stream: TcpStream, pki: &Pki, lines: &mut Vec<String>) -> std::io::Result<Stream> {
    let config = pki.client_config(&tls.alpn, tls.certificate, tls.version);
    let config = if tls.sni.is_none() {
        let mut bare = (*config).clone();
        bare.enable_sni = false;
        bare.into()
    } else {
        config
    };
    let name = tls.sni.clone().unwrap_or_else(|| "none.example".to_owned());
    let name = rustls::pki_types::ServerName::try_from(name).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let session = stream.get_ref().1;
    let alpn = session.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    lines.push(format!("tls version {:?}", session.protocol_version()));
    lines.push(format!("tls alpn {}", alpn.as_deref().unwrap_or("none")));
    lines.push(format!("tls certificate {}", pki.shown(session.peer_certificates().and_then(|c| c.first()))));
    Ok(Box::new(stream))
}

/// An alert is a refusal; anything else is told as it is.
fn ended(what: &str, error: &std::io::Error) -> String {
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some();
    if alert { "tls refused".to_owned() } else { format!("{what}: {}", error.kind()) }
}

async fn http1(stream: Stream, bytes: &str, answers: usize, lines: &mut Vec<String>) -> Result<(), String> {
    let mut stream = BufReader::new(stream);
    let io = |error: std::io::Error| ended("answer", &error);
    stream.write_all(bytes.as_bytes()).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let mut methods = bytes.split("\r\n\r\n").filter(|part| part.contains(" HTTP/1"));
    for _ in 0..answers {
        let head_only = methods.next().is_some_and(|request| request.trim_start().starts_with("HEAD "));
        if answer(&mut stream, head_only, lines).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one answer; whether the connection is at its end.
async fn answer(stream: &mut BufReader<Stream>, head_only: bool, lines: &mut Vec<String>) -> Result<bool, String> {
    let io = |error: std::io::Error| ended("answer", &error);
    let (status, headers) = loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.map_err(io)? == 0 {
            lines.push("closed without an answer".to_owned());
            return Ok(true);
        }
        let status: u16 =
            line.split(' ').nth(1).and_then(|s| s.trim().parse().ok()).ok_or(format!("broken {line:?}"))?;
        let headers = read_fields(stream).await?;
        lines.push(format!("status {}", line.trim_end()));
        if (100..200).contains(&status) && status != 101 {
            lines.extend(headers.iter().map(|(name, value)| format!("interim {name}: {value}")));
            continue;
        }
        break (status, headers);
    };
    push_headers("header", &headers, lines);
    let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.to_ascii_lowercase());
    if status == 101 {
        return switched(stream, lines).await.map(|()| true);
    }
    let chunked = find("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length = find("content-length").and_then(|value| value.parse::<usize>().ok());
    let mut body = Vec::new();
    let mut result = Ok(());
    if head_only || status == 204 || status == 304 {
    } else if chunked {
        result = read_chunks(stream, &mut body, lines).await;
    } else if let Some(length) = length {
        let read = (&mut *stream).take(length as u64).read_to_end(&mut body).await.map_err(io);
        result = read.and_then(|n| if n < length { Err("body cut".to_owned()) } else { Ok(()) });
    } else {
        result = stream.read_to_end(&mut body).await.map(|_| ()).map_err(io);
    }
    push_body(&body, lines);
    result?;
    if find("connection").is_some_and(|value| value.contains("close")) {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
        lines.push(format!("closed {}, {} bytes more", ended.is_ok(), rest.len()));
        return Ok(true);
    }
    Ok(false)
}

async fn switched(stream: &mut BufReader<Stream>, lines: &mut Vec<String>) -> Result<(), String> {
    let io = |error: std::io::Error| ended("tunnel", &error);
    stream.write_all(b"through the tunnel").await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let mut back = vec![0; 18];
    stream.read_exact(&mut back).await.map_err(io)?;
    lines.push(format!("tunnel {}", String::from_utf8_lossy(&back)));
    stream.shutdown().await.map_err(io)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map_err(io)?;
    lines.push(format!("tunnel ended, {} bytes more", rest.len()));
    Ok(())
}

async fn read_fields(stream: &mut BufReader<Stream>) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    loop {
        let mut line = String::new();
        let n = stream.read_line(&mut line).await.map_err(|error| ended("fields", &error))?;
        let line = line.trim_end_matches(['\r', '\n']);
        if n == 0 || line.is_empty() {
            return Ok(found);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        found.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn read_chunks(
    stream: &mut BufReader<Stream>,
    body: &mut Vec<u8>,
    lines: &mut Vec<String>,
) -> Result<(), String> {
    let io = |_| "body cut".to_owned();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.map_err(io)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| "body cut".to_owned())?;
        if size == 0 {
            let trailers = read_fields(stream).await?;
            push_headers("trailer", &trailers, lines);
            return Ok(());
        }
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await.map_err(io)?;
        stream.read_line(&mut String::new()).await.map_err(io)?;
    }
}

fn push_headers(what: &str, headers: &[(String, String)], lines: &mut Vec<String>) {
    for (name, value) in headers {
        let value = if super::backend::VOLATILE.contains(&name.as_str()) { "present" } else { value };
        lines.push(format!("{what} {name}: {value}"));
    }
}

fn push_body(body: &[u8], lines: &mut Vec<String>) {
    let text = String::from_utf8_lossy(body);
    lines.extend(text.split('\n').map(|line| format!("body {}", rounded(line))));
}

/// The time left shrinks with each attempt by however long that took: alike to a quarter of a second.
pub fn rounded(line: &str) -> String {
    let left = line.strip_prefix("x-envoy-expected-rq-timeout-ms: ").and_then(|ms| ms.parse::<u64>().ok());
    left.map_or_else(|| line.to_owned(), |ms| format!("expected timeout about {} ms", (ms + 125) / 250 * 250))
}

async fn http2(
    stream: Stream,
    call: &Call,
    fill: &impl Fn(&str) -> String,
    lines: &mut Vec<String>,
) -> Result<(), String> {
    let broken = |error: h2::Error| match error.get_io() {
        Some(error) => ended("connection", error),
        None => format!("h2: {:?}", error.reason()),
    };
    let (client, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let driver = tokio::task::spawn_local(connection);
    let result = async {
        let mut client = client.ready().await.map_err(broken)?;
        let (request, empty) = request(call, fill)?;
        let (response, mut body) = client.send_request(request, empty).map_err(broken)?;
        if let Some(text) = &call.body {
            let ends = call.trailers.is_empty() && call.protocol.is_none();
            body.send_data(fill(text).into_bytes().into(), ends).map_err(broken)?;
        }
        if !call.trailers.is_empty() {
            let mut map = http::HeaderMap::new();
            for (name, value) in &call.trailers {
                map.append(http::HeaderName::try_from(name).expect("name"), value.parse().expect("value"));
            }
            body.send_trailers(map).map_err(broken)?;
        }
        received(response.await.map_err(broken)?, call, &mut body, lines).await.map_err(broken)
    };
    let result = result.await;
    driver.abort();
    result
}

fn request(call: &Call, fill: &impl Fn(&str) -> String) -> Result<(http::Request<()>, bool), String> {
    let uri = if call.method == "CONNECT" && call.protocol.is_none() {
        http::Uri::try_from(fill(&call.authority))
    } else {
        http::Uri::builder()
            .scheme(call.scheme.as_str())
            .authority(fill(&call.authority))
            .path_and_query(fill(&call.path))
            .build()
            .map_err(|_| ())
            .or(http::Uri::try_from(fill(&call.path)))
    };
    let uri = uri.map_err(|error| format!("uri: {error}"))?;
    let mut request = http::Request::builder().method(call.method.as_str()).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in &call.headers {
        request = request.header(name, fill(value));
    }
    if let Some(protocol) = &call.protocol {
        request = request.extension(h2::ext::Protocol::from(protocol.as_str()));
    }
    let request = request.body(()).map_err(|error| format!("request: {error}"))?;
    let open = call.body.is_some() || !call.trailers.is_empty() || call.method == "CONNECT";
    Ok((request, !open))
}

async fn received(
    response: http::Response<h2::RecvStream>,
    call: &Call,
    sending: &mut h2::SendStream<Bytes>,
    lines: &mut Vec<String>,
) -> Result<(), h2::Error> {
    let (head, mut incoming) = response.into_parts();
    lines.push(format!("status {}", head.status.as_u16()));
    push_headers("header", &fields(&head.headers), lines);
    let tunnel = call.method == "CONNECT" && head.status.is_success();
    if tunnel {
        // Not the end: not every proxy can pass that on.
        sending.send_data(Bytes::from_static(b"through the tunnel"), false)?;
    }
    let mut body = Vec::new();
    let mut result = Ok(());
    while let Some(data) = incoming.data().await {
        match data {
            Ok(data) => {
                body.extend_from_slice(&data);
                incoming.flow_control().release_capacity(data.len())?;
                if tunnel && body.len() >= b"through the tunnel".len() {
                    break;
                }
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    push_body(&body, lines);
    result?;
    if tunnel {
        return Ok(());
    }
    if let Some(trailers) = incoming.trailers().await? {
        push_headers("trailer", &fields(&trailers), lines);
    }
    Ok(())
}

async fn tcp(mut stream: Stream, steps: &[Step], lines: &mut Vec<String>) -> Result<(), String> {
    let mut back = Vec::new();
    let mut result = Ok(());
    for step in steps {
        let done = match step {
            Step::Send(text) => stream.write_all(text.as_bytes()).await,
            Step::Finish => stream.shutdown().await,
            Step::Pause(ms) => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                Ok(())
            }
            Step::Expect(count) => {
                let wanted = (*count).saturating_sub(back.len()) as u64;
                (&mut stream).take(wanted).read_to_end(&mut back).await.map(|_| ())
            }
            Step::ReadToEnd => stream.read_to_end(&mut back).await.map(|_| ()),
        };
        if let Err(error) = done {
            result = Err(ended("tcp", &error));
            break;
        }
    }
    lines.extend(String::from_utf8_lossy(&back).lines().map(|line| format!("tcp {line}")));
    result
}
