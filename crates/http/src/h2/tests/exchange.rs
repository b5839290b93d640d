//! Exchanges of well-behaved peers.

use super::*;

#[test]
fn bodies_and_trailers_pass_in_both_directions_and_many_at_once() {
    local(async {
        let (connection, seen) = pair(Options::default(), Options::default()).await;
        let sizes = [0, 1, 100, 5_000, 70_000, 3_000_000];
        let mut tasks = Vec::new();
        for size in sizes {
            let connection = Rc::clone(&connection);
            tasks.push(spawn_local(async move {
                let body = vec![b'x'; size];
                let frames = vec![Frame::Data(body.clone().into()), Frame::Trailers(status_ok())];
                let answer = ask(&connection, &post("/a?b"), frames).await.unwrap();
                assert_eq!((answer.status, answer.body.len()), (200, size));
                assert_eq!((answer.body, answer.trailers), (body, Some(status_ok())));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(connection.active(), 0);
        let seen = seen.borrow();
        assert_eq!(seen.len(), sizes.len());
        let head = &seen[0];
        assert_eq!((head.authority.as_str(), head.path.as_str(), head.protocol), ("host:80", "/a?b", Protocol::Http2));
    });
}

/// The same request again and again: compression state of both directions stays in step.
#[test]
fn many_requests_on_one_connection_keep_their_fields() {
    local(async {
        let (connection, seen) = pair(Options::default(), Options::default()).await;
        for n in 0..300 {
            let mut head = post(&format!("/{}", n % 7));
            head.headers.append(http::header::USER_AGENT, HeaderValue::from_static("test"));
            head.headers.append(crate::name::X_REQUEST_ID, HeaderValue::from(n));
            let mut secret = HeaderValue::from_static("secret");
            secret.set_sensitive(true);
            head.headers.append(http::header::AUTHORIZATION, secret);
            let answer = ask(&connection, &head, Vec::new()).await.unwrap();
            assert_eq!(answer.headers, head.headers);
            let last = seen.borrow().last().cloned().unwrap();
            assert_eq!((last.path, &last.headers), (head.path, &head.headers));
            assert!(last.headers.get(&http::header::AUTHORIZATION).unwrap().is_sensitive());
        }
    });
}

#[test]
fn a_head_larger_than_a_frame_is_sent_in_parts() {
    local(async {
        let (connection, seen) = pair(Options::default(), Options::default()).await;
        let mut head = post("/");
        head.headers
            .append(http::HeaderName::from_static("x-large"), HeaderValue::from_str(&"v".repeat(50_000)).unwrap());
        let answer = ask(&connection, &head, Vec::new()).await.unwrap();
        assert_eq!(answer.headers.get_str("x-large").unwrap().len(), 50_000);
        assert_eq!(seen.borrow()[0].headers, head.headers);
    });
}

#[test]
fn interim_responses_come_before_the_final_one() {
    local(async {
        let (near, far) = Stream::pair(64 * 1024);
        spawn_local(async move {
            let mut connection = ServerConnection::handshake(far, &Options::default()).await.unwrap();
            while let Ok(Some(mut accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
                accepted.stream.send_interim(StatusCode::CONTINUE, &Headers::new());
                accepted.stream.send_interim(StatusCode::EARLY_HINTS, &Headers::new());
                accepted.stream.send_head(&ResponseHead::new(StatusCode::NO_CONTENT), true);
            }
        });
        let connection = connect(near, &Options::default()).await;
        let answer = ask(&connection, &post("/"), Vec::new()).await.unwrap();
        assert_eq!((answer.interim, answer.status), (vec![100, 103], 204));
    });
}

/// RFC 8441: allowed only where it was announced.
#[test]
fn extended_connect_opens_a_tunnel() {
    local(async {
        let options = Options { allow_connect: true, ..Options::default() };
        let (connection, seen) = pair(Options::default(), options).await;
        let mut head = RequestHead::new(Method::GET, "a", "/chat");
        head.upgrade = Some("websocket".into());
        let answer = ask(&connection, &head, vec![Frame::Data("hello".into())]).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        let seen = seen.borrow()[0].clone();
        assert_eq!((seen.method, seen.upgrade.as_deref(), &*seen.path), (Method::GET, Some("websocket"), "/chat"));
        let (connection, _) = pair(Options::default(), Options::default()).await;
        let refused = ask(&connection, &head, vec![Frame::Data("hello".into())]).await;
        assert!(matches!(refused, Err(Error::Reset(_))), "{refused:?}");
    });
}

#[test]
fn crumbs_of_cookies_are_joined_and_host_stands_in_for_authority() {
    local(async {
        let (mut raw, seen) = raw_client(Options::default()).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            ("cookie", "a=1"),
            ("host", "h"),
            ("cookie", "b=2"),
        ];
        raw.headers(1, true, &fields).await;
        raw.next(kind::HEADERS).await;
        let head = seen.borrow()[0].clone();
        assert_eq!(head.headers.get_str("cookie"), Some("a=1; b=2"));
        assert_eq!((&*head.authority, head.scheme, head.headers.len()), ("h", crate::Scheme::Https, 1));
    });
}

#[test]
fn requests_beyond_the_peers_limit_wait_their_turn() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        // SETTINGS_MAX_CONCURRENT_STREAMS = 1.
        raw.send(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).await;
        while raw.next(kind::SETTINGS).await.0.flags != flag::ACK {}
        assert_eq!(connection.max_streams(), 1);
        let mut tasks = Vec::new();
        for n in 0..3 {
            let connection = Rc::clone(&connection);
            tasks.push(spawn_local(async move { ask(&connection, &post(&format!("/{n}")), Vec::new()).await }));
        }
        for stream in [1, 3, 5] {
            let (header, _) = raw.next(kind::HEADERS).await;
            assert_eq!(header.stream, stream);
            raw.ping().await;
            assert!(raw.read.is_empty(), "no second stream may be opened");
            raw.headers(stream, true, &[(":status", "200")]).await;
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().status, 200);
        }
    });
}

