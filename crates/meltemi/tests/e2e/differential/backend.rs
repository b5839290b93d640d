//! The servers behind both proxies: HTTP/1, HTTP/2 and TLS on several addresses of loopback, and raw TCP. Each tells what it
//! received; the header `x-want` steers how it answers (see [`Wanted`]).

use super::pki::Pki;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Addresses of each kind.
pub const COUNT: u8 = 6;

const HTTP_PORT: u16 = 18080;
const TLS_PORT: u16 = 18443;
const TCP_PORT: u16 = 18090;

/// Headers that two proxies may rightly give other values.
pub const VOLATILE: &[&str] =
    &["x-request-id", "x-envoy-upstream-service-time", "date", "x-b3-traceid", "x-b3-spanid", "traceparent"];

#[derive(Default)]
struct Seen {
    attempts: BTreeMap<String, u32>,
    texts: BTreeMap<String, Vec<String>>,
}

type Shared = Arc<Mutex<Seen>>;

pub struct Backends {
    /// HTTP/1 and HTTP/2 with prior knowledge.
    pub plain: Vec<SocketAddr>,
    /// The same over TLS, by ALPN.
    pub tls: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    /// Nothing listens here.
    pub refused: SocketAddr,
    seen: Shared,
}

impl Backends {
    /// On the same addresses in every run, so that hashes are the same, unless another run holds them.
    pub fn start(pki: &Pki) -> Self {
        let (network, sockets) = (0..50u8).find_map(|n| Some((n, bind(n)?))).expect("free loopback addresses");
        let seen = Shared::default();
        let acceptor = tokio_rustls::TlsAcceptor::from(pki.backend_config());
        let address = |socket: &std::net::TcpListener| socket.local_addr().expect("bound");
        let [plain, tls, tcp] = [0, 1, 2].map(|kind| sockets[kind].iter().map(address).collect());
        let refused = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, network, 250)), HTTP_PORT);
        let shared = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
                for (kind, sockets) in sockets.into_iter().enumerate() {
                    for socket in sockets {
                        let socket = TcpListener::from_std(socket).expect("a socket");
                        tokio::task::spawn_local(accept(kind, socket, acceptor.clone(), shared.clone()));
                    }
                }
                std::future::pending::<()>().await;
            }));
        });
        Self { plain, tls, tcp, refused, seen }
    }

    /// How often requests of this id arrived.
    pub fn attempts(&self, id: &str) -> u32 {
        self.seen.lock().expect("no panic under the lock").attempts.get(id).copied().unwrap_or(0)
    }

    /// What arrived at each backend under this id.
    pub fn texts(&self, id: &str) -> Vec<String> {
        let mut texts = self.seen.lock().expect("no panic under the lock").texts.get(id).cloned().unwrap_or_default();
        texts.sort();
        texts
    }
}

fn bind(network: u8) -> Option<[Vec<std::net::TcpListener>; 3]> {
    let bound = [HTTP_PORT, TLS_PORT, TCP_PORT].map(|port| {
        (1..=COUNT)
            .map(|host| {
                let socket = std::net::TcpListener::bind((Ipv4Addr::new(127, 77, network, host), port)).ok()?;
                socket.set_nonblocking(true).ok()?;
                Some(socket)
            })
            .collect::<Option<Vec<_>>>()
    });
    let [Some(plain), Some(tls), Some(tcp)] = bound else { return None };
    Some([plain, tls, tcp])
}

async fn accept(kind: usize, socket: TcpListener, acceptor: tokio_rustls::TlsAcceptor, shared: Shared) {
    while let Ok((stream, _)) = socket.accept().await {
        let Ok(address) = stream.local_addr() else { continue };
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        // Nodelay, or small answers wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(async move {
            match kind {
                0 => serve(Place { name: address.to_string(), tls: Vec::new() }, stream, shared).await,
                1 => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let tls = super::pki::session_lines(stream.get_ref().1);
                    serve(Place { name: address.to_string(), tls }, stream, shared).await;
                }
                _ => serve_tcp(stream, address).await.unwrap_or_default(),
            }
        });
    }
}

