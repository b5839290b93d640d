use std::sync::Arc;

use meltemi_plan::ClusterKind;
use meltemi_telemetry::Registry;
use tokio::net::TcpListener;

use super::*;
use crate::testing;

async fn cluster() -> (Arc<Cluster>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut assignment = testing::hosts(&[1]);
    assignment.localities[0].endpoints[0].address = meltemi_plan::Address::Socket(listener.local_addr().unwrap());
    let plan = testing::plan(ClusterKind::Static, testing::round_robin(), Some(assignment));
    (Cluster::new(Arc::new(plan), vec![Transport::Plain], &Registry::new(), None), listener)
}

fn post(http2: bool) -> Post<'static> {
    Post { authority: "collector", path: "/p", content_type: "application/json", headers: &[("x-a", "1")], http2 }
}

#[tokio::test]
async fn http1() {
    let (cluster, listener) = cluster().await;
    let server = tokio::spawn(async move {
        for status in ["202 Accepted", "500 No"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = bytes::BytesMut::new();
            while !read.ends_with(b"[1]") {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
            }
            let text = String::from_utf8_lossy(&read).into_owned();
            assert!(text.starts_with("POST /p HTTP/1.1\r\nhost: collector\r\n"), "{text}");
            assert!(text.contains("content-length: 3\r\n") && text.contains("x-a: 1\r\n"), "{text}");
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    cluster.post(post(false), Bytes::from_static(b"[1]")).await.unwrap();
    let refused = cluster.post(post(false), Bytes::from_static(b"[1]")).await.unwrap_err();
    assert_eq!(refused.to_string(), "status 500");
    server.await.unwrap();
}

#[tokio::test]
async fn grpc() {
    let (cluster, listener) = cluster().await;
    let server = tokio::spawn(async move {
        for status in ["0", "14"] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!((request.uri().path(), &request.headers()["te"]), ("/p", &"trailers".parse().unwrap()));
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            send.send_trailers(trailers).unwrap();
            drop((request, respond, send));
            while connection.accept().await.is_some_and(|r| r.is_ok()) {}
        }
    });
    cluster.post(post(true), Bytes::from_static(b"\0\0\0\0\0")).await.unwrap();
    let refused = cluster.post(post(true), Bytes::from_static(b"\0\0\0\0\0")).await.unwrap_err();
    assert_eq!(refused.to_string(), "grpc-status 14");
    server.await.unwrap();
}
