//! Whole exchanges over loopback: a worker with a static configuration, scripted hosts, plain sockets as clients.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use meltemi_filters::{Context, LocalNode};
use meltemi_plan::bootstrap::ConnectionLimits;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_telemetry::{Registry, metrics::Filter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    configurator::{Configurator, Held, Source},
    worker::{self, Feed, Limits, Phase, Reach},
};

fn held<P>(plan: Arc<P>) -> Held<P> {
    let source = Source { body: Arc::default(), version: Arc::default(), updated: SystemTime::now(), fixed: true };
    Held { plan, source }
}

/// A worker running in the test's own local set.
struct Running {
    port: u16,
    phase: watch::Sender<Phase>,
    configurator: Configurator,
    worker: tokio::task::JoinHandle<()>,
    registry: Registry,
}

impl Running {
    /// A counter or gauge of the cluster `c`; 0 before anything has counted.
    fn counted(&self, name: &str) -> u64 {
        let text = self.registry.text(&Filter::default());
        let line = format!("cluster.c.{name}: ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.trim().parse().ok()).unwrap_or(0)
    }
}

const LISTENER: &str = r#"
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          drain_timeout: 0.3s
          upgrade_configs: [{upgrade_type: websocket}]
          route_config:
            name: r
            validate_clusters: false
            virtual_hosts:
            - {name: v, domains: ["*"], include_request_attempt_count: true, routes: [ROUTES]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

fn cluster(name: &str, ports: &[u16], extra: &str) -> String {
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| {
            format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
        })
        .collect();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {extra} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        endpoints.join(", ")
    )
}

fn parse(listener: &str, clusters: &str) -> meltemi_plan::Bootstrap {
    let text = format!("static_resources:{listener}  clusters:\n{clusters}");
    let proto: Bootstrap = meltemi_proto::json::from_text(&text).unwrap();
    meltemi_plan::bootstrap(&proto).unwrap()
}

async fn start_listener(listener: &str, clusters: &str) -> Running {
    let plan = parse(listener, clusters);
    let registry = Registry::new();
    let mut configurator = Configurator::new(registry.clone());
    for cluster in plan.clusters {
        configurator.set_cluster(held(cluster)).unwrap();
    }
    for listener in plan.listeners {
        configurator.set_listener(held(listener)).unwrap();
    }
    configurator.publish();
    let (status, mut statuses) = mpsc::channel(8);
    let phase = watch::Sender::new(Phase::Serving);
    let filters = Context::new(&registry, LocalNode::new("node", "cluster", &serde_json::Value::Null));
    let feed = Feed {
        worlds: configurator.subscribe(),
        phase: phase.subscribe(),
        status: Some(status),
        filters,
        limits: Limits::new(ConnectionLimits::default(), &registry),
        demand: None,
    };
    let worker = tokio::task::spawn_local(worker::run(0, feed));
    let bound = statuses.recv().await.unwrap().result.unwrap();
    Running { port: bound.socket().unwrap().port(), phase, configurator, worker, registry }
}

async fn start(routes: &str, clusters: &str) -> Running {
    start_listener(&LISTENER.replace("ROUTES", routes), clusters).await
}

/// What a scripted host saw.
#[derive(Default)]
struct Seen {
    connections: Cell<usize>,
    requests: RefCell<Vec<String>>,
}

/// A host that answers the n-th request (over all its connections) with `answer(n)`; `None` closes without an answer.
async fn host(answer: impl Fn(usize) -> Option<String> + 'static) -> (u16, Rc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Rc::new(Seen::default());
    let (record, answer) = (Rc::clone(&seen), Rc::new(answer));
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            record.connections.set(record.connections.get() + 1);
            let (record, answer) = (Rc::clone(&record), Rc::clone(&answer));
            tokio::task::spawn_local(async move {
                while let Some(request) = read_message(&mut stream).await {
                    let n = record.requests.borrow().len();
                    record.requests.borrow_mut().push(request);
                    match answer(n) {
                        Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                        None => return,
                    }
                }
            });
        }
    });
    (port, seen)
}

/// A head and its body, by `content-length` or chunks; `None` at the end of the stream.
async fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(bytes.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if let Some(length) = length {
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        bytes.extend_from_slice(&body);
    } else if head.contains("transfer-encoding: chunked") {
        while !bytes.ends_with(b"\r\n0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok()?;
            bytes.push(byte[0]);
        }
    }
    Some(String::from_utf8(bytes).unwrap())
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn status(code: u16) -> Option<String> {
    Some(format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n"))
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(("127.0.0.1", running.port)).await.unwrap()
}

async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), read_message(stream)).await.unwrap().unwrap()
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

macro_rules! local_test {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[tokio::test]
        async fn $name() {
            LocalSet::new().run_until(async $body).await;
        }
    };
}

