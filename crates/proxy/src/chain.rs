//! From an accepted socket to the filter chain that serves it.
//!
//! Owns listener filters (original destination, PROXY protocol, TLS and HTTP inspection), the choice of a chain, the TLS handshake
//! and the network filters in front of the terminal one. Must never read more than an inspector needs.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use meltemi_filters::{
    ConnectionInfo, Peer, TlsInfo,
    exchange::{self, Exchange},
};
use meltemi_net::{
    Address, Stream, buffers, original_dst,
    proxy_protocol::{self, Parsed},
    sniff::{self, ClientHello, HttpVersion, Sniffed},
};
use meltemi_plan::{ConnectionFacts, NetworkFilter, TcpProxy, listener::ListenerFilterConfig};
use meltemi_tls::{ClientTls, Identity, PeerInfo, ServerTls};
use tokio_rustls::rustls::{CommonState, ProtocolVersion};

use crate::{
    admission, hcm, tcp_proxy,
    worker::{ConnectionHandle, Failure, LiveChain, LiveListener, Worker, live},
};

/// What has been learnt of a connection before its chain is known.
struct Inspected {
    /// The restored original destination.
    destination: Option<SocketAddr>,
    source: Option<SocketAddr>,
    direct_source: Option<SocketAddr>,
    hello: Option<ClientHello>,
    http: Option<HttpVersion>,
    /// An inspector decided between TLS and not.
    inspected: bool,
    /// Bytes read ahead.
    buffer: BytesMut,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("listener filter timeout")]
    Timeout,
    #[error("closed before it was inspected")]
    Closed,
    #[error("{0}")]
    ProxyProtocol(#[from] proxy_protocol::Invalid),
    #[error("no PROXY protocol header")]
    NoProxyHeader,
    #[error("too many connections at a time")]
    RateLimited,
    #[error("i/o: {0}")]
    Io(#[from] std::io::Error),
}

/// A connection with the filter that takes it.
enum Taken {
    Http(hcm::Connection),
    Tcp(Rc<LiveChain>, Arc<TcpProxy>, Stream, Rc<ConnectionInfo>, ConnectionHandle),
}

/// Serves one accepted connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    listener: Rc<LiveListener>,
    stream: Stream,
    peer: Address,
    handle: ConnectionHandle,
) {
    // Boxed: what it takes to get a connection ready is gone by the time that it idles.
    match Box::pin(prepare(Rc::clone(&worker), listener, stream, peer, handle)).await {
        Some(Taken::Http(connection)) => connection.serve().await,
        Some(Taken::Tcp(chain, proxy, stream, info, handle)) => {
            Box::pin(tcp_proxy::serve(worker, (&chain, &proxy), stream, info, handle)).await;
        }
        None => {}
    }
}

/// Everything up to the filter that takes the connection; `None` if none did, or another filter has dealt with it.
async fn prepare(
    worker: Rc<Worker>,
    mut listener: Rc<LiveListener>,
    mut stream: Stream,
    peer: Address,
    handle: ConnectionHandle,
) -> Option<Taken> {
    let direct_local = stream.local_addr();
    let mut inspected = Inspected {
        destination: direct_local.socket(),
        source: peer.socket(),
        direct_source: peer.socket(),
        hello: None,
        http: None,
        inspected: false,
        buffer: BytesMut::new(),
    };
    let mut handed_over = false;
    loop {
        if let Err(refused) = inspect(&listener, &mut stream, &mut inspected).await {
            if let Refused::Timeout = refused {
                handle.fails(Failure::InspectionTimeout);
            }
            tracing::debug!(listener = %listener.plan.name, %peer, %refused, "connection closed");
            return None;
        }
        let next = if listener.plan.use_original_dst && !handed_over {
            inspected.destination.and_then(|address| worker.listener_at(address))
        } else {
            None
        };
        match next {
            Some(next) if !Rc::ptr_eq(&next, &listener) => (listener, handed_over) = (next, true),
            Some(_) | None => break,
        }
    }
    stream.unread(std::mem::take(&mut inspected.buffer).freeze());
    let Some(chain) = choose(&listener, &inspected) else {
        tracing::debug!(listener = %listener.plan.name, %peer, "no filter chain matches");
        handle.fails(Failure::NoChain);
        return None;
    };
    handle.set_chain(chain.plan.fingerprint);
    let (stream, server_name) = match Box::pin(secure(&chain, stream, inspected.hello.as_ref())).await {
        Ok(secured) => secured,
        Err(error) => {
            tracing::debug!(listener = %listener.plan.name, %peer, %error, "TLS handshake failed");
            handle.fails(Failure::Handshake);
            return None;
        }
    };
    let mut info = connection_info(&worker, &listener, &chain, (&inspected, peer, direct_local));
    info.tls = stream.server_tls().map(|session| terminated(&chain, session, server_name));
    run_filters(worker, chain, stream, info, handle).await
}

