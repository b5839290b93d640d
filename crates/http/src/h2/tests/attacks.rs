//! What a hostile peer may try, and that it costs it the connection, or us nothing.

use super::*;

/// Sends until the peer has had enough, at most `times`.
async fn flood(raw: &mut Raw, times: usize, bytes: &[u8]) -> String {
    let chunk = bytes.repeat(100);
    for _ in 0..times / 100 {
        raw.bytes(&chunk).await;
        let mut some = [0; 16 * 1024];
        while let Ok(Ok(1..)) = tokio::time::timeout(Duration::ZERO, raw.stream.read(&mut some)).await {
            let goaway = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0];
            if let Some(at) = some.windows(9).position(|window| window == goaway) {
                return Reason(frame::u32_at(&some, at + 13)).to_string();
            }
        }
    }
    "borne".to_owned()
}

fn bits(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_header(&mut out, payload.len(), (kind, flags), stream);
    out.extend_from_slice(payload);
    out.to_vec()
}

/// CVE-2019-9512 (PING), 9515 (SETTINGS), 9518 (empty DATA), 9513 (PRIORITY), and others of their kind.
#[test]
fn frames_of_no_use_are_borne_in_thousands_and_not_in_hundred_thousands() {
    let cases: &[(&str, Vec<u8>)] = &[
        ("PING", bits(kind::PING, 0, 0, &[0; 8])),
        ("PING ACK", bits(kind::PING, flag::ACK, 0, &[0; 8])),
        ("SETTINGS", bits(kind::SETTINGS, 0, 0, &[])),
        ("SETTINGS ACK", bits(kind::SETTINGS, flag::ACK, 0, &[])),
        ("a changing table size", bits(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 16, 0])),
        ("empty DATA", bits(kind::DATA, 0, 1, &[])),
        ("WINDOW_UPDATE", bits(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", bits(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("PRIORITY", bits(kind::PRIORITY, 0, 1, &[0; 5])),
        ("unknown frames", bits(0xbe, 0, 0, &[])),
        ("RST_STREAM of a closed stream", bits(kind::RST_STREAM, 0, 3, &[0; 4])),
    ];
    local(async {
        for (what, bytes) in cases {
            let (mut raw, _) = raw_client(Options::default()).await;
            raw.headers(1, false, POST).await;
            raw.headers(3, true, GET).await;
            raw.ping().await;
            assert_eq!(flood(&mut raw, 5_000, bytes).await, "borne", "{what}");
            assert_eq!(flood(&mut raw, 100_000, bytes).await, "ENHANCE_YOUR_CALM", "{what}");
        }
    });
}

/// CVE-2023-44487.
#[test]
fn streams_opened_only_to_be_reset_end_the_connection() {
    local(async {
        let (mut raw, seen) = raw_client(Options::default()).await;
        let mut ended = None;
        'flood: for n in 0..5_000u32 {
            raw.headers(n * 2 + 1, true, GET).await;
            raw.send(kind::RST_STREAM, 0, n * 2 + 1, &Reason::CANCEL.0.to_be_bytes()).await;
            let mut some = [0; 4096];
            while let Ok(read) = tokio::time::timeout(Duration::ZERO, raw.stream.read(&mut some)).await {
                if !matches!(read, Ok(1..)) {
                    ended = Some(n);
                    break 'flood;
                }
            }
        }
        assert!(ended.is_some_and(|n| (900..1_500).contains(&n)), "{ended:?}");
        assert!(seen.borrow().len() < 1_500);
    });
}

