//! Our side against quinn's client and streams written byte by byte.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::{Ipv4Addr, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use meltemi_net::sniff::ClientHello;
use quinn::{ConnectionError, ReadError};
use tokio::{runtime::LocalOptions, task::spawn_local};

use super::*;
use crate::{Error, Frame, Headers, RequestHead, ResetReason, ResponseHead};

/// Everything here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") })
}

struct Only(Arc<rustls::ServerConfig>);

impl Choose for Only {
    fn choose(&self, hello: &ClientHello) -> Option<Choice> {
        (hello.server_name.as_deref() == Some("a.test")).then(|| Choice { config: self.0.clone(), index: Some(7) })
    }
}

/// What the server saw of its requests: heads, bodies, how they ended.
#[derive(Clone, Default)]
struct Seen(Rc<(RefCell<Vec<String>>, tokio::sync::Notify)>);

impl Seen {
    fn push(&self, text: impl Into<String>) {
        self.0.0.borrow_mut().push(text.into());
        self.0.1.notify_one();
    }

    /// All of it, once there is so much.
    async fn at_least(&self, count: usize) -> Vec<String> {
        while self.0.0.borrow().len() < count {
            self.0.1.notified().await;
        }
        self.0.0.borrow().clone()
    }
}

struct Peers {
    client: quinn::Connection,
    endpoint: quinn::Endpoint,
    seen: Seen,
    /// Tells the server's task to begin to leave, and then to refuse.
    leave: Rc<tokio::sync::Notify>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn configs() -> (Arc<rustls::ServerConfig>, quinn::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h3".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
    (Arc::new(server), quinn::ClientConfig::new(Arc::new(crypto)))
}

fn options() -> Options {
    Options { max_header_bytes: 1000, max_fields: 10, ..Options::default() }
}

async fn connect(name: &str) -> Result<Peers, ConnectionError> {
    let (server, client) = configs();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = Endpoint::new(socket, server.clone()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let (seen, leave) = (Seen::default(), Rc::new(tokio::sync::Notify::new()));
    spawn_local(serve(endpoint, Arc::new(Only(server)), seen.clone(), Rc::clone(&leave)));
    let mut own = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    own.set_default_client_config(client);
    let client = own.connect(address, name).unwrap().await?;
    Ok(Peers { client, endpoint: own, seen, leave })
}

async fn serve(endpoint: Endpoint, choose: Arc<dyn Choose>, seen: Seen, leave: Rc<tokio::sync::Notify>) {
    while let Some(arrival) = endpoint.accept().await {
        let Ok(established) = arrival.handshake(choose.clone(), &options()).await else { continue };
        assert_eq!(
            (established.handshake.index, established.handshake.server_name.as_deref()),
            (Some(7), Some("a.test"))
        );
        assert_eq!(established.handshake.alpn.as_deref(), Some(&b"h3"[..]));
        assert!(established.handshake.cipher.is_some() && established.handshake.certificates.is_none());
        let connection = ServerConnection::start(established, &options()).await.unwrap();
        drive(connection, &seen, &leave).await;
    }
}

async fn drive(mut connection: ServerConnection, seen: &Seen, leave: &tokio::sync::Notify) {
    let mut left = 0;
    loop {
        let pending = tokio::select! {
            pending = poll_fn(|cx| connection.poll_accept(cx)) => pending,
            () = leave.notified() => {
                left += 1;
                if left == 1 { connection.announce_drain() } else { connection.refuse_further() }
                continue;
            }
        };
        let Some(pending) = pending else { return };
        let seen = seen.clone();
        spawn_local(async move {
            match pending.head().await {
                Ok((head, stream)) => answer(head, stream, &seen).await,
                Err(refusal) => seen.push(format!("{refusal:?}")),
            }
        });
    }
}

/// Answers with what came; `/tell` says at once that it came, `/wait` waits for the client to give up, `/large` sends a mebibyte, `/abort` breaks off.
async fn answer(head: RequestHead, mut stream: ServerStream, seen: &Seen) {
    let path = head.path.as_str().to_owned();
    if path == "/wait" {
        poll_fn(|cx| stream.poll_closed(cx)).await;
        return seen.push("gone");
    }
    if path == "/tell" {
        seen.push("begun");
    }
    let mut text = format!("{} {path} {}", head.method, stream.request_ended());
    loop {
        match poll_fn(|cx| stream.poll_frame(cx)).await {
            Ok(Some(Frame::Data(data))) => text += &format!(" {}", data.len()),
            Ok(Some(Frame::Trailers(trailers))) => text += &format!(" {trailers:?}"),
            Ok(None) => break,
            Err(error) => return seen.push(error.to_string()),
        }
    }
    seen.push(text);
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers.append(http::header::SERVER, HeaderValue::from_static("s"));
    stream.send_head(&response, false);
    let pieces = if path == "/large" { 64 } else { 1 };
    for _ in 0..pieces {
        poll_fn(|cx| stream.poll_ready(cx)).await.unwrap();
        stream.send_frame(Frame::Data(Bytes::from(vec![b'x'; 16 * 1024])));
    }
    if path == "/abort" {
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        return stream.abort();
    }
    let trailers = [(crate::name::GRPC_STATUS, HeaderValue::from_static("0"))].into_iter().collect::<Headers>();
    stream.send_frame(Frame::Trailers(trailers));
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    poll_fn(|cx| stream.poll_delivered(cx)).await;
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_header(&mut out, kind, payload.len());
    out.put_slice(payload);
    out.to_vec()
}

/// A head: `method` and `path` are literals with names by index, `more` are whole field lines.
fn head(method: &str, path: &str, more: &[u8]) -> Vec<u8> {
    let mut section = vec![0, 0, 0xc0 | 23, 0x50, 1, b'a'];
    for (index, value) in [(0x5f_u8, method), (0x51, path)] {
        section.push(index);
        if index == 0x5f {
            // `:method` is at 15: beyond the prefix of four bits.
            section.push(0);
        }
        section.push(value.len() as u8);
        section.extend_from_slice(value.as_bytes());
    }
    section.extend_from_slice(more);
    frame(frame::HEADERS, &section)
}

fn line(name: &str, value: &str) -> Vec<u8> {
    let mut out = match name.len().checked_sub(7) {
        Some(more) => vec![0x27, more as u8],
        None => vec![0x20 | name.len() as u8],
    };
    out.extend_from_slice(name.as_bytes());
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
    out
}

/// What became of a request whose stream is these bytes and then ends.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Bytes of the response.
    Answered(usize),
    Reset(u64),
    Closed(u64),
}

fn closed(error: &ConnectionError) -> Outcome {
    match error {
        ConnectionError::ApplicationClosed(close) => Outcome::Closed(close.error_code.into_inner()),
        other => panic!("{other}"),
    }
}

async fn ask(client: &quinn::Connection, bytes: &[u8]) -> (Outcome, Vec<u8>) {
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    // Errors show in what comes back.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    let mut answer = Vec::new();
    loop {
        match recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => answer.extend_from_slice(&chunk.bytes),
            Ok(None) => return (Outcome::Answered(answer.len()), answer),
            Err(ReadError::Reset(code)) => return (Outcome::Reset(code.into_inner()), answer),
            Err(ReadError::ConnectionLost(error)) => return (closed(&error), answer),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_request_is_answered_with_head_body_and_trailers() {
    local(async {
        let peers = connect("a.test").await.unwrap();
        let (outcome, answer) = ask(&peers.client, &head("GET", "/", &[])).await;
        assert!(matches!(outcome, Outcome::Answered(16_384..)), "{outcome:?}");
        // `:status: 200` by its index, `server` by name.
        assert_eq!(answer[..9], [1, 7, 0, 0, 0xc0 | 25, 0x5f, 77, 1, b's'], "{:?}", &answer[..9]);
        let body = [&head("POST", "/b", &line("content-length", "3"))[..], &frame(0x21, b"unknown"), &frame(0, b"ab")];
        let more = [&frame(0, b"c")[..], &frame(frame::HEADERS, &[&[0, 0], &line("x-end", "1")[..]].concat())];
        ask(&peers.client, &[body.concat(), more.concat()].concat()).await;
        let seen = peers.seen.at_least(2).await;
        assert_eq!(seen[0], "GET / true", "a request without a body is known to have none");
        assert!(seen[1].starts_with("POST /b false 2 1 ") && seen[1].contains("x-end"), "{seen:?}");
        let (outcome, answer) = ask(&peers.client, &head("GET", "/large", &[])).await;
        assert!(matches!(outcome, Outcome::Answered(1_048_576..)), "{outcome:?} {}", answer.len());
        let (outcome, _) = ask(&peers.client, &head("GET", "/abort", &[])).await;
        assert_eq!(outcome, Outcome::Reset(0x102));
    });
}

#[test]
fn broken_requests_end_their_stream_or_the_connection() {
    let get = || head("GET", "/", &[]);
    let with = |more: &[u8]| head("GET", "/", more);
    let then = |kind: u64, payload: &[u8]| [get(), frame(kind, payload)].concat();
    let posted =
        |length: &str, body: &[u8]| [head("POST", "/", &line("content-length", length)), frame(0, body)].concat();
    let cases: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("nothing", vec![], Outcome::Reset(0x10d)),
        ("a field of HTTP/1", with(&line("connection", "close")), Outcome::Reset(0x10e)),
        ("a name in capitals", with(&line("X-a", "b")), Outcome::Reset(0x10e)),
        ("te", with(&line("te", "gzip")), Outcome::Reset(0x10e)),
        (
            "a pseudo-header after fields",
            with(&[line("x-a", "b"), line(":path", "/c")].concat()),
            Outcome::Reset(0x10e),
        ),
        ("a path twice", with(&line(":path", "/c")), Outcome::Reset(0x10e)),
        ("less than promised", posted("3", b"ab"), Outcome::Reset(0x10e)),
        ("more than promised", posted("1", b"ab"), Outcome::Reset(0x10e)),
        ("too many fields", with(&line("x-a", "b").repeat(8)), Outcome::Answered(10)),
        ("too many bytes", with(&line("x-a", &"b".repeat(120)).repeat(10)), Outcome::Answered(10)),
        ("a section beyond all limits", frame(frame::HEADERS, &[0; 3000]), Outcome::Answered(10)),
        ("a body before its head", frame(frame::DATA, b"a"), Outcome::Closed(0x105)),
        ("settings", then(frame::SETTINGS, &[]), Outcome::Closed(0x105)),
        ("a frame of HTTP/2", then(0x6, &[0; 8]), Outcome::Closed(0x105)),
        (
            "a body after trailers",
            [get(), frame(frame::HEADERS, &[0, 0]), frame(0, b"a")].concat(),
            Outcome::Closed(0x105),
        ),
        ("half a frame", [get(), vec![0, 5, b'a']].concat(), Outcome::Closed(0x106)),
        ("half a frame's header", [get(), vec![0x40]].concat(), Outcome::Closed(0x106)),
        ("a reference to a dynamic table", frame(frame::HEADERS, &[1, 0, 0x80]), Outcome::Closed(0x200)),
    ];
    for (name, bytes, expected) in cases {
        local(async {
            let peers = connect("a.test").await.unwrap();
            let (outcome, answer) = ask(&peers.client, &bytes).await;
            assert_eq!(outcome, expected, "{name}");
            if let Outcome::Answered(_) = outcome {
                // `:status: 431`, and no more.
                assert_eq!(answer, [1, 8, 0, 0, 0x5f, 9, 3, b'4', b'3', b'1'], "{name}");
            }
        });
    }
}

#[test]
fn a_clients_own_streams_have_rules() {
    let settings = |pairs: &[u8]| [&[0][..], &frame(frame::SETTINGS, pairs)].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>, bool, u64)> = vec![
        ("no settings first", vec![[&[0][..], &frame(frame::GOAWAY, &[0])].concat()], false, 0x10a),
        ("settings twice", vec![[settings(&[]), frame(frame::SETTINGS, &[])].concat()], false, 0x105),
        ("a setting twice", vec![settings(&[0x6, 1, 0x6, 2])], false, 0x109),
        ("a setting of HTTP/2", vec![settings(&[0x4, 1])], false, 0x109),
        ("half a setting", vec![settings(&[0x6])], false, 0x106),
        ("settings without end", vec![[&[0][..], &[4, 0x80, 1, 0, 0]].concat()], false, 0x107),
        ("a body", vec![[settings(&[]), frame(frame::DATA, b"a")].concat()], false, 0x105),
        ("a frame of HTTP/2", vec![[settings(&[]), frame(0x2, b"a")].concat()], false, 0x105),
        ("a push cancelled", vec![[settings(&[]), frame(frame::CANCEL_PUSH, &[0])].concat()], false, 0x108),
        ("a second control stream", vec![settings(&[]), settings(&[])], false, 0x103),
        ("a push", vec![vec![1, 0]], false, 0x103),
        ("an entry for a table that we have not", vec![vec![2, 0xc1, 1, b'a']], false, 0x201),
        ("an acknowledgement of nothing", vec![vec![3, 0x80]], false, 0x202),
        ("a control stream that ends", vec![settings(&[])], true, 0x104),
    ];
    for (name, streams, ends, code) in cases {
        local(async {
            let peers = connect("a.test").await.unwrap();
            let mut open = Vec::new();
            for bytes in streams {
                let mut stream = peers.client.open_uni().await.unwrap();
                // An error means that the connection has been closed, which is asked for below.
                let _ = stream.write_all(&bytes).await;
                if ends {
                    let _ = stream.finish();
                }
                open.push(stream);
            }
            assert_eq!(closed(&peers.client.closed().await), Outcome::Closed(code), "{name}");
        });
    }
}

#[test]
fn what_a_client_may_say_beside_requests_is_passed_over() {
    local(async {
        let peers = connect("a.test").await.unwrap();
        let grease = [
            &[0][..],
            &frame(frame::SETTINGS, &[0x1, 0x40, 0x40, 0x21, 0]),
            &frame(0x21, b"x"),
            &frame(frame::MAX_PUSH_ID, &[5]),
        ];
        let streams = [grease.concat(), vec![2, 0x20], vec![3, 0x40 | 0x3f, 0x81, 1, 0x41]];
        let mut open = Vec::new();
        for bytes in streams {
            let mut stream = peers.client.open_uni().await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            open.push(stream);
        }
        // One of an unknown kind is not read.
        let mut unknown = peers.client.open_uni().await.unwrap();
        unknown.write_all(&[0x21, 1, 2]).await.unwrap();
        assert_eq!(unknown.stopped().await.unwrap().map(|code| code.into_inner()), Some(0x103));
        let (outcome, _) = ask(&peers.client, &head("GET", "/", &[])).await;
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    });
}

#[test]
fn a_client_that_gives_up_is_noticed_whether_or_not_it_has_said_all() {
    local(async {
        let peers = connect("a.test").await.unwrap();
        let (mut send, mut recv) = peers.client.open_bi().await.unwrap();
        send.write_all(&head("GET", "/wait", &[])).await.unwrap();
        send.finish().unwrap();
        while peers.client.stats().frame_tx.stream == 0 {
            tokio::task::yield_now().await;
        }
        recv.stop(quinn::VarInt::from_u32(0x10c)).unwrap();
        assert_eq!(peers.seen.at_least(1).await, ["gone"]);
        // In the middle of its body.
        let (mut send, _recv) = peers.client.open_bi().await.unwrap();
        send.write_all(&[head("POST", "/tell", &[]), frame(0, b"ab")].concat()).await.unwrap();
        peers.seen.at_least(2).await;
        send.reset(quinn::VarInt::from_u32(0x10c)).unwrap();
        assert_eq!(peers.seen.at_least(3).await[2], Error::Reset(ResetReason::Remote).to_string());
    });
}

#[test]
fn a_connection_that_leaves_serves_what_came_and_refuses_the_rest() {
    local(async {
        let peers = connect("a.test").await.unwrap();
        let mut control = peers.client.accept_uni().await.unwrap();
        ask(&peers.client, &head("GET", "/", &[])).await;
        peers.leave.notify_one();
        let mut told = Vec::new();
        while !told.ends_with(&frame(frame::GOAWAY, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc])) {
            told.extend_from_slice(&control.read_chunk(100, true).await.unwrap().unwrap().bytes);
        }
        let (outcome, _) = ask(&peers.client, &head("GET", "/", &[])).await;
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        peers.leave.notify_one();
        while !told.ends_with(&frame(frame::GOAWAY, &[8])) {
            told.extend_from_slice(&control.read_chunk(100, true).await.unwrap().unwrap().bytes);
        }
        let (outcome, _) = ask(&peers.client, &head("GET", "/", &[])).await;
        assert_eq!(outcome, Outcome::Reset(0x10b));
        let (mut send, _recv) = peers.client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        assert_eq!(send.stopped().await.unwrap().map(|code| code.into_inner()), Some(0x10b));
    });
}

#[test]
fn a_client_that_changes_its_address_keeps_its_connection() {
    local(async {
        let peers = connect("a.test").await.unwrap();
        let request = head("POST", "/", &line("content-length", "2"));
        let (mut send, mut recv) = peers.client.open_bi().await.unwrap();
        send.write_all(&[request, frame(0, b"a")].concat()).await.unwrap();
        peers.endpoint.rebind(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        send.write_all(&frame(0, b"b")).await.unwrap();
        send.finish().unwrap();
        assert!(recv.read_to_end(1 << 20).await.unwrap().len() > 16 * 1024);
        let (outcome, _) = ask(&peers.client, &head("GET", "/", &[])).await;
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    });
}

#[test]
fn a_name_that_nobody_serves_fails_the_handshake() {
    local(async {
        let error = connect("b.test").await.map(drop).unwrap_err();
        let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
        // `unrecognized_name`.
        assert_eq!(u64::from(close.error_code), 0x100 + 112);
    });
}
