//! What a hostile client may try over QUIC and HTTP/3, against the running program: each attack meets the limit that is there for
//! it, other clients are served meanwhile, and memory stays bounded.

use crate::attacks::{BOUNDED, large_backend};
use crate::http3::{Files, free};
use crate::static_proxy::{Proxy, any, cluster, routes};
use crate::support::Backend;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const STREAMS: u32 = 100;
/// H3_EXCESSIVE_LOAD (RFC 9114 section 8.1).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// H3_REQUEST_CANCELLED.
const CANCELLED: VarInt = VarInt::from_u32(0x10c);
const HEADERS: u8 = 1;
/// A frame type that nobody knows.
const UNKNOWN: u8 = 0x21;

/// A proxy with one QUIC listener.
struct Bench {
    proxy: Proxy,
    listen: SocketAddr,
    files: Files,
    runtime: tokio::runtime::Runtime,
}

fn listener(files: &Files, at: SocketAddr) -> Value {
    let file = |name: &str| json!({ "filename": files.path(name) });
    let certificate = json!({ "certificate_chain": file("a.test.pem"), "private_key": file("a.test.key") });
    let context = json!({ "common_tls_context": { "alpn_protocols": ["h3"], "tls_certificates": [certificate] } });
    let transport = any(
        "extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
        json!({ "downstream_tls_context": context }),
    );
    let router =
        json!({ "name": "router", "typed_config": any("extensions.filters.http.router.v3.Router", json!({})) });
    let manager = any(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h", "codec_type": "HTTP3", "http3_protocol_options": {}, "stream_idle_timeout": "3s",
            "route_config": routes(&["c", "large"]), "http_filters": [router] }),
    );
    json!({
        "name": "quic",
        "address": { "socket_address": { "protocol": "UDP", "address": at.ip().to_string(), "port_value": at.port() } },
        "udp_listener_config": { "downstream_socket_config": {},
            "quic_options": { "quic_protocol_options": { "max_concurrent_streams": STREAMS } } },
        "filter_chains": [{
            "transport_socket": { "name": "quic", "typed_config": transport },
            "filters": [{ "name": "http", "typed_config": manager }],
        }],
    })
}

impl Bench {
    fn new() -> Self {
        let (files, listen) = (Files::new(), free());
        let (backend, large) = (Backend::start("b").address, large_backend(vec![b'x'; 4 << 20]));
        let clusters = json!([cluster("c", backend, json!({})), cluster("large", large, json!({}))]);
        let proxy = Proxy::start("ours", files.dir(), json!([listener(&files, listen)]), clusters);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { proxy, listen, files, runtime: runtime.expect("a runtime") }
    }

    /// A client that fits its first flight in one datagram, and takes no more than `window` bytes of a stream unread.
    fn config(&self, window: Option<u32>) -> ClientConfig {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.files.path("ca.pem")).expect("a root")).expect("a root");
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
        if let Some(window) = window {
            let mut transport = TransportConfig::default();
            transport.stream_receive_window(window.into());
            config.transport_config(Arc::new(transport));
        }
        config
    }

    async fn connect(&self, window: Option<u32>) -> (Endpoint, Connection) {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("an endpoint");
        let connecting = endpoint.connect_with(self.config(window), self.listen, "a.test").expect("a client");
        let connection = timeout(PATIENCE, connecting).await.expect("in time").expect("a connection");
        (endpoint, connection)
    }

    /// An ordinary client is served.
    async fn serves_others(&self) {
        let (_endpoint, connection) = self.connect(None).await;
        let (mut send, recv) = connection.open_bi().await.expect("a stream");
        send.write_all(&request("/c", &[])).await.expect("write");
        send.finish().expect("finish");
        assert_eq!(status(recv).await, Some(200));
    }

    fn memory_is_bounded(&self, before: u64) {
        let grown = self.proxy.process.memory().saturating_sub(before);
        assert!(grown < BOUNDED, "{grown} KiB");
    }
}

/// An integer of one or two or four bytes (RFC 9000 section 16).
fn varint(value: usize) -> Vec<u8> {
    match u32::try_from(value).expect("a small number") {
        small @ 0..=63 => vec![small as u8],
        middle @ 64..=16_383 => (middle as u16 | 0x4000).to_be_bytes().to_vec(),
        large => (large | 0x8000_0000).to_be_bytes().to_vec(),
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind], &varint(payload.len())[..], payload].concat()
}