/// CVE-2025-8671: frames that make the server reset its own streams count as if the client had.
#[test]
fn streams_that_we_are_made_to_reset_count_as_resets() {
    let offences: [&[u8]; 3] = [
        &bits(kind::WINDOW_UPDATE, 0, 0x7777, &[0; 4]),
        &bits(kind::HEADERS, flag::END_HEADERS, 0x7777, b"\x0f\x04\x01a"),
        &bits(kind::WINDOW_UPDATE, 0, 0x7777, &[0x7f, 255, 255, 255]),
    ];
    local(async {
        for offence in offences {
            let (mut raw, _) = raw_client(Options::default()).await;
            let mut ended = None;
            'flood: for n in 0..5_000u32 {
                raw.headers(n * 2 + 1, false, POST).await;
                let mut offence = offence.to_vec();
                offence[5..9].copy_from_slice(&(n * 2 + 1).to_be_bytes());
                raw.bytes(&offence).await;
                let mut some = [0; 4096];
                while let Ok(read) = tokio::time::timeout(Duration::ZERO, raw.stream.read(&mut some)).await {
                    if !matches!(read, Ok(1..)) {
                        ended = Some(n);
                        break 'flood;
                    }
                }
            }
            assert!(ended.is_some_and(|n| (900..1_500).contains(&n)), "{ended:?}");
        }
    });
}

/// CVE-2024-27316.
#[test]
fn a_header_block_without_end_is_refused_before_it_fills_memory() {
    local(async {
        let (mut raw, _) = raw_client(Options::default()).await;
        raw.send(kind::HEADERS, 0, 1, &[]).await;
        for _ in 0..6 {
            raw.send(kind::CONTINUATION, 0, 1, &[0; 16_000]).await;
        }
        assert_eq!(raw.verdict().await, "goaway ENHANCE_YOUR_CALM");
        let (mut raw, _) = raw_client(Options::default()).await;
        raw.send(kind::HEADERS, 0, 1, &[]).await;
        assert_eq!(flood(&mut raw, 100_000, &bits(kind::CONTINUATION, 0, 1, &[])).await, "ENHANCE_YOUR_CALM");
    });
}

/// An entry of the table that is referred to again and again: 60 KiB of fields from a frame of a few hundred bytes.
#[test]
fn a_header_bomb_is_answered_with_431_and_the_connection_goes_on() {
    local(async {
        let (mut raw, seen) = raw_client(Options::default()).await;
        let large = "v".repeat(3_000);
        let mut block = raw.block(GET);
        block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
        block.extend_from_slice(large.as_bytes());
        block.extend_from_slice(&[0x80 | 62; 90]);
        raw.send(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block).await;
        let (header, answer) = raw.next(kind::HEADERS).await;
        assert!(header.has(flag::END_STREAM));
        assert_eq!(raw.decode(&answer), [Field::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)]);
        // So are too many fields.
        let many: Vec<(&str, &str)> = GET.iter().copied().chain((0..200).map(|_| ("a", "b"))).collect();
        raw.encoder = Encoder::new();
        raw.encoder.set_capacity(0);
        raw.headers(3, true, &many).await;
        let (header, answer) = raw.next(kind::HEADERS).await;
        assert_eq!((header.stream, raw.decode(&answer).len()), (3, 1));
        raw.headers(5, true, GET).await;
        assert_eq!(raw.next(kind::HEADERS).await.0.stream, 5);
        assert_eq!(seen.borrow().len(), 1);
    });
}

/// CVE-2026-47774 and CVE-2026-73550: what becomes one field, or none, counts as often as it came.
#[test]
fn crumbs_of_cookies_and_hosts_that_are_dropped_count_as_fields() {
    local(async {
        const COOKIE: u8 = 0x40 | 32;
        const HOST: u8 = 0x40 | 38;
        for name in [COOKIE, HOST] {
            let (mut raw, seen) = raw_client(Options::default()).await;
            let mut block = raw.block(GET);
            block.extend_from_slice(&[name, 1, b'a']);
            block.extend_from_slice(&[0x80 | 62; 4_000]);
            raw.send(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block).await;
            let (_, answer) = raw.next(kind::HEADERS).await;
            assert_eq!(raw.decode(&answer), [Field::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)]);
            assert!(seen.borrow().is_empty());
        }
    });
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    local(async {
        let (mut raw, seen) = raw_client(Options { max_concurrent_streams: 3, ..Options::default() }).await;
        for stream in [1, 3, 5, 7] {
            raw.headers(stream, false, POST).await;
        }
        assert_eq!(raw.verdict().await, "reset 7 REFUSED_STREAM");
        assert_eq!(seen.borrow().len(), 3);
        raw.send(kind::DATA, flag::END_STREAM, 1, &[]).await;
        raw.ping().await;
        raw.headers(9, true, GET).await;
        assert_eq!(raw.next(kind::HEADERS).await.0.stream, 9);
    });
}

