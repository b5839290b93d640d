//! Circuit breakers of each kind, tripped under a bootstrap by our proxy and by Envoy: who is refused, by which flag and header,
//! and what is counted.

use crate::static_proxy::{Proxy, access_log, address, any, cluster, http_listener, routes, with_both};
use crate::support::{Answer, free_address, get};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

const OVERFLOW: &str = "upstream connect error or disconnect/reset before headers. reset reason: overflow";

#[derive(Default)]
struct State {
    /// Requests that came, by path.
    received: Vec<String>,
    connections: usize,
    open: bool,
}

/// A server that holds every request whose path says `hold` until it is opened. The first request of a path that says `fail`
/// is answered with 503 at once.
#[derive(Clone)]
struct Gate {
    at: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let gate = Self { at: listener.local_addr().expect("address"), state: Arc::default() };
        let own = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = own.clone();
                gate.state.0.lock().expect("state").connections += 1;
                std::thread::spawn(move || gate.serve(stream));
            }
        });
        gate
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let mut header = String::new();
            while reader.read_line(&mut header).ok()? > 2 {
                header.clear();
            }
            let path = line.split(' ').nth(1)?.to_owned();
            let status = self.answer(&path);
            write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }

    fn answer(&self, path: &str) -> u16 {
        let (state, opened) = &*self.state;
        let mut state = state.lock().expect("state");
        let first = !state.received.iter().any(|known| known == path);
        state.received.push(path.to_owned());
        if first && path.contains("fail") {
            return 503;
        }
        while path.contains("hold") && !state.open {
            state = opened.wait(state).expect("state");
        }
        200
    }

    fn open(&self) {
        self.state.0.lock().expect("state").open = true;
        self.state.1.notify_all();
    }

    /// How often a path came.
    fn received(&self, path: &str) -> usize {
        self.state.0.lock().expect("state").received.iter().filter(|known| *known == path).count()
    }

    fn connections(&self) -> usize {
        self.state.0.lock().expect("state").connections
    }
}

struct Bench {
    proxy: Proxy,
    gate: Gate,
    listen: SocketAddr,
}

impl Bench {
    /// A proxy with one cluster `c` of these fields, reached under `/c`.
    fn new(name: &'static str, dir: &Path, fields: Value, route: Value) -> Self {
        let (gate, listen) = (Gate::start(), free_address());
        let mut routes = routes(&["c"]);
        let action = routes["virtual_hosts"][0]["routes"][0]["route"].as_object_mut().expect("a route");
        let Value::Object(route) = route else { panic!("an object") };
        action.extend(route);
        let listener = http_listener(listen, &[], json!({ "route_config": routes }));
        let proxy = Proxy::start(name, dir, json!([listener]), json!([cluster("c", gate.at, fields)]));
        Self { proxy, gate, listen }
    }

    fn ask(&self, path: &str) -> Answer {
        get(self.listen, "a", path).expect("an answer")
    }

    /// A request that is under way once the host has received its path so often.
    fn begin(&self, path: &'static str, times: usize) -> JoinHandle<Answer> {
        let listen = self.listen;
        let request = std::thread::spawn(move || get(listen, "a", path).expect("an answer"));
        self.proxy.until(path, || match self.gate.received(path) {
            found if found >= times => Ok(()),
            found => Err(format!("received {found} times")),
        });
        request
    }

    fn refused(&self, path: &str) {
        let answer = self.ask(path);
        let name = self.proxy.name;
        assert_eq!((answer.status, answer.text().as_str()), (503, OVERFLOW), "{name}: {answer:?}");
        assert_eq!(answer.header("x-envoy-overloaded"), Some("true"), "{name}: {answer:?}");
        assert_eq!(answer.header("x-flags"), Some("UO"), "{name}: {answer:?}");
        assert_eq!(self.gate.received(path), 0, "{name}: it never came to the host");
    }

    fn finish(&self, requests: Vec<JoinHandle<Answer>>) {
        self.gate.open();
        for request in requests {
            let answer = request.join().expect("no panic");
            assert_eq!(answer.status, 200, "{}: {answer:?}", self.proxy.name);
        }
    }
}

fn thresholds(limits: Value) -> Value {
    json!({ "circuit_breakers": { "thresholds": [limits] } })
}

fn requests(name: &'static str, dir: &Path) {
    let bench = Bench::new(name, dir, thresholds(json!({ "max_requests": 1 })), json!({}));
    let first = bench.begin("/c/hold", 1);
    bench.refused("/c/more");
    assert_eq!(bench.proxy.stat("cluster.c.upstream_rq_active_overflow"), 1, "{name}");
    assert_eq!(bench.proxy.stat("cluster.c.circuit_breakers.default.rq_open"), 1, "{name}");
    bench.finish(vec![first]);
    assert_eq!(bench.ask("/c/after").status, 200, "{name}: there is room again");
    bench.proxy.until_stat("cluster.c.circuit_breakers.default.rq_open", 0);
}

