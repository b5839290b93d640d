use std::{cell::Cell, io::IoSlice, time::Duration};

use meltemi_tls::{CertSlot, ClientOptions, ClientTls, Identity, ServerOptions, ServerTls, TlsVersion};
use meltemi_tls::{TrustAnchors, TrustSlot, Validation};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{session::RECORD, *};

/// Server and client of one authority, each with a certificate.
fn pair(version: TlsVersion) -> (ServerTls, ClientTls) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let identity = || {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        CertSlot::new(Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    };
    let anchors = TrustSlot::new(TrustAnchors::from_pem(ca.pem().as_bytes(), &[]).unwrap());
    let validation = Validation { anchors, ..Validation::default() };
    let server = ServerOptions {
        certificates: vec![identity()],
        validation: Some(validation.clone()),
        require_client_certificate: true,
        alpn: vec![b"h2".to_vec()],
        max_version: version,
        ..ServerOptions::default()
    };
    let client = ClientOptions {
        certificate: Some(identity()),
        validation: Some(validation),
        alpn: vec![b"h2".to_vec()],
        sni: Some("a.example".to_owned()),
        ..ClientOptions::default()
    };
    (ServerTls::new(server).unwrap(), ClientTls::new(client).unwrap())
}

/// Both ends of a connection, once each has all of the other's handshake.
async fn connected((server, client): &(ServerTls, ClientTls), near: Stream, far: Stream) -> (Stream, Stream) {
    let open = async {
        let mut opened = connect(client.config(), client.server_name(), far).await?;
        opened.flush().await?;
        io::Result::Ok(opened)
    };
    let (served, opened) = tokio::join!(accept(server.config(), near), open);
    (served.unwrap(), opened.unwrap())
}

fn tls(stream: &mut Stream) -> &mut TlsStream {
    stream.tls_mut().unwrap()
}

/// Counts the writes that reach the transport, and lets so many bytes through with each.
struct Metered {
    io: tokio::io::DuplexStream,
    writes: Arc<std::sync::atomic::AtomicUsize>,
    most: usize,
}

impl Metered {
    fn stream(io: tokio::io::DuplexStream, most: usize) -> (Stream, Arc<std::sync::atomic::AtomicUsize>) {
        let writes = Arc::<std::sync::atomic::AtomicUsize>::default();
        (Stream::dynamic(Self { io, writes: writes.clone(), most }), writes)
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = buf.remaining().min(self.most);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let most = buf.len().min(self.most);
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &buf[..most]))?;
        self.writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn both_versions_carry_bytes_both_ways_full_and_resumed() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let contexts = pair(version);
        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let (near, far) = Stream::pair(1024);
            let (mut server, mut client) = connected(&contexts, near, far).await;
            client.write_all(b"question").await.unwrap();
            let mut seen = [0; 8];
            server.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"question");
            server.write_all(b"answer").await.unwrap();
            client.read_exact(&mut seen[..6]).await.unwrap();
            assert_eq!(&seen[..6], b"answer");
            let session = server.server_tls().unwrap();
            assert_eq!(session.handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(session.peer_certificates().map(<[_]>::len), Some(1));
            assert_eq!((server.alpn(), client.alpn()), (Some(&b"h2"[..]), Some(&b"h2"[..])));
            assert!(server.client_tls().is_none() && client.client_tls().is_some());
        }
    }
}

#[tokio::test]
async fn the_end_of_a_handshake_shares_a_packet_with_the_first_bytes() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (near, answers) = Metered::stream(near, usize::MAX);
    let (far, questions) = Metered::stream(far, usize::MAX);
    let ask = async {
        let mut client = connect(contexts.1.config(), contexts.1.server_name(), far).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.read_exact(&mut [0; 6]).await.unwrap();
    };
    let answer = async {
        let mut server = accept(contexts.0.config(), near).await.unwrap();
        server.read_exact(&mut [0; 8]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
    };
    tokio::join!(ask, answer);
    let count = |writes: &std::sync::atomic::AtomicUsize| writes.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&questions), count(&answers)), (2, 2));
    // The ticket came all the same.
    let (near, far) = Stream::pair(1024);
    let (server, _client) = connected(&contexts, near, far).await;
    assert_eq!(server.server_tls().unwrap().handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[tokio::test]
async fn a_client_that_only_listens_ends_its_handshake() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(1024);
    let listen = async {
        let mut client = connect(contexts.1.config(), contexts.1.server_name(), far).await.unwrap();
        let mut greeting = [0; 5];
        client.read_exact(&mut greeting).await.unwrap();
        greeting
    };
    let greet = async { accept(contexts.0.config(), near).await.unwrap().write_all(b"hello").await.unwrap() };
    let (greeting, ()) = tokio::join!(listen, greet);
    assert_eq!(&greeting, b"hello");
}

