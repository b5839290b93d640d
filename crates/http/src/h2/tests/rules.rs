//! What RFC 9113 forbids, and how it is answered.

use super::*;

/// Request heads that are malformed: the stream is reset, the connection goes on.
#[test]
fn malformed_requests_reset_their_stream() {
    const M: (&str, &str) = (":method", "GET");
    const S: (&str, &str) = (":scheme", "http");
    const P: (&str, &str) = (":path", "/");
    const A: (&str, &str) = (":authority", "a");
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("no method", &[S, P, A]),
        ("no scheme", &[M, P, A]),
        ("no path", &[M, S, A]),
        ("an empty path", &[M, S, (":path", ""), A]),
        ("a path without slash", &[M, S, (":path", "x"), A]),
        ("an asterisk that is not for OPTIONS", &[M, S, (":path", "*"), A]),
        ("a space in the path", &[M, S, (":path", "/a b"), A]),
        ("a method twice", &[M, M, S, P, A]),
        ("a path twice", &[M, S, P, P, A]),
        ("a scheme twice", &[M, S, S, P, A]),
        ("a foreign scheme", &[M, (":scheme", "gopher"), P, A]),
        ("an authority with user information", &[M, S, P, (":authority", "u@a")]),
        ("an authority with a path", &[M, S, P, (":authority", "a/b")]),
        ("a bad host", &[M, S, P, ("host", "a b")]),
        ("a status", &[M, S, P, A, (":status", "200")]),
        ("an unknown pseudo-header", &[M, S, P, A, (":test", "x")]),
        ("a pseudo-header after a field", &[M, S, ("x", "y"), P, A]),
        ("upper case", &[M, S, P, A, ("X-Test", "x")]),
        ("a space in a name", &[M, S, P, A, ("x y", "x")]),
        ("a line break in a value", &[M, S, P, A, ("x", "a\r\nb: c")]),
        ("a NUL in a value", &[M, S, P, A, ("x", "a\0b")]),
        ("connection", &[M, S, P, A, ("connection", "close")]),
        ("keep-alive", &[M, S, P, A, ("keep-alive", "1")]),
        ("proxy-connection", &[M, S, P, A, ("proxy-connection", "close")]),
        ("transfer-encoding", &[M, S, P, A, ("transfer-encoding", "chunked")]),
        ("upgrade", &[M, S, P, A, ("upgrade", "h2c")]),
        ("te", &[M, S, P, A, ("te", "trailers, gzip")]),
        ("two lengths", &[M, S, P, A, ("content-length", "0"), ("content-length", "0")]),
        ("a length that is none", &[M, S, P, A, ("content-length", "+0")]),
        ("a length without a body", &[M, S, P, A, ("content-length", "5")]),
        ("CONNECT with a path", &[(":method", "CONNECT"), P, A]),
        ("CONNECT without authority", &[(":method", "CONNECT")]),
        ("a protocol that was not announced", &[(":method", "CONNECT"), (":protocol", "websocket"), S, P, A]),
        ("a protocol without CONNECT", &[M, (":protocol", "websocket"), S, P, A]),
        ("a method that is no token", &[(":method", "G T"), S, P, A]),
    ];
    local(async {
        let (mut raw, seen) = raw_client(Options::default()).await;
        for (at, (what, fields)) in cases.iter().enumerate() {
            let stream = at as u32 * 2 + 1;
            raw.headers(stream, true, fields).await;
            assert_eq!(raw.verdict().await, format!("reset {stream} PROTOCOL_ERROR"), "{what}");
        }
        assert!(seen.borrow().is_empty());
        let next = cases.len() as u32 * 2 + 1;
        raw.headers(next, true, &[M, S, P, A, ("te", "trailers")]).await;
        assert_eq!(raw.next(kind::HEADERS).await.0.stream, next);
    });
}

type Frames = &'static [(u8, u8, u32, &'static [u8])];

