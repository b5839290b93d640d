//! PROXY protocol upstream.

use super::*;

const SOCKET: &str = "transport_socket: {name: p, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
     config: {version: VERSION}, transport_socket: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}},";

/// A host that answers requests with the header of their connection, and how many it has read.
async fn host() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut header = vec![stream.read_u8().await.unwrap()];
                // A line of version 1, or version 2 with addresses of IPv4.
                let is_whole = |header: &[u8]| match header[0] {
                    b'P' => header.ends_with(b"\r\n"),
                    _ => header.len() == 28,
                };
                while !is_whole(&header) {
                    header.push(stream.read_u8().await.unwrap());
                }
                let mut served = 0;
                while read_message(&mut stream).await.is_some() {
                    served += 1;
                    let body = format!("{served} {}", header.escape_ascii());
                    stream.write_all(ok(&body).unwrap().as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

local_test! {
async fn connections_begin_with_their_clients_addresses_and_are_not_shared_between_clients() {
    let extra = SOCKET.replace("VERSION", "V1");
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[host().await], &extra)).await;
    let (mut one, mut two) = (connect(&running).await, connect(&running).await);
    let expected = |client: &TcpStream, served: u32| {
        let from = client.local_addr().unwrap().port();
        format!("{served} PROXY TCP4 127.0.0.1 127.0.0.1 {from} {}\\r\\n", running.port)
    };
    for served in 1..=2 {
        for client in [&mut one, &mut two] {
            let answer = ask(client, GET).await;
            assert_eq!(body(&answer), expected(client, served));
        }
    }
}
}

local_test! {
async fn a_tcp_proxy_says_whose_connection_it_is() {
    let extra = SOCKET.replace("VERSION", "V2");
    let listener = LISTENER.replace("ROUTES", "{match: {prefix: /}, route: {cluster: c}}");
    let tcp = "
    - filters:
      - name: t
        typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}
";
    let start_of_chains = listener.find("    - filters:").unwrap();
    let listener = format!("{}{}", &listener[..start_of_chains], tcp.trim_start_matches('\n'));
    let running = start_listener(&listener, &cluster("c", &[host().await], &extra)).await;
    let mut client = connect(&running).await;
    let from = client.local_addr().unwrap().port();
    let answer = ask(&mut client, GET).await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    header.extend_from_slice(&from.to_be_bytes());
    header.extend_from_slice(&running.port.to_be_bytes());
    assert_eq!(body(&answer), format!("1 {}", header.escape_ascii()));
}
}
