use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use http::{Method, StatusCode};
use meltemi_net::Stream;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    chunk::{Decoded, Decoder},
    *,
};
use crate::{Error, Frame, Headers, Protocol, RequestHead, ResponseHead};

fn request(bytes: &[u8]) -> Result<(RequestHead, super::parse::Framing), Violation> {
    let limits = Limits::default();
    let mut scan = super::lines::HeadScan::default();
    let end = scan.end(bytes, &limits)?.expect("a complete head");
    super::parse::request(&bytes::Bytes::copy_from_slice(&bytes[..end]), &scan)
}

fn response(text: &str, to: &Method) -> Result<(ResponseHead, super::parse::Framing), Violation> {
    let mut scan = super::lines::HeadScan::default();
    scan.end(text.as_bytes(), &Limits::default())?.expect("a complete head");
    super::parse::response(&bytes::Bytes::copy_from_slice(text.as_bytes()), &scan, to)
}

/// Request smuggling and its relatives: what is refused, by which rule.
#[test]
fn refused_requests() {
    use Violation as V;
    let cases: &[(&str, Violation)] = &[
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", V::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", V::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\nGET /evil", V::BareLf),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", V::Field),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", V::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", V::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", V::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n", V::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", V::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n", V::Field),
        ("GET / HTTP/1.1\r\n\r\n", V::HostMissing),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", V::HostRepeated),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", V::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", V::HostInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", V::LengthAndEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", V::LengthAndEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", V::LengthRepeated),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", V::LengthRepeated),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", V::LengthInvalid),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", V::EncodingUnknown),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", V::EncodingUnknown),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", V::EncodingUnknown),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", V::FieldValue),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            V::EncodingRepeated,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
            V::EncodingRepeated,
        ),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", V::EncodingInHttp10),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", V::EncodingNotAllowed),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", V::LengthNotAllowed),
        ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", V::Target),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", V::Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", V::Target),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", V::Target),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", V::Target),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", V::Version),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", V::Version),
        ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", V::Method),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", V::Method),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", V::StartLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n", V::ConnectionRejected),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n", V::ConnectionRejected),
    ];
    for (text, rule) in cases {
        assert_eq!(request(text.as_bytes()).map(|(head, _)| head.path).err(), Some(*rule), "{text:?}");
    }
}