async fn inspect(listener: &LiveListener, stream: &mut Stream, facts: &mut Inspected) -> Result<(), Refused> {
    let plan = &listener.plan;
    if plan.use_original_dst {
        // Envoy's flag stands for the listener filter too.
        facts.destination = original_dst::original_dst(stream).or(facts.destination);
    }
    let mut rates = listener.rates.iter();
    let filters = async {
        for filter in &plan.listener_filters {
            let rate = match filter.config {
                ListenerFilterConfig::ConnectionRateLimit(_) => rates.next(),
                _ => None,
            };
            let port = facts.destination.map_or(0, |address| address.port());
            if filter.disabled.as_ref().is_some_and(|predicate| predicate.holds(port)) {
                continue;
            }
            match &filter.config {
                ListenerFilterConfig::OriginalDst => {
                    facts.destination = original_dst::original_dst(stream).or(facts.destination);
                }
                ListenerFilterConfig::TlsInspector { max_client_hello, .. } if !facts.inspected => {
                    let limit = *max_client_hello as usize;
                    facts.hello = read_until(stream, &mut facts.buffer, limit, sniff::client_hello).await?;
                    facts.inspected = true;
                }
                ListenerFilterConfig::HttpInspector if facts.hello.is_none() && facts.http.is_none() => {
                    facts.http = read_until(stream, &mut facts.buffer, MAX_HTTP_LINE, sniff::http).await?;
                }
                ListenerFilterConfig::TlsInspector { .. } | ListenerFilterConfig::HttpInspector => {}
                ListenerFilterConfig::ProxyProtocol { allow_without, .. } => {
                    read_proxy_header(stream, facts, *allow_without).await?;
                }
                ListenerFilterConfig::ConnectionRateLimit(_) if rate.is_some_and(|rate| !rate.admits()) => {
                    return Err(Refused::RateLimited);
                }
                ListenerFilterConfig::ConnectionRateLimit(_) => {}
            }
        }
        Ok(())
    };
    let Some(limit) = plan.listener_filters_timeout.filter(|limit| !limit.is_zero()) else { return filters.await };
    match tokio::time::timeout(limit, filters).await {
        Ok(result) => result,
        Err(_) if plan.continue_on_listener_filters_timeout => Ok(()),
        Err(_) => Err(Refused::Timeout),
    }
}

/// Longest request line that the HTTP inspector waits for.
const MAX_HTTP_LINE: usize = 8 * 1024;

/// Reads until `judge` decides. What is read stays in `buffer`.
async fn read_until<T>(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    limit: usize,
    judge: impl Fn(&[u8]) -> Sniffed<T>,
) -> Result<Option<T>, Refused> {
    loop {
        if !buffer.is_empty() {
            match judge(buffer) {
                Sniffed::Yes(found) => return Ok(Some(found)),
                Sniffed::No => return Ok(None),
                Sniffed::Incomplete if buffer.len() >= limit => return Ok(None),
                Sniffed::Incomplete => {}
            }
        }
        if std::future::poll_fn(|cx| buffers::poll_fill(stream, cx, buffer, buffers::SMALL)).await? == 0 {
            // A peer that closes without a word is of no use; one that said something may still get an answer.
            return if buffer.is_empty() { Err(Refused::Closed) } else { Ok(None) };
        }
    }
}

async fn read_proxy_header(stream: &mut Stream, facts: &mut Inspected, allow_without: bool) -> Result<(), Refused> {
    loop {
        match proxy_protocol::parse(&facts.buffer)? {
            Parsed::Header { len, addresses } => {
                let _ = facts.buffer.split_to(len);
                if let Some(addresses) = addresses {
                    facts.source = Some(addresses.source);
                    facts.destination = Some(addresses.destination);
                }
                return Ok(());
            }
            Parsed::Absent if allow_without => return Ok(()),
            Parsed::Absent => return Err(Refused::NoProxyHeader),
            Parsed::Incomplete => {}
        }
        let buffer = &mut facts.buffer;
        if std::future::poll_fn(|cx| buffers::poll_fill(stream, cx, buffer, buffers::SMALL)).await? == 0 {
            return Err(Refused::Closed);
        }
    }
}