/// Frames that end the connection, or one stream. Stream 1 is open, stream 3 has ended.
#[test]
fn broken_frames_are_answered_as_the_rfc_says() {
    const H: u8 = flag::END_HEADERS;
    let cases: &[(&str, Frames, &str)] = &[
        ("DATA on stream 0", &[(kind::DATA, 0, 0, b"x")], "goaway PROTOCOL_ERROR"),
        ("DATA on an idle stream", &[(kind::DATA, 0, 9, b"x")], "goaway PROTOCOL_ERROR"),
        ("DATA on a closed stream", &[(kind::DATA, 0, 3, b"x")], "reset 3 STREAM_CLOSED"),
        ("padding longer than its frame", &[(kind::DATA, flag::PADDED, 1, &[9, 0])], "goaway PROTOCOL_ERROR"),
        ("padding without its length", &[(kind::DATA, flag::PADDED, 1, &[])], "goaway FRAME_SIZE_ERROR"),
        ("HEADERS on stream 0", &[(kind::HEADERS, H, 0, b"\x82")], "goaway PROTOCOL_ERROR"),
        ("HEADERS on an even stream", &[(kind::HEADERS, H, 2, b"\x82")], "goaway PROTOCOL_ERROR"),
        ("HEADERS on a closed stream", &[(kind::HEADERS, H, 3, b"\x82")], "goaway STREAM_CLOSED"),
        (
            "HEADERS that depend on themselves",
            &[(kind::HEADERS, H | flag::PRIORITY, 5, &[0, 0, 0, 5, 0, 0x82])],
            "goaway PROTOCOL_ERROR",
        ),
        (
            "HEADERS too short for their priority",
            &[(kind::HEADERS, H | flag::PRIORITY, 5, &[0, 0])],
            "goaway FRAME_SIZE_ERROR",
        ),
        ("a block that does not decode", &[(kind::HEADERS, H, 5, &[0x80])], "goaway COMPRESSION_ERROR"),
        ("trailers that do not end", &[(kind::HEADERS, H, 1, b"\x0f\x04\x01a")], "reset 1 PROTOCOL_ERROR"),
        (
            "trailers with a pseudo-header",
            &[(kind::HEADERS, H | flag::END_STREAM, 1, b"\x82")],
            "reset 1 PROTOCOL_ERROR",
        ),
        (
            "a block cut by PING",
            &[(kind::HEADERS, 0, 5, b"\x82"), (kind::PING, 0, 0, &[0; 8])],
            "goaway PROTOCOL_ERROR",
        ),
        ("a block cut by DATA", &[(kind::HEADERS, 0, 5, b"\x82"), (kind::DATA, 0, 1, b"x")], "goaway PROTOCOL_ERROR"),
        (
            "CONTINUATION of another stream",
            &[(kind::HEADERS, 0, 5, b"\x82"), (kind::CONTINUATION, H, 7, b"\x82")],
            "goaway PROTOCOL_ERROR",
        ),
        ("CONTINUATION of nothing", &[(kind::CONTINUATION, H, 1, b"\x82")], "goaway PROTOCOL_ERROR"),
        ("PRIORITY on stream 0", &[(kind::PRIORITY, 0, 0, &[0; 5])], "goaway PROTOCOL_ERROR"),
        ("PRIORITY of the wrong size", &[(kind::PRIORITY, 0, 1, &[0; 4])], "goaway FRAME_SIZE_ERROR"),
        ("RST_STREAM on stream 0", &[(kind::RST_STREAM, 0, 0, &[0; 4])], "goaway PROTOCOL_ERROR"),
        ("RST_STREAM on an idle stream", &[(kind::RST_STREAM, 0, 9, &[0; 4])], "goaway PROTOCOL_ERROR"),
        ("RST_STREAM of the wrong size", &[(kind::RST_STREAM, 0, 1, &[0; 3])], "goaway FRAME_SIZE_ERROR"),
        ("SETTINGS on a stream", &[(kind::SETTINGS, 0, 1, &[])], "goaway PROTOCOL_ERROR"),
        ("SETTINGS of the wrong size", &[(kind::SETTINGS, 0, 0, &[0; 5])], "goaway FRAME_SIZE_ERROR"),
        ("an acknowledgement with settings", &[(kind::SETTINGS, flag::ACK, 0, &[0; 6])], "goaway FRAME_SIZE_ERROR"),
        ("ENABLE_PUSH of 2", &[(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])], "goaway PROTOCOL_ERROR"),
        ("a window too large", &[(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], "goaway FLOW_CONTROL_ERROR"),
        ("a frame size too small", &[(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])], "goaway PROTOCOL_ERROR"),
        ("a frame size too large", &[(kind::SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0])], "goaway PROTOCOL_ERROR"),
        ("PUSH_PROMISE from a client", &[(kind::PUSH_PROMISE, H, 1, &[0, 0, 0, 2, 0x82])], "goaway PROTOCOL_ERROR"),
        ("PING on a stream", &[(kind::PING, 0, 1, &[0; 8])], "goaway PROTOCOL_ERROR"),
        ("PING of the wrong size", &[(kind::PING, 0, 0, &[0; 7])], "goaway FRAME_SIZE_ERROR"),
        ("GOAWAY on a stream", &[(kind::GOAWAY, 0, 1, &[0; 8])], "goaway PROTOCOL_ERROR"),
        ("GOAWAY of the wrong size", &[(kind::GOAWAY, 0, 0, &[0; 7])], "goaway FRAME_SIZE_ERROR"),
        ("WINDOW_UPDATE of nothing", &[(kind::WINDOW_UPDATE, 0, 0, &[0; 4])], "goaway PROTOCOL_ERROR"),
        ("WINDOW_UPDATE of nothing for a stream", &[(kind::WINDOW_UPDATE, 0, 1, &[0; 4])], "reset 1 PROTOCOL_ERROR"),
        (
            "WINDOW_UPDATE beyond the limit",
            &[(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])],
            "goaway FLOW_CONTROL_ERROR",
        ),
        (
            "WINDOW_UPDATE of a stream beyond the limit",
            &[(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])],
            "reset 1 FLOW_CONTROL_ERROR",
        ),
        ("WINDOW_UPDATE of an idle stream", &[(kind::WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1])], "goaway PROTOCOL_ERROR"),
        ("WINDOW_UPDATE of the wrong size", &[(kind::WINDOW_UPDATE, 0, 0, &[0; 3])], "goaway FRAME_SIZE_ERROR"),
    ];
    local(async {
        for (what, frames, verdict) in cases {
            let (mut raw, _) = raw_client(Options::default()).await;
            raw.headers(1, false, POST).await;
            raw.headers(3, true, GET).await;
            while raw.frame().await.is_none_or(|(header, _)| header.stream != 3 || !header.has(flag::END_STREAM)) {}
            for (kind, flags, stream, payload) in *frames {
                raw.send(*kind, *flags, *stream, payload).await;
            }
            assert_eq!(raw.verdict().await, *verdict, "{what}");
            if verdict.starts_with("goaway") {
                assert_eq!(raw.verdict().await, "closed", "{what}");
            }
        }
    });
}