#[tokio::test]
async fn any_split_of_the_bytes_gives_the_same() {
    for (version, most) in [(TlsVersion::Tls12, 1), (TlsVersion::Tls13, 1), (TlsVersion::Tls13, 977)] {
        let contexts = pair(version);
        let (near, far) = tokio::io::duplex(100);
        let (near, far) = (Metered::stream(near, most).0, Metered::stream(far, most).0);
        let (mut server, mut client) = connected(&contexts, near, far).await;
        let sent: Vec<u8> = (0..150_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
        let length = if most == 1 { 20_000 } else { sent.len() };
        let mut received = vec![0; length];
        let writing = async {
            client.write_all(&sent[..length]).await?;
            client.shutdown().await
        };
        let (written, read) = tokio::join!(writing, server.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(received == sent[..length], "{version:?} {most}");
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "the end is told");
    }
}

#[tokio::test]
async fn both_sides_may_send_much_at_the_same_time() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(500);
    let (server, client) = connected(&contexts, near, far).await;
    let one = |stream: Stream| async {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let (sent, mut received) = (vec![7; 300_000], vec![0; 300_000]);
        let write = async {
            writing.write_all(&sent).await.unwrap();
            writing.flush().await.unwrap();
        };
        let ((), read) = tokio::join!(write, reading.read_exact(&mut received));
        read.unwrap();
        received == sent
    };
    let both = async { tokio::join!(one(server), one(client)) };
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), both).await.unwrap(), (true, true));
}