fn choose(listener: &LiveListener, inspected: &Inspected) -> Option<Rc<LiveChain>> {
    let alpn: Vec<&str> = match (&inspected.hello, inspected.http) {
        (Some(hello), _) => hello.alpn.iter().filter_map(|p| std::str::from_utf8(p).ok()).collect(),
        (None, Some(HttpVersion::Http10)) => vec!["http/1.0"],
        (None, Some(HttpVersion::Http11)) => vec!["http/1.1"],
        (None, Some(HttpVersion::Http2)) => vec!["h2c"],
        (None, None) => Vec::new(),
    };
    let facts = ConnectionFacts {
        destination: inspected.destination,
        source: inspected.source,
        direct_source: inspected.direct_source,
        server_name: inspected.hello.as_ref().and_then(|h| h.server_name.as_deref()).unwrap_or_default(),
        transport_protocol: match (&inspected.hello, inspected.inspected) {
            (Some(_), _) => "tls",
            (None, _) => "raw_buffer",
        },
        application_protocols: &alpn,
    };
    listener.find_chain(&facts).cloned()
}

/// Handshakes that take longer hold memory for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The stream under the TLS that the chain terminates, if it does, with the name that the client asked for.
async fn secure(
    chain: &LiveChain,
    stream: Stream,
    hello: Option<&ClientHello>,
) -> std::io::Result<(Stream, Option<Arc<str>>)> {
    let Some(tls) = &chain.tls else { return Ok((stream, None)) };
    let accept = async {
        match hello {
            Some(hello) => accept(tls, stream, hello).await,
            None => greeted(tls, stream).await,
        }
    };
    let limit = chain.plan.transport_connect_timeout.unwrap_or(HANDSHAKE_TIMEOUT);
    tokio::time::timeout(limit, accept).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

async fn accept(tls: &ServerTls, stream: Stream, hello: &ClientHello) -> std::io::Result<(Stream, Option<Arc<str>>)> {
    let name = hello.server_name.as_deref().map(Arc::from);
    Ok((meltemi_net::tls::accept(tls.config_for(&hello.alpn), stream).await?, name))
}

/// Where no inspector has read the greeting.
async fn greeted(tls: &ServerTls, mut stream: Stream) -> std::io::Result<(Stream, Option<Arc<str>>)> {
    let mut buffer = BytesMut::new();
    let read = read_until(&mut stream, &mut buffer, sniff::MAX_CLIENT_HELLO, sniff::client_hello).await;
    let hello = read.map_err(std::io::Error::other)?;
    stream.unread(buffer.freeze());
    // What is no greeting is for the handshake to refuse.
    accept(tls, stream, &hello.unwrap_or_default()).await
}

fn connection_info(
    worker: &Worker,
    listener: &LiveListener,
    chain: &LiveChain,
    (inspected, peer, direct_local): (&Inspected, Address, Address),
) -> ConnectionInfo {
    let remote = inspected.source.map_or_else(|| peer.clone(), Address::Socket);
    let local = inspected.destination.map_or_else(|| direct_local.clone(), Address::Socket);
    let mut info = ConnectionInfo::new(remote, local);
    info.id = worker.next_connection_id();
    info.direct_remote = peer;
    info.direct_local = direct_local;
    info.listener = Arc::clone(&listener.plan.name);
    info.filter_chain = Arc::clone(&chain.plan.name);
    info.direction = live::direction(&listener.plan);
    // As Envoy has it: what the inspector found, not what the handshake asked for.
    let inspected_name = inspected.hello.as_ref().and_then(|hello| hello.server_name.as_deref());
    info.requested_server_name = inspected_name.map(Arc::from);
    info
}

/// What is known of the TLS that a chain terminates.
fn terminated(chain: &LiveChain, session: &CommonState, server_name: Option<Arc<str>>) -> TlsInfo {
    let local = chain.tls.as_ref().and_then(|tls| tls.local(server_name.as_deref()));
    let shown = chain.tls.as_ref().zip(session.peer_certificates());
    tls_info(session, server_name, shown.and_then(|(tls, shown)| tls.peer(shown)), local)
}

/// What is known of the TLS of a connection that this side opened, if it is TLS.
pub fn upstream_tls_info(stream: &Stream, tls: Option<&ClientTls>) -> Option<TlsInfo> {
    let (session, tls) = stream.client_tls().zip(tls)?;
    let peer = session.peer_certificates().and_then(|shown| tls.peer(shown));
    Some(tls_info(session, None, peer, tls.local()))
}

/// What a TLS session says of itself; `peer` is who showed itself to this side, `local` the certificate that this side presents.
fn tls_info(
    session: &CommonState,
    sni: Option<Arc<str>>,
    peer: Option<Arc<PeerInfo>>,
    local: Option<Arc<Identity>>,
) -> TlsInfo {
    TlsInfo {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
            Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
            _ => None,
        },
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).map(openssl_name),
        alpn: session.alpn_protocol().and_then(|alpn| std::str::from_utf8(alpn).ok()).map(Arc::from),
        sni,
        peer,
        local_subject: local.as_ref().map(|identity| identity.info().subject.as_str().into()),
        local_uri_sans: local.map(|identity| identity.info().uri_sans.as_slice().into()).unwrap_or_default(),
    }
}