#[test]
fn a_frame_beyond_the_size_limit_is_refused_by_its_header_alone() {
    local(async {
        let (mut raw, _) = raw_client(Options::default()).await;
        raw.bytes(&[0, 0x40, 1, kind::DATA, 0, 0, 0, 0, 1]).await;
        assert_eq!(raw.verdict().await, "goaway FRAME_SIZE_ERROR");
    });
}

#[test]
fn unknown_frames_settings_and_priorities_are_ignored() {
    local(async {
        let (mut raw, _) = raw_client(Options::default()).await;
        raw.send(0xfa, 0xff, 0, b"whatever").await;
        raw.send(0xfa, 0xff, 77, b"whatever").await;
        raw.send(kind::SETTINGS, 0, 0, &[0xff, 0xfe, 1, 2, 3, 4]).await;
        raw.send(kind::PRIORITY, 0, 99, &[0; 5]).await;
        let block = raw.block(GET);
        let payload = [&[3, 0, 0, 0, 7, 1][..], &block, &[0; 3]].concat();
        let flags = flag::END_HEADERS | flag::END_STREAM | flag::PADDED | flag::PRIORITY;
        raw.send(kind::HEADERS, flags, 1, &payload).await;
        let (header, block) = raw.next(kind::HEADERS).await;
        assert_eq!((header.stream, raw.decode(&block)), (1, vec![Field::Status(StatusCode::OK)]));
    });
}

#[test]
fn a_preface_that_is_none_closes_and_so_does_one_without_settings() {
    local(async {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            &[&PREFACE[..], &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]].concat(),
        ] {
            let (near, far) = Stream::pair(1024);
            let task = spawn_local(serve(far, Options::default(), Seen::default()));
            let mut raw = Raw::new(near);
            raw.bytes(bytes).await;
            assert_eq!(raw.verdict().await, "goaway PROTOCOL_ERROR");
            assert!(task.await.unwrap().is_err());
        }
    });
}

#[test]
fn a_body_must_be_as_long_as_its_content_length_says() {
    local(async {
        let (mut raw, _) = raw_client(Options::default()).await;
        let head = [POST, &[("content-length", "5")]].concat();
        let cases: [(&[u8], bool, bool); 4] =
            [(b"hello", true, true), (b"hell", true, false), (b"hello!", false, false), (b"", true, false)];
        for (at, (body, end, good)) in cases.into_iter().enumerate() {
            let stream = at as u32 * 2 + 1;
            raw.headers(stream, false, &head).await;
            raw.send(kind::DATA, u8::from(end), stream, body).await;
            if good {
                assert_eq!(raw.next(kind::DATA).await.1, body);
            } else {
                assert_eq!(raw.verdict().await, format!("reset {stream} PROTOCOL_ERROR"));
            }
        }
        raw.headers(99, false, &head).await;
        raw.send(kind::DATA, 0, 99, b"hell").await;
        raw.headers(99, true, &[("x", "y")]).await;
        assert_eq!(raw.verdict().await, "reset 99 PROTOCOL_ERROR", "trailers end a body too");
    });
}

