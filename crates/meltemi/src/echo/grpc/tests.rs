use super::*;

#[test]
fn messages_are_cut_at_their_prefixes() {
    let mut wire = BytesMut::new();
    wire.extend_from_slice(&framed(b"one"));
    wire.extend_from_slice(&framed(b""));
    let whole = wire.len();
    wire.extend_from_slice(&framed(b"three")[..7]);
    assert_eq!(take_message(&mut wire), Ok(Some(Bytes::from_static(b"one"))));
    assert_eq!(take_message(&mut wire), Ok(Some(Bytes::new())));
    assert_eq!(take_message(&mut wire), Ok(None));
    assert_eq!((whole, wire.len()), (13, 7));
    assert!(take_message(&mut BytesMut::from(&[0, 0xFF, 0, 0, 0][..])).is_err(), "too long");
    assert!(take_message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err(), "compressed");
}

#[test]
fn a_string_message_comes_back() {
    for length in [0, 1, 127, 128, 300, 70_000] {
        let text = "x".repeat(length);
        assert_eq!(string_field(&string_message(&text)), Some(text.as_str()), "{length}");
    }
    for broken in [&b""[..], b"\x0a", b"\x0a\x05abc", b"\x12\x01a", b"\x0a\xff\xff\xff\xff\xff\x01", b"\x0a\x01\xff"] {
        assert_eq!(string_field(broken), None, "{broken:?}");
    }
}
