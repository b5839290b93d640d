//! WebSockets and CONNECT.

use super::*;

local_test! {
async fn a_refused_upgrade_closes_the_connection() {
    let (port, _seen) = host(|_| status(403)).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let upgrade = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = ask(&mut connect(&running).await, upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
}
}

local_test! {
async fn an_upgrade_of_http1_has_no_body() {
    let (port, seen) = host(|_| status(200)).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let smuggled = "GET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    for body in [
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
    ] {
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{body}");
        let answer = ask(&mut connect(&running).await, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    assert!(seen.requests.borrow().is_empty(), "{:?}", seen.requests.borrow());
}
}

local_test! {
/// CVE-2026-73548 and CVE-2025-64763: a host that refuses the upgrade would answer them as a request of their own.
async fn bytes_before_the_answer_to_an_upgrade_never_come_to_a_host_that_refuses() {
    use meltemi_http::{ByteStr, Frame, Method, RequestHead, pool};
    use std::future::poll_fn;
    let (port, seen) = host(|n| status(if n == 0 { 403 } else { 200 })).await;
    let connect_protocol = "upgrade_configs: [{upgrade_type: websocket}]\n          http2_protocol_options: {allow_connect: true}";
    let listener = LISTENER.replace("upgrade_configs: [{upgrade_type: websocket}]", connect_protocol);
    let routes = "{match: {prefix: /}, route: {cluster: c}}";
    let running = start_listener(&listener.replace("ROUTES", routes), &cluster("c", &[port], "")).await;
    let proxy = running.port;
    let pools = pool::Pools::new();
    let pool = pools.pool(pool::Key { endpoint: 1, transport: 0, mode: pool::Mode::Http2 }, Default::default);
    let opening = async move {
        let stream = TcpStream::connect(("127.0.0.1", proxy)).await.unwrap().into();
        Ok(pool::Connected { stream, guard: Box::new(()), note: None })
    };
    let mut stream = pool.open(opening).await.unwrap().unwrap();
    let mut head = RequestHead::new(Method::GET, "a", "/x");
    head.upgrade = Some(ByteStr::from("websocket"));
    stream.send_head(&head, false);
    stream.send_frame(Frame::Data("GET /admin HTTP/1.1\r\nhost: a\r\n\r\n".into()));
    let answer = poll_fn(|cx| {
        let _ = stream.poll_flush(cx);
        stream.poll_response(cx)
    });
    assert_eq!(answer.await.unwrap().status, http::StatusCode::FORBIDDEN);
    ask(&mut self::connect(&running).await, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let requests = seen.requests.borrow();
    assert!(requests[0].starts_with("GET /x ") && requests[0].contains("upgrade: websocket"), "{requests:?}");
    assert!(requests.len() == 2 && requests[1].starts_with("GET /next "), "{requests:?}");
}
}

local_test! {
/// CVE-2024-23326.
async fn an_ok_to_an_upgrade_opens_no_tunnel() {
    let (port, seen) = host(|_| status(200)).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let upgrade = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = ask(&mut client, upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    let _ = client.write_all(b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n").await;
    ask(&mut connect(&running).await, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let requests = seen.requests.borrow();
    assert!(requests.len() == 2 && requests[1].starts_with("GET /next "), "{requests:?}");
}
}

local_test! {
async fn a_websocket_becomes_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_message(&mut stream).await.unwrap();
        assert!(request.contains("upgrade: websocket\r\n"), "{request}");
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await.unwrap();
        stream.write_all(&[b"echo ", &buffer[..]].concat()).await.unwrap();
    });
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    let answer = ask(&mut client, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    client.write_all(b"ping").await.unwrap();
    let mut echoed = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut echoed)).await.unwrap().unwrap();
    assert_eq!(echoed, b"echo ping");
}
}

local_test! {
async fn a_websocket_that_is_sent_elsewhere_hears_where() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a=b\r\ncontent-length: 5\r\n\r\nhello";
    let (port, _) = host(move |_| Some(answer.to_owned())).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let answer = ask(&mut connect(&running).await, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 302 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    for part in ["location: /login\r\n", "set-cookie: a=b\r\n", "content-length: 0\r\n"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
}
}

local_test! {
async fn a_client_that_leaves_a_websocket_takes_the_host_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_message(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        // It does not close of itself: the proxy has to.
        (stream, rest)
    });
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut client = connect(&running).await;
    ask(&mut client, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let (_stream, rest) = host.await.unwrap();
    assert_eq!(rest, b"last");
    let mut end = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut end)).await.unwrap().unwrap();
    assert!(end.is_empty());
}
}

local_test! {
async fn tunnels_that_end_here_count_as_connections_and_have_their_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let route = "{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}";
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1}]},";
    let text = LISTENER.replace("upgrade_type: websocket", "upgrade_type: CONNECT").replace("ROUTES", route);
    let running = start_listener(&text, &cluster("c", &[port], limits)).await;
    let connect_request = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n";
    let mut first = connect(&running).await;
    assert!(ask(&mut first, connect_request).await.starts_with("HTTP/1.1 200 "));
    let _host = listener.accept().await.unwrap();
    let answer = ask(&mut connect(&running).await, connect_request).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-envoy-overloaded: true"), "{answer}");
    let counters = ["upstream_cx_total", "upstream_cx_active", "upstream_rq_total", "upstream_cx_overflow"];
    assert_eq!(counters.map(|name| running.counted(name)), [1, 1, 1, 1]);
}
}
