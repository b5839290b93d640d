//! The samples' application as Kubernetes meets it: probed by gRPC's health service, and told to end while it is still asked.

use crate::support::{DEADLINE, Process, exchange, free_address, meltemi, read_answer};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const ALIVE: &[u8] = b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n";
/// What ends at once has ended long before.
const AT_ONCE: Duration = Duration::from_secs(5);

fn echo(dir: &Path, linger: &str) -> (Process, SocketAddr) {
    let address = free_address();
    let mut command = meltemi();
    command.args(["echo", "--http", &address.port().to_string(), "--address", "127.0.0.1", "--linger", linger]);
    let mut process = Process::start("echo", command.args(["--service", "reviews"]), dir);
    process.wait_listening(address);
    (process, address)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("in time") })
}

/// An HTTP/2 connection, and the task that ends with it.
async fn http2(address: SocketAddr) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let (client, connection) = h2::client::handshake(stream).await.expect("handshake");
    (client, tokio::spawn(connection))
}

async fn status(client: &mut SendRequest<Bytes>) -> u16 {
    let request = http::Request::get("http://echo/").body(()).expect("a request");
    let (response, _) = client.send_request(request, true).expect("sent");
    response.await.expect("a response").status().as_u16()
}

/// A call of the health service about `service`; its answer's body.
async fn call(client: &mut SendRequest<Bytes>, method: &str, service: &str) -> h2::RecvStream {
    let uri = format!("http://echo/grpc.health.v1.Health/{method}");
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let (response, mut body) = client.send_request(request.body(()).expect("a request"), false).expect("sent");
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend_from_slice(&[0x0A, service.len() as u8]);
        message.extend_from_slice(service.as_bytes());
    }
    let framed = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
    body.send_data(framed.into(), true).expect("sent");
    response.await.expect("a response").into_body()
}

/// The status in the next `HealthCheckResponse`; none if the answer ends before.
async fn health(body: &mut h2::RecvStream) -> Option<u8> {
    const LENGTH: usize = 7;
    let mut message = BytesMut::new();
    while message.len() < LENGTH {
        let Some(data) = body.data().await else {
            assert!(message.is_empty(), "{message:?}");
            return None;
        };
        message.extend_from_slice(&data.expect("data"));
    }
    assert_eq!(message[..LENGTH - 1], [0, 0, 0, 0, 2, 0x08]);
    Some(message[LENGTH - 1])
}

/// `Check`: the answer if there is one, and gRPC's status.
async fn checked(client: &mut SendRequest<Bytes>, service: &str) -> (Option<u8>, String) {
    let mut body = call(client, "Check", service).await;
    let answer = health(&mut body).await;
    let trailers = body.trailers().await.expect("trailers").expect("trailers");
    (answer, trailers["grpc-status"].to_str().expect("text").to_owned())
}

#[test]
fn health_is_told_as_probes_and_grpc_clients_ask_for_it() {
    const SERVING: u8 = 1;
    const NOT_SERVING: u8 = 2;
    const SERVICE_UNKNOWN: u8 = 3;
    let dir = tempfile::tempdir().expect("folder");
    let (mut process, address) = echo(dir.path(), "60s");
    run(async {
        let (mut client, _connection) = http2(address).await;
        for service in ["", "reviews", "shop.Reviews"] {
            assert_eq!(checked(&mut client, service).await, (Some(SERVING), "0".to_owned()), "{service:?}");
        }
        assert_eq!(checked(&mut client, "catalog").await, (None, "5".to_owned()));
        let (mut all, mut other) = (call(&mut client, "Watch", "").await, call(&mut client, "Watch", "catalog").await);
        assert_eq!((health(&mut all).await, health(&mut other).await), (Some(SERVING), Some(SERVICE_UNKNOWN)));
        process.signal("TERM");
        assert_eq!(health(&mut all).await, Some(NOT_SERVING), "who watches hears of the end before it comes");
        let (mut late, _connection) = http2(address).await;
        assert_eq!(checked(&mut late, "reviews").await, (Some(NOT_SERVING), "0".to_owned()));
    });
    process.signal("INT");
    assert_eq!(process.wait(AT_ONCE).code(), Some(0), "{}", process.output());
}

#[test]
fn what_is_told_to_end_serves_on_and_sends_its_clients_elsewhere() {
    let dir = tempfile::tempdir().expect("folder");
    let (mut process, address) = echo(dir.path(), "60s");
    let mut kept = BufReader::new(TcpStream::connect(address).expect("connect"));
    kept.get_ref().set_read_timeout(Some(DEADLINE)).expect("timeout");
    let mut ask = || {
        kept.get_mut().write_all(ALIVE).expect("written");
        read_answer(&mut kept, false).expect("an answer")
    };
    let before = ask();
    assert_eq!((before.status, before.header("connection")), (200, None));
    run(async {
        let (mut early, connection) = http2(address).await;
        assert_eq!(status(&mut early).await, 200);
        process.signal("TERM");
        // Told without asking again.
        connection.await.expect("no panic").expect("an orderly end");
        let (mut late, connection) = http2(address).await;
        assert_eq!(status(&mut late).await, 200, "a connection that comes late has a request");
        connection.await.expect("no panic").expect("an orderly end");
    });
    let last = ask();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(kept.read(&mut [0]).expect("an orderly end"), 0);
    let late = exchange(address, ALIVE).expect("an answer");
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));
    process.signal("TERM");
    assert_eq!(process.wait(AT_ONCE).code(), Some(0), "a second signal ends it: {}", process.output());
}

#[test]
fn the_end_comes_after_the_linger_and_at_once_by_sigint() {
    const LINGER: Duration = Duration::from_millis(700);
    let dir = tempfile::tempdir().expect("folder");
    let (mut process, _) = echo(dir.path(), "700ms");
    let told = Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait(LINGER + AT_ONCE).code(), Some(0), "{}", process.output());
    assert!(told.elapsed() >= LINGER, "{:?}", told.elapsed());
    for (linger, signal) in [("60s", "INT"), ("0", "TERM")] {
        let (mut process, _) = echo(dir.path(), linger);
        process.signal(signal);
        assert_eq!(process.wait(AT_ONCE).code(), Some(0), "{}", process.output());
    }
}
