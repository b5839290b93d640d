//! The samples' application as Kubernetes meets it: told to end while it is still asked.

use crate::support::{DEADLINE, Process, exchange, free_address, meltemi, read_answer};
use bytes::Bytes;
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
