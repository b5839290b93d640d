use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    held: Arc<Notify>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let held = Arc::new(Notify::new());
    let released = held.clone();
    let routes = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/long", get(|| async { vec![0_u8; 64 << 20] }))
        .route("/held", get(move || async move { released.notified().await }));
    let task = tokio::spawn(serve(listener, routes, |_, peer| peer, async { drop(stopped.await) }));
    Running { address, stop, task, held }
}

/// An answer whose body is shorter than one read.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request).await?;
    let mut answer = vec![0; 4096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time")?;
    answer.truncate(length);
    Ok(String::from_utf8(answer).unwrap())
}

/// How much comes until the connection ends.
async fn rest(stream: &mut TcpStream) -> usize {
    let mut rest = Vec::new();
    // Cut with bytes unread it ends by a reset.
    let _ = stream.read_to_end(&mut rest).await;
    rest.len()
}

#[tokio::test]
async fn pages_know_who_asks_and_connections_are_kept() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    for _ in 0..3 {
        let answer = ask(&mut stream, GET).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&own), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_never_ends_and_a_connection_at_rest_are_given_up() {
    let running = start().await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    ask(&mut idle, GET).await.unwrap();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    rest(&mut slow).await;
    rest(&mut idle).await;
    assert!(begun.elapsed() <= HEAD + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    ask(&mut stream, b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap_or_default();
    tokio::time::pause();
    tokio::time::sleep(LIFE + LAST_ANSWER + Duration::from_secs(1)).await;
    assert!(rest(&mut stream).await < 32 << 20, "it was cut");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_others_end() {
    let running = start().await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(TcpStream::connect(running.address).await.unwrap());
    }
    // All before it are accepted once the last answers.
    ask(open.last_mut().unwrap(), GET).await.unwrap();
    let mut more = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(timeout(PATIENCE, rest(&mut more)).await, Ok(0));
    open.remove(0);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            if ask(&mut stream, GET).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("a place is free again");
}

#[tokio::test]
async fn what_is_under_way_is_answered_at_the_end() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let asked = tokio::spawn(async move { ask(&mut stream, b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await });
    // Whoever has no request is let go; whoever has one is waited for.
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    ask(&mut idle, GET).await.unwrap();
    running.stop.send(()).unwrap();
    timeout(PATIENCE, rest(&mut idle)).await.expect("it ends");
    running.held.notify_one();
    let answer = asked.await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    timeout(PATIENCE, running.task).await.expect("in time").unwrap();
}
