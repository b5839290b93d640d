//! What a hostile client may try, against the running program: each attack meets the limit that is there for it, other clients
//! are served meanwhile, and memory stays bounded. Where Envoy has the same limit, it is held beside.

use crate::h2::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use crate::static_proxy::{Proxy, any, cluster, http_listener, routes, with_both};
use crate::support::{Backend, exchange, free_address, get, read_answer, read_head};
use serde_json::{Value, json};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// What a proxy may grow by under any attack here, in KiB: far more than it needs, far less than the attack could cost.
pub const BOUNDED: u64 = 48 * 1024;

/// A proxy in front of one backend, with these fields of the connection manager and of the bootstrap.
struct Bench {
    proxy: Proxy,
    listen: SocketAddr,
}

impl Bench {
    fn new(name: &'static str, dir: &Path, manager: Value, bootstrap: Value) -> Self {
        Self::with_listener(name, dir, manager, bootstrap, |listener| listener)
    }

    fn with_listener(
        name: &'static str,
        dir: &Path,
        mut manager: Value,
        bootstrap: Value,
        change: impl Fn(Value) -> Value,
    ) -> Self {
        let (backend, listen) = (Backend::start("b").address, free_address());
        manager["route_config"] = routes(&["c"]);
        let listener = change(http_listener(listen, &[], manager));
        let proxy =
            Proxy::start_with(name, dir, json!([listener]), json!([cluster("c", backend, json!({}))]), bootstrap);
        Self { proxy, listen }
    }

    fn listener_stat(&self, name: &str) -> String {
        format!("listener.{}.{name}", self.listen.to_string().replace(':', "_"))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listen).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// An ordinary client is served.
    fn serves_others(&self) {
        let answer = get(self.listen, "a", "/c").unwrap_or_else(|e| panic!("{}: {e}", self.proxy.name));
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.proxy.name);
    }

    /// Asks on an open connection and reads the answer's status; `None` if the proxy closes it instead.
    fn ask(stream: &TcpStream) -> Option<u16> {
        (&*stream).write_all(b"GET /c HTTP/1.1\r\nhost: a\r\n\r\n").ok()?;
        read_answer(&mut BufReader::new(stream), false).ok().map(|answer| answer.status)
    }
}

/// Whether the other side ends the connection without a byte more.
fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn connections_beyond_a_listeners_limit_are_closed() {
    with_both(|name, dir| {
        let listen = free_address();
        let key = format!("envoy.resource_limits.listener.{listen}.connection_limit");
        let runtime = json!({ "layered_runtime": { "layers": [{ "name": "l", "static_layer": { key: 2 } }] } });
        let backend = Backend::start("b").address;
        let listener = http_listener(listen, &[], json!({ "route_config": routes(&["c"]) }));
        let clusters = json!([cluster("c", backend, json!({}))]);
        let bench = Bench { proxy: Proxy::start_with(name, dir, json!([listener]), clusters, runtime), listen };
        full(&bench, "downstream_cx_overflow");
    });
}

#[test]
fn connections_beyond_the_limit_of_the_process_are_closed() {
    with_both(|name, dir| {
        let config = any(
            "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            json!({ "max_active_downstream_connections": 2 }),
        );
        let name_of = "envoy.resource_monitors.global_downstream_max_connections";
        let manager =
            json!({ "overload_manager": { "resource_monitors": [{ "name": name_of, "typed_config": config }] } });
        full(&Bench::new(name, dir, json!({}), manager), "downstream_global_cx_overflow");
    });
}

/// Two connections are all that is allowed.
fn full(bench: &Bench, overflow: &str) {
    let name = bench.proxy.name;
    let open = [bench.connect(), bench.connect()];
    for stream in &open {
        assert_eq!(Bench::ask(stream), Some(200), "{name}");
    }
    assert!(is_closed(bench.connect()), "{name}: one too many");
    bench.proxy.until_stat(&bench.listener_stat(overflow), 1);
    assert_eq!(Bench::ask(&open[0]), Some(200), "{name}: those within the limit go on");
    drop(open);
    bench.proxy.until_stat(&bench.listener_stat("downstream_cx_active"), 0);
    bench.serves_others();
}