#[test]
fn a_body_waits_for_the_windows_of_stream_and_connection() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let task = spawn_local({
            let connection = Rc::clone(&connection);
            async move { ask(&connection, &post("/"), vec![Frame::Data(vec![b'x'; 100_000].into())]).await }
        });
        let mut received = 0;
        while received < 65_535 {
            received += raw.next(kind::DATA).await.0.length;
        }
        assert_eq!(received, 65_535);
        // More for the stream alone is of no use; more for both is used up.
        raw.send(kind::WINDOW_UPDATE, 0, 1, &20_000u32.to_be_bytes()).await;
        raw.ping().await;
        assert!(raw.read.is_empty());
        raw.send(kind::WINDOW_UPDATE, 0, 0, &30_000u32.to_be_bytes()).await;
        while received < 85_535 {
            received += raw.next(kind::DATA).await.0.length;
        }
        raw.ping().await;
        assert!((received, raw.read.is_empty()) == (85_535, true));
        // SETTINGS_INITIAL_WINDOW_SIZE larger by the rest moves the open stream's window too.
        let larger = (65_535u32 + 14_465).to_be_bytes();
        raw.send(kind::WINDOW_UPDATE, 0, 0, &30_000u32.to_be_bytes()).await;
        raw.send(kind::SETTINGS, 0, 0, &[&[0, 4], &larger[..]].concat()).await;
        loop {
            let (header, _) = raw.next(kind::DATA).await;
            received += header.length;
            if header.has(flag::END_STREAM) {
                break;
            }
        }
        assert_eq!(received, 100_000);
        raw.headers(1, true, &[(":status", "200")]).await;
        assert_eq!(task.await.unwrap().unwrap().status, 200);
    });
}

#[test]
fn goaway_refuses_streams_that_the_server_did_not_see_and_the_rest_go_on() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let ask = |path: &'static str| {
            let connection = Rc::clone(&connection);
            spawn_local(async move { ask(&connection, &post(path), Vec::new()).await })
        };
        let (first, second) = (ask("/1"), ask("/2"));
        for _ in 0..2 {
            raw.next(kind::HEADERS).await;
        }
        raw.send(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
        let refused = second.await.unwrap().unwrap_err();
        assert_eq!(refused.reset_reason(), crate::ResetReason::Refused);
        assert!(!connection.is_open());
        raw.headers(1, true, &[(":status", "200")]).await;
        assert_eq!(first.await.unwrap().unwrap().status, 200);
        assert_eq!(raw.verdict().await, "goaway NO_ERROR", "nothing is left to do");
        assert_eq!(raw.verdict().await, "closed");
    });
}

