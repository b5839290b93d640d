//! Tunnels that a TCP proxy opens.

use super::*;

const OPENER: &str = r#"
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          max_connect_attempts: 2
          tunneling_config: TUNNEL
"#;

async fn opener(tunnel: &str, port: u16) -> Running {
    start_listener(&OPENER.replace("TUNNEL", tunnel), &cluster("c", &[port], "")).await
}

/// Sends, closes its side, and reads to the end.
async fn talk(running: &Running, sent: &[u8]) -> Vec<u8> {
    let mut client = connect(running).await;
    client.write_all(sent).await.unwrap();
    let _ = client.shutdown().await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut got)).await.unwrap();
    got
}

local_test! {
async fn a_connection_travels_in_a_tunnel_until_both_sides_have_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let request = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_message(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nfirst ").await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&[b"echo ", &all[..]].concat()).await.unwrap();
        request
    });
    let running = opener(
        "{hostname: \"far.example:%DOWNSTREAM_LOCAL_PORT%\", headers_to_add: [{header: {key: x-from, value: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}}]}",
        port,
    )
    .await;
    assert_eq!(talk(&running, b"ping").await, b"first echo ping");
    let (request, port) = (request.await.unwrap(), running.port);
    assert_eq!(request, format!("CONNECT far.example:{port} HTTP/1.1\r\nhost: far.example:{port}\r\nx-from: 127.0.0.1\r\n\r\n"));
    assert_eq!(running.counted("upstream_rq_total"), 1);
    assert_eq!(running.counted("upstream_cx_total"), 1);
    assert_eq!(running.counted("upstream_cx_tx_bytes_total"), 4);
}
}

local_test! {
async fn a_tunnel_by_post_is_a_body_each_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in ["one", "two"] {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // Before any of the body: the client is not read until then.
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(format!("3\r\n{answer}\r\n0\r\n\r\n").as_bytes()).await.unwrap();
            requests.push(String::from_utf8(request).unwrap());
        }
        requests
    });
    let running = opener("{hostname: far.example, use_post: true, post_path: /in}", port).await;
    assert_eq!(talk(&running, b"ping").await, b"one");
    // On the same connection.
    assert_eq!(talk(&running, b"pong").await, b"two");
    let requests = requests.await.unwrap();
    assert_eq!(requests[0], "POST /in HTTP/1.1\r\nhost: far.example\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n0\r\n\r\n");
}
}

local_test! {
async fn a_refused_tunnel_is_asked_for_as_often_as_the_proxy_may_and_its_client_is_reset() {
    let (port, seen) = host(|_| status(403)).await;
    let running = opener("{hostname: far.example}", port).await;
    assert_eq!(talk(&running, b"unheard").await, b"");
    let requests = seen.requests.borrow();
    assert_eq!(requests.len(), 2);
    assert!(!requests[0].contains("unheard"), "{requests:?}");
    assert_eq!(running.counted("upstream_cx_connect_attempts_exceeded"), 1);
    assert_eq!(running.counted("upstream_rq_active"), 0);
}
}