#[test]
fn a_source_that_takes_too_many_connections_does_not_take_those_of_others() {
    let dir = tempfile::tempdir().expect("folder");
    let layer = json!({ "meltemi.resource_limits.connections_per_source": 1 });
    let runtime = json!({ "layered_runtime": { "layers": [{ "name": "l", "static_layer": layer }] } });
    let bench = Bench::new("ours", dir.path(), json!({}), runtime);
    let first = bench.connect();
    assert_eq!(Bench::ask(&first), Some(200));
    assert!(is_closed(bench.connect()), "the source has its one connection");
    bench.proxy.until_stat(&bench.listener_stat("downstream_cx_source_overflow"), 1);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("another address of this machine");
    socket.connect(&bench.listen.into()).expect("connect");
    assert_eq!(Bench::ask(&socket.into()), Some(200), "another source");
}

#[test]
fn connections_that_come_too_fast_are_closed_before_and_after_the_handshake() {
    with_both(|name, dir| {
        let limit = json!({ "stat_prefix": "l", "token_bucket": { "max_tokens": 1, "fill_interval": "3600s" } });
        let before = |mut listener: Value| {
            let config = any("extensions.filters.listener.local_ratelimit.v3.LocalRateLimit", limit.clone());
            listener["listener_filters"] = json!([{ "name": "l", "typed_config": config }]);
            listener
        };
        let after = |mut listener: Value| {
            let config = any("extensions.filters.network.local_ratelimit.v3.LocalRateLimit", limit.clone());
            let filters = listener["filter_chains"][0]["filters"].as_array_mut().expect("filters");
            filters.insert(0, json!({ "name": "l", "typed_config": config }));
            listener
        };
        let places: [(&str, &dyn Fn(Value) -> Value); 2] =
            [("listener_local_ratelimit", &before), ("local_rate_limit", &after)];
        for (place, change) in places {
            let dir = dir.join(place);
            std::fs::create_dir(&dir).expect("folder");
            let bench = Bench::with_listener(name, &dir, json!({}), json!({}), change);
            let first = bench.connect();
            assert_eq!(Bench::ask(&first), Some(200), "{name}: {place}");
            assert!(is_closed(bench.connect()), "{name}: {place}");
            bench.proxy.until_stat(&format!("{place}.l.rate_limited"), 1);
            assert_eq!(Bench::ask(&first), Some(200), "{name}: {place}: it is new ones that are limited");
        }
    });
}

#[test]
fn a_request_head_that_does_not_end_is_given_up() {
    with_both(|name, dir| {
        let bench = Bench::new(name, dir, json!({ "request_headers_timeout": "0.5s" }), json!({}));
        let mut slow = bench.connect();
        slow.write_all(b"GET /c HTTP/1.1\r\nhost: a\r\nx-slow: ").expect("write");
        bench.serves_others();
        let answer = read_answer(&mut BufReader::new(&slow), false).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (408, "request header timeout"), "{name}: {answer:?}");
        assert!(is_closed(slow), "{name}");
        bench.proxy.until_stat("http.h.downstream_rq_header_timeout", 1);
    });
}

#[test]
fn a_request_that_stands_still_is_given_up_by_the_idle_timeout_of_streams() {
    with_both(|name, dir| {
        let bench = Bench::new(name, dir, json!({ "stream_idle_timeout": "0.5s" }), json!({}));
        let body = "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nab";
        for begun in ["GET /c HTTP/1.1\r\nhost: a\r\nx-slow: ", body] {
            let mut slow = bench.connect();
            slow.write_all(begun.as_bytes()).expect("write");
            bench.serves_others();
            let answer = read_answer(&mut BufReader::new(&slow), false).expect("an answer");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (408, "stream timeout"),
                "{name}: {begun:?} {answer:?}"
            );
        }
        bench.proxy.until_stat("http.h.downstream_rq_idle_timeout", 2);
    });
}