mod calls;
mod counting;
mod drain;
mod preface;
mod tunnels;
mod upgrades;

local_test! {
async fn keep_alive_connections_are_reused_on_both_sides() {
    let (port, seen) = host(|n| ok(&n.to_string())).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    for n in 0..5 {
        let answer = ask(&mut client, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&format!("\r\n\r\n{n}")), "{answer}");
        assert!(answer.contains("server: envoy\r\n") && answer.contains("x-envoy-upstream-service-time: "), "{answer}");
    }
    assert_eq!(seen.connections.get(), 1);
    let request = seen.requests.borrow()[0].clone();
    for part in ["host: a\r\n", "x-request-id: ", "x-forwarded-proto: http\r\n", "x-envoy-attempt-count: 1\r\n"] {
        assert!(request.contains(part), "{part} in {request}");
    }
}
}

local_test! {
async fn a_retry_sends_the_whole_body_again() {
    let (port, seen) = host(|n| if n < 2 { status(503) } else { ok("done") }).await;
    let route = "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, num_retries: 3, \
                 retry_back_off: {base_interval: 0.001s}}}}";
    let running = start(route, &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert!(answer.ends_with("done"), "{answer}");
    let requests = seen.requests.borrow();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.ends_with("3\r\nabc\r\n0\r\n\r\n")), "{requests:?}");
    assert!(requests[2].contains("x-envoy-attempt-count: 3\r\n"));
}
}