#[test]
fn malformed_responses_fail_their_request_alone() {
    type Fields = &'static [(&'static str, &'static str)];
    let cases: &[(&str, Fields, bool)] = &[
        ("no status", &[("x", "y")], true),
        ("two statuses", &[(":status", "200"), (":status", "200")], true),
        ("a status of two digits", &[(":status", "20")], true),
        ("a request's field", &[(":status", "200"), (":path", "/")], true),
        ("101", &[(":status", "101")], false),
        ("an interim response that ends", &[(":status", "100")], true),
        ("connection", &[(":status", "200"), ("connection", "close")], true),
        ("upper case", &[(":status", "200"), ("X", "y")], true),
        ("a body that is missing", &[(":status", "200"), ("content-length", "3")], true),
    ];
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        for (what, fields, end) in cases {
            let task = spawn_local({
                let connection = Rc::clone(&connection);
                async move { ask(&connection, &post("/"), Vec::new()).await }
            });
            let (header, _) = raw.next(kind::HEADERS).await;
            raw.headers(header.stream, *end, fields).await;
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.reset_reason(), crate::ResetReason::Protocol, "{what}");
            assert_eq!(raw.verdict().await, format!("reset {} PROTOCOL_ERROR", header.stream), "{what}");
        }
        // The length of a response to HEAD is that of what GET would give.
        let task = spawn_local({
            let connection = Rc::clone(&connection);
            async move { ask(&connection, &RequestHead::new(Method::HEAD, "a", "/"), Vec::new()).await }
        });
        let (header, _) = raw.next(kind::HEADERS).await;
        raw.headers(header.stream, true, &[(":status", "200"), ("content-length", "3")]).await;
        assert_eq!(task.await.unwrap().unwrap().status, 200);
    });
}

#[test]
fn a_server_that_breaks_the_protocol_fails_all_requests() {
    local(async {
        for (kind, flags, stream) in
            [(kind::PUSH_PROMISE, 4, 1), (kind::HEADERS, 5, 2), (kind::HEADERS, 5, 9), (kind::DATA, 0, 9)]
        {
            let (mut raw, connection) = raw_server(Options::default()).await;
            let task = spawn_local({
                let connection = Rc::clone(&connection);
                async move { ask(&connection, &post("/"), Vec::new()).await }
            });
            raw.next(kind::HEADERS).await;
            raw.send(kind, flags, stream, &[0x88]).await;
            assert_eq!(raw.verdict().await, "goaway PROTOCOL_ERROR");
            assert_eq!(task.await.unwrap().unwrap_err().reset_reason(), crate::ResetReason::Protocol);
            assert!(!connection.is_open());
        }
    });
}

#[test]
fn resets_of_the_peer_are_told_apart() {
    use crate::ResetReason;
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let cases = [
            (Reason::REFUSED_STREAM, ResetReason::Refused),
            (Reason::CANCEL, ResetReason::Remote),
            (Reason::PROTOCOL_ERROR, ResetReason::Remote),
        ];
        for (reason, seen_as) in cases {
            let task = spawn_local({
                let connection = Rc::clone(&connection);
                async move { ask(&connection, &post("/"), Vec::new()).await }
            });
            let (header, _) = raw.next(kind::HEADERS).await;
            raw.send(kind::RST_STREAM, 0, header.stream, &reason.0.to_be_bytes()).await;
            assert_eq!(task.await.unwrap().unwrap_err().reset_reason(), seen_as);
        }
        let task = spawn_local({
            let connection = Rc::clone(&connection);
            async move { ask(&connection, &post("/"), Vec::new()).await }
        });
        raw.next(kind::HEADERS).await;
        drop(raw);
        assert_eq!(task.await.unwrap().unwrap_err().reset_reason(), ResetReason::ConnectionClosed);
    });
}

/// RFC 9113 8.1: a server may answer in full and then ask the client to stop sending.
#[test]
fn a_complete_response_survives_the_reset_that_follows_it() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let mut stream = connection.stream();
        stream.send_head(&post("/"), false);
        raw.next(kind::HEADERS).await;
        raw.headers(1, false, &[(":status", "413")]).await;
        raw.send(kind::DATA, flag::END_STREAM, 1, b"too long").await;
        raw.send(kind::RST_STREAM, 0, 1, &[0; 4]).await;
        raw.ping().await;
        let answer = answer(&mut stream).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (413, &b"too long"[..]));
    });
}