/// A client that sends more than it may, on a stream and on the connection.
#[test]
fn data_beyond_the_window_is_an_error() {
    local(async {
        let options = Options { initial_stream_window: 65_535, ..Options::default() };
        let (near, far) = Stream::pair(4 * 1024 * 1024);
        spawn_local(async move {
            let mut connection = ServerConnection::handshake(far, &options).await.unwrap();
            let mut held = Vec::new();
            while let Ok(Some(accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
                held.push(accepted);
            }
        });
        let mut raw = Raw::new(near);
        raw.bytes(PREFACE).await;
        raw.send(kind::SETTINGS, 0, 0, &[]).await;
        raw.headers(1, false, POST).await;
        for _ in 0..5 {
            raw.send(kind::DATA, 0, 1, &[0; 16_000]).await;
        }
        assert_eq!(raw.verdict().await, "reset 1 FLOW_CONTROL_ERROR");
        for stream in (3..100).step_by(2) {
            raw.headers(stream, false, POST).await;
            for _ in 0..4 {
                raw.send(kind::DATA, 0, stream, &[0; 16_000]).await;
            }
        }
        assert_eq!(raw.verdict().await, "goaway FLOW_CONTROL_ERROR");
    });
}

/// CVE-2019-9517: a client that asks for much and reads nothing. What is kept for it is bounded, and it is not read any further.
#[test]
fn a_peer_that_does_not_read_is_not_read() {
    local(async {
        let (near, far) = Stream::pair(4096);
        let seen = Seen::default();
        let task = spawn_local(serve(far, Options::default(), Rc::clone(&seen)));
        let mut raw = Raw::new(near);
        raw.bytes(PREFACE).await;
        raw.send(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255]).await;
        raw.send(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
        let value = "v".repeat(10_000);
        let head = [GET, &[("x", &value)]].concat();
        let mut sent = 0;
        for stream in (1..2_001).step_by(2) {
            let headers = raw.headers(stream, true, &head);
            if tokio::time::timeout(Duration::from_millis(100), headers).await.is_err() {
                break;
            }
            sent += 1;
        }
        // Each answer repeats the 10 kB.
        assert!((20..60).contains(&sent), "{sent}");
        assert!(!task.is_finished());
        drop(raw);
        let _ = task.await.unwrap();
    });
}

/// A body in pieces of one byte is kept at about its own size.
#[test]
fn tiny_pieces_of_a_body_are_joined() {
    local(async {
        let (near, far) = Stream::pair(1024 * 1024);
        let (send, receive) = tokio::sync::oneshot::channel();
        spawn_local(async move {
            let mut connection = ServerConnection::handshake(far, &Options::default()).await.unwrap();
            let first = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().unwrap();
            send.send(first.stream).ok().unwrap();
            let _ = poll_fn(|cx| connection.poll_accept(cx)).await;
        });
        let mut raw = Raw::new(near);
        raw.bytes(PREFACE).await;
        raw.send(kind::SETTINGS, 0, 0, &[]).await;
        raw.headers(1, false, POST).await;
        let one = bits(kind::DATA, 0, 1, b"x").repeat(4_000);
        raw.bytes(&one).await;
        raw.ping().await;
        let mut stream: ServerStream = receive.await.unwrap();
        let mut frames = 0;
        let mut body = 0;
        while body < 4_000 {
            match poll_fn(|cx| stream.poll_frame(cx)).await.unwrap() {
                Some(Frame::Data(data)) => body += data.len(),
                other => panic!("{other:?}"),
            }
            frames += 1;
        }
        assert!(frames < 10, "{frames}");
    });
}

/// A server that answers one request with interim responses for ever.
#[test]
fn interim_responses_that_nobody_takes_are_bounded() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let mut stream = connection.stream();
        stream.send_head(&post("/"), true);
        raw.next(kind::HEADERS).await;
        for _ in 0..40 {
            raw.headers(1, false, &[(":status", "100")]).await;
        }
        assert_eq!(raw.verdict().await, "goaway ENHANCE_YOUR_CALM");
        drop(stream);
    });
}