local_test! {
async fn retries_end_and_the_last_answer_is_passed_on() {
    let (port, seen) = host(|_| status(503)).await;
    let route = "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, num_retries: 2, \
                 retry_back_off: {base_interval: 0.001s}}}}";
    let running = start(route, &cluster("c", &[port], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(seen.requests.borrow().len(), 3);
}
}

local_test! {
async fn a_host_that_closes_without_an_answer_is_a_503_with_the_reason() {
    let (port, _) = host(|_| None).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    let body = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(body), "{answer}");
}
}

local_test! {
async fn a_204_with_a_body_is_a_502_and_its_connection_is_not_reused() {
    let answers = ["HTTP/1.1 204 X\r\ncontent-length: 2\r\n\r\nab", "HTTP/1.1 304 X\r\n\r\nab"];
    let (port, seen) = host(move |n| answers.get(n).map(|text| (*text).to_owned()).or_else(|| ok("fine"))).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, GET).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert!(answer.ends_with("before headers. reset reason: protocol error"), "{answer}");
    let answer = ask(&mut client, GET).await;
    assert!(answer.starts_with("HTTP/1.1 304 Not Modified\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = ask(&mut client, GET).await;
    assert!(answer.ends_with("\r\n\r\nfine"), "{answer}");
    assert_eq!(seen.connections.get(), 3);
}
}

local_test! {
async fn a_route_that_limits_streams_has_no_timeout_of_its_own() {
    let (port, seen) = host(|_| ok("")).await;
    let route = "{match: {prefix: /}, route: {cluster: c, timeout: 7s, max_stream_duration: {max_stream_duration: 9s}}}";
    let running = start(route, &cluster("c", &[port], "")).await;
    ask(&mut connect(&running).await, GET).await;
    let plain = start("{match: {prefix: /}, route: {cluster: c, timeout: 7s}}", &cluster("c", &[port], "")).await;
    ask(&mut connect(&plain).await, GET).await;
    let requests = seen.requests.borrow();
    assert!(!requests[0].contains("x-envoy-expected-rq-timeout-ms"), "{}", requests[0]);
    assert!(requests[1].contains("x-envoy-expected-rq-timeout-ms: 7000\r\n"), "{}", requests[1]);
}
}

local_test! {
async fn a_stream_that_lasts_too_long_is_a_504_that_says_so() {
    let (port, _seen) = host(|_| Some(String::new())).await;
    let route = "{match: {prefix: /}, route: {cluster: c, max_stream_duration: {max_stream_duration: 0.1s}}}";
    let running = start(route, &cluster("c", &[port], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("downstream duration timeout"), "{answer}");
}
}

local_test! {
async fn a_created_direct_response_says_where_and_an_answer_rule_sees_its_code() {
    let (port, _seen) = host(|_| status(409)).await;
    let rule = "response_headers_to_add: [{header: {key: x-code, value: '%RESPONSE_CODE%'}}]";
    let routes = format!(
        "{{match: {{path: /x}}, direct_response: {{status: 201}}, {rule}}}, {{match: {{prefix: /}}, route: {{cluster: c}}, {rule}}}"
    );
    let running = start(&routes, &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, GET).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("location: http://a/x\r\n") && answer.contains("x-code: 0\r\n"), "{answer}");
    let answer = ask(&mut client, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.contains("x-code: 409\r\n"), "{answer}");
}
}

local_test! {
async fn a_redirect_rewrites_the_path_that_its_header_rules_see() {
    let route = "{match: {prefix: /x}, redirect: {prefix_rewrite: /new, strip_query: true}, \
        response_headers_to_add: [{header: {key: x-path, value: '%REQ(:PATH)%'}}]}";
    let running = start(route, &cluster("c", &[1], "")).await;
    let answer = ask(&mut connect(&running).await, "GET /x/y?q HTTP/1.1\r\nHost: a:8080\r\n\r\n").await;
    assert!(answer.contains("location: http://a:8080/new/y\r\n"), "{answer}");
    assert!(answer.contains("x-path: /new/y?q\r\n"), "{answer}");
}
}

local_test! {
async fn a_connection_that_closed_while_idle_costs_no_request() {
    let (port, seen) = host(|n| {
        let close = if n % 2 == 0 { "connection: close\r\n" } else { "" };
        Some(format!("HTTP/1.1 200 OK\r\n{close}content-length: 0\r\n\r\n"))
    }).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    for _ in 0..6 {
        assert!(ask(&mut client, GET).await.starts_with("HTTP/1.1 200 OK"));
    }
    assert!(seen.connections.get() >= 3);
}
}

local_test! {
async fn timeouts_are_504_and_leave_the_client_connection_open() {
    let (port, _) = host(|n| if n == 0 { Some(String::new()) } else { ok("late") }).await;
    let running = start("{match: {prefix: /}, route: {cluster: c, timeout: 0.1s}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, GET).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("upstream request timeout"), "{answer}");
    assert!(ask(&mut client, GET).await.ends_with("late"));
}
}

local_test! {
async fn a_mirror_sees_the_request_under_its_shadow_name() {
    let ((main, _), (shadow, seen)) = (host(|_| ok("main")).await, host(|_| ok("shadow")).await);
    let route = "{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: m}]}}";
    let running = start(route, &(cluster("c", &[main], "") + &cluster("m", &[shadow], ""))).await;
    let request = "POST /x HTTP/1.1\r\nHost: a:81\r\nContent-Length: 4\r\n\r\nbody";
    assert!(ask(&mut connect(&running).await, request).await.ends_with("main"));
    for _ in 0..100 {
        if !seen.requests.borrow().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = seen.requests.borrow();
    assert!(requests[0].contains("host: a-shadow:81\r\n") && requests[0].ends_with("body"), "{requests:?}");
}
}

local_test! {
async fn http2_on_both_sides_passes_trailers() {
    use meltemi_http::{Frame, Headers, Method, RequestHead, ServerStream, h2, pool};
    use std::future::poll_fn;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::ServerConnection::handshake(stream.into(), &h2::Options::default()).await.unwrap();
        while let Ok(Some(accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
            tokio::task::spawn_local(async move {
                let mut stream = ServerStream::H2(accepted.stream);
                let mut body = 0;
                while let Some(Frame::Data(data)) = poll_fn(|cx| stream.poll_frame(cx)).await.unwrap() {
                    body += data.len();
                }
                stream.send_head(&meltemi_http::ResponseHead::new(http::StatusCode::OK), false);
                stream.send_frame(Frame::Data(body.to_string().into()));
                let mut trailers = Headers::new();
                trailers.append(meltemi_http::name::GRPC_STATUS, http::HeaderValue::from_static("0"));
                stream.send_frame(Frame::Trailers(trailers));
                stream.finish();
                poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
            });
        }
    });
    let protocol = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: {http2_protocol_options: {}}}},";
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], protocol)).await;
    let pools = pool::Pools::new();
    let key = pool::Key { endpoint: 1, transport: 0, mode: pool::Mode::Http2 };
    let pool = pools.pool(key, Default::default);
    let proxy = running.port;
    let exchange = |size: usize| {
        let pool = Rc::clone(&pool);
        async move {
            let connect = async move {
                let stream = TcpStream::connect(("127.0.0.1", proxy)).await.unwrap().into();
                Ok(pool::Connected { stream, guard: Box::new(()), note: None })
            };
            let mut stream = match pool.try_stream() {
                Some(stream) => stream,
                None => pool.open(connect).await.unwrap().unwrap(),
            };
            let mut head = RequestHead::new(Method::POST, "a", "/s/m");
            head.headers.append(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
            stream.send_head(&head, false);
            stream.send_frame(Frame::Data(vec![b'x'; size].into()));
            stream.finish();
            let mut flushed = false;
            let head = poll_fn(|cx| {
                flushed = flushed || stream.poll_flush(cx).is_ready();
                stream.poll_response(cx)
            }).await.unwrap();
            assert_eq!(head.status, http::StatusCode::OK);
            let mut body = Vec::new();
            let mut status = None;
            while let Some(frame) = poll_fn(|cx| stream.poll_frame(cx)).await.unwrap() {
                match frame {
                    Frame::Data(data) => body.extend_from_slice(&data),
                    Frame::Trailers(trailers) => status = trailers.get_str("grpc-status").map(str::to_owned),
                }
            }
            assert_eq!((String::from_utf8(body).unwrap(), status.as_deref()), (size.to_string(), Some("0")));
        }
    };
    // More than a window, and several at once.
    let several = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::join!(exchange(3), exchange(2_000_000), exchange(0), exchange(70_000))
    });
    several.await.unwrap();
    drop(running.configurator);
}
}