/// Where a request arrived.
#[derive(Clone)]
struct Place {
    name: String,
    tls: Vec<String>,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(place: Place, stream: S, shared: Shared) {
    let mut stream = BufReader::new(stream);
    let Ok(start) = stream.fill_buf().await else { return };
    if start.starts_with(b"PRI") {
        serve_h2(place, stream, shared).await;
    } else {
        // The peer may end at any time.
        let _ = serve_h1(place, stream, shared).await;
    }
}

/// What `x-want` asks for: `key` or `key=value`, separated by commas.
#[derive(Clone, Default)]
struct Wanted(BTreeMap<String, String>);

impl Wanted {
    fn of(headers: &[(String, String)]) -> Self {
        let text = headers.iter().find(|(name, _)| name == "x-want").map_or("", |(_, value)| value.as_str());
        let pairs = text.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (key.to_owned(), value.to_owned())
        });
        Self(pairs.collect())
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    fn first(&self, key: &str, attempt: u32) -> bool {
        self.number(key).is_some_and(|n| u64::from(attempt) <= n)
    }

    fn status(&self, attempt: u32) -> u16 {
        if self.first("fail", attempt) { 503 } else { self.number("status").map_or(200, |s| s as u16) }
    }

    /// Response headers besides the framing.
    fn headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("x-backend-header", "original".to_owned()), ("server", "backend".to_owned())];
        if let Some(n) = self.number("headers") {
            headers.extend((0..n).map(|_| ("x-many", "v".to_owned())));
        }
        if let Some(n) = self.number("header-bytes") {
            headers.push(("x-long", "v".repeat(n as usize)));
        }
        if let Some(location) = self.0.get("location") {
            headers.push(("location", location.clone()));
        }
        if self.has("cookie") {
            headers.push(("set-cookie", "one=1; Path=/".to_owned()));
            headers.push(("set-cookie", "two=2".to_owned()));
        }
        if self.has("grpc") || self.has("grpc-now") {
            headers.push(("content-type", "application/grpc".to_owned()));
        }
        if let Some(status) = self.0.get("grpc-now") {
            headers.push(("grpc-status", status.clone()));
        }
        for name in ["x-envoy-overloaded", "x-envoy-ratelimited", "x-envoy-immediate-health-check-fail", "x-odd_name"] {
            if self.has(name) {
                headers.push((name, "true".to_owned()));
            }
        }
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn trailers(&self) -> Vec<(String, String)> {
        let mut trailers = Vec::new();
        if let Some(status) = self.0.get("grpc") {
            trailers.push(("grpc-status".to_owned(), status.clone()));
            trailers.push(("grpc-message".to_owned(), "told to".to_owned()));
        }
        if self.has("trailers") {
            trailers.push(("x-trailer".to_owned(), "end".to_owned()));
        }
        trailers
    }
}