/// OpenSSL's name of a suite that rustls names as IANA does. TLS 1.3 suites have one name only.
pub(crate) fn openssl_name(iana: &'static str) -> std::borrow::Cow<'static, str> {
    match iana {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256".into(),
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384".into(),
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256".into(),
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256".into(),
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384".into(),
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305".into(),
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256".into(),
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384".into(),
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305".into(),
        other => other.into(),
    }
}

/// Runs the chain's network filters up to the one that takes the connection.
async fn run_filters(
    worker: Rc<Worker>,
    chain: Rc<LiveChain>,
    mut stream: Stream,
    mut info: ConnectionInfo,
    handle: ConnectionHandle,
) -> Option<Taken> {
    let mut rates = chain.tcp.rates.iter();
    for filter in &chain.plan.filters {
        match filter {
            NetworkFilter::ConnectionRateLimit(_) => {
                if rates.next().is_some_and(|rate| !rate.admits()) {
                    tracing::debug!(listener = %info.listener, remote = %info.remote, "too many connections at a time");
                    return None;
                }
            }
            // Asked once all is known of the connection.
            NetworkFilter::Rbac(_) | NetworkFilter::ExtAuthz(_) => {}
            NetworkFilter::MetadataExchange(_) => {
                let peer = introduce(&mut stream, &chain.tcp.introduction).await.ok()?;
                info.peer = peer.or(info.peer);
            }
            NetworkFilter::HttpConnectionManager(_) => {
                let info = admission::admitted(&worker, info, &chain).await?;
                let http = Rc::clone(chain.http.as_ref()?);
                return hcm::Connection::open(worker, http, stream, info, handle).await.map(Taken::Http);
            }
            NetworkFilter::TcpProxy(proxy) => {
                let info = admission::admitted(&worker, info, &chain).await?;
                let proxy = Arc::clone(proxy);
                return Some(Taken::Tcp(Rc::clone(&chain), proxy, stream, info, handle));
            }
            NetworkFilter::DirectResponse(body) => {
                admission::admitted(&worker, info, &chain).await?;
                answer(&mut stream, body).await;
                return None;
            }
            NetworkFilter::Echo => {
                admission::admitted(&worker, info, &chain).await?;
                echo(&mut stream).await;
                return None;
            }
            NetworkFilter::IstioStats(_) | NetworkFilter::SniDynamicForward(_) | NetworkFilter::SniCluster => {}
        }
    }
    None
}

/// How long a peer may take over its introduction.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Exchanges metadata with a peer that agreed to by ALPN. What is read beyond it is put back.
pub(crate) async fn introduce(stream: &mut Stream, introduction: &Bytes) -> std::io::Result<Option<Arc<Peer>>> {
    use tokio::io::AsyncWriteExt;
    if stream.alpn() != Some(exchange::ALPN) {
        return Ok(None);
    }
    stream.write_all(introduction).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::new();
    let read = async {
        loop {
            match exchange::read(&buffer) {
                Exchange::More => {}
                Exchange::Done { peer, length } => {
                    let _ = buffer.split_to(length);
                    return Ok(peer);
                }
                Exchange::Absent => return Ok(None),
                Exchange::TooLarge => return Err(std::io::Error::from(std::io::ErrorKind::InvalidData)),
            }
            if std::future::poll_fn(|cx| buffers::poll_fill(stream, cx, &mut buffer, buffers::SMALL)).await? == 0 {
                return Ok(None);
            }
        }
    };
    let peer = tokio::time::timeout(EXCHANGE_TIMEOUT, read).await.unwrap_or(Ok(None))?;
    stream.unread(buffer.freeze());
    Ok(peer)
}

async fn answer(stream: &mut Stream, body: &Bytes) {
    use tokio::io::AsyncWriteExt;
    if stream.write_all(body).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

async fn echo(stream: &mut Stream) {
    let (mut near, mut far) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut near, &mut far).await;
}
