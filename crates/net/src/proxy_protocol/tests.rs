use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

#[test]
fn version_1() {
    let ok = addresses("1.2.3.4:5", "6.7.8.9:10");
    let v6 = addresses("[::1]:5", "[2001:db8::1]:10");
    let cases: &[(&str, Result<Parsed, &str>)] = &[
        ("PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\nGET", Ok(Parsed::Header { len: 33, addresses: Some(ok) })),
        ("PROXY TCP6 ::1 2001:db8::1 5 10\r\n", Ok(Parsed::Header { len: 33, addresses: Some(v6) })),
        ("PROXY UNKNOWN anything\r\n", Ok(Parsed::Header { len: 24, addresses: None })),
        ("PROXY TCP4 1.2.3.4 6.7.8.9 5 10 11\r\n", Err("extra field")),
        ("PROXY TCP4 1.2.3.4 6.7.8.9 +5 10\r\n", Err("port")),
        ("PROXY TCP4 ::1 6.7.8.9 5 10\r\n", Err("address")),
        ("PROXY UDP4 1.2.3.4 6.7.8.9 5 10\r\n", Err("family")),
        ("PRO", Ok(Parsed::Incomplete)),
        ("GET / HTTP/1.1\r\n", Ok(Parsed::Absent)),
        ("", Ok(Parsed::Incomplete)),
    ];
    for (input, expected) in cases {
        assert_eq!(parse(input.as_bytes()).map_err(|e| e.0), *expected, "{input}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(long.as_bytes()), Err(Invalid("line too long")));
}

#[test]
fn encoded_headers_parse_back_and_every_prefix_is_incomplete() {
    for pair in [addresses("1.2.3.4:5", "6.7.8.9:10"), addresses("[::1]:5", "[2001:db8::1]:10")] {
        for bytes in [encode_v1(&pair), encode_v2(&pair)] {
            let whole = Parsed::Header { len: bytes.len(), addresses: Some(pair) };
            assert_eq!(parse(&bytes), Ok(whole));
            for n in 0..bytes.len() {
                assert_eq!(parse(&bytes[..n]), Ok(Parsed::Incomplete), "{n} of {bytes:?}");
            }
        }
    }
}

#[test]
fn version_2_refuses_what_it_does_not_know() {
    let good = encode_v2(&addresses("1.2.3.4:5", "6.7.8.9:10"));
    for (at, value, error) in
        [(12, 0x11, "version"), (12, 0x22, "command"), (13, 0x55, "family"), (14, 0xff, "header too long")]
    {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad), Err(Invalid(error)));
    }
}

#[tokio::test]
async fn a_connection_of_our_own_says_so_or_names_its_ends() {
    let (in_memory, _peer) = crate::Stream::pair(16);
    let local = encode(Version::V2, None, &in_memory);
    assert_eq!(parse(&local), Ok(Parsed::Header { len: local.len(), addresses: None }));
    assert_eq!(encode(Version::V1, None, &in_memory), b"PROXY UNKNOWN\r\n");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = listener.local_addr().unwrap();
    let stream: crate::Stream = tokio::net::TcpStream::connect(destination).await.unwrap().into();
    let source = stream.local_addr().socket().unwrap();
    let own = Addresses { source, destination };
    assert_eq!(encode(Version::V1, None, &stream), encode_v1(&own));
}