local_test! {
async fn a_tcp_proxy_relays_and_passes_half_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream.write_all(format!("got {all}").as_bytes()).await.unwrap();
    });
    let listener = r#"
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}
"#;
    let running = start_listener(listener, &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "got hello");
}
}

local_test! {
async fn bodies_stream_without_waiting_for_their_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"first\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            seen.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await.unwrap();
        let mut rest = [0; 5];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"0\r\n\r\n");
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"5\r\nhello\r\n") {
        let mut byte = [0];
        tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut byte)).await.unwrap().unwrap();
        seen.push(byte[0]);
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    let mut rest = [0; 5];
    tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut rest)).await.unwrap().unwrap();
    assert_eq!(&rest, b"0\r\n\r\n");
}
}

/// An idle connection costs its future; what is rare, and the exchange, is boxed out of it. It grows silently, by values kept
/// across an `await` and by futures of rare branches that are not boxed.
#[test]
fn the_future_of_a_connection_stays_small() {
    fn size<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(crate::chain::serve);
    assert!(bytes <= 1024, "{bytes}");
}

local_test! {
async fn filters_see_a_request_that_no_route_takes() {
    let rbac = r#"http_filters:
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {action: DENY, policies: {p: {permissions: [{header: {name: x-bad, present_match: true}}], principals: [{any: true}]}}}"#;
    let listener = LISTENER.replace("http_filters:", rbac).replace("ROUTES", "{match: {prefix: /there}, route: {cluster: c}}");
    let running = start_listener(&listener, &cluster("c", &[1], "")).await;
    let mut client = connect(&running).await;
    assert!(ask(&mut client, GET).await.starts_with("HTTP/1.1 404 "));
    let answer = ask(&mut client, "GET /x HTTP/1.1\r\nHost: a\r\nx-bad: 1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("RBAC: access denied"), "{answer}");
}
}

local_test! {
async fn an_answer_before_the_requests_end_closes_the_connection() {
    let running = start("{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hi}}}", "").await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, GET).await;
    assert!(!answer.contains("connection: close"), "{answer}");
    let answer = ask(&mut client, "POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: 9\r\n\r\n").await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hi"), "{answer}");
}
}

local_test! {
async fn a_json_local_reply_ends_with_a_line_end_and_an_empty_text_is_empty() {
    let listener = LISTENER.replace("ROUTES", "{match: {prefix: /there}, route: {cluster: c}}").replace(
        "drain_timeout: 0.3s",
        "local_reply_config: {body_format: {json_format: {text: '%LOCAL_REPLY_BODY%', none: '%REQ(x-none)%'}}}",
    );
    let running = start_listener(&listener, &cluster("c", &[1], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.ends_with("\r\n\r\n{\"none\":null,\"text\":\"\"}\n"), "{answer}");
}
}

local_test! {
async fn what_tls_said_of_a_failed_connection_is_not_told_to_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"this is no TLS record at all").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let tls = r#"transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}},"#;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], tls)).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.ends_with("reset reason: remote connection failure"), "{answer}");
}
}

local_test! {
async fn a_reply_in_a_hosts_stead_says_how_often_was_tried() {
    let listener = LISTENER.replace("include_request_attempt_count", "include_attempt_count_in_response");
    let listener = listener.replace("ROUTES", "{match: {prefix: /}, route: {cluster: c}}");
    let running = start_listener(&listener, &cluster("c", &[], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-envoy-attempt-count: 1\r\n"), "{answer}");
}
}

local_test! {
async fn a_refused_connection_is_a_reset_before_the_request() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let retry = "retry_policy: {retry_on: reset-before-request, num_retries: 2, retry_back_off: {base_interval: 0.001s}}";
    let running =
        start(&format!("{{match: {{prefix: /}}, route: {{cluster: c, {retry}}}}}"), &cluster("c", &[port], "")).await;
    let answer = ask(&mut connect(&running).await, GET).await;
    assert!(answer.contains("retried and the latest reset reason: remote connection failure"), "{answer}");
}
}