#[test]
fn a_drained_server_finishes_what_it_began_and_then_closes() {
    local(async {
        let (near, far) = Stream::pair(64 * 1024);
        let (begin, begun) = tokio::sync::oneshot::channel();
        spawn_local(async move {
            let mut connection = ServerConnection::handshake(far, &Options::default()).await.unwrap();
            let first = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().unwrap();
            connection.drain();
            spawn_local(async move {
                begun.await.unwrap();
                echo(first).await.unwrap();
            });
            while let Ok(Some(accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
                spawn_local(echo(accepted));
            }
        });
        let mut raw = Raw::new(near);
        raw.bytes(PREFACE).await;
        raw.send(kind::SETTINGS, 0, 0, &[]).await;
        raw.headers(1, true, GET).await;
        let (_, goaway) = raw.next(kind::GOAWAY).await;
        assert_eq!(frame::u32_at(&goaway, 0), 0x7fff_ffff, "the first one warns");
        let (_, ping) = raw.next(kind::PING).await;
        // A stream that crosses the warning is served.
        raw.headers(3, true, GET).await;
        assert_eq!(raw.next(kind::HEADERS).await.0.stream, 3);
        raw.send(kind::PING, flag::ACK, 0, &ping).await;
        let (_, goaway) = raw.next(kind::GOAWAY).await;
        assert_eq!(frame::u32_at(&goaway, 0), 3);
        raw.headers(5, true, GET).await;
        assert_eq!(raw.verdict().await, "reset 5 REFUSED_STREAM");
        begin.send(()).unwrap();
        assert_eq!(raw.next(kind::HEADERS).await.0.stream, 1);
        assert_eq!(raw.verdict().await, "closed");
    });
}

#[test]
fn a_stream_dropped_by_the_client_is_cancelled_and_its_window_returns() {
    local(async {
        let (mut raw, connection) = raw_server(Options::default()).await;
        let mut stream = connection.stream();
        stream.send_head(&post("/"), true);
        raw.next(kind::HEADERS).await;
        raw.headers(1, false, &[(":status", "200")]).await;
        drop(stream);
        assert_eq!(raw.verdict().await, "reset 1 CANCEL");
        assert_eq!(connection.active(), 0);
        // Data that crosses the reset is neither an error nor lost for the connection's window.
        for _ in 0..40 {
            raw.send(kind::DATA, 0, 1, &[0; 16_384]).await;
        }
        let (header, increment) = raw.next(kind::WINDOW_UPDATE).await;
        assert_eq!(header.stream, 0);
        assert!(frame::u32_at(&increment, 0) >= 512 * 1024);
        assert!(connection.is_open());
    });
}

#[test]
fn an_answer_before_the_end_of_its_request_stops_the_client_without_an_error() {
    local(async {
        let (near, far) = Stream::pair(64 * 1024);
        spawn_local(async move {
            let mut connection = ServerConnection::handshake(far, &Options::default()).await.unwrap();
            while let Ok(Some(mut accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
                accepted.stream.send_head(&ResponseHead::new(StatusCode::FORBIDDEN), true);
            }
        });
        let connection = connect(near, &Options::default()).await;
        let mut stream = connection.stream();
        stream.send_head(&post("/"), false);
        stream.send_frame(Frame::Data("part".into()));
        assert_eq!(answer(&mut stream).await.unwrap().status, 403);
        let closed = poll_fn(|cx| {
            stream.send_frame(Frame::Data("more".into()));
            match stream.poll_flush(cx) {
                std::task::Poll::Ready(Ok(())) => std::task::Poll::Pending,
                other => other,
            }
        });
        assert!(closed.await.is_err());
    });
}

#[test]
fn a_peer_that_does_not_answer_a_keepalive_ping_is_dead() {
    local(async {
        let keepalive = Some(Keepalive { interval: Duration::from_millis(20), timeout: Duration::from_millis(50) });
        let (mut raw, connection) = raw_server(Options { keepalive, ..Options::default() }).await;
        let task = spawn_local({
            let connection = Rc::clone(&connection);
            async move { ask(&connection, &post("/"), Vec::new()).await }
        });
        for _ in 0..3 {
            let (_, ping) = raw.next(kind::PING).await;
            raw.send(kind::PING, flag::ACK, 0, &ping).await;
        }
        assert!(connection.is_open());
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.reset_reason(), crate::ResetReason::ConnectionClosed);
    });
}

/// Streams ready in one turn share one write, in both directions.
#[test]
fn answers_of_many_streams_leave_together() {
    local(async {
        let (near, far) = Stream::pair(1024 * 1024);
        spawn_local(serve(far, Options::default(), Seen::default()));
        let mut raw = Raw::new(near);
        raw.bytes(PREFACE).await;
        raw.send(kind::SETTINGS, 0, 0, &[]).await;
        while raw.next(kind::SETTINGS).await.0.flags != flag::ACK {}
        let mut requests = BytesMut::new();
        for n in 0..32 {
            let block = raw.block(GET);
            let flags = flag::END_HEADERS | flag::END_STREAM;
            frame::put_header(&mut requests, block.len(), (kind::HEADERS, flags), n * 2 + 1);
            requests.extend_from_slice(&block);
        }
        raw.bytes(&requests).await;
        assert!(raw.read.is_empty());
        raw.stream.read_buf(&mut raw.read).await.unwrap();
        let mut answers = 0;
        while !raw.read.is_empty() {
            answers += usize::from(raw.frame().await.unwrap().0.kind == kind::HEADERS);
        }
        assert_eq!(answers, 32, "of the first read");
    });
}

/// The end of the socket may come with the settings, in one poll of the handshake.
#[test]
fn a_client_that_leaves_with_its_preface_ends_the_connection() {
    local(async {
        let (near, mut far) = Stream::pair(1 << 16);
        let mut hello = PREFACE.to_vec();
        hello.extend_from_slice(&[0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0]);
        far.write_all(&hello).await.unwrap();
        far.shutdown().await.unwrap();
        let mut connection = ServerConnection::handshake(near, &Options::default()).await.unwrap();
        assert!(poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().is_none());
    });
}