#[tokio::test]
async fn slices_share_records_and_keep_their_order() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(256 * 1024);
    let (mut server, mut client) = connected(&contexts, near, far).await;
    for lengths in [&[3, 0, 5][..], &[300, 40_000], &[16_384, 1], &[1, 16_384, 16_384, 7], &[70_000], &[50_000, 30_000]]
    {
        let parts: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, length)| vec![at as u8 + 1; *length]).collect();
        let whole = parts.concat();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let taken = client.write_vectored(&slices).await.unwrap();
        assert_eq!(taken, whole.len().min(MAX_WRITE), "{lengths:?}");
        let mut received = vec![0; taken];
        server.read_exact(&mut received).await.unwrap();
        assert!(received == whole[..taken], "{lengths:?}");
    }
    assert_eq!(client.write(&[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_holds_no_buffer() {
    let contexts = pair(TlsVersion::Tls13);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (near, _) = listener.accept().await.unwrap();
    let (mut server, mut client) = connected(&contexts, near.into(), far.into()).await;
    client.write_all(&[1; 30_000]).await.unwrap();
    server.read_exact(&mut [0; 30_000]).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();
    for stream in [&mut server, &mut client] {
        let idle = Cell::new(false);
        std::future::poll_fn(|cx| {
            let mut buf = [0; 8];
            idle.set(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut buf)).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(idle.get());
        assert!(stream.is_quiet());
        let flow = &tls(stream).flow;
        let held = [&flow.incoming, &flow.seen.opened, &flow.seen.outgoing].map(BytesMut::capacity);
        assert_eq!(held, [0; 3]);
    }
    client.write_all(b"more").await.unwrap();
    std::future::poll_fn(|cx| server.poll_readable(cx)).await;
    assert!(!server.is_quiet());
}

#[tokio::test]
async fn an_end_without_notice_is_an_error_and_one_with_notice_is_none() {
    for orderly in [true, false] {
        let contexts = pair(TlsVersion::Tls13);
        let (near, far) = Stream::pair(1024);
        let (mut server, mut client) = connected(&contexts, near, far).await;
        client.write_all(b"last").await.unwrap();
        if orderly {
            client.shutdown().await.unwrap();
            assert!(client.write(b"x").await.is_err(), "nothing after the notice");
        }
        drop(client);
        let mut received = Vec::new();
        let read = server.read_to_end(&mut received).await;
        assert_eq!(received, b"last");
        assert_eq!(read.map_err(|error| error.kind()), if orderly { Ok(4) } else { Err(io::ErrorKind::UnexpectedEof) });
    }
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let (server, _) = pair(TlsVersion::Tls13);
    let (_, stranger) = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(4096);
    let (served, opened) =
        tokio::join!(accept(server.config(), near), connect(stranger.config(), stranger.server_name(), far));
    // Both authorities have the same name.
    assert!(opened.err().unwrap().to_string().contains("BadSignature"));
    let told = served.err().unwrap().to_string();
    assert!(told.contains("received fatal alert: DecryptError"), "{told}");
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let (server, _) = pair(TlsVersion::Tls13);
    for (bytes, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], io::ErrorKind::InvalidData),
        (b"\x16\x03\x01", io::ErrorKind::UnexpectedEof),
        (b"", io::ErrorKind::UnexpectedEof),
    ] {
        let (near, mut far) = Stream::pair(1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let refused = accept(server.config(), near).await.err().unwrap();
        assert_eq!(refused.kind(), kind, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_message_that_never_ends_is_not_held() {
    let (server, _) = pair(TlsVersion::Tls13);
    let (near, mut far) = Stream::pair(64 * 1024);
    // A greeting of 16 MiB, by its header, of which 16,384 bytes come at a time.
    let record = |content: &[u8]| [&[0x16, 3, 1, 0x40, 0][..], content].concat();
    let mut piece = vec![0; RECORD];
    piece[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let flood = async {
        let mut sent = 0;
        while far.write_all(&record(&piece)).await.is_ok() {
            sent += piece.len();
            piece.fill(0);
        }
        sent
    };
    let (refused, sent) = tokio::join!(accept(server.config(), near), flood);
    assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    assert!(sent < 1024 * 1024, "{sent}");
}

#[tokio::test]
async fn a_corrupted_record_ends_the_connection_with_an_alert() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(4096);
    let (mut server, mut client) = connected(&contexts, near, far).await;
    client.write_all(b"good").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    server.flush().await.unwrap();
    let garbage = [0x17, 3, 3, 0, 32].into_iter().chain([0; 32]).collect::<Vec<u8>>();
    tls(&mut client).io.write_all(&garbage).await.unwrap();
    let refused = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    let told = client.read(&mut [0; 8]).await.unwrap_err().to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
    assert!(server.write(b"x").await.is_err());
}

#[tokio::test]
async fn keys_may_change_while_bytes_flow() {
    let contexts = pair(TlsVersion::Tls13);
    let (near, far) = Stream::pair(4096);
    let (mut server, far) = {
        let (server, client) = (&contexts.0, &contexts.1);
        let connector = tokio_rustls::TlsConnector::from(client.config());
        let (server, client) =
            tokio::join!(accept(server.config(), near), connector.connect(client.server_name(), far));
        (server.unwrap(), client.unwrap())
    };
    let mut client = far;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(b"question").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut [0; 8]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        let mut seen = [0; 6];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"answer", "{round}");
    }
}

#[tokio::test]
async fn a_session_that_buffers_for_itself_understands_this_one() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (server, client) = pair(version);
        let (near, far) = Stream::pair(1024);
        let acceptor = tokio_rustls::TlsAcceptor::from(server.config());
        let payload = vec![9; 100_000];
        let writing = async {
            let mut opened = connect(client.config(), client.server_name(), far).await.unwrap();
            opened.write_all(&payload).await.unwrap();
            opened.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let reading = async { acceptor.accept(near).await.unwrap().read_to_end(&mut received).await.unwrap() };
        tokio::join!(writing, reading);
        assert!(received == payload);
    }
}
