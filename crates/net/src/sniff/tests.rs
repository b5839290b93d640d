use std::sync::Arc;

use super::*;

fn rustls_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut out = Vec::new();
    connection.write_tls(&mut out).unwrap();
    out
}

#[test]
fn hello_of_a_real_client_at_every_length() {
    let bytes = rustls_hello("Example.COM", &["istio", "h2"]);
    for n in 0..bytes.len() {
        assert_eq!(client_hello(&bytes[..n]), Sniffed::Incomplete, "{n}");
    }
    let expected =
        ClientHello { server_name: Some("example.com".into()), alpn: vec![b"istio".to_vec(), b"h2".to_vec()] };
    assert_eq!(client_hello(&bytes), Sniffed::Yes(expected));
}

/// CVE-2024-45808: names stand in logs as they are.
#[test]
fn a_name_with_a_line_break_is_none() {
    let bytes = rustls_hello("a-b.test", &["h2"]);
    let at = bytes.windows(8).position(|window| window == b"a-b.test").unwrap() + 1;
    for byte in [b'\n', b'\r', 0, b' ', 0x1b, 0xff] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        let expected = ClientHello { server_name: None, alpn: vec![b"h2".to_vec()] };
        assert_eq!(client_hello(&bytes), Sniffed::Yes(expected), "{byte}");
    }
}

#[test]
fn hello_split_over_records() {
    let whole = rustls_hello("a.test", &[]);
    let body = &whole[5..];
    let mut split = Vec::new();
    for part in body.chunks(50) {
        split.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
        split.extend_from_slice(part);
    }
    assert_eq!(client_hello(&split), client_hello(&whole));
    assert!(matches!(client_hello(&split), Sniffed::Yes(_)));
}

#[test]
fn what_is_not_tls() {
    for bytes in [&b"GET / HTTP/1.1"[..], &[22, 2, 0, 0, 5], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 5, 2], &[23, 3, 3]] {
        assert_eq!(client_hello(bytes), Sniffed::No, "{bytes:?}");
    }
}

#[test]
fn http_versions() {
    let cases: &[(&[u8], Sniffed<HttpVersion>)] = &[
        (b"", Sniffed::Incomplete),
        (b"G", Sniffed::Incomplete),
        (b"GET / HTTP/1.", Sniffed::Incomplete),
        (b"GET / HTTP/1.1\r\n", Sniffed::Yes(HttpVersion::Http11)),
        (b"M-SEARCH * HTTP/1.0\n", Sniffed::Yes(HttpVersion::Http10)),
        (b"PRI * HT", Sniffed::Incomplete),
        (H2_PREFACE, Sniffed::Yes(HttpVersion::Http2)),
        (b"GET /\r\n", Sniffed::No),
        (b"get / HTTP/1.1\r\n", Sniffed::No),
        (b"\x16\x03\x01", Sniffed::No),
        (b"SSH-2.0-OpenSSH", Sniffed::No),
    ];
    for (bytes, expected) in cases {
        assert_eq!(http(bytes), *expected, "{bytes:?}");
    }
}