#[test]
fn floods_of_header_fields_are_answered_with_431() {
    with_both(|name, dir| {
        let bench = Bench::new(name, dir, json!({}), json!({}));
        let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
        for fields in [many, format!("x-large: {}\r\n", "y".repeat(70 * 1024))] {
            let request = format!("GET /c HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert_eq!(exchange(bench.listen, request.as_bytes()).expect("an answer").status, 431, "{name}");
        }
        bench.serves_others();
    });
}

#[test]
fn a_tls_handshake_that_does_not_end_is_given_up() {
    with_both(|name, dir| {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate =
            json!({ "certificate_chain": { "inline_string": chain }, "private_key": { "inline_string": key } });
        let tls = any(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            json!({ "common_tls_context": { "tls_certificates": [certificate] } }),
        );
        let bench = Bench::with_listener(name, dir, json!({}), json!({}), |mut listener| {
            let chain = &mut listener["filter_chains"][0];
            chain["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
            chain["transport_socket_connect_timeout"] = json!("0.5s");
            listener
        });
        for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            let mut slow = bench.connect();
            slow.write_all(begun).expect("write");
            assert!(is_closed(slow), "{name}: {begun:?}");
        }
    });
}

#[test]
fn thousands_of_slow_clients_cost_little_and_others_are_served() {
    let dir = tempfile::tempdir().expect("folder");
    let bench = Bench::new("ours", dir.path(), json!({}), json!({}));
    bench.serves_others();
    let before = bench.proxy.process.memory();
    let slow: Vec<TcpStream> = (0..2000)
        .map(|_| {
            let mut stream = bench.connect();
            stream.write_all(b"GET /c HTTP/1.1\r\nhost: a\r\nx-slow: ").expect("write");
            stream
        })
        .collect();
    bench.proxy.until_stat("http.h.downstream_cx_active", 2000);
    bench.serves_others();
    let grown = bench.proxy.process.memory().saturating_sub(before);
    assert!(grown < BOUNDED, "{grown} KiB for {} connections", slow.len());
}

/// `:method: GET`, `:scheme: http`, `:path: /` by HPACK's static table, and `:authority: a`.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

/// Opens an HTTP/2 connection and sends `flood` again and again until the proxy has had enough and closes it. Its GOAWAY may be
/// lost when what we send meets a closed socket.
fn flood(bench: &Bench, flood: impl Fn(u32) -> Vec<u8>) {
    let mut stream = bench.connect();
    let mut own = stream.try_clone().expect("clone");
    let reader = std::thread::spawn(move || std::io::copy(&mut own, &mut std::io::sink()));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("write");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("write");
    let end = Instant::now() + PATIENCE;
    for n in 0.. {
        assert!(Instant::now() < end, "the flood was borne for {PATIENCE:?}");
        if reader.is_finished() || stream.write_all(&flood(n)).is_err() {
            break;
        }
    }
    let _ = reader.join().expect("no panic");
}

#[test]
fn floods_of_http2_end_their_connection_and_cost_others_nothing() {
    const LIMIT: &str = "http.h.downstream_cx_http2_flood";
    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;
    const CONTINUATION: u8 = 9;
    let dir = tempfile::tempdir().expect("folder");
    let bench = Bench::new("ours", dir.path(), json!({ "codec_type": "AUTO" }), json!({}));
    bench.serves_others();
    let before = bench.proxy.process.memory();
    let batch = |kind: u8, payload: &[u8]| frame(kind, 0, 0, payload).repeat(100);
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        let cancel = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), cancel].concat()
    };
    let endless = |n: u32| match n {
        0 => frame(HEADERS, 0, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &[0; 1000]),
    };
    type Attack<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
    let attacks: [Attack<'_>; 4] = [
        ("rapid reset (CVE-2023-44487)", &reset),
        ("pings (CVE-2019-9512)", &|_| batch(PING, &[0; 8])),
        ("settings (CVE-2019-9515)", &|_| batch(SETTINGS, &[])),
        ("CONTINUATION (CVE-2024-27316)", &endless),
    ];
    for (what, attack) in attacks {
        let before = bench.proxy.stat(LIMIT);
        flood(&bench, attack);
        bench.proxy.until_stat(LIMIT, before + 1);
        println!("{what}: stopped");
        bench.serves_others();
    }
    let grown = bench.proxy.process.memory().saturating_sub(before);
    assert!(grown < BOUNDED, "{grown} KiB");
}

