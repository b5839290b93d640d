//! HTTP/2 backends that leave before they have served anything: the request goes to another connection, soon.

use crate::h2::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, OK, SETTINGS, frame};
use crate::support::{Process, free_address, get, meltemi};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far below the route's timeout, which is what ends a request that nobody cares for.
const SOON: Duration = Duration::from_secs(5);

/// What follows the settings on a connection that serves nothing.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    GoAway,
    Close,
}

impl Farewell {
    fn frames(self) -> Vec<u8> {
        let mut frames = frame(SETTINGS, 0, 0, &[]);
        if let Farewell::GoAway = self {
            // No stream was or will be processed; no error.
            frames.extend(frame(GOAWAY, 0, 0, &[0; 8]));
        }
        frames
    }

    fn plain(self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.frames())?;
        self.end(stream)
    }

    /// In one flight with the server's handshake: a client knows of it before it can have sent anything.
    fn with_handshake(self, mut stream: TcpStream, mut tls: ServerConnection) -> std::io::Result<()> {
        while !tls.wants_write() {
            tls.read_tls(&mut stream)?;
            tls.process_new_packets().map_err(std::io::Error::other)?;
        }
        tls.writer().write_all(&self.frames())?;
        if let Farewell::Close = self {
            tls.send_close_notify();
        }
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        stream.write_all(&flight)?;
        self.end(stream)
    }

    fn end(self, mut stream: TcpStream) -> std::io::Result<()> {
        if let Farewell::Close = self {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        // Closing before everything was read would be a reset.
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    }
}

/// Answers 200 to every request.
fn serve(stream: impl Read + Write) -> std::io::Result<()> {
    h2::serve(stream, |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &[OK]))
}

/// Says farewell on its first `leaving` connections and serves on those after.
struct Peer {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
}

impl Peer {
    fn start(tls: Option<Arc<ServerConfig>>, farewell: Farewell, leaving: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let leaves = count.fetch_add(1, Ordering::SeqCst) < leaving;
                let tls = tls.clone().map(|config| ServerConnection::new(config).expect("a connection"));
                std::thread::spawn(move || match (tls, leaves) {
                    (None, true) => farewell.plain(stream),
                    (None, false) => serve(stream),
                    (Some(tls), true) => farewell.with_handshake(stream, tls),
                    (Some(tls), false) => serve(StreamOwned::new(tls, stream)),
                });
            }
        });
        Self { address, connections }
    }
}

/// A server's configuration and the certificate by which it is known.
fn identity() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["peer.example".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_half_rtt_data = true;
    (config.into(), made.cert.pem())
}

fn bootstrap(listen: SocketAddr, backend: SocketAddr, authority: Option<&str>, retry: Value) -> Value {
    let at =
        |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    let any = |kind: &str, mut body: Value| {
        body["@type"] = json!(format!("type.googleapis.com/{kind}"));
        body
    };
    let route = json!({ "cluster": "peer", "timeout": "15s", "retry_policy": retry });
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "in",
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": route }] }] },
        }),
    );
    let http2 = any(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
    );
    let mut cluster = json!({
        "name": "peer", "type": "STATIC", "connect_timeout": "2s",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
        "load_assignment": { "cluster_name": "peer", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(backend) } }] }] },
    });
    if let Some(authority) = authority {
        let validation = json!({ "trusted_ca": { "inline_string": authority } });
        let context = json!({ "sni": "peer.example", "common_tls_context": { "alpn_protocols": ["h2"], "validation_context": validation } });
        let context = any("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context);
        cluster["transport_socket"] = json!({ "name": "tls", "typed_config": context });
    }
    json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": at(listen), "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": manager }] }] }],
        "clusters": [cluster],
    } })
}

/// The status of one request through a proxy whose backend leaves so often, and how many connections that took.
fn asked(tls: bool, farewell: Farewell, leaving: u32, retry: Value) -> (u16, u32) {
    let (config, authority) = if tls { Some(identity()).unzip() } else { (None, None) };
    let (listen, peer) = (free_address(), Peer::start(config, farewell, leaving));
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("proxy.json");
    let text = bootstrap(listen, peer.address, authority.as_deref(), retry).to_string();
    std::fs::write(&file, text).expect("write");
    let mut command = meltemi();
    command.args(["proxy", "--concurrency", "1", "-c"]).arg(&file);
    let mut proxy = Process::start("proxy", &mut command, dir.path());
    proxy.wait_listening(listen);
    let began = Instant::now();
    let answer = get(listen, "peer.example", "/").unwrap_or_else(|e| panic!("{farewell:?}: {e}\n{}", proxy.output()));
    assert!(began.elapsed() < SOON, "{farewell:?}: {} after {:?}", answer.status, began.elapsed());
    (answer.status, peer.connections.load(Ordering::SeqCst))
}

#[test]
fn a_backend_that_leaves_with_its_handshake_is_asked_on_another_connection() {
    assert_eq!(asked(true, Farewell::GoAway, 1, json!({})), (200, 2));
    // No connection came about; that is tried again where the route says so.
    assert_eq!(asked(true, Farewell::Close, 1, json!({ "retry_on": "connect-failure" })), (200, 2));
}

/// The request may be on its way before the farewell has come, and then it is for the route to say that it may be sent again.
#[test]
fn a_backend_that_leaves_after_its_settings_is_asked_on_another_connection() {
    for farewell in [Farewell::GoAway, Farewell::Close] {
        let retry = json!({ "retry_on": "refused-stream,reset,connect-failure" });
        assert_eq!(asked(false, farewell, 1, retry), (200, 2), "{farewell:?}");
    }
}

#[test]
fn a_backend_that_always_leaves_is_given_up() {
    for farewell in [Farewell::GoAway, Farewell::Close] {
        let (status, connections) = asked(true, farewell, u32::MAX, json!({}));
        assert_eq!(status, 503, "{farewell:?}");
        assert!((1..=5).contains(&connections), "{farewell:?}: {connections}");
    }
}