fn connections_and_pending_requests(name: &'static str, dir: &Path) {
    let limits = json!({ "max_connections": 1, "max_pending_requests": 1 });
    let bench = Bench::new(name, dir, thresholds(limits), json!({}));
    let first = bench.begin("/c/hold", 1);
    let listen = bench.listen;
    let second = std::thread::spawn(move || get(listen, "a", "/c/waits").expect("an answer"));
    bench.proxy.until_stat("cluster.c.upstream_rq_pending_active", 1);
    assert_eq!(bench.gate.connections(), 1, "{name}: a second connection would be too many");
    assert!(bench.proxy.stat("cluster.c.upstream_cx_overflow") >= 1, "{name}");
    assert_eq!(bench.proxy.stat("cluster.c.circuit_breakers.default.cx_open"), 1, "{name}");
    assert_eq!(bench.proxy.stat("cluster.c.circuit_breakers.default.rq_pending_open"), 1, "{name}");
    bench.refused("/c/more");
    assert_eq!(bench.proxy.stat("cluster.c.upstream_rq_pending_overflow"), 1, "{name}");
    bench.finish(vec![first, second]);
    assert_eq!(bench.gate.connections(), 1, "{name}: who waited has taken the one connection");
}

fn retries(name: &'static str, dir: &Path) {
    let policy = json!({ "retry_policy": { "retry_on": "5xx", "num_retries": 1,
        "retry_back_off": { "base_interval": "0.001s" } } });
    let bench = Bench::new(name, dir, thresholds(json!({ "max_retries": 1 })), policy);
    // Failed once, and now held in its retry.
    let first = bench.begin("/c/fail-hold", 2);
    let answer = bench.ask("/c/fail");
    assert_eq!(answer.status, 503, "{name}: {answer:?}");
    assert_eq!(bench.gate.received("/c/fail"), 1, "{name}: not tried again");
    assert_eq!(answer.header("x-flags"), Some("UO"), "{name}: {answer:?}");
    assert_eq!(bench.proxy.stat("cluster.c.upstream_rq_retry_overflow"), 1, "{name}");
    assert_eq!(bench.proxy.stat("cluster.c.circuit_breakers.default.rq_retry_open"), 1, "{name}");
    bench.finish(vec![first]);
    assert_eq!(bench.ask("/c/fail-again").status, 200, "{name}: there is room again");
}

fn requests_of_a_connection(name: &'static str, dir: &Path) {
    let options = any(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        json!({ "explicit_http_config": { "http_protocol_options": {} },
            "common_http_protocol_options": { "max_requests_per_connection": 2 } }),
    );
    let fields = json!({ "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options } });
    let bench = Bench::new(name, dir, fields, json!({}));
    for _ in 0..5 {
        assert_eq!(bench.ask("/c").status, 200, "{name}");
    }
    assert_eq!(bench.gate.connections(), 3, "{name}: two requests each");
    bench.proxy.until_stat("cluster.c.upstream_cx_max_requests", 2);
}

fn high_priority(name: &'static str, dir: &Path) {
    let limits = json!({ "circuit_breakers": { "thresholds": [
        { "priority": "DEFAULT", "max_requests": 0 }, { "priority": "HIGH", "max_requests": 1 }] } });
    let bench = Bench::new(name, dir, limits, json!({ "priority": "HIGH" }));
    let first = bench.begin("/c/hold", 1);
    bench.refused("/c/more");
    assert_eq!(bench.proxy.stat("cluster.c.circuit_breakers.high.rq_open"), 1, "{name}");
    bench.finish(vec![first]);
}

/// Sends back what comes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().expect("clone");
                let mut reader = stream;
                std::io::copy(&mut reader, &mut writer)
            });
        }
    });
    at
}

fn tcp_connections(name: &'static str, dir: &Path) {
    let (listen, log) = (free_address(), dir.join("access.log"));
    let config = json!({ "stat_prefix": "t", "cluster": "c", "access_log": access_log(&log, "%RESPONSE_FLAGS%") });
    let config = any("extensions.filters.network.tcp_proxy.v3.TcpProxy", config);
    let listener = json!({ "name": "l", "address": address(listen),
        "filter_chains": [{ "filters": [{ "name": "t", "typed_config": config }] }] });
    let limits = thresholds(json!({ "max_connections": 1 }));
    let proxy = Proxy::start(name, dir, json!([listener]), json!([cluster("c", echo(), limits)]));
    let echoes = |stream: &mut TcpStream| {
        stream.write_all(b"x").expect("write");
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte)
    };
    let mut first = TcpStream::connect(listen).expect("connect");
    assert_eq!(echoes(&mut first).expect("an echo"), *b"x", "{name}");
    let mut second = TcpStream::connect(listen).expect("connect");
    let mut rest = Vec::new();
    // Closed or reset, but not served.
    let _ = second.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{name}: {rest:?}");
    proxy.until_stat("cluster.c.upstream_cx_overflow", 1);
    proxy.until("access log", || match std::fs::read_to_string(&log).unwrap_or_default().lines().next() {
        Some("UO") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(echoes(&mut first).expect("an echo"), *b"x", "{name}: the first goes on");
    drop(first);
    proxy.until_stat("cluster.c.upstream_cx_active", 0);
    let mut third = TcpStream::connect(listen).expect("connect");
    assert_eq!(echoes(&mut third).expect("an echo"), *b"x", "{name}: there is room again");
}

#[test]
fn too_many_requests_are_refused_as_by_envoy() {
    with_both(requests);
    with_both(high_priority);
}

#[test]
fn requests_wait_for_connections_and_too_many_that_wait_are_refused_as_by_envoy() {
    with_both(connections_and_pending_requests);
}

#[test]
fn too_many_retries_are_left_out_as_by_envoy() {
    with_both(retries);
}

#[test]
fn a_connection_serves_so_many_requests_as_envoys_do() {
    with_both(requests_of_a_connection);
}

#[test]
fn too_many_connections_are_closed_as_by_envoy() {
    with_both(tcp_connections);
}