#[test]
fn accepted_requests() {
    let (head, framing) =
        request(b"GET http://b.test:8/x?y HTTP/1.1\r\nHost: a\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n")
            .unwrap();
    assert_eq!((head.authority.as_str(), head.path.as_str()), ("b.test:8", "/x?y"));
    assert_eq!(head.headers.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["te"]);
    assert!(!framing.keep_alive);
    let (head, framing) =
        request(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(head.upgrade.as_deref(), Some("websocket"));
    assert!(framing.keep_alive && head.headers.is_empty());
    let (head, framing) = request(b"OPTIONS * HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((head.path.as_str(), head.protocol, framing.keep_alive), ("*", Protocol::Http10, false));
    let (head, _) = request(b"CONNECT a.test:443 HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
    assert_eq!((head.authority.as_str(), head.path.as_str()), ("a.test:443", ""));
    let (_, framing) = request(b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n").unwrap();
    assert_eq!(framing.length, super::parse::Length::Chunked);
}

#[test]
fn response_framing() {
    use super::parse::Length::{Chunked, Known, UntilClose};
    let get = Method::GET;
    let cases = [
        ("HTTP/1.1 200 OK\r\n\r\n", &get, Ok(UntilClose)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &get, Ok(Known(3))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::HEAD, Ok(Known(0))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &get, Ok(Chunked)),
        ("HTTP/1.1 204 No Content\r\n\r\n", &get, Ok(Known(0))),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", &get, Ok(Known(0))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::CONNECT, Ok(Known(0))),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", &get, Ok(Known(0))),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", &get, Err(Violation::LengthNotAllowed)),
        ("HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n", &get, Err(Violation::LengthNotAllowed)),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", &get, Err(Violation::EncodingNotAllowed)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            &get,
            Err(Violation::LengthAndEncoding),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", &get, Err(Violation::LengthRepeated)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", &get, Err(Violation::Field)),
    ];
    for (text, to, expected) in cases {
        assert_eq!(response(text, to).map(|(_, framing)| framing.length), expected, "{text:?} to {to}");
    }
}

#[test]
fn limits_are_kept() {
    let limits = Limits { head_bytes: 100, fields: 3, ..Limits::default() };
    let scan = |text: &str| super::lines::HeadScan::default().end(text.as_bytes(), &limits);
    assert_eq!(scan(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(100))), Err(Violation::HeadTooLarge));
    assert_eq!(scan(&"x".repeat(101)), Err(Violation::HeadTooLarge));
    assert_eq!(scan("GET / HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n"), Err(Violation::TooManyFields));
    assert_eq!(scan("GET / HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n"), Ok(Some(36)));
}

#[test]
fn refused_chunks() {
    use Violation as V;
    let cases: &[(&str, Violation)] = &[
        ("g\r\n", V::ChunkSize),
        ("\r\n", V::ChunkSize),
        ("-1\r\n", V::ChunkSize),
        ("0x5\r\n", V::ChunkSize),
        ("5 \r\n", V::ChunkSize),
        ("1000000000000000\r\n", V::ChunkSize),
        ("5\nhello", V::BareLf),
        ("5;x\nhello", V::BareLf),
        ("5;\rx\r\n", V::ChunkExtension),
        ("5\r\nhelloX", V::ChunkEnd),
        ("5\r\nhello\n", V::ChunkEnd),
        ("0\r\nA: b\n\r\n", V::BareLf),
        ("0\r\nA : b\r\n\r\n", V::Field),
    ];
    for (text, rule) in cases {
        assert_eq!(decode_all(text.as_bytes(), &[]), Err(*rule), "{text:?}");
    }
    let long = format!("5;{}", "x".repeat(300));
    assert_eq!(decode_all(long.as_bytes(), &[]), Err(Violation::ChunkExtension));
}

#[derive(Debug, PartialEq, Eq)]
struct Whole {
    data: Vec<u8>,
    trailers: Option<Headers>,
    rest: Vec<u8>,
}

/// Feeds the decoder piece by piece, cut at `cuts`; `None` if the body is not complete.
fn decode_all(input: &[u8], cuts: &[usize]) -> Result<Option<Whole>, Violation> {
    let mut decoder = Decoder::new();
    let mut buffer = BytesMut::new();
    let mut data = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([input.len()]) {
        buffer.extend_from_slice(&input[from..to]);
        from = to;
        loop {
            match decoder.decode(&mut buffer, &Limits::default())? {
                Decoded::Data(piece) => data.extend_from_slice(&piece),
                Decoded::NeedMore => break,
                Decoded::End(trailers) => {
                    let rest = [&buffer[..], &input[to..]].concat();
                    return Ok(Some(Whole { data, trailers, rest }));
                }
            }
        }
    }
    Ok(None)
}

/// The plainest possible reading of a whole chunked body.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = at + input[at..].windows(2).position(|w| w == b"\r\n")?;
        let digits = input[at..line].split(|b| *b == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at = line + 2;
        if size == 0 {
            return input[at..].starts_with(b"\r\n").then_some((data, at + 2));
        }
        data.extend_from_slice(input.get(at..at + size)?);
        at += size + 2;
    }
}

fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (proptest::collection::vec(any::<u8>(), 1..40), "(;[a-z]{0,5}(=[a-z]{1,3})?)?", any::<bool>());
    (proptest::collection::vec(chunk, 0..6), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(chunks, rest)| {
            let mut out = Vec::new();
            for (data, extension, upper) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                out.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
                out.extend_from_slice(&data);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
            out.extend_from_slice(&rest);
            out
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn chunks_decode_as_the_reference_does_however_they_arrive(input in chunked(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(input.len());
        let whole = decode_all(&input, &[]).unwrap().unwrap();
        let (data, used) = reference(&input).unwrap();
        prop_assert_eq!(&whole.data, &data);
        prop_assert_eq!(&whole.rest[..], &input[used..]);
        prop_assert_eq!(decode_all(&input, &[cut]).unwrap().unwrap(), whole);
        let every: Vec<usize> = (1..input.len()).collect();
        prop_assert_eq!(decode_all(&input, &every).unwrap().unwrap().data, data);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_depend_on_their_arrival(
        input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'5'), Just(b';'), any::<u8>()], 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(input.len() + 1);
        let strip = |r: Result<Option<Whole>, Violation>| r.map(|w| w.map(|w| w.data));
        prop_assert_eq!(strip(decode_all(&input, &[])), strip(decode_all(&input, &[cut])));
    }

    #[test]
    fn a_head_is_found_and_judged_the_same_however_it_arrives(
        input in "(GET|POST) /[a-z]{0,5} HTTP/1.[01]\r?\n(([a-zA-Z-]{1,6}) ?: ?[ -~]{0,8}\r?\n){0,4}\r?\n[a-z]{0,5}",
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = input.as_bytes();
        let limits = Limits::default();
        let mut scan = super::lines::HeadScan::default();
        let once = scan.end(bytes, &limits);
        let mut scan = super::lines::HeadScan::default();
        let cut = cut.index(bytes.len());
        let twice = match scan.end(&bytes[..cut], &limits) {
            Ok(None) => scan.end(bytes, &limits),
            other => other,
        };
        prop_assert_eq!(once, twice);
    }
}

/// What both parsers make of a head: its start line, and its fields in order.
type Parsed = (Vec<String>, Vec<(String, Vec<u8>)>);

fn parsed(head: &[u8], scan: &super::lines::HeadScan, is_request: bool) -> Result<Parsed, Violation> {
    let mut lines = scan.lines(head);
    let first = match is_request {
        true => {
            let (method, target, protocol) = super::lines::request_line(lines.first()?)?;
            vec![String::from_utf8_lossy(method).into(), target.to_owned(), protocol.as_str().to_owned()]
        }
        false => {
            let (protocol, status) = super::lines::status_line(lines.first()?)?;
            vec![protocol.as_str().to_owned(), status.as_str().to_owned()]
        }
    };
    let mut fields = Vec::new();
    while let Some(line) = lines.field()? {
        let value = &head[line.value];
        if !super::lines::is_value(value) {
            return Err(Violation::FieldValue);
        }
        fields.push((line.name.as_str().to_owned(), value.to_vec()));
    }
    Ok((first, fields))
}

fn parsed_by_httparse(head: &[u8], is_request: bool) -> Result<Parsed, Violation> {
    let violation = |error| match error {
        httparse::Error::TooManyHeaders => Violation::TooManyFields,
        httparse::Error::Version => Violation::Version,
        httparse::Error::HeaderName => Violation::Field,
        httparse::Error::HeaderValue => Violation::FieldValue,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => Violation::StartLine,
    };
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let protocol = |minor| if minor == Some(0) { "HTTP/1.0".to_owned() } else { "HTTP/1.1".to_owned() };
    let (status, first, fields) = match is_request {
        true => {
            let mut request = httparse::Request::new(&mut fields);
            let status = request.parse(head).map_err(violation)?;
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            (status, vec![text(request.method), text(request.path), protocol(request.version)], request.headers)
        }
        false => {
            let mut response = httparse::Response::new(&mut fields);
            let status = response.parse(head).map_err(violation)?;
            // A status below 100 is one for httparse.
            if response.code.is_some_and(|code| code < 100) {
                return Err(Violation::StartLine);
            }
            let code = response.code.map(|code| code.to_string()).unwrap_or_default();
            (status, vec![protocol(response.version), code], response.headers)
        }
    };
    assert_eq!(status, httparse::Status::Complete(head.len()));
    let fields = fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    Ok((first, fields.collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_head_means_what_it_means_to_another_parser(
        request in "(GET|[A-Za-z@(]{1,4}| )( |\t|)(/|[/a%?#é\0\r\t]{0,4})( |)(HTTP/1.[01]|HTTP/[12][.]?[0-2 ]{0,2}|)",
        response in "(HTTP/1.[01]|HTTP/2|H|)( |)(200|[0-9 a]{0,4})( |\t|)[ -~é\0\t]{0,3}",
        fields in proptest::collection::vec(
            "(Host|content-type|[a-zA-Z0-9_(\t -]{0,5})( |)(:|)[ \t]{0,2}[!-~ é]{0,5}[\t\r\0\u{7f}]{0,1}[ \t]{0,2}", 0..4,
        ),
    ) {
        for (first, is_request) in [(&request, true), (&response, false)] {
            let head = [std::slice::from_ref(first), &fields[..], &[String::new(), String::new()]].concat().join("\r\n");
            let mut scan = super::lines::HeadScan::default();
            let end = scan.end(head.as_bytes(), &Limits::default());
            // Empty lines before a head are the connection's to skip.
            if end == Ok(Some(head.len())) && !first.starts_with('\r') && !first.is_empty() {
                let expected = parsed_by_httparse(head.as_bytes(), is_request);
                prop_assert_eq!(parsed(head.as_bytes(), &scan, is_request), expected, "{:?}", head);
            }
        }
    }
}

fn poll_once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_one_at_a_time() {
    let (mut peer, stream) = Stream::pair(4096);
    peer.write_all(
        b"\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await
    .unwrap();
    let mut server = Server::new(stream, Limits::default());
    let head = poll_fn(|cx| server.poll_request(cx)).await.unwrap().unwrap();
    assert_eq!(head.path, "/1");
    assert!(!server.request_ended());
    let frame = poll_fn(|cx| server.poll_frame(cx)).await.unwrap();
    assert_eq!(frame, Some(Frame::Data("abc".into())));
    assert!(server.request_ended());
    assert!(poll_once(|cx| server.poll_closed(cx)).is_pending(), "a pipelined request is not a close");
    server.send_head(&ResponseHead::new(StatusCode::OK), true);
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    assert_eq!(server.end_exchange(), Next::Request);
    let head = poll_fn(|cx| server.poll_request(cx)).await.unwrap().unwrap();
    assert_eq!(head.path, "/2");
    let mut reply = [0; 38];
    peer.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[tokio::test]
async fn a_response_before_the_request_ended_closes_the_connection() {
    let (mut peer, stream) = Stream::pair(4096);
    peer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc").await.unwrap();
    let mut server = Server::new(stream, Limits::default());
    poll_fn(|cx| server.poll_request(cx)).await.unwrap().unwrap();
    server.send_head(&ResponseHead::new(StatusCode::FORBIDDEN), true);
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    assert_eq!(server.end_exchange(), Next::Close);
    let mut reply = vec![0; 200];
    let n = peer.read(&mut reply).await.unwrap();
    assert!(String::from_utf8_lossy(&reply[..n]).contains("connection: close\r\n"));
}

#[tokio::test]
async fn chunked_with_trailers_passes_through_client_and_server() {
    let (near, far) = Stream::pair(50);
    let mut client = Client::new(near, Limits::default());
    let mut server = Server::new(far, Limits::default());
    let body: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    let mut trailers = Headers::new();
    trailers.append(http::HeaderName::from_static("x-t"), http::HeaderValue::from_static("v"));
    client.send_head(&RequestHead::new(Method::POST, "a", "/"), false);
    client.send_frame(Frame::Data(body.clone().into()));
    client.send_frame(Frame::Trailers(trailers.clone()));
    client.finish();
    let (mut got, mut seen) = (Vec::new(), None);
    let receive = async {
        poll_fn(|cx| server.poll_request(cx)).await.unwrap().unwrap();
        while let Some(frame) = poll_fn(|cx| server.poll_frame(cx)).await.unwrap() {
            match frame {
                Frame::Data(data) => got.extend_from_slice(&data),
                Frame::Trailers(trailers) => seen = Some(trailers),
            }
        }
        server.send_head(&ResponseHead::new(StatusCode::NO_CONTENT), true);
        poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    };
    let send = async {
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        poll_fn(|cx| client.poll_response(cx)).await.unwrap()
    };
    let ((), response) = tokio::join!(receive, send);
    assert_eq!((got, seen), (body, Some(trailers)));
    assert_eq!(response.status, StatusCode::NO_CONTENT);
    assert!(client.response_ended() && client.recycle());
    assert!(client.is_idle_and_open());
    drop(server);
    assert!(!client.is_idle_and_open());
}

#[tokio::test]
async fn a_truncated_body_is_an_error_and_the_connection_is_not_reused() {
    let (near, mut peer) = Stream::pair(4096);
    let mut client = Client::new(near, Limits::default());
    client.send_head(&RequestHead::new(Method::GET, "a", "/"), true);
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
    drop(peer);
    poll_fn(|cx| client.poll_response(cx)).await.unwrap();
    assert!(matches!(poll_fn(|cx| client.poll_frame(cx)).await, Ok(Some(Frame::Data(d))) if d == "ab"));
    assert!(matches!(poll_fn(|cx| client.poll_frame(cx)).await, Err(Error::Truncated)));
    assert!(!client.recycle());
}

#[tokio::test]
async fn a_connection_with_bytes_after_the_response_is_not_reused() {
    for answer in ["HTTP/1.1 304 Not Modified\r\n\r\nbody", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nbody"] {
        let (near, mut peer) = Stream::pair(4096);
        let mut client = Client::new(near, Limits::default());
        client.send_head(&RequestHead::new(Method::GET, "a", "/"), true);
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        peer.write_all(answer.as_bytes()).await.unwrap();
        poll_fn(|cx| client.poll_response(cx)).await.unwrap();
        assert!(client.response_ended() && !client.recycle(), "{answer:?}");
    }
    let (near, mut peer) = Stream::pair(4096);
    let mut client = Client::new(near, Limits::default());
    client.send_head(&RequestHead::new(Method::GET, "a", "/"), true);
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    peer.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").await.unwrap();
    poll_fn(|cx| client.poll_response(cx)).await.unwrap();
    assert!(client.recycle());
    peer.write_all(b"late").await.unwrap();
    assert!(!client.is_idle_and_open(), "what comes unasked would be read as the next answer");
}

#[test]
fn reason_phrases_are_envoys() {
    for (code, expected) in [(200, "OK"), (203, "Non-Authoritative Information"), (418, "Unknown"), (598, "Unknown")] {
        assert_eq!(super::encode::reason(StatusCode::from_u16(code).unwrap()), expected);
    }
}

#[tokio::test]
async fn an_upgrade_turns_both_sides_into_tunnels() {
    let ((near, mut host), (mut peer, far)) = (Stream::pair(4096), Stream::pair(4096));
    let mut client = Client::new(near, Limits::default());
    let mut server = Server::new(far, Limits::default());
    peer.write_all(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let head = poll_fn(|cx| server.poll_request(cx)).await.unwrap().unwrap();
    client.send_head(&head, false);
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    let mut seen = vec![0; 500];
    let n = host.read(&mut seen).await.unwrap();
    assert!(String::from_utf8_lossy(&seen[..n]).ends_with("connection: Upgrade\r\nupgrade: websocket\r\n\r\n"));
    host.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        .await
        .unwrap();
    let answer = poll_fn(|cx| client.poll_response(cx)).await.unwrap();
    server.send_head(&answer, false);
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    assert!(matches!(poll_fn(|cx| client.poll_frame(cx)).await, Ok(Some(Frame::Data(d))) if d == "hi"));
    peer.write_all(b"yo").await.unwrap();
    assert!(matches!(poll_fn(|cx| server.poll_frame(cx)).await, Ok(Some(Frame::Data(d))) if d == "yo"));
    client.finish();
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    assert_eq!(host.read(&mut seen).await.unwrap(), 0, "the end of one side is passed on");
}

#[test]
fn every_rule_has_a_source() {
    for violation in Violation::ALL {
        let rule = violation.rule();
        assert!(
            !rule.section.is_empty() && rule.status.is_client_error() || rule.status.is_server_error(),
            "{violation}"
        );
    }
}

#[tokio::test]
async fn a_head_does_not_hold_the_buffer_that_it_was_read_into() {
    let (mut peer, stream) = Stream::pair(100);
    peer.write_all(b"GET / HTTP/1.1").await.unwrap();
    let mut wire = super::wire::Wire::new(stream);
    assert_eq!(poll_fn(|cx| wire.poll_fill(cx, 0)).await.unwrap(), 14);
    let buffer = wire.read.as_ptr();
    let head = wire.take_head(14);
    assert_eq!((&head[..], wire.read.capacity()), (&b"GET / HTTP/1.1"[..], 0));
    assert_eq!(meltemi_net::buffers::take().as_ptr(), buffer, "free for the next connection");
}
