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