/// A GET with these fields beside (RFC 9204: static names and plain literals).
fn request(path: &str, fields: &[(String, String)]) -> Vec<u8> {
    let mut section = vec![0, 0, 0xd1, 0xd7, 0x50, 1, b'a', 0x51, path.len() as u8];
    section.extend_from_slice(path.as_bytes());
    for (name, value) in fields {
        section.push(0x20 | 7);
        section.push(u8::try_from(name.len() - 7).expect("a name of 7 bytes or more"));
        section.extend_from_slice(name.as_bytes());
        assert!(value.len() < 127);
        section.push(value.len() as u8);
        section.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, &section)
}

/// The status of an answer, by the first field of its first section.
async fn status(mut recv: RecvStream) -> Option<u16> {
    let answer = timeout(PATIENCE, recv.read_to_end(1 << 20)).await.expect("in time").ok()?;
    let section = &answer[1 + if answer[1] < 64 { 1 } else { 2 }..];
    match section.get(2..8)? {
        [0xd9, ..] => Some(200),
        [0x5f, 9, 3, digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok(),
        other => panic!("{other:?}"),
    }
}

/// First flights of as many clients, none of which will say more.
fn first_flights(bench: &Bench, count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    sink.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let at = sink.local_addr().expect("an address");
    let mut flights: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let config = bench.config(None);
    while flights.len() < count {
        let _runtime = bench.runtime.enter();
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("an endpoint");
        let connecting = endpoint.connect_with(config.clone(), at, "a.test").expect("a client");
        let waiting = bench.runtime.spawn(connecting.into_future());
        let mut datagram = vec![0; 2048];
        let length = sink.recv(&mut datagram).expect("a first flight");
        waiting.abort();
        datagram.truncate(length);
        // Each connection begins with an id of the client's choice.
        let id = datagram[6..6 + usize::from(datagram[5])].to_vec();
        flights.entry(id).or_insert(datagram);
    }
    flights.into_values().collect()
}

/// What came to one address of the attacker's.
#[derive(Default)]
struct Received {
    bytes: usize,
    retries: usize,
}

fn drain(socket: &UdpSocket, received: &mut Received) {
    let mut datagram = [0; 2048];
    while let Ok(length) = socket.recv(&mut datagram) {
        received.bytes += length;
        received.retries += usize::from(datagram[0] & 0xf0 == 0xf0);
    }
}

#[test]
fn unfinished_handshakes_of_many_sources_must_prove_their_addresses_and_amplify_little() {
    const SOURCES: usize = 50;
    const EACH: usize = 8;
    let bench = Bench::new();
    bench.runtime.block_on(bench.serves_others());
    let before = bench.proxy.process.memory();
    let flights = first_flights(&bench, SOURCES * EACH);
    let source = |n: usize| UdpSocket::bind((Ipv4Addr::new(127, 0, 1, n as u8 + 1), 0)).expect("an address");
    let sockets: Vec<UdpSocket> = (0..SOURCES).map(source).collect();
    let mut received: Vec<Received> = sockets.iter().map(|_| Received::default()).collect();
    let mut sent = vec![0; SOURCES];
    for (number, flight) in flights.iter().enumerate() {
        let at = number % SOURCES;
        sockets[at].send_to(flight, bench.listen).expect("send");
        sent[at] += flight.len();
        sockets[at].set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
        drain(&sockets[at], &mut received[at]);
    }
    bench.runtime.block_on(bench.serves_others());
    // Until nothing more is sent again.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        sockets.iter().zip(&mut received).for_each(|(socket, received)| drain(socket, received));
    }
    let retries: usize = received.iter().map(|received| received.retries).sum();
    // From the 65th on, but for those that the kernel had no room for.
    assert!(retries > SOURCES * EACH / 2 && retries <= SOURCES * EACH - 64, "{retries} retries");
    for (received, sent) in received.iter().zip(&sent) {
        assert!(received.bytes <= 3 * sent, "{} bytes for {sent} (RFC 9000 section 8.1)", received.bytes);
    }
    bench.runtime.block_on(bench.serves_others());
    bench.memory_is_bounded(before);
}