/// A request as it arrived.
struct Arrived {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Arrived {
    /// Remembers the request; its attempt number and what the answer says.
    fn record(&self, place: &Place, shared: &Shared) -> (u32, String) {
        let shown = |(name, value): &(String, String)| {
            let value = if VOLATILE.contains(&name.as_str()) { "present" } else { value };
            format!("{name}: {value}")
        };
        let mut listed: Vec<String> = self.headers.iter().map(shown).collect();
        listed.sort();
        let mut lines = vec![format!("backend {}", place.name), self.line.clone()];
        lines.extend(place.tls.iter().cloned());
        lines.extend(listed);
        lines.push(format!("body {}", String::from_utf8_lossy(&self.body)));
        lines.extend(self.trailers.iter().map(|(name, value)| format!("trailer {name}: {value}")));
        let text = lines.join("\n");
        let id = self.headers.iter().find(|(name, _)| name == "x-test-id").map(|(_, value)| value.clone());
        let Some(id) = id else { return (1, text) };
        let mut seen = shared.lock().expect("no panic under the lock");
        seen.texts.entry(id.clone()).or_default().push(text.clone());
        let attempts = seen.attempts.entry(id).or_default();
        *attempts += 1;
        (*attempts, text)
    }
}

async fn serve_h1<S: AsyncRead + AsyncWrite + Unpin>(
    place: Place,
    mut stream: BufReader<S>,
    shared: Shared,
) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let headers = read_fields(&mut stream).await?;
        let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.to_ascii_lowercase());
        if find("expect").is_some_and(|value| value == "100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        if find("transfer-encoding").is_some() {
            trailers = read_chunks(&mut stream, &mut body).await?;
        } else if let Some(length) = find("content-length").and_then(|value| value.parse().ok()) {
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
        }
        let upgrade = find("upgrade").filter(|_| find("connection").is_some_and(|c| c.contains("upgrade")));
        let arrived = Arrived { line: line.trim_end().to_owned(), headers, body, trailers };
        let (attempt, text) = arrived.record(&place, &shared);
        let wanted = Wanted::of(&arrived.headers);
        tokio::time::sleep(Duration::from_millis(wanted.number("delay").unwrap_or(0))).await;
        if wanted.has("reset") || wanted.first("reset-first", attempt) {
            return Ok(());
        }
        if let Some(kind) = upgrade.filter(|_| !wanted.has("refuse-upgrade")) {
            return switch(&mut stream, &kind, &text).await;
        }
        if arrived.line.starts_with("CONNECT ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            return tunnel(&mut stream).await;
        }
        answer_h1(&mut stream, &wanted, (attempt, &text), arrived.line.starts_with("HEAD ")).await?;
        if wanted.has("close") || wanted.has("cut") {
            return Ok(());
        }
    }
}

async fn switch<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    kind: &str,
    text: &str,
) -> std::io::Result<()> {
    let shown = text.replace('\n', "|");
    let head = format!("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: {kind}\r\nx-seen: {shown}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    tunnel(stream).await
}

/// Echoes until the peer ends.
async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..n].to_ascii_uppercase()).await?;
        stream.flush().await?;
    }
}

async fn answer_h1<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    wanted: &Wanted,
    (attempt, text): (u32, &str),
    head_only: bool,
) -> std::io::Result<()> {
    let status = wanted.status(attempt);
    let mut out = String::new();
    if wanted.has("hints") {
        out += "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    }
    out += &format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in wanted.headers() {
        out += &format!("{name}: {value}\r\n");
    }
    let trailers = wanted.trailers();
    let bodiless = head_only || status == 204 || status == 304;
    if (wanted.has("chunked") || !trailers.is_empty()) && status != 204 {
        out += "transfer-encoding: chunked\r\n\r\n";
        if !bodiless {
            out += &format!("{:x}\r\n{text}\r\n0\r\n", text.len());
            out.extend(trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
            out += "\r\n";
        }
    } else if wanted.has("close") {
        out += &format!("connection: close\r\n\r\n{}", if bodiless { "" } else { text });
    } else if wanted.has("cut") {
        out += &format!("content-length: {}\r\n\r\n{text}", text.len() + 100);
    } else if status == 204 {
        out += "\r\n";
    } else {
        out += &format!("content-length: {}\r\n\r\n{}", text.len(), if bodiless { "" } else { text });
    }
    stream.write_all(out.as_bytes()).await?;
    stream.flush().await
}

async fn read_fields<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn read_chunks<S: AsyncRead + Unpin>(
    stream: &mut BufReader<S>,
    body: &mut Vec<u8>,
) -> std::io::Result<Vec<(String, String)>> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        if size == 0 {
            return read_fields(stream).await;
        }
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await?;
        stream.read_line(&mut String::new()).await?;
    }
}

async fn serve_h2<S: AsyncRead + AsyncWrite + Unpin + 'static>(place: Place, stream: S, shared: Shared) {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (place, shared) = (place.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            // The peer may reset at any time.
            let _ = serve_stream(place, request, respond, shared).await;
        });
    }
}