#[test]
fn clients_that_do_not_read_are_given_up_and_keep_little() {
    let dir = tempfile::tempdir().expect("folder");
    let manager = json!({ "codec_type": "AUTO", "stream_idle_timeout": "2s" });
    let large = vec![b'x'; 4 << 20];
    let backend = large_backend(large);
    let listen = free_address();
    let mut manager = manager;
    manager["route_config"] = routes(&["c"]);
    let listener = http_listener(listen, &[], manager);
    let clusters = json!([cluster("c", backend, json!({}))]);
    let bench = Bench { proxy: Proxy::start("ours", dir.path(), json!([listener]), clusters), listen };
    assert_eq!(get(listen, "a", "/c").expect("an answer").body.len(), 4 << 20);
    let before = bench.proxy.process.memory();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: not a byte of a body may be sent.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let path = b"\x82\x86\x44\x02/c\x41\x01a";
    let mut stream = bench.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("write");
    stream.write_all(&settings).expect("write");
    for n in 0..90 {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, path)).expect("write");
    }
    bench.proxy.until_stat("http.h.downstream_rq_total", 91);
    assert_eq!(get(listen, "a", "/c").expect("an answer").status, 200, "others are served");
    let grown = bench.proxy.process.memory().saturating_sub(before);
    assert!(grown < BOUNDED, "{grown} KiB for 360 MiB that nobody reads");
    bench.proxy.until_stat("http.h.downstream_rq_active", 0);
    bench.proxy.until_stat("http.h.downstream_rq_idle_timeout", 90);
}

/// Answers each request with this body.
pub fn large_backend(body: Vec<u8>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(), body].concat();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("clone"));
                while read_head(&mut reader).is_ok() && (&stream).write_all(&answer).is_ok() {}
            });
        }
    });
    address
}

#[test]
fn connection_managers_and_listeners_count_as_envoys_do() {
    const COUNTED: &[(&str, u64)] = &[
        ("http.h.downstream_cx_total", 4),
        ("http.h.downstream_cx_http1_total", 4),
        ("http.h.downstream_cx_ssl_total", 0),
        ("http.h.downstream_rq_total", 4),
        ("http.h.downstream_rq_http1_total", 4),
        ("http.h.downstream_rq_completed", 4),
        ("http.h.downstream_rq_2xx", 2),
        ("http.h.downstream_rq_4xx", 2),
        ("http.h.downstream_rq_5xx", 0),
        ("http.h.no_route", 1),
    ];
    with_both(|name, dir| {
        let bench = Bench::new(name, dir, json!({}), json!({}));
        for (path, status) in [("/c", 200), ("/none", 404), ("/c", 200)] {
            assert_eq!(get(bench.listen, "a", path).expect("an answer").status, status, "{name}");
        }
        let broken = exchange(bench.listen, b"GET /c HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n");
        assert_eq!(broken.expect("an answer").status, 400, "{name}");
        bench.proxy.until_stat("http.h.downstream_cx_active", 0);
        bench.proxy.until_stat("http.h.downstream_rq_active", 0);
        bench.proxy.until_stat(&bench.listener_stat("downstream_cx_active"), 0);
        assert_eq!(bench.proxy.stat(&bench.listener_stat("downstream_cx_total")), 4, "{name}");
        let found: Vec<_> = COUNTED.iter().map(|(stat, _)| (*stat, bench.proxy.stat(stat))).collect();
        assert_eq!(found, COUNTED, "{name}");
    });
}