#[test]
fn floods_of_fields_are_answered_with_431() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        bench.serves_others().await;
        let before = bench.proxy.process.memory();
        let (_endpoint, connection) = bench.connect(None).await;
        let field = |n: usize| (format!("x-field-{n:05}"), "y".repeat(90));
        for count in [200, 20_000] {
            let (mut send, recv) = connection.open_bi().await.expect("a stream");
            let many: Vec<_> = (0..count).map(field).collect();
            // It may be told to stop before it has sent all.
            let _ = send.write_all(&request("/c", &many)).await;
            let _ = send.finish();
            assert_eq!(status(recv).await, Some(431), "{count}");
        }
        bench.serves_others().await;
        bench.memory_is_bounded(before);
    });
}

#[test]
fn no_more_streams_are_open_than_are_allowed_and_others_are_served() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        bench.serves_others().await;
        let before = bench.proxy.process.memory();
        let mut held = Vec::new();
        for _ in 0..20 {
            let (endpoint, connection) = bench.connect(None).await;
            let mut streams = Vec::new();
            while let Ok(stream) = timeout(Duration::from_millis(200), connection.open_bi()).await {
                let (mut send, recv) = stream.expect("a stream");
                // A head that does not end.
                send.write_all(&request("/c", &[])[..5]).await.expect("write");
                streams.push((send, recv));
            }
            assert_eq!(streams.len(), STREAMS as usize);
            held.push((endpoint, connection, streams));
        }
        bench.serves_others().await;
        bench.memory_is_bounded(before);
        // And they do not stay.
        let (_, _, streams) = &mut held[0];
        let ended = streams[0].1.read_to_end(1 << 16);
        // Answered or reset.
        let _ = timeout(PATIENCE, ended).await.expect("those that stand still are given up");
    });
}

/// Sends until the proxy closes the connection; why it did.
async fn until_closed<F: Future<Output = Result<(), ()>>>(
    connection: &Connection,
    mut flood: impl FnMut() -> F,
) -> VarInt {
    let sending = async { while flood().await.is_ok() {} };
    timeout(PATIENCE, sending).await.expect("the flood was borne");
    match timeout(PATIENCE, connection.closed()).await.expect("closed") {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code,
        other => panic!("{other}"),
    }
}

#[test]
fn floods_of_resets_and_of_frames_end_their_connection_and_cost_others_nothing() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        bench.serves_others().await;
        let before = bench.proxy.process.memory();
        let (_endpoint, connection) = bench.connect(None).await;
        let reset = || async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(drop)?;
            send.write_all(&request("/c", &[])).await.map_err(drop)?;
            send.reset(CANCELLED).map_err(drop)?;
            recv.stop(CANCELLED).map_err(drop)
        };
        assert_eq!(until_closed(&connection, reset).await, EXCESSIVE_LOAD, "rapid reset (CVE-2023-44487)");
        bench.serves_others().await;
        let (_endpoint, connection) = bench.connect(None).await;
        let control = connection.open_uni().await.expect("a stream");
        let control = Arc::new(tokio::sync::Mutex::new(control));
        // The control stream, with settings first.
        control.lock().await.write_all(&[0, 4, 0]).await.expect("write");
        let empty = || {
            let control = control.clone();
            async move { control.lock().await.write_all(&frame(UNKNOWN, &[]).repeat(100)).await.map_err(drop) }
        };
        assert_eq!(until_closed(&connection, empty).await, EXCESSIVE_LOAD, "frames that mean nothing");
        bench.serves_others().await;
        bench.memory_is_bounded(before);
    });
}

#[test]
fn clients_that_do_not_read_are_given_up_and_keep_little() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        bench.serves_others().await;
        let before = bench.proxy.process.memory();
        let (_endpoint, connection) = bench.connect(Some(1024)).await;
        let mut held = Vec::new();
        for _ in 0..90 {
            let (mut send, recv) = connection.open_bi().await.expect("a stream");
            send.write_all(&request("/large", &[])).await.expect("write");
            send.finish().expect("finish");
            held.push(recv);
        }
        bench.serves_others().await;
        bench.memory_is_bounded(before);
        bench.proxy.until_stat("http.h.downstream_rq_idle_timeout", 90);
        bench.proxy.until_stat("http.h.downstream_rq_active", 0);
    });
}