async fn serve_stream(
    place: Place,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    shared: Shared,
) -> Result<(), h2::Error> {
    let (head, mut incoming) = request.into_parts();
    let tunnelled = head.method == http::Method::CONNECT;
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    if !tunnelled {
        while let Some(data) = incoming.data().await {
            let data = data?;
            body.extend_from_slice(&data);
            incoming.flow_control().release_capacity(data.len())?;
        }
        trailers = incoming.trailers().await?.as_ref().map(fields).unwrap_or_default();
    }
    let mut headers = fields(&head.headers);
    if let Some(authority) = head.uri.authority() {
        headers.push((":authority".to_owned(), authority.to_string()));
    }
    if let Some(protocol) = head.extensions.get::<h2::ext::Protocol>() {
        headers.push((":protocol".to_owned(), protocol.as_str().to_owned()));
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let scheme = head.uri.scheme_str().unwrap_or("-");
    let line = format!("{} {path} HTTP/2 {scheme}", head.method);
    let arrived = Arrived { line, headers, body, trailers };
    let (attempt, text) = arrived.record(&place, &shared);
    let wanted = Wanted::of(&arrived.headers);
    tokio::time::sleep(Duration::from_millis(wanted.number("delay").unwrap_or(0))).await;
    if wanted.has("reset") || wanted.first("reset-first", attempt) {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if wanted.first("refuse", attempt) {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return Ok(());
    }
    let answer = H2Answer { head_only: head.method == http::Method::HEAD, wanted, attempt, text };
    let mut sending = answer.send(&mut respond, tunnelled)?;
    if tunnelled {
        while let Some(data) = incoming.data().await {
            let data = data?;
            incoming.flow_control().release_capacity(data.len())?;
            sending.send_data(data.to_ascii_uppercase().into(), false)?;
        }
        sending.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

struct H2Answer {
    wanted: Wanted,
    attempt: u32,
    text: String,
    head_only: bool,
}

impl H2Answer {
    fn send(
        self,
        respond: &mut h2::server::SendResponse<Bytes>,
        tunnelled: bool,
    ) -> Result<h2::SendStream<Bytes>, h2::Error> {
        let Self { wanted, attempt, text, head_only } = self;
        let status = if tunnelled { 200 } else { wanted.status(attempt) };
        let mut response = http::Response::builder().status(status);
        for (name, value) in wanted.headers() {
            response = response.header(name, value);
        }
        let bodiless = head_only || status == 204 || status == 304 || wanted.has("grpc-now");
        if !bodiless && !tunnelled && !wanted.has("chunked") {
            let length = text.len() + if wanted.has("cut") { 100 } else { 0 };
            response = response.header("content-length", length);
        }
        let response = response.body(()).expect("a response");
        let mut stream = respond.send_response(response, bodiless)?;
        if bodiless || tunnelled {
            return Ok(stream);
        }
        let trailers = wanted.trailers();
        stream.send_data(text.into_bytes().into(), trailers.is_empty() && !wanted.has("cut"))?;
        if wanted.has("cut") {
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        } else if !trailers.is_empty() {
            let mut map = http::HeaderMap::new();
            for (name, value) in trailers {
                map.append(http::HeaderName::try_from(name).expect("name"), value.parse().expect("value"));
            }
            stream.send_trailers(map)?;
        }
        Ok(stream)
    }
}

pub fn fields(map: &http::HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// Greets, echoes in upper case, and obeys `close` and `reset`.
async fn serve_tcp(mut stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    stream.write_all(format!("hello from {address}\n").as_bytes()).await?;
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            stream.write_all(b"bye\n").await?;
            return stream.shutdown().await;
        }
        let text = &buffer[..n];
        if text.starts_with(b"close") {
            return stream.write_all(b"closing\n").await;
        }
        if text.starts_with(b"reset") {
            return stream.set_zero_linger();
        }
        stream.write_all(&text.to_ascii_uppercase()).await?;
    }
}
