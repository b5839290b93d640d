//! Both sides against each other, against raw frames, and against the `h2` crate.

mod attacks;
mod exchange;
mod foreign;
mod rules;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use meltemi_net::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{LocalSet, spawn_local},
};

use super::{
    frame::{self, Header, PREFACE, flag, kind},
    hpack::{Decoder, Encoder, Field, static_name},
    *,
};
use crate::{Error, Frame, Headers, Protocol, RequestHead, ResponseHead, pool::ConnectionFacts};

/// Runs a test with local tasks; one that hangs fails.
fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, limited);
}

/// The other end, frame by frame.
struct Raw {
    stream: Stream,
    read: BytesMut,
    encoder: Encoder,
    decoder: Decoder,
}

type Bit = (Header, Bytes);

impl Raw {
    fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), encoder: Encoder::new(), decoder: Decoder::new(4096) }
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        // A peer that has closed is noticed by reading.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut out = BytesMut::new();
        frame::put_header(&mut out, payload.len(), (kind, flags), stream);
        out.extend_from_slice(payload);
        self.bytes(&out).await;
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for (name, value) in fields {
            self.encoder.field(&mut out, static_name(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        out.to_vec()
    }

    /// HEADERS with `fields`.
    async fn headers(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) {
        let block = self.block(fields);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.send(kind::HEADERS, flags, stream, &block).await;
    }

    /// The next frame; `None` when the peer has closed.
    async fn frame(&mut self) -> Option<Bit> {
        loop {
            if let Some(bytes) = self.read.first_chunk() {
                let header = Header::parse(bytes);
                if self.read.len() >= frame::HEADER + header.length {
                    self.read.advance(frame::HEADER);
                    return Some((header, self.read.split_to(header.length).freeze()));
                }
            }
            if !matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The first frame of a kind, whatever comes before it.
    async fn next(&mut self, kind: u8) -> Bit {
        loop {
            let bit = self.frame().await.unwrap_or_else(|| panic!("closed before a frame of kind {kind}"));
            if bit.0.kind == kind {
                return bit;
            }
        }
    }

    /// How the peer took what was sent: `goaway CODE`, `reset ID CODE`, or `closed`.
    async fn verdict(&mut self) -> String {
        loop {
            let Some((header, payload)) = self.frame().await else { return "closed".to_owned() };
            match header.kind {
                kind::GOAWAY => return format!("goaway {}", Reason(frame::u32_at(&payload, 4))),
                kind::RST_STREAM => return format!("reset {} {}", header.stream, Reason(frame::u32_at(&payload, 0))),
                _ => {}
            }
        }
    }

    fn decode(&mut self, block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        let decoded = self.decoder.decode(block, |field, _| {
            fields.push(field);
            true
        });
        decoded.unwrap();
        fields
    }

    async fn ping(&mut self) {
        self.send(kind::PING, 0, 0, b"are you?").await;
        while self.next(kind::PING).await.0.flags != flag::ACK {}
    }
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// What the echo server was asked.
type Seen = Rc<RefCell<Vec<RequestHead>>>;

/// Answers with the request's body, and its trailers if it had any.
async fn echo(accepted: Accepted) -> Result<(), Error> {
    let Accepted { head, mut stream } = accepted;
    let mut answer = ResponseHead::new(StatusCode::OK);
    answer.headers = head.headers;
    answer.headers.remove(&http::header::CONTENT_LENGTH);
    stream.send_head(&answer, false);
    while let Some(frame) = poll_fn(|cx| stream.poll_frame(cx)).await? {
        stream.send_frame(frame);
        poll_fn(|cx| stream.poll_ready(cx)).await?;
    }
    stream.finish();
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// Serves `stream` until its end, which is returned.
async fn serve(stream: Stream, options: Options, seen: Seen) -> Result<(), Error> {
    let mut connection = ServerConnection::handshake(stream, &options).await?;
    while let Some(accepted) = poll_fn(|cx| connection.poll_accept(cx)).await? {
        seen.borrow_mut().push(accepted.head.clone());
        spawn_local(async move {
            let _ = echo(accepted).await;
        });
    }
    Ok(())
}

/// A raw client of the echo server, with settings exchanged.
async fn raw_client(options: Options) -> (Raw, Seen) {
    let (near, far) = Stream::pair(64 * 1024);
    let seen = Seen::default();
    spawn_local(serve(far, options, Rc::clone(&seen)));
    let mut raw = Raw::new(near);
    raw.bytes(PREFACE).await;
    raw.send(kind::SETTINGS, 0, 0, &[]).await;
    while raw.next(kind::SETTINGS).await.0.flags != flag::ACK {}
    (raw, seen)
}

fn facts(stream: &Stream) -> Rc<ConnectionFacts> {
    Rc::new(ConnectionFacts::new(stream, Protocol::Http2, None))
}

async fn connect(stream: Stream, options: &Options) -> Rc<ClientConnection> {
    let facts = facts(&stream);
    let (connection, mut driver) = handshake(stream, options, facts).await.unwrap();
    spawn_local(async move { poll_fn(|cx| driver.poll(cx)).await });
    Rc::new(connection)
}

/// Our client and the echo server.
async fn pair(client: Options, server: Options) -> (Rc<ClientConnection>, Seen) {
    let (near, far) = Stream::pair(64 * 1024);
    let seen = Seen::default();
    spawn_local(serve(far, server, Rc::clone(&seen)));
    (connect(near, &client).await, seen)
}

/// A raw server of our client, with settings exchanged.
async fn raw_server(options: Options) -> (Raw, Rc<ClientConnection>) {
    let (near, far) = Stream::pair(64 * 1024);
    let connection = connect(near, &options).await;
    let mut raw = Raw::new(far);
    let mut preface = [0; PREFACE.len()];
    raw.stream.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, PREFACE);
    raw.send(kind::SETTINGS, 0, 0, &[]).await;
    while raw.next(kind::SETTINGS).await.0.flags != flag::ACK {}
    (raw, connection)
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    trailers: Option<Headers>,
    interim: Vec<u16>,
    headers: Headers,
}

/// Sends a request with a body and takes the whole answer.
async fn ask(connection: &ClientConnection, head: &RequestHead, body: Vec<Frame>) -> Result<Answer, Error> {
    let mut stream = connection.stream();
    stream.send_head(head, body.is_empty());
    for frame in body {
        stream.send_frame(frame);
    }
    stream.finish();
    answer(&mut stream).await
}

async fn answer(stream: &mut ClientStream) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    let head = loop {
        let head = poll_fn(|cx| {
            let _ = stream.poll_flush(cx);
            stream.poll_response(cx)
        });
        let head = head.await?;
        if !head.status.is_informational() {
            break head;
        }
        answer.interim.push(head.status.as_u16());
    };
    answer.status = head.status.as_u16();
    answer.headers = head.headers;
    while let Some(frame) = poll_fn(|cx| {
        let _ = stream.poll_flush(cx);
        stream.poll_frame(cx)
    })
    .await?
    {
        match frame {
            Frame::Data(data) => answer.body.extend_from_slice(&data),
            Frame::Trailers(trailers) => answer.trailers = Some(trailers),
        }
    }
    Ok(answer)
}

fn post(path: &str) -> RequestHead {
    RequestHead::new(Method::POST, "host:80", path)
}

fn status_ok() -> Headers {
    [(crate::name::GRPC_STATUS, HeaderValue::from_static("0"))].into_iter().collect()
}
